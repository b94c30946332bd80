"""Pictures in a folder, one sub-folder a class."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from bism_jax import checks
from bism_jax.data._extras import import_extra
from bism_jax.data._free_memory import available_memory
from bism_jax.data._image_sets import LabelledImages
from bism_jax.data._pictures import centre_square, open_picture, to_pixels

_ENDINGS = (".png", ".jpg", ".jpeg")
_MAX_SIZE = 2**16  # the side of a JPEG; larger than any picture


def load_image_folder(
    path: str | Path, size: int, *, crop: int | None = None, channels: int = 3
) -> LabelledImages:
    """All PNG and JPEG files under a folder, pixel / 255 in [0, 1], float32, `[rows, size, size, channels]`.

    Each picture is turned upright as its EXIF orientation says; a square is cut at the centre and resized, by
    bilinear interpolation that averages where it shrinks; transparency is dropped, and of an animation the
    first picture is taken. The order is that of the sorted paths. Where the folder has sub-folders, these are
    the classes, numbered in sorted order; without them there are no labels. Names that begin with a dot are
    left out; links are followed.

    Args:
        path: the folder.
        size: height and width in pixels.
        crop: side in pixels of the square that is cut out, 140 for the paper's CelebA; None cuts the largest.
        channels: 1 for grey, 3 for colour; a picture of the other kind is converted.

    Raises:
        FileNotFoundError: there is no such folder.
        TypeError: `path` is no path, or empty.
        ValueError: it holds no picture, one cannot be read, is too small or over Pillow's limit, some lie
            beside the classes, or all of them in this size exceed the memory.
        ImportError: Pillow is missing; it comes with the extra `data`.

    Warns:
        UserWarning: for other files, which are left out, with their number and the first of them.
    """
    checks.positive_int("size", size)
    checks.one_of("channels", channels, (1, 3))
    if crop is not None:
        checks.positive_int("crop", crop)
    folder = checks.path("path", path)
    paths = _picture_paths(folder)
    labels = _labels(folder, paths)
    # Linux grants memory that it does not have, and kills the process that fills it.
    _check_memory(len(paths), int(size), channels)
    images = np.empty((len(paths), size, size, channels), np.float32)

    def read(row: int) -> None:
        try:
            picture = open_picture(paths[row], channels)
            _warn_of_size(paths[row], picture)
            pixels = to_pixels(centre_square(picture, crop, size))
        except ValueError as error:
            raise ValueError(f"{str(paths[row])!r} cannot be used: {error}.") from error
        # Into its row, so that the set is never in memory twice.
        np.divide(pixels, np.float32(255), out=images[row])

    with ThreadPoolExecutor() as pool:
        # Threads, since Pillow decodes without the GIL; a list, so that their errors are raised here.
        list(pool.map(read, range(len(paths))))
    return LabelledImages(images, labels)


def _check_memory(num_images: int, size: int, channels: int) -> None:
    """Raises ValueError where the images cannot be held, before Pillow tries to make the first."""
    if size > _MAX_SIZE:
        raise ValueError(f"size={size} is larger than any picture; pass size={_MAX_SIZE} or less.")
    bytes_a_pixel, available = 4 * num_images * channels, available_memory()
    needed = bytes_a_pixel * size**2
    if needed > available:
        # The largest side whose square fits, in integers: a root of floats may be one too large.
        fitting = math.isqrt(int(available) // bytes_a_pixel)
        remedy = f"pass size={fitting} or less" if fitting else "read fewer pictures"
        raise ValueError(
            f"size={size} makes {num_images} images of {needed / 2**30:,.1f} GiB in float32, but there are "
            f"{available / 2**30:,.1f} GiB of memory; {remedy}."
        )


def _warn_of_size(path: Path, picture: Any) -> None:
    """Names the picture of which Pillow has only said that it is too large."""
    width, height = picture.size
    limit = import_extra("PIL.Image").MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        warnings.warn(f"{str(path)!r} has {width} x {height} pixels, over Pillow's limit.", stacklevel=3)


def _picture_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"path names {str(folder)!r}, which is no folder; give one with pictures.")
    # A system lists in an order of its own, and a run is to see the same rows everywhere.
    files = sorted(_files(folder, frozenset()))
    paths = [path for path in files if path.suffix.lower() in _ENDINGS and path.is_file()]
    if not paths:
        raise ValueError(
            f"path={str(folder)!r} holds no picture; it needs files that end in {', '.join(_ENDINGS)}."
        )
    skipped = [path for path in files if path.suffix.lower() not in _ENDINGS or not path.is_file()]
    if skipped:
        warnings.warn(
            f"{len(skipped)} of the {len(files)} files under {str(folder)!r} are left out, since they are no "
            f"files that end in {', '.join(_ENDINGS)}; the first is {str(skipped[0])!r}.",
            stacklevel=3,
        )
    return paths


def _files(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """All files under a folder but hidden ones; a link to a folder above it is not followed."""
    here = folder.resolve()
    if here in above:
        return
    for path in folder.iterdir():
        # macOS leaves .DS_Store and ._ copies of pictures beside pictures.
        if path.name.startswith("."):
            continue
        if path.is_dir():
            # Folders above, not all that were seen: two links to one folder are two classes.
            yield from _files(path, above | {here})
        else:
            yield path


def _labels(folder: Path, paths: list[Path]) -> Int[np.ndarray, " rows"] | None:
    """The number of the sub-folder that a picture lies in; None where all lie in the folder itself."""
    parts = [path.relative_to(folder).parts for path in paths]
    loose = [path for path, part in zip(paths, parts, strict=True) if len(part) == 1]
    if len(loose) == len(paths):
        return None
    # Whether they are a class of their own or a mistake cannot be known.
    if loose:
        raise ValueError(
            f"{str(loose[0])!r} lies beside sub-folders, which are the classes; move it into one of them, or "
            "all pictures into one folder."
        )
    return np.unique([part[0] for part in parts], return_inverse=True)[1].astype(np.int32)
