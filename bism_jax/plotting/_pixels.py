"""Images of a user as pixels to draw."""

from __future__ import annotations

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from bism_jax.checks import shown

_BYTES_FROM = 16  # what chains far from the data seldom reach without a negative number among them


def as_pixels(name: str, images: ArrayLike) -> Float[np.ndarray, "n height width *channels"]:
    """Images as floats in [0, 1]: `[n, height, width]`, or `[n, height, width, 3]`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: `images` has another shape, or neither floats nor booleans nor uint8.
    """
    array = as_images(name, images)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    is_image = array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3)
    if not is_image or not array.size:
        raise ValueError(
            f"{name} has shape {np.shape(images)}; give [n, height, width] or 1 or 3 channels last, n > 0."
        )
    # Only bytes have a known scale: other integers may be 16-bit images or classes.
    if array.dtype == np.uint8:
        return array / 255.0
    if array.dtype != bool and not jax.dtypes.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} has dtype {array.dtype}; give floats in [0, 1], booleans or uint8.")
    _check_scale(name, array)
    # NaN before the clip, which passes it on.
    return np.clip(np.nan_to_num(array.astype(np.float64), nan=1.0), 0.0, 1.0)


def as_images(name: str, images: ArrayLike) -> np.ndarray:
    """`images` as an array of any dtype, which `as_pixels` checks."""
    if isinstance(images, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, whose mask would be lost; fill it.")
    try:
        array = np.asarray(images)
    except (ValueError, TypeError) as error:  # images of several shapes, or keys
        raise TypeError(f"{name} must be an array of images, not {shown(images)}.") from error
    if array.dtype == object or (array.ndim == 0 and not isinstance(images, np.ndarray)):
        raise TypeError(f"{name} must be an array of images, not {shown(images)}.")
    return array


def _check_scale(name: str, array: np.ndarray) -> None:
    """Raises ValueError for floats that are bytes, which would all be white."""
    finite = array[np.isfinite(array.astype(np.float64))]
    if finite.size and finite.min() >= 0 and _BYTES_FROM < finite.max() <= 255:
        raise ValueError(f"{name} has floats from 0 to {finite.max():.4g}, not in [0, 1]; divide by 255.")
