"""A fully connected decoder of latents."""

from __future__ import annotations

import math

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.networks._mlp import MLP


class MLPDecoder(nn.Module):
    """g(h) for `BiDVL`: a perceptron from latents of any shape to a data point.

    Attributes:
        visible: the shape of one data point.
        widths: the widths of the hidden layers.
    """

    visible: tuple[int, ...]
    widths: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        checks.widths("visible", self.visible)
        checks.widths("widths", self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(self, h: Float[Array, "batch *latent"]) -> Float[Array, "batch *visible"]:
        """`[B, *latent] -> [B, *visible]`."""
        outputs = MLP(self.widths, math.prod(self.visible), jax.nn.silu)(h.reshape(h.shape[0], -1))
        return outputs.reshape(h.shape[0], *self.visible)
