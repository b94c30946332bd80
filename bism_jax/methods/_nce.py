"""Noise-contrastive estimation."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from bism_jax import checks
from bism_jax.methods._common.algorithm import start_optimizer
from bism_jax.methods._common.descent import descend
from bism_jax.methods._common.method import BoundModel, TrainingMethod, Way
from bism_jax.methods._common.optimizers import DEFAULT_OPTIMIZER
from bism_jax.methods._common.states import no_iterations
from bism_jax.methods.losses._free_energy import FreeEnergy, exact_free_energy
from bism_jax.methods.losses._noise_contrast import (
    check_distribution,
    check_noise,
    draw_noise_points,
    logistic_loss,
    noise_for,
)
from bism_jax.typing import Algorithm, Params


class NCEState(NamedTuple):
    """What the next iteration of `NCE` needs.

    Attributes:
        theta: energy parameters.
        log_partition: the learned log Z.
        theta_opt_state: the optimiser's state, of both.
        iteration: the number of iterations done.
    """

    theta: Params
    log_partition: Float[Array, ""]
    theta_opt_state: PyTree
    iteration: Int[Array, ""]


class NCEInfo(NamedTuple):
    """Diagnostics of an iteration of `NCE`.

    Attributes:
        loss: the logistic loss before the step.
        grad_norm: the norm of its gradient in theta.
        log_partition: the learned log Z after the step.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    log_partition: Float[Array, ""]


@dataclass(frozen=True)
class NCE(TrainingMethod):
    """Noise-contrastive estimation of a free energy and its log-partition.

        min_{theta, c} mean_data softplus(log nu - G) + nu mean_noise softplus(G - log nu)
        G(v) = -F(v; theta) - c - log p_noise(v)

    At the optimum c is log Z; it starts at 0. (Gutmann and Hyvarinen, JMLR 2012.)

    Attributes:
        noise_ratio: nu, noise points a data point.
        noise: a distribution over one data point; None is the standard normal (the paper's choice).
        optimizer: of theta and c.

    Raises:
        ValueError: where `noise_ratio` is no integer of at least 1.
        TypeError: for what is no distribution or no optimiser.
    """

    state_type = NCEState
    ways = (Way(("free_energy",)),)

    noise_ratio: int = 1
    noise: Any = None
    optimizer: optax.GradientTransformation = DEFAULT_OPTIMIZER

    def __post_init__(self) -> None:
        checks.positive_int("noise_ratio", self.noise_ratio)
        check_distribution(self.noise)
        checks.optimizer("optimizer", self.optimizer)

    def _bind(self, model: BoundModel) -> Algorithm:
        free_energy, shard = exact_free_energy(model.energy), model.shard

        def init(rng_key: Key[Array, ""], batch: Array) -> NCEState:
            check_noise(self.noise, batch)
            theta = free_energy.init(rng_key, batch, model.init_params)
            # In the data's dtype: with x64 a float64 scalar would widen the loss of float32 data.
            log_partition = jnp.zeros((), batch.dtype)
            opt_state = start_optimizer("optimizer", self.optimizer, (theta, log_partition))
            return NCEState(theta, log_partition, opt_state, no_iterations())

        def step(rng_key: Key[Array, ""], state: NCEState, batch: Array) -> tuple[NCEState, NCEInfo]:
            noise = draw_noise_points(self.noise, rng_key, batch, self.noise_ratio, shard)
            params = (state.theta, state.log_partition)
            loss_fn = functools.partial(self._loss, free_energy, batch, noise)
            (theta, log_partition), opt_state, loss, grads, _ = descend(
                loss_fn, self.optimizer, params, state.theta_opt_state, shard
            )
            info = NCEInfo(loss, optax.tree.norm(grads[0]), log_partition)
            return NCEState(theta, log_partition, opt_state, state.iteration + 1), info

        return Algorithm(init, step)

    def _loss(
        self, free_energy: FreeEnergy, v: Array, noise: Array, params: tuple[Params, Array]
    ) -> Float[Array, ""]:
        theta, log_partition = params
        # Here, not in `_bind`: the default has the shape of the data, which a batch tells.
        log_noise = noise_for(self.noise, v).log_prob

        def log_ratio(v: Array) -> Float[Array, " batch"]:
            return -free_energy.apply(theta, v, ()) - log_partition - log_noise(v)

        return logistic_loss(log_ratio(v), jax.vmap(log_ratio)(noise))
