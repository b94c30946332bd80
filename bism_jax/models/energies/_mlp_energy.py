"""A fully connected EBLVM with continuous latents."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax._precision import working_dtype
from bism_jax.models.networks._mlp import MLP


class MLPEnergy(nn.Module):
    """An energy over v in R^visible and h in R^latent whose posterior is intractable.

        E(v, h) = f([v; h]) + 1/2 sum_i (v_i - b_i)^2 exp(-2 s_i) + 1/2 |h|^2

    f is a perceptron with softplus activations, which grows at most linearly, so the quadratic terms keep
    the density normalisable. v of any shape is flattened.

    Attributes:
        widths: the widths of the hidden layers of f.
    """

    widths: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        checks.widths("widths", self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, v: Float[Array, "batch *visible"], h: Float[Array, "batch latent"]
    ) -> Float[Array, " batch"]:
        """E(v, h), `[B]`."""
        v = v.reshape(v.shape[0], -1)
        b = self.param("b", nn.initializers.zeros, v.shape[1:], working_dtype(v.dtype))
        log_std = self.param("log_std", nn.initializers.zeros, v.shape[1:], working_dtype(v.dtype))
        quadratic = 0.5 * ((v - b[None]) ** 2 * jnp.exp(-2 * log_std)[None]).sum(axis=-1)
        joint = jnp.concatenate([v, h], axis=-1)
        interaction = MLP(self.widths, 1, jax.nn.softplus)(joint)[:, 0]
        return interaction + quadratic + 0.5 * (h**2).sum(axis=-1)
