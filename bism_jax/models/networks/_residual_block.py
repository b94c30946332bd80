"""The residual block of the image energies, and what they ask of their input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.networks._image_layers import Conv, mean_pool

NUM_HALVINGS = 3  # of height and width, in every image energy


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, each after the activation, and a 1 x 1 convolution as shortcut.

    Attributes:
        channels: of the output.
        halves: whether both ways end in an average over blocks of 2 x 2.
        activation: an elementwise function.
        spectral_norm: whether the convolutions are divided by their spectral norm.
        dtype: what they compute in; None for that of the input.
    """

    channels: int
    halves: bool
    activation: Callable[[Array], Array]
    spectral_norm: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w out"]:
        """`[B, height, width, channels]` to the same with other channels, halved where `halves`."""
        options = {"spectral_norm": self.spectral_norm, "dtype": self.dtype}
        reduce: Literal["mean"] | None = "mean" if self.halves else None
        # No bias, and no width of its own, as in the paper.
        inner = Conv(x.shape[-1], self.activation, use_bias=False, **options)(x)
        residual = Conv(self.channels, self.activation, reduce=reduce, **options)(inner)
        # A 1 x 1 convolution and the average commute, and after the average it has a quarter of the pixels.
        shortcut = Conv(self.channels, size=1, **options)(mean_pool(x) if self.halves else x)
        return residual + shortcut


def check_network(module: Any) -> None:
    """Checks the attributes that all image energies have."""
    checks.positive_int("channels", module.channels)
    checks.boolean("spectral_norm", module.spectral_norm)
    checks.function("activation", module.activation, "of an array")
    checks.floating_dtype("dtype", module.dtype)


def check_image_shape(v: Array) -> None:
    """Raises ValueError unless v is `[batch, height, width, 1 or 3]` and can be halved three times."""
    if v.ndim != 4 or v.shape[-1] not in (1, 3) or any(size % 2**NUM_HALVINGS for size in v.shape[1:3]):
        raise ValueError(
            f"v has shape {v.shape}; it must be [batch, height, width, 1 or 3 colours], with a height and a "
            f"width that are multiples of {2**NUM_HALVINGS}. Pad the images, or move the colours to the end."
        )


def check_latents(h: Array, shape: tuple[int, int]) -> None:
    """Raises ValueError unless h has `shape`, `(rows of v, num_hidden)`."""
    if h.shape != shape:
        raise ValueError(
            f"h has shape {h.shape}, not {shape}: one vector of num_hidden={shape[1]} latents a row of v."
        )
