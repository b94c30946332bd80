"""The deep EBLVM on images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.image_layers import Conv, dense, mean_pool

NUM_STAGES = 3  # each halves height and width


class ResidualEnergy(nn.Module):
    """A residual network with a latent vector: the deep EBLVM of the paper, and a smooth variant of it.

        E(v, h) = sum_j a(A [f(v) + h; h] + b)_j^2

    f is a residual network to R^num_hidden in three stages, each of which halves the image's height and
    width and doubles the channels; A has 4 channels (height width / 64) rows. The factored form is
    `features` (f) and `head`. With `activation` a = ELU and the rest at its default this is the model of
    Bao et al., NeurIPS 2020 (arXiv 2010.07856, app. E). ELU's second derivative jumps at 0;
    `activation=jax.nn.silu` has derivatives of every order.

    Attributes:
        num_hidden: the number of latents.
        channels: of the first convolution.
        num_blocks: residual blocks, 6 (the paper's MNIST) or 9 (its CIFAR-10 and CelebA).
        activation: a, an elementwise function.
        spectral_norm: whether the convolutions of f are divided by their spectral norm.
        dtype: what the convolutions compute in, such as `jnp.bfloat16`; f's last layer, the head and the
            sum over j are computed in the dtype of the parameters. None for that of v.

    Raises:
        ValueError: for counts out of range, or images whose height and width are no multiples of 8.
    """

    num_hidden: int = 50
    channels: int = 64
    num_blocks: int = 6
    activation: Callable[[Array], Array] = nn.elu
    spectral_norm: bool = False
    dtype: Any = None

    def __post_init__(self) -> None:
        checks.positive_int("num_hidden", self.num_hidden)
        checks.positive_int("channels", self.channels)
        checks.one_of("num_blocks", self.num_blocks, (6, 9))
        checks.boolean("spectral_norm", self.spectral_norm)
        super().__post_init__()

    def setup(self) -> None:
        """The trunk f."""
        self.trunk = ResidualTrunk(
            self.num_hidden, self.channels, self.num_blocks, self.activation, self.spectral_norm, self.dtype
        )

    def features(self, v: Float[Array, "batch height width colours"]) -> Float[Array, "batch latent"]:
        """f(v), `[B, num_hidden]`."""
        return self.trunk(v)

    @nn.compact
    def head(
        self,
        v: Float[Array, "batch height width colours"],
        features: Float[Array, "batch latent"],
        h: Float[Array, "batch latent"],
    ) -> Float[Array, " batch"]:
        """E(v, h) given f(v), `[B]`."""
        _check_latents(h, (v.shape[0], self.num_hidden))
        num_terms = 4 * self.channels * math.prod(v.shape[1:3]) // 4**NUM_STAGES
        joint = jnp.concatenate([features + h, h], axis=-1)
        terms = dense(num_terms, joint.shape[-1], name="joint")(joint)
        return (self.activation(terms) ** 2).sum(axis=-1)

    def __call__(
        self, v: Float[Array, "batch height width colours"], h: Float[Array, "batch latent"]
    ) -> Float[Array, " batch"]:
        """E(v, h), `[B]`."""
        return self.head(v, self.features(v), h)


class ResidualTrunk(nn.Module):
    """f(v), a residual network whose three stages each halve height and width; see `ResidualEnergy`."""

    num_outputs: int
    channels: int
    num_blocks: int
    activation: Callable[[Array], Array]
    spectral_norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, v: Float[Array, "batch height width colours"]) -> Float[Array, "batch outputs"]:
        """`[B, height, width, colours] -> [B, num_outputs]`."""
        _check_images(v)
        x = Conv(self.channels, spectral_norm=self.spectral_norm, dtype=self.dtype)(v)
        for stage in range(NUM_STAGES):
            width = self.channels * 2 ** (stage + 1)
            for block in range(self.num_blocks // NUM_STAGES):
                x = _ResidualBlock(width, block == 0, self.activation, self.spectral_norm, self.dtype)(x)
        x = x.reshape(x.shape[0], -1).astype(v.dtype)
        return dense(self.num_outputs, x.shape[-1])(x)


class _ResidualBlock(nn.Module):
    channels: int
    halves: bool
    activation: Callable[[Array], Array]
    spectral_norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        options = {"spectral_norm": self.spectral_norm, "dtype": self.dtype}
        reduce: Literal["mean"] | None = "mean" if self.halves else None
        inner = Conv(x.shape[-1], self.activation, use_bias=False, **options)(x)
        residual = Conv(self.channels, self.activation, reduce=reduce, **options)(inner)
        shortcut = Conv(self.channels, size=1, **options)(mean_pool(x) if self.halves else x)
        return residual + shortcut


def _check_images(v: Array) -> None:
    if v.ndim != 4 or v.shape[-1] not in (1, 3) or any(size % 2**NUM_STAGES for size in v.shape[1:3]):
        raise ValueError(
            f"v has shape {v.shape}; it must be [batch, height, width, 1 or 3 colours], with a height and a "
            f"width that are multiples of {2**NUM_STAGES}. Pad the images, or move the colours to the end."
        )


def _check_latents(h: Array, shape: tuple[int, int]) -> None:
    if h.shape != shape:
        raise ValueError(
            f"h has shape {h.shape}, not {shape}: one vector of num_hidden={shape[1]} latents a row of v."
        )
