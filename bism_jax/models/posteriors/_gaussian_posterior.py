"""A diagonal Gaussian posterior for continuous latents."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from flax import linen as nn
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax.models.networks._mlp import MLP


class DiagonalGaussian(dist.Independent):
    """N(loc, diag(scale^2)) whose noise can be given: h = loc + scale * noise.

    Args:
        loc: `[B, latent]`.
        scale: `[B, latent]`, above 0.
    """

    def __init__(
        self,
        loc: Float[Array, "batch latent"],
        scale: Float[Array, "batch latent"],
        *,
        # numpyro's default, True, adds a comparison, a reduction and a selection to every log-probability.
        validate_args: bool | None = False,
    ) -> None:
        checks.array("loc", loc, "[batch, latent]")
        checks.array("scale", scale, "[batch, latent]")
        # numpyro's own type inside, so that its divergences in closed form apply.
        super().__init__(dist.Normal(loc, scale, validate_args=validate_args), 1, validate_args=validate_args)

    def draw_noise(
        self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample batch latent"]:
        """Standard normal noise."""
        loc = self.base_dist.loc
        return jax.random.normal(key, (*sample_shape, *loc.shape), loc.dtype)

    def transform(self, noise: Array) -> tuple[Array, None]:
        """The sample loc + scale * noise; no intermediates."""
        return self.base_dist.loc + self.base_dist.scale * noise, None


class GaussianPosterior(nn.Module):
    """q(h | v) = N(mu(v), diag(sigma(v)^2)); mu and log sigma are linear in v, or a perceptron.

    v of any shape is flattened.

    Attributes:
        num_hidden: the number of latents.
        widths: the widths of the perceptron's hidden layers; none makes the posterior linear.
    """

    num_hidden: int
    widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        checks.positive_int("num_hidden", self.num_hidden)
        checks.widths("widths", self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(self, v: Float[Array, "batch *visible"]) -> Any:
        """The posterior of each row, with batch shape `(B,)` and event shape `(num_hidden,)`."""
        # One perceptron for both, so one product a layer.
        outputs = MLP(self.widths, 2 * self.num_hidden, jax.nn.silu)(v.reshape(v.shape[0], -1))
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return DiagonalGaussian(mean, jnp.exp(log_std))
