"""Priors over the parameters of an undirected model, for Bayesian learning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from bism_jax import checks
from bism_jax.typing import Params


class Prior(Protocol):
    """A prior in unconstrained variables x, of which theta is a function."""

    def start(self, theta: Params) -> PyTree:
        """The x at which theta is `theta`."""
        ...

    def theta(self, x: Any) -> Params:
        """The parameters of the model."""
        ...

    def log_prior(self, x: Any) -> Float[Array, ""]:
        """The log density of x."""
        ...


@dataclass(frozen=True)
class GaussianPrior:
    """theta_i ~ N(0, std^2); x is theta.

    Attributes:
        std: the standard deviation, in units of theta.

    Raises:
        ValueError: where `std` is not above 0.
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        checks.positive("std", self.std)

    def start(self, theta: Params) -> PyTree:
        """The parameters themselves."""
        return theta

    def theta(self, x: Params) -> Params:
        """The parameters themselves."""
        return x

    def log_prior(self, x: Params) -> Float[Array, ""]:
        """sum_i log N(theta_i; 0, std^2)."""
        return _sum(x, lambda leaf: _log_normal(leaf, self.std))


class ScaledParameters(NamedTuple):
    """The variables of `Fadeout`.

    Attributes:
        standard: theta over its scale, like theta.
        log_scale: of each parameter, like theta.
        log_global: of each array of parameters, a number.
    """

    standard: Params
    log_scale: Params
    log_global: Params


@dataclass(frozen=True)
class Fadeout:
    """A sparsity prior: a half-Cauchy scale mixture (horseshoe) in non-centred form.

        theta_i = s_i x_i,   x_i ~ N(0, 1),   s_i ~ C+(0, t),   t ~ C+(0, 1)

    with a global scale t for each array of parameters. Both x and the logarithms of the scales are
    variational, so that a scale can fade out without a funnel. (Ingraham and Marks, ICML 2017.)
    """

    def start(self, theta: Params) -> ScaledParameters:
        """All scales at 1."""
        zeros = jax.tree.map(jnp.zeros_like, theta)
        return ScaledParameters(theta, zeros, jax.tree.map(lambda leaf: jnp.zeros((), leaf.dtype), theta))

    def theta(self, x: ScaledParameters) -> Params:
        """The products s_i x_i."""
        return jax.tree.map(lambda value, log_scale: value * jnp.exp(log_scale), x.standard, x.log_scale)

    def log_prior(self, x: ScaledParameters) -> Float[Array, ""]:
        """The log density of x, log s and log t."""
        # s / t is half-Cauchy of scale 1, and a shift of log s by log t has no Jacobian.
        relative = jax.tree.map(lambda scale, level: scale - level, x.log_scale, x.log_global)
        on_standard = _sum(x.standard, _log_normal)
        return on_standard + _sum(relative, _log_half_cauchy) + _sum(x.log_global, _log_half_cauchy)


def _log_normal(value: Array, std: float = 1.0) -> Array:
    import numpyro.distributions as dist

    return dist.Normal(0.0, std).log_prob(value)


def _log_half_cauchy(log_value: Array) -> Array:
    """The log density of the logarithm of a half-Cauchy variable of scale 1."""
    # 2 / (pi (1 + s^2)) times the Jacobian s; softplus(2 log s) is log(1 + s^2) without squaring s.
    return math.log(2 / math.pi) + log_value - jax.nn.softplus(2 * log_value)


def _sum(tree: PyTree, fn: Any) -> Float[Array, ""]:
    # An array also of no leaves, of which `sum` makes the integer 0.
    return jnp.asarray(sum(fn(leaf).sum() for leaf in jax.tree.leaves(tree)))
