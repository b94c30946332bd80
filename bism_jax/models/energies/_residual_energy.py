"""The deep EBLVM on images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.networks._image_layers import Conv, dense
from bism_jax.models.networks._residual_block import (
    NUM_HALVINGS,
    ResidualBlock,
    check_image_shape,
    check_latents,
    check_network,
)


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
        checks.one_of("num_blocks", self.num_blocks, (6, 9))
        check_network(self)
        super().__post_init__()

    def setup(self) -> None:
        """The trunk f, which is also the factored form's features."""
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
        check_latents(h, (v.shape[0], self.num_hidden))
        # h enters after the trunk alone, so that f(v) is computed once for all lower-level steps.
        joint = jnp.concatenate([features + h, h], axis=-1)
        return sum_of_squares(joint, v, self.channels, self.activation)

    def __call__(
        self, v: Float[Array, "batch height width colours"], h: Float[Array, "batch latent"]
    ) -> Float[Array, " batch"]:
        """E(v, h), `[B]`."""
        return self.head(v, self.features(v), h)


def sum_of_squares(
    x: Float[Array, "batch inputs"], v: Array, channels: int, activation: Callable[[Array], Array]
) -> Float[Array, " batch"]:
    """sum_j a(A x + b)_j^2, within a module; A has as many rows as the coarsest scale of v has numbers."""
    num_terms = 4 * channels * math.prod(v.shape[1:3]) // 4**NUM_HALVINGS
    return (activation(dense(x, num_terms, name="joint")) ** 2).sum(axis=-1)


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
        check_image_shape(v)
        x = Conv(self.channels, spectral_norm=self.spectral_norm, dtype=self.dtype)(v)
        for stage in range(NUM_HALVINGS):
            width = self.channels * 2 ** (stage + 1)
            for block in range(self.num_blocks // NUM_HALVINGS):
                x = ResidualBlock(width, block == 0, self.activation, self.spectral_norm, self.dtype)(x)
        # Out of bfloat16, whose 8 bits would not survive the sums over thousands of terms that follow.
        x = x.reshape(x.shape[0], -1).astype(v.dtype)
        return dense(x, self.num_outputs)
