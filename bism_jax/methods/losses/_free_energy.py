"""The free energy of a model: its own, or an estimate by importance sampling."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._contract import Model
from bism_jax._contract.capabilities import marginal_model
from bism_jax._contract.initialisation import init_free_energy, init_joint_energy
from bism_jax.typing import Params


class FreeEnergy(NamedTuple):
    """F(v) as a deterministic function of explicit noise.

    Attributes:
        init: `(rng_key, batch, init_params) -> theta`, with the model checked on the batch.
        draw_noise: `(rng_key, v) -> noise`, with the rows of v along its axis 1.
        apply: `(theta, v, noise) -> [B]`.
    """

    init: Callable[..., Params]
    draw_noise: Callable[..., Any]
    apply: Callable[..., Float[Array, " batch"]]


def exact_free_energy(energy: Model) -> FreeEnergy:
    """The model's own free energy, which needs no noise.

    Raises:
        MissingCapability: where it has none.
    """
    marginal = marginal_model(energy)
    return FreeEnergy(
        functools.partial(init_free_energy, marginal),
        lambda rng_key, v: (),
        lambda theta, v, noise: marginal.apply(theta, v),
    )


@dataclass(frozen=True)
class UniformBinary:
    """Estimates the free energy of an energy with h in {0, 1}^m from latents drawn uniformly.

        F(v) = -log mean_p exp(-E(v, h_p)) - m log 2,   h_p uniform on {0, 1}^m

    The estimate lies above F(v) in the mean, and its score is biased, by less the more particles.
    (Importance-sampled KSD of Bao et al., ICML 2021, arXiv 2010.08258.)

    Attributes:
        num_hidden: m.
        num_particles: latents a data point.

    Raises:
        ValueError: where a count is no integer of at least 1.
    """

    num_hidden: int
    num_particles: int = 5

    def __post_init__(self) -> None:
        checks.positive_int("num_hidden", self.num_hidden)
        checks.positive_int("num_particles", self.num_particles)

    def bind_energy(self, energy: Model) -> FreeEnergy:
        """The estimate on a model."""

        def init(rng_key: Key[Array, ""], batch: Array, init_params: Any) -> Params:
            h = jnp.zeros((batch.shape[0], self.num_hidden), batch.dtype)
            return init_joint_energy(energy, rng_key, batch, h, init_params)

        def draw_noise(rng_key: Key[Array, ""], v: Array) -> Float[Array, "particles batch hidden"]:
            shape = (self.num_particles, v.shape[0], self.num_hidden)
            # Draws have the dtype of the probability: with x64 a bare 0.5 would give other latents.
            return jax.random.bernoulli(rng_key, jnp.asarray(0.5, v.dtype), shape).astype(v.dtype)

        def apply(theta: Params, v: Array, h: Float[Array, "particles batch hidden"]) -> Array:
            energies = jax.vmap(energy.apply, in_axes=(None, None, 0))(theta, v, h)
            # In logarithms: float32 has no exp(-E) where E is below -88.
            log_mean = jax.nn.logsumexp(-energies, axis=0) - math.log(self.num_particles)
            # Z(v) sums over 2^m states, 2^m times their mean.
            return -log_mean - self.num_hidden * math.log(2)

        return FreeEnergy(init, draw_noise, apply)
