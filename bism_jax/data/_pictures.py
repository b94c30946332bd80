"""Picture files decoded with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from bism_jax.data._extras import import_extra

_MODES = {1: "L", 3: "RGB"}
_ORIENTATION = 0x0112  # the tag of EXIF
_TRANSPOSITIONS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}  # that turn a picture of this orientation upright


def open_picture(file: Path | BinaryIO, channels: int) -> Any:
    """A decoded `PIL.Image`, upright, grey for one channel and RGB for three; the first of an animation.

    Raises:
        ValueError: it cannot be decoded, is over Pillow's limit, or has more than eight bits a channel.
    """
    pillow = import_extra("PIL.Image")
    try:
        with pillow.open(file) as picture:
            # Pillow decodes when pixels are asked for; here the file is open, and errors are told.
            picture.load()
    # The warning too, where a user has made warnings errors.
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise ValueError(
            f"it is larger than Pillow's limit ({error}); shrink it, or where its source is trusted, raise "
            "PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:  # a damaged file makes decoders raise errors of many types
        raise ValueError(f"it cannot be decoded as a picture: {error}") from error
    if picture.mode.startswith(("I", "F")):
        # Pillow would clip these to 255 without a word.
        raise ValueError(f"its mode {picture.mode!r} has more than 8 bits a channel; convert it to 8 bits")
    return _upright(_converted(picture, _MODES[channels]), _orientation(picture))


def _converted(picture: Any, mode: str) -> Any:
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow warns of other ways
    return picture if picture.mode == mode else picture.convert(mode)


def _orientation(picture: Any) -> int:
    """How the camera was held, by a tag of EXIF; upright where it cannot be read."""
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF that is damaged, in ways that differ between versions of Pillow
        return 1


def _upright(picture: Any, orientation: int) -> Any:
    name = _TRANSPOSITIONS.get(orientation)
    return picture if name is None else picture.transpose(getattr(import_extra("PIL.Image").Transpose, name))


def centre_square(picture: Any, crop: int | None, size: int) -> Any:
    """The square of side `crop` at the centre (None: the largest), resized to `size` by averaging bilinear.

    Raises:
        ValueError: the picture is smaller than the square.
    """
    width, height = picture.size
    side = min(width, height) if crop is None else crop
    if side > min(width, height):
        raise ValueError(f"its {width} x {height} pixels are fewer than crop={crop}; pass a smaller crop")
    left, top = (width - side) // 2, (height - side) // 2
    # Cropped before it is resized, so that an uneven picture is not squeezed.
    square = picture.crop((left, top, left + side, top + side))
    bilinear = import_extra("PIL.Image").Resampling.BILINEAR
    return square if side == size else square.resize((size, size), bilinear)


def to_pixels(picture: Any) -> UInt8[np.ndarray, "height width channels"]:
    """The bytes of a picture, channels last."""
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels
