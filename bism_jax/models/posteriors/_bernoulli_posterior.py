"""A relaxed Bernoulli posterior for binary latents."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import linen as nn
from jaxtyping import Array, Float, Key
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from bism_jax import checks
from bism_jax.models.networks._mlp import MLP


class RelaxedBernoulli(dist.Distribution):
    """Independent binary latents with logits l, relaxed to (0, 1) so that they can be reparameterised.

        x = (l + logistic noise) / temperature,   h = sigmoid(x)

    `density="bernoulli"`, the paper's choice: the Bernoulli log-probability at the relaxed h,
    sum_j h_j log sigmoid(l_j) + (1 - h_j) log sigmoid(-l_j). `density="concrete"`: the exact density of
    h (Maddison et al., ICLR 2017, arXiv 1611.00712), computed from x, since h rounds to 0 or 1 in
    float32 where x does not.

    Args:
        logits: `[B, latent]`.
        temperature: above 0.
        density: `"bernoulli"` or `"concrete"`.
    """

    support = constraints.independent(constraints.unit_interval, 1)
    reparametrized_params = ["logits"]  # noqa: RUF012 (numpyro reads a list)
    pytree_data_fields = ("logits", "temperature")
    pytree_aux_fields = ("density",)

    def __init__(
        self,
        logits: Float[Array, "batch latent"],
        temperature: float,
        density: Literal["bernoulli", "concrete"] = "bernoulli",
        *,
        # numpyro's default, True, adds a comparison, a reduction and a selection to every log-probability.
        validate_args: bool | None = False,
    ) -> None:
        checks.array("logits", logits, "[batch, latent]")
        # An array may be traced, without a value to check.
        if not isinstance(temperature, (jax.Array, np.ndarray)):
            checks.positive("temperature", temperature)
        checks.one_of("density", density, ("bernoulli", "concrete"))
        self.logits, self.temperature, self.density = logits, temperature, density
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Float[Array, "batch latent"]:
        """sigmoid(l), the mean of the unrelaxed Bernoulli; that of the relaxation has no closed form."""
        return jax.nn.sigmoid(self.logits)

    def draw_noise(
        self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample batch latent"]:
        """Standard logistic noise."""
        return jax.random.logistic(key, (*sample_shape, *self.logits.shape), self.logits.dtype)

    def transform(self, noise: Array) -> tuple[Array, Array]:
        """h, and x as its intermediate."""
        x = (self.logits + noise) / self.temperature
        return jax.nn.sigmoid(x), x

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """h, `[*sample_shape, B, latent]`."""
        return self.transform(self.draw_noise(key, sample_shape))[0]

    @validate_sample
    def log_prob(self, value: Array, intermediates: Array | None = None) -> Array:
        """The log-probability log q(h | v); `intermediates` is x where it is known."""
        if self.density == "bernoulli":
            # Both terms in one: log sigmoid(l) - log sigmoid(-l) = l.
            return (value * self.logits - jax.nn.softplus(self.logits)).sum(axis=-1)
        # Infinite where a foreign h has rounded to 0 or 1: at a temperature of 0.1 and a logit of 3, 79 % do.
        x = jax.scipy.special.logit(value) if intermediates is None else intermediates
        scaled = self.logits - self.temperature * x
        # The logistic density of the noise, symmetric, so that the sign of `scaled` does not matter.
        log_density = jnp.log(self.temperature) + scaled - 2 * jax.nn.softplus(scaled)
        # log h (1 - h) by x: 1 - h rounds to 0 in float32 from about x = 17.
        log_jacobian = -jax.nn.softplus(x) - jax.nn.softplus(-x)
        return (log_density - log_jacobian).sum(axis=-1)


class BernoulliPosterior(nn.Module):
    """q(h | v) with logits linear in v, or a perceptron of v.

    v of any shape is flattened.

    Attributes:
        num_hidden: the number of binary latents.
        widths: the widths of the perceptron's hidden layers; none makes the logits linear.
        temperature: of the relaxation (0.1 in the paper).
        density: `"bernoulli"` (the paper) or `"concrete"`; see `RelaxedBernoulli`.

    Raises:
        ValueError: where the temperature is not above 0 or the density is unknown.
    """

    num_hidden: int
    widths: tuple[int, ...] = ()
    temperature: float = 0.1
    density: Literal["bernoulli", "concrete"] = "bernoulli"

    def __post_init__(self) -> None:
        checks.positive_int("num_hidden", self.num_hidden)
        checks.widths("widths", self.widths)
        checks.positive("temperature", self.temperature)
        checks.one_of("density", self.density, ("bernoulli", "concrete"))
        super().__post_init__()

    @nn.compact
    def __call__(self, v: Float[Array, "batch *visible"]) -> Any:
        """The posterior of each row, with batch shape `(B,)` and event shape `(num_hidden,)`."""
        logits = MLP(self.widths, self.num_hidden, jax.nn.silu)(v.reshape(v.shape[0], -1))
        return RelaxedBernoulli(logits, self.temperature, self.density)
