"""Picture files decoded with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from bism_jax.data.extras import import_extra

_MODES = {1: "L", 3: "RGB"}


def open_picture(file: Path | BinaryIO, channels: int) -> Any:
    """A decoded `PIL.Image`, grey for one channel and RGB for three.

    Raises:
        ValueError: it cannot be decoded, or has more than eight bits a channel.
    """
    pillow = import_extra("PIL.Image")
    try:
        with pillow.open(file) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"it cannot be decoded as a picture: {error}") from error
    if picture.mode.startswith(("I", "F")):
        # Pillow would clip these to 255 without a word.
        raise ValueError(f"its mode {picture.mode!r} has more than 8 bits a channel; convert it to 8 bits")
    mode = _MODES[channels]
    return picture if picture.mode == mode else picture.convert(mode)


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
    square = picture.crop((left, top, left + side, top + side))
    bilinear = import_extra("PIL.Image").Resampling.BILINEAR
    return square if side == size else square.resize((size, size), bilinear)


def to_pixels(picture: Any) -> UInt8[np.ndarray, "height width channels"]:
    """The bytes of a picture, channels last."""
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels
