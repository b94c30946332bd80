"""Bi-level score matching."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
from jaxtyping import Array, Float, Key, PyTree

from bism_jax import checks
from bism_jax._contract import factor
from bism_jax._contract.initialisation import init_latent_model
from bism_jax._contract.model_checks import check_moving_latents
from bism_jax.hypergradient import LowerSolution, StopGradient, Strategy, Unrolled
from bism_jax.methods._common.algorithm import check_divergence, start_optimizers
from bism_jax.methods._common.data_checks import check_batch
from bism_jax.methods._common.density_checks import check_higher_density, check_lower_density
from bism_jax.methods._common.descent import descend_both
from bism_jax.methods._common.lower_level import lower_problem
from bism_jax.methods._common.method import BoundModel, TrainingMethod
from bism_jax.methods._common.optimizers import DEFAULT_OPTIMIZERS, Optimizers
from bism_jax.methods._common.states import LatentInfo, LatentState, no_iterations
from bism_jax.methods.losses._bilevel import BilevelProblem, LevelNoise, LowerInput, Trunk, split_leading
from bism_jax.objectives import DSM, KL, Divergence, Objective
from bism_jax.typing import Algorithm, Params


class BiSMNoise(NamedTuple):
    """The noise of one iteration.

    Attributes:
        lower: of the K + N lower-level steps, with that leading axis; with shared noise `lower.visible`
            is None.
        higher: of the higher-level loss.
    """

    lower: LevelNoise
    higher: LevelNoise


@dataclass(frozen=True)
class BiSM(TrainingMethod):
    """Bi-level score matching for p(v, h) = exp(-E(v, h; theta)) / Z with an intractable posterior.

        min_theta J(theta, phi*(theta)),   phi*(theta) = argmin_phi G(phi, theta)

    One iteration, on one minibatch: K optimiser steps on G in phi; N further steps, differentiated
    through; one optimiser step on J(theta, phi^N(theta)) in theta. (Bao, Li, Xu, Su, Zhu and Zhang,
    NeurIPS 2020, arXiv 2010.07856, algorithm 1.)

    The paper's algorithm is `BiSM(DSM(sigma), lower_steps=5, keep_unrolled=False, noise="fresh")`.
    The default keeps the N differentiated steps instead of K others and shares the noised batch between the
    levels. It costs less than half as much and reaches at least the same likelihood (`benchmarks/NOTES.md`).

    Attributes:
        objective: F, the score-matching loss: `DSM`, `MDSM`, `SSM`, `SM` or `KSD`.
        divergence: D, the lower-level loss: `KL` or `Fisher`.
        lower_steps: K.
        hypergradient: the strategy, which holds N as its `num_steps`.
        optimizers: of theta and phi. Schedules of both count iterations.
        noise: `"fresh"` draws visible noise for each lower-level step; `"shared"` uses that of the
            higher level throughout. Latent noise is always fresh.
        keep_unrolled: whether phi^N and its optimiser state are kept; otherwise the N steps are thrown
            away, as in the paper.
        num_particles: P, latents a data point.
        particle_average: `"losses"` takes the mean of the P losses of the higher level, `"scores"` the loss
            of the mean of the P scores, a tighter bound for P > 1 at the same cost.

    Raises:
        ValueError: on counts below their range, an unknown `noise`, and where phi would never move.
    """

    state_type = LatentState
    fits_posterior = True

    objective: Objective = DSM()
    divergence: Divergence = KL()
    # On the checkerboard 0.324 nats over five seeds at 0.126 ms an iteration, and 0.305 at 0.185 ms by the
    # paper's algorithm; the moving averages of the two agree within 0.003.
    lower_steps: int = 0
    hypergradient: Strategy = Unrolled(num_steps=5)
    optimizers: Optimizers = DEFAULT_OPTIMIZERS
    noise: Literal["fresh", "shared"] = "shared"
    keep_unrolled: bool = True
    num_particles: int = 1
    particle_average: Literal["losses", "scores"] = "losses"

    def __post_init__(self) -> None:
        checks.non_negative_int("lower_steps", self.lower_steps)
        checks.positive_int("num_particles", self.num_particles)
        checks.one_of("noise", self.noise, ("fresh", "shared"))
        checks.one_of("particle_average", self.particle_average, ("losses", "scores"))
        checks.instance("hypergradient", self.hypergradient, Strategy, "Unrolled(num_steps=5)")
        checks.instance("objective", self.objective, Objective, "DSM(noise_std=0.1)")
        check_divergence(self.divergence)
        checks.boolean("keep_unrolled", self.keep_unrolled)
        checks.optimizer_pair("optimizers", self.optimizers)
        if self.lower_steps == 0 and self.hypergradient.num_steps == 0:
            raise ValueError(
                "lower_steps=0 and hypergradient.num_steps=0: phi would never move. Take lower_steps=5, "
                "or Unrolled(num_steps=5)."
            )
        if self.lower_steps == 0 and not self.keep_unrolled:
            raise ValueError(
                "lower_steps=0 with keep_unrolled=False: the unrolled steps are thrown away and phi would "
                "never move. Take keep_unrolled=True, or lower_steps=5."
            )

    def _bind(self, model: BoundModel) -> Algorithm:
        energy, posterior, init_params, shard = model
        problem = BilevelProblem(
            factor(energy),
            posterior.apply,
            self.objective,
            self.divergence,
            self.num_particles,
            self.particle_average,
            shard=shard,
        )

        def init(rng_key: Key[Array, ""], batch: Float[Array, "batch *visible"]) -> LatentState:
            # First, for what follows compiles programs to initialise the model.
            check_batch(self.objective, batch)
            theta, phi = init_latent_model(energy, posterior, rng_key, batch, init_params)
            # Objectives of the score's values take no Jacobian, so for them draws need not move with v.
            if problem.moves_latents:
                check_moving_latents(posterior, phi, batch)
            check_lower_density(posterior, phi, batch, self.divergence)
            check_higher_density(posterior, phi, batch, self.objective)
            opt_states = start_optimizers(self.optimizers, theta, phi)
            return LatentState(theta, phi, *opt_states, no_iterations())

        def step(
            rng_key: Key[Array, ""], state: LatentState, batch: Float[Array, "batch *visible"]
        ) -> tuple[LatentState, LatentInfo]:
            noise = self.draw_noise(problem, rng_key, state.phi, batch)
            return self.update(problem, state, batch, noise)

        return Algorithm(init, step)

    def draw_noise(
        self, problem: BilevelProblem, rng_key: Key[Array, ""], phi: Params, v: Array
    ) -> BiSMNoise:
        """All noise of an iteration, each kind in one draw for all K + N + 1 losses."""
        num_losses = self.lower_steps + self.hypergradient.num_steps + 1
        if self.noise == "fresh":
            # One draw for all: a loop of threefry costs 2 microseconds on a CPU, whatever it draws.
            draws = problem.draw_noise(rng_key, phi, v, (num_losses,))
            return BiSMNoise(_all_but_last(draws), _last(draws))
        visible_key, latent_key = jax.random.split(rng_key)
        # Fresh in each step though the points are shared: phi would else be fitted to one draw of h a point.
        latent = problem.draw_particles_noise(latent_key, phi, v, (num_losses, problem.num_particles))
        visible = problem.draw_visible_noise(visible_key, v, ())
        return BiSMNoise(LevelNoise(None, _all_but_last(latent)), LevelNoise(visible, _last(latent)))

    def update(
        self, problem: BilevelProblem, state: LatentState, v: Array, noise: BiSMNoise
    ) -> tuple[LatentState, LatentInfo]:
        """One iteration as a deterministic function of its noise."""

        def loss_fn(theta: Params) -> tuple[Float[Array, ""], LowerSolution]:
            # Within the loss, since features depend on theta: all steps' cotangents are pulled back at once.
            trunk = problem.trunk(theta, v, noise.higher.visible)
            lower = lower_problem(
                self._lower_loss(problem, noise, trunk), self.optimizers.phi, state, problem.shard
            )
            inputs = noise.lower.latent if self.noise == "shared" else problem.lower_inputs(v, noise.lower)
            first_inputs, inputs = split_leading(inputs, self.lower_steps)
            first = StopGradient(self.lower_steps).solve(
                lower, state.phi, theta, first_inputs, state.phi_opt_state
            )
            # From the carried moments, as in the paper's code: a fresh Adam's first step has the rate's full
            # length in every entry, however small the gradient.
            loss, unrolled = problem.unrolled_loss(
                theta, first.phi, v, noise.higher, self.hypergradient, lower, inputs, first.opt_state, trunk
            )
            kept = unrolled if self.keep_unrolled else first
            # No steps have no losses, and the diagnostics report the last one.
            last = unrolled if self.hypergradient.num_steps else first
            return loss, LowerSolution(kept.phi, kept.opt_state, last.losses)

        return descend_both(loss_fn, self.optimizers.theta, state, problem.shard)

    def _lower_loss(
        self, problem: BilevelProblem, noise: BiSMNoise, trunk: Trunk
    ) -> Callable[[Params, Params, Any], Float[Array, ""]]:
        """G of a step's whole input, or of its latent noise alone where the visible noise is shared."""
        if self.noise == "fresh":
            return problem.lower_loss
        # Closed over, not stacked: a step's input is its latent noise, and points are not copied N + K times.
        weight = problem.objective.lower_weight(noise.higher.visible)

        def loss_fn(phi: Params, theta: Params, latent: PyTree) -> Float[Array, ""]:
            return problem.lower_loss(phi, theta, LowerInput(trunk.points, weight, latent, trunk.features))

        return loss_fn


def _all_but_last(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[:-1], tree)


def _last(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[-1], tree)
