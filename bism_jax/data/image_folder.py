"""Pictures in a folder, one sub-folder a class."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from bism_jax import checks
from bism_jax.data.image_sets import LabelledImages
from bism_jax.data.pictures import centre_square, open_picture, to_pixels

_ENDINGS = (".png", ".jpg", ".jpeg")


def load_image_folder(
    path: str | Path, size: int, *, crop: int | None = None, channels: int = 3
) -> LabelledImages:
    """All PNG and JPEG files under a folder, pixel / 255 in [0, 1], float32, `[rows, size, size, channels]`.

    From each picture a square is cut at the centre and resized, by bilinear interpolation that averages where
    it shrinks; transparency is dropped. The order is that of the sorted paths. Where the folder has
    sub-folders, these are the classes, numbered in sorted order; without them there are no labels. Names that
    begin with a dot are left out.

    Args:
        path: the folder.
        size: height and width in pixels.
        crop: side in pixels of the square that is cut out, 140 for the paper's CelebA; None cuts the largest.
        channels: 1 for grey, 3 for colour; a picture of the other kind is converted.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no picture, one cannot be read or is too small, or some lie beside the classes.
        ImportError: Pillow is missing; it comes with the extra `data`.
    """
    checks.positive_int("size", size)
    checks.one_of("channels", channels, (1, 3))
    if crop is not None:
        checks.positive_int("crop", crop)
    folder = checks.path("path", path).expanduser()
    paths = _picture_paths(folder)
    labels = _labels(folder, paths)

    def read(picture_path: Path) -> UInt8[np.ndarray, "size size channels"]:
        try:
            return to_pixels(centre_square(open_picture(picture_path, channels), crop, size))
        except ValueError as error:
            raise ValueError(f"{str(picture_path)!r} cannot be used: {error}.") from error

    with ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(read, paths))).astype(np.float32)
    images /= np.float32(255)
    return LabelledImages(images, labels)


def _picture_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"path names {str(folder)!r}, which is no folder; give one with pictures.")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise ValueError(
            f"{str(folder)!r} holds no picture; it needs files that end in {', '.join(_ENDINGS)}."
        )
    return paths


def _labels(folder: Path, paths: list[Path]) -> Int[np.ndarray, " rows"] | None:
    """The number of the sub-folder that a picture lies in; None where all lie in the folder itself."""
    parts = [path.relative_to(folder).parts for path in paths]
    loose = [path for path, part in zip(paths, parts, strict=True) if len(part) == 1]
    if len(loose) == len(paths):
        return None
    if loose:
        raise ValueError(
            f"{str(loose[0])!r} lies beside sub-folders, which are the classes; move it into one of them, or "
            "all pictures into one folder."
        )
    return np.unique([part[0] for part in parts], return_inverse=True)[1].astype(np.int32)
