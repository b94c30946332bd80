"""Variational estimates of gradients of the score."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from bism_jax import checks
from bism_jax._contract import LatentSample, factor, latent_log_prob, sample_latents
from bism_jax._contract.initialisation import init_latent_model
from bism_jax.hypergradient import LowerSolution
from bism_jax.methods._common.algorithm import check_divergence, start_optimizers
from bism_jax.methods._common.data_checks import check_batch
from bism_jax.methods._common.density_checks import check_lower_density
from bism_jax.methods._common.descent import descend_both
from bism_jax.methods._common.lower_level import fit_posterior
from bism_jax.methods._common.method import BoundModel, TrainingMethod
from bism_jax.methods._common.optimizers import DEFAULT_OPTIMIZERS, Optimizers
from bism_jax.methods._common.states import LatentInfo, LatentState, no_iterations
from bism_jax.methods.losses._bilevel import BilevelProblem, Trunk, split_leading
from bism_jax.objectives import DSM, KL, Divergence, Objective, PointwiseObjective
from bism_jax.samplers import langevin
from bism_jax.typing import Algorithm, Noise, Params


@dataclass(frozen=True)
class LangevinRefinement:
    """Moves particles from q(h | v) towards p(h | v) by Langevin steps on E(v, .).

    Attributes:
        num_steps: steps.
        step_size: the standard deviation of a step's noise, in units of h.

    Raises:
        ValueError: where `num_steps` is no integer of at least 1, or the step size is not above 0.
    """

    num_steps: int = 5
    step_size: float = 0.01

    def __post_init__(self) -> None:
        checks.positive_int("num_steps", self.num_steps, alternative="refinement=None")
        checks.positive("step_size", self.step_size)


class VaGESNoise(NamedTuple):
    """The noise of the estimate.

    Attributes:
        visible: the objective's, `[B, ...]`.
        latent: the posterior's, `[2 P, B, ...]`: P particles for the residual z, then P for the rest.
        refinement: a key for Langevin steps.
    """

    visible: Noise
    latent: Noise
    refinement: Key[Array, ""]


@dataclass(frozen=True)
class VaGES(TrainingMethod):
    """Score matching with variational estimates of the score and of its gradient; nothing is unrolled.

        s(v) = mean_h grad_v [-E(v, h)],   h ~ q(h | v; phi)
        z^T d_theta s(v) = mean_h d_theta z^T grad_v [-E] + Cov_h(d_theta [-E], z^T grad_v [-E])

    z is the derivative of the objective in s, from particles of its own, held fixed. One iteration: K
    steps in phi on the lower-level divergence at perturbed points; one step in theta. The gradient is
    exact in the mean where q is the true posterior. (Bao et al., ICML 2021, arXiv 2010.08258.)

    Attributes:
        objective: `DSM`, `MDSM` or `KSD`.
        divergence: D, the lower-level loss: `KL` or `Fisher`.
        lower_steps: K.
        num_particles: P, latents a data point in each of the two sets.
        refinement: Langevin steps that follow the draw from q, or None; for continuous latents. Under
            `pmap` their noise is each device's own.
        variance_reduced: whether z uses grad_v [-E - log q], whose variance is 0 at the true posterior.
        biased_covariance: whether the covariance is divided by P rather than P - 1.
        optimizers: of theta and phi. Schedules of both count iterations.

    Raises:
        ValueError: for fewer than 2 particles or less than one lower-level step.
        TypeError: for an objective that needs derivatives of the score.
    """

    state_type = LatentState
    fits_posterior = True

    objective: PointwiseObjective = DSM()
    divergence: Divergence = KL()
    lower_steps: int = 5
    num_particles: int = 5
    refinement: LangevinRefinement | None = None
    variance_reduced: bool = False
    biased_covariance: bool = False
    optimizers: Optimizers = DEFAULT_OPTIMIZERS

    def __post_init__(self) -> None:
        checks.instance("objective", self.objective, Objective, "DSM(noise_std=0.1)")
        check_divergence(self.divergence)
        if not isinstance(self.objective, PointwiseObjective):
            raise TypeError(
                f"objective={self.objective!r} needs derivatives of the score, which VaGES does not "
                "estimate; use DSM, MDSM or KSD, or train by BiSM."
            )
        checks.positive_int("lower_steps", self.lower_steps)
        checks.positive_int("num_particles", self.num_particles)
        if self.num_particles < 2:
            raise ValueError("num_particles=1 has no covariance; pass at least 2.")
        if self.refinement is not None:
            checks.instance("refinement", self.refinement, LangevinRefinement, "LangevinRefinement(5)")
        checks.boolean("variance_reduced", self.variance_reduced)
        if self.variance_reduced and self.refinement is not None:
            raise ValueError(
                "variance_reduced=True with a refinement: the mean of grad_v log q vanishes under q alone, "
                "so refined particles would bias the score. Take one of the two."
            )
        checks.boolean("biased_covariance", self.biased_covariance)
        checks.optimizer_pair("optimizers", self.optimizers)

    def _bind(self, model: BoundModel) -> Algorithm:
        energy, posterior, init_params, shard = model
        problem = BilevelProblem(
            factor(energy), posterior.apply, self.objective, self.divergence, shard=shard
        )

        def init(rng_key: Key[Array, ""], batch: Array) -> LatentState:
            check_batch(self.objective, batch)
            theta, phi = init_latent_model(energy, posterior, rng_key, batch, init_params)
            check_lower_density(posterior, phi, batch, self.divergence)
            opt_states = start_optimizers(self.optimizers, theta, phi)
            return LatentState(theta, phi, *opt_states, no_iterations())

        def step(rng_key: Key[Array, ""], state: LatentState, batch: Array) -> tuple[LatentState, LatentInfo]:
            lower_key, noise_key = jax.random.split(rng_key)
            # Of phi before its steps: noise depends on the posterior's shapes alone.
            lower_noise = problem.draw_noise(lower_key, state.phi, batch, (self.lower_steps,))
            inputs = problem.lower_inputs(batch, lower_noise)
            lower = fit_posterior(
                problem.lower_loss, self.lower_steps, self.optimizers.phi, state, inputs, shard
            )
            noise = self.draw_noise(problem, noise_key, lower.phi, batch)

            def loss_fn(theta: Params) -> tuple[Float[Array, ""], LowerSolution]:
                return self.surrogate(problem, theta, lower.phi, batch, noise), lower

            return descend_both(loss_fn, self.optimizers.theta, state, shard)

        return Algorithm(init, step)

    def draw_noise(
        self, problem: BilevelProblem, rng_key: Key[Array, ""], phi: Params, v: Array
    ) -> VaGESNoise:
        """All noise of the estimate."""
        visible_key, latent_key, refinement_key = jax.random.split(rng_key, 3)
        # Two sets: z and what it multiplies are both means over h, whose covariance within one set would bias
        # the product.
        latent = problem.draw_particles_noise(latent_key, phi, v, (2 * self.num_particles,))
        visible = problem.draw_visible_noise(visible_key, v, ())
        return VaGESNoise(visible, latent, problem.shard.own_key(refinement_key))

    def surrogate(
        self, problem: BilevelProblem, theta: Params, phi: Params, v: Array, noise: VaGESNoise
    ) -> Float[Array, ""]:
        """The objective at s(v), whose gradient in theta is the estimate, that of

        mean_b [ z^T mean_h grad_v(-E) + n/(n-1) Cov_h(-E, sg[z^T grad_v(-E)]) ]
        """
        # z and the particles are constants of the estimate: theta is seen by the slopes alone.
        held = jax.lax.stop_gradient(theta)
        trunk = problem.trunk(held, v, noise.visible)
        first, second = self._draw_particles(problem, held, phi, trunk, noise)
        score = self._mean_score(problem, held, phi, trunk, first)

        def objective(score: Array) -> Float[Array, ""]:
            return self.objective.pointwise_loss(score, v, noise.visible).sum()

        # By differentiation, as KSD's z couples two rows; of the sum, for the mean below divides by B.
        total, residual = jax.lax.stop_gradient(jax.value_and_grad(objective)(score))
        log_joints, slopes = self._slopes(problem, theta, trunk.points, residual, second)
        # mean (a - mean a)(b - mean b) = mean a (b - mean b), so one factor is centred: the held one.
        centred = jax.lax.stop_gradient(slopes - slopes.mean(axis=0, keepdims=True))
        # Divided by P it would be too small by a factor of 1 - 1 / P in the mean.
        divisor = self.num_particles - (not self.biased_covariance)
        estimate = jnp.mean(slopes.mean(axis=0) + (log_joints * centred).sum(axis=0) / divisor)
        # Of the estimate only the gradient is wanted: its value is no loss, and the objective's is reported.
        return total / v.shape[0] + (estimate - jax.lax.stop_gradient(estimate))

    def _draw_particles(
        self, problem: BilevelProblem, theta: Params, phi: Params, trunk: Trunk, noise: VaGESNoise
    ) -> tuple[LatentSample, LatentSample]:
        """Both sets of particles, `[P, B, *latent]` each, held fixed."""
        posterior = problem.posterior_fn(phi, trunk.points)
        samples = jax.vmap(lambda latent: sample_latents(posterior, latent))(noise.latent)
        if self.refinement is not None:
            head = functools.partial(problem.energy.head, theta, trunk.points, trunk.features)
            # To `langevin` one particle of every row is a chain; rows do not interact in its sum.
            energy_fn = jax.vmap(lambda h: head(h).sum())
            num_steps, step_size = self.refinement.num_steps, self.refinement.step_size
            samples = LatentSample(langevin(energy_fn, noise.refinement, samples.h, num_steps, step_size))
        return split_leading(jax.lax.stop_gradient(samples), self.num_particles)

    def _mean_score(
        self, problem: BilevelProblem, theta: Params, phi: Params, trunk: Trunk, samples: LatentSample
    ) -> Float[Array, "batch *visible"]:
        """s(v) from particles; the features are gone back through once for all of them."""

        def log_ratio(points: Array, features: PyTree, sample: LatentSample) -> Float[Array, ""]:
            log_joint = -problem.energy.head(theta, points, features, sample.h)
            if self.variance_reduced:
                log_joint = log_joint - latent_log_prob(problem.posterior_fn(phi, points), sample)
            return log_joint.sum()

        of_points = jax.vmap(jax.grad(log_ratio, argnums=(0, 1)), in_axes=(None, None, 0))
        scores = of_points(trunk.points, trunk.features, samples)
        # Pulling back is linear, so it takes the mean of the particles' cotangents, once instead of P times.
        direct, through_features = jax.tree.map(lambda leaf: leaf.mean(axis=0), scores)
        return direct + trunk.pullback(through_features)[0]

    def _slopes(
        self, problem: BilevelProblem, theta: Params, points: Array, residual: Array, samples: LatentSample
    ) -> tuple[Float[Array, "particles batch"], Float[Array, "particles batch"]]:
        """-E and z^T grad_v(-E) of each particle, by one forward-mode derivative."""
        features_fn = functools.partial(problem.energy.features, theta)
        # Forward: z is one direction, and reverse mode in theta over a forward pass is the cheaper order.
        features, features_dot = jax.jvp(features_fn, (points,), (residual,))

        def directional(h: Array) -> tuple[Array, Array]:
            log_joint = lambda points, features: -problem.energy.head(theta, points, features, h)  # noqa: E731
            return jax.jvp(log_joint, (points, features), (residual, features_dot))

        return jax.vmap(directional)(samples.h)
