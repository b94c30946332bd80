"""Animated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Shaped

from bism_jax import checks
from bism_jax.checks import as_numbers
from bism_jax.plotting import _arguments as arguments
from bism_jax.plotting._pixels import as_pixels

_MAX_SCALE = 100  # 28 pixels are then 2,800, more than a screen is high

if TYPE_CHECKING:
    from PIL.Image import Image


def save_animation(
    frames: Shaped[ArrayLike, "num_frames height width *channels"] | Sequence[Shaped[ArrayLike, "..."]],
    path: str | Path,
    *,
    frames_per_second: float = 10.0,
    scale: int = 2,
) -> Path:
    """Writes a GIF that repeats for ever; folders that are missing are made.

    The snapshots of several chains become frames by `[image_mosaic(images) for images in snapshots]`.

    Args:
        frames: `[num_frames, height, width]`, or with 1 or 3 channels last, or a list of such frames of one
            size; pixels are those of `plot_image_grid`.
        path: ends in .gif.
        frames_per_second: a GIF counts in hundredths of a second, so at most 100.
        scale: the side of a pixel of a frame, in pixels of the file.

    Raises:
        TypeError: the frames are no numbers, or `path` is no path.
        ValueError: the frames differ in shape or are no images, `path` has another suffix, or an option is
            out of range.
        ImportError: pillow is missing.
    """
    path = checks.path("path", path)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"path must end in .gif, the format of an animation, not {path.name!r}.")
    checks.positive("frames_per_second", frames_per_second)
    if frames_per_second > 100:
        raise ValueError(
            f"frames_per_second must be at most 100, not {frames_per_second}; a GIF is no faster."
        )
    checks.positive_int("scale", scale)
    if scale > _MAX_SCALE:
        raise ValueError(f"scale must be at most {_MAX_SCALE}, not {scale}: an animation fits a screen.")
    pixels = as_pixels("frames", _stack(frames))
    # Repeated rather than interpolated, so that a pixel stays one; rounded, as a cast would darken.
    enlarged = np.rint(255 * pixels).astype(np.uint8).repeat(scale, axis=1).repeat(scale, axis=2)

    first, *rest = _as_pictures(enlarged)
    # Last, since it makes folders: a call that is refused leaves nothing behind.
    path = arguments.file(path, (".gif",))
    # Pillow takes milliseconds, and cuts off what is no hundredth of a second.
    duration = 10 * round(100 / frames_per_second)
    first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)
    return path


def _stack(frames: ArrayLike | Sequence[ArrayLike]) -> np.ndarray:
    # A list is stacked frame by frame, since NumPy says of ragged ones nothing that names a shape.
    if not isinstance(frames, Sequence) or isinstance(frames, str):
        return np.asarray(as_numbers("frames", frames, "[num_frames, height, width]"))
    arrays = [np.asarray(as_numbers("each of frames", frame, "[height, width]")) for frame in frames]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise ValueError(f"frames have the shapes {sorted(shapes)}; give at least one, all of one shape.")
    return np.stack(arrays)


def _as_pictures(pixels: np.ndarray) -> list[Image]:
    try:
        from PIL.Image import fromarray
    except ImportError as error:
        raise ImportError(
            'save_animation needs pillow, which is not installed: pip install "bism-jax[experiments]".'
        ) from error
    return [fromarray(frame) for frame in pixels]
