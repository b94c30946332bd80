"""A fully connected critic: a vector field over the visible variables."""

from __future__ import annotations

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.networks._mlp import MLP


class MLPCritic(nn.Module):
    """f(v), of the shape of v: a perceptron with smooth activations, since its Jacobian is used.

    v of any shape is flattened, and f put back into that shape.

    Attributes:
        widths: the widths of the hidden layers; none makes f affine.
    """

    widths: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        checks.widths("widths", self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(self, v: Float[Array, "batch *visible"]) -> Float[Array, "batch *visible"]:
        """`[B, *visible] -> [B, *visible]`."""
        flat = v.reshape(v.shape[0], -1)
        return MLP(self.widths, flat.shape[1], jax.nn.silu)(flat).reshape(v.shape)
