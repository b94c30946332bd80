"""Marginal score matching on a free energy."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import optax
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax.methods._common.algorithm import start_optimizer
from bism_jax.methods._common.data_checks import check_batch
from bism_jax.methods._common.descent import descend_theta
from bism_jax.methods._common.method import BoundModel, TrainingMethod, Way
from bism_jax.methods._common.optimizers import DEFAULT_OPTIMIZER
from bism_jax.methods._common.states import EnergyInfo, EnergyState, no_iterations
from bism_jax.methods.losses._free_energy import UniformBinary, exact_free_energy
from bism_jax.objectives import DSM, Objective, marginal_score
from bism_jax.typing import Algorithm, Params


@dataclass(frozen=True)
class ScoreMatching(TrainingMethod):
    """Score matching of a marginal density p(v) = exp(-F(v; theta)) / Z.

        min_theta mean_b F(-grad_v F(v_b; theta), noise_b, v_b)

    The energy's `free_energy` is used where it has one, `(theta, v) -> [B]`; a plain function without
    one is taken as the free energy itself. No posterior is needed. With `KSD()` as the objective this is
    the minimisation of the kernel Stein discrepancy.

    Attributes:
        objective: `DSM`, `MDSM`, `SSM`, `SM` or `KSD`.
        optimizer: of theta.
        free_energy: None for the model's own, or `UniformBinary` to estimate it from E(v, h).

    Raises:
        TypeError: for what is no objective, no optimiser or no `UniformBinary`.
    """

    state_type = EnergyState
    ways = (Way(("free_energy",)), Way((), "free_energy=UniformBinary(...) for binary latents"))

    objective: Objective = DSM()
    optimizer: optax.GradientTransformation = DEFAULT_OPTIMIZER
    free_energy: UniformBinary | None = None

    def __post_init__(self) -> None:
        checks.instance("objective", self.objective, Objective, "DSM(noise_std=0.1)")
        checks.optimizer("optimizer", self.optimizer)
        if self.free_energy is not None:
            checks.instance("free_energy", self.free_energy, UniformBinary, "UniformBinary(4) or None")

    def _bind(self, model: BoundModel) -> Algorithm:
        bind_energy = exact_free_energy if self.free_energy is None else self.free_energy.bind_energy
        # At binding, so that a missing free energy is named before any data is touched.
        free_energy, shard = bind_energy(model.energy), model.shard

        def init(rng_key: Key[Array, ""], batch: Array) -> EnergyState:
            check_batch(self.objective, batch)
            theta = free_energy.init(rng_key, batch, model.init_params)
            opt_state = start_optimizer("optimizer", self.optimizer, theta)
            return EnergyState(theta, opt_state, no_iterations())

        def step(rng_key: Key[Array, ""], state: EnergyState, batch: Array) -> tuple[EnergyState, EnergyInfo]:
            like_batch = shard.global_batch(batch)
            noise = shard.rows(self.objective.draw_noise(rng_key, like_batch), 0, batch.shape[0])
            # Folded in, not split off, so that the objective's noise is the same for an exact free energy.
            latents = free_energy.draw_noise(jax.random.fold_in(rng_key, 1), like_batch)
            latents = shard.rows(latents, 1, batch.shape[0])

            def loss_fn(theta: Params) -> Float[Array, ""]:
                score_fn = marginal_score(lambda theta, v: free_energy.apply(theta, v, latents), theta)
                return self.objective.loss(score_fn, batch, noise).mean()

            return descend_theta(loss_fn, self.optimizer, state, shard)

        return Algorithm(init, step)
