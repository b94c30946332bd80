"""A check of images before a model sees them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np


def check_images(name: str, images: Any) -> None:
    """Checks that images are floats in [0, 1], `[rows, height, width, channels]` with 1 or 3 channels.

    Args:
        name: what the caller calls them, for the message.
        images: a NumPy or JAX array.

    Raises:
        TypeError: it is no array.
        ValueError: the shape, the dtype or the range is another; the message says how to convert.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a text, for messages, not {name!r}.")
    if not hasattr(images, "shape") or not hasattr(images, "dtype"):
        # A split of an image set is a tuple with its images in it.
        hint = f"; pass {name}.images" if hasattr(images, "images") else ""
        raise TypeError(
            f"{name} must be an array [rows, height, width, channels], not a {type(images).__name__}{hint}."
        )
    _check_shape(name, tuple(images.shape))
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"{name} has dtype {images.dtype}, but models take floats in [0, 1]; divide by 255: "
            f"{name}.astype(np.float32) / 255."
        )
    _check_range(name, np.asarray(images))


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    layout = "[rows, height, width, channels]"
    if len(shape) == 3:
        raise ValueError(f"{name} has shape {shape}, not {layout}; add the channel: {name}[..., None].")
    if len(shape) != 4:
        raise ValueError(f"{name} has shape {shape}, not {layout}; reshape it to that.")
    if 0 in shape:
        raise ValueError(f"{name} is empty: its shape is {shape}.")
    if shape[3] not in (1, 3):
        # PyTorch's layout, so the likeliest reason.
        if shape[1] in (1, 3):
            raise ValueError(
                f"{name} has shape {shape}, with the channels first; transpose it to {layout}: "
                f"{name}.transpose(0, 2, 3, 1)."
            )
        raise ValueError(
            f"{name} has shape {shape}, so {shape[3]} channels; 1 (grey) or 3 (colour) are needed."
        )


def _check_range(name: str, images: np.ndarray) -> None:
    low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all():
        row = int(np.argmin(np.isfinite(images).all(axis=(1, 2, 3))))
        raise ValueError(
            f"{name} holds NaN or infinite values, first in row {row}; remove those rows or mend them."
        )
    if low >= 0 and high <= 1:
        return
    if low >= 0:
        remedy = "divide by 255" if high <= 255 else "divide by the largest value that a pixel can have"
    # The range of a tanh, or of a mean and a deviation of 1/2.
    elif low >= -1 and high <= 1:
        remedy = f"take ({name} + 1) / 2"
    else:
        remedy = "undo the standardisation, or clip noisy images with np.clip"
    raise ValueError(f"{name} ranges from {low:g} to {high:g}, not within [0, 1]; {remedy}.")
