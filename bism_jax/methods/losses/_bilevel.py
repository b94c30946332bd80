"""The two losses of bi-level score matching as functions of explicit noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from bism_jax._contract import (
    FactoredEnergy,
    draw_latent_noise,
    map_particles,
    sample_latents,
    without_features,
)
from bism_jax.hypergradient import LowerProblem, LowerSolution, Strategy
from bism_jax.methods._common.shards import BatchShard
from bism_jax.objectives import (
    Divergence,
    Objective,
    PointwiseObjective,
    factored_score,
    latent_score,
    moving_latent_score,
)
from bism_jax.typing import EnergyFn, Noise, Params, PosteriorFn, ScoreFn


class LevelNoise(NamedTuple):
    """The noise of one loss, or of several with a leading axis.

    Attributes:
        visible: the objective's, `[B, ...]`.
        latent: the posterior's, `[P, B, ...]`, or keys `[P]` for a posterior that takes no noise.
    """

    visible: Noise
    latent: Noise


class LowerInput(NamedTuple):
    """What a lower-level step sees.

    Attributes:
        v: the perturbed batch, `[B, *visible]`.
        weight: of each data point, `[B]` or a number.
        latent: noise, `[P, B, ...]`.
        features: the energy's at v; None has the step compute them.
    """

    v: Float[Array, "batch *visible"]
    weight: Any
    latent: Noise
    features: PyTree = None


class Trunk(NamedTuple):
    """The part of a factored energy that no latent enters, at the perturbed batch.

    Attributes:
        points: the perturbed batch, `[B, *visible]`.
        features: f, a pytree of `[B, ...]`.
        pullback: takes a cotangent of f to one of the points.
    """

    points: Float[Array, "batch *visible"]
    features: PyTree
    pullback: Callable[[PyTree], tuple[Array]]


@dataclass(frozen=True)
class LatentModel:
    """p(v, h; theta) and the posterior q(h | v; phi) that is fitted to it, on the rows that a device holds.

    Attributes:
        energy_fn: `(theta, v, h) -> [B]`, or a `FactoredEnergy`.
        posterior_fn: `(phi, v) -> distribution`.
        shard: the part of the batch that this device holds.
    """

    energy_fn: EnergyFn
    posterior_fn: PosteriorFn
    # By keyword, or a subclass could add no field without a default.
    shard: BatchShard = field(default=BatchShard(), kw_only=True)

    @property
    def energy(self) -> FactoredEnergy:
        """The energy in factored form."""
        if isinstance(self.energy_fn, FactoredEnergy):
            return self.energy_fn
        return without_features(self.energy_fn)

    def draw_particles_noise(
        self, rng_key: Key[Array, ""], phi: Params, v: Array, sample_shape: tuple[int, ...]
    ) -> Noise:
        """The posterior's noise with leading axes `sample_shape`, the last of which counts particles."""
        # The noise depends on the posterior's shapes alone, so the compiler drops this evaluation.
        posterior = self.posterior_fn(phi, self.shard.global_batch(v))
        noise = draw_latent_noise(rng_key, posterior, sample_shape)
        return self.shard.rows(noise, len(sample_shape), v.shape[0])

    def posterior_loss(
        self, divergence: Divergence, phi: Params, theta: Params, data: LowerInput
    ) -> Float[Array, ""]:
        """mean_b w_b D(q(h|v_b; phi) || p(h|v_b; theta))."""
        features = self.energy.features(theta, data.v) if data.features is None else data.features

        def energy_fn(theta: Params, v: Array, h: Array) -> Float[Array, " batch"]:
            return self.energy.head(theta, v, features, h)

        posterior = self.posterior_fn(phi, data.v)
        losses = divergence.loss(energy_fn, theta, posterior, data.v, data.latent)
        # Of this device's rows; the average over devices is taken of the gradient.
        return jnp.mean(data.weight * losses)


@dataclass(frozen=True)
class BilevelProblem(LatentModel):
    """A model with the losses of both levels.

        G(phi, theta) = mean_b w_b D(q(h|v~_b; phi) || p(h|v~_b; theta))           lower level
        J(theta, phi) = mean_b F(grad_v [-E(v, h) - log q(h|v)], noise_b, v_b)     higher level

    With P particles J is the mean of P losses, or the loss of the mean score, which is at most that and tends
    to the loss of the field u(v) = E_q grad_v [-E - log q] as P grows:

        F(u) <= E F(1/P sum_p s_p) <= E 1/P sum_p F(s_p),   F = DSM, MDSM, SM or SSM with moving latents

    Attributes:
        energy_fn: `(theta, v, h) -> [B]`, or a `FactoredEnergy`.
        posterior_fn: `(phi, v) -> distribution`.
        objective: F.
        divergence: D.
        num_particles: P, latents a data point at both levels.
        particle_average: of the higher level, `"losses"` or `"scores"`.
        shard: the part of the batch that this device holds.
    """

    objective: Objective
    divergence: Divergence
    num_particles: int = 1
    particle_average: Literal["losses", "scores"] = "losses"

    @property
    def moves_latents(self) -> bool:
        """Whether the objective takes the Jacobian of a score in which h moves with v."""
        is_pointwise = isinstance(self.objective, PointwiseObjective)
        # A user's objective that takes a Jacobian has no such option, and gets the form that is a bound.
        return not is_pointwise and getattr(self.objective, "latents", "moving") == "moving"

    def draw_visible_noise(self, rng_key: Key[Array, ""], v: Array, sample_shape: tuple[int, ...]) -> Noise:
        """The objective's noise with leading axes `sample_shape`."""
        noise = self.objective.draw_noise(rng_key, self.shard.global_batch(v), sample_shape)
        return self.shard.rows(noise, len(sample_shape), v.shape[0])

    def draw_noise(
        self, rng_key: Key[Array, ""], phi: Params, v: Array, sample_shape: tuple[int, ...]
    ) -> LevelNoise:
        """The noise of a loss, or of several along the leading axes `sample_shape`."""
        visible_key, latent_key = jax.random.split(rng_key)
        return LevelNoise(
            self.draw_visible_noise(visible_key, v, sample_shape),
            self.draw_particles_noise(latent_key, phi, v, (*sample_shape, self.num_particles)),
        )

    def lower_input(self, v: Array, noise: LevelNoise) -> LowerInput:
        """What the lower-level loss needs of the batch and its noise."""
        return LowerInput(
            self.objective.perturb(v, noise.visible),
            jnp.asarray(self.objective.lower_weight(noise.visible), v.dtype),
            noise.latent,
        )

    def lower_inputs(self, v: Array, noise: LevelNoise) -> LowerInput:
        """`lower_input` of several steps, whose noise has a leading axis."""
        # Points of all steps at once, since a strategy takes a step's input as a slice of one tree.
        return jax.vmap(self.lower_input, in_axes=(None, 0))(v, noise)

    def trunk(self, theta: Params, v: Array, visible: Noise) -> Trunk:
        """The features of the perturbed batch; one pass serves both levels where they share its noise."""
        points = self.objective.perturb(v, visible)
        # By the points alone: theta is differentiated in the loss as a whole, this pull-back included.
        features, pullback = jax.vjp(lambda points: self.energy.features(theta, points), points)
        return Trunk(points, features, pullback)

    def lower_loss(self, phi: Params, theta: Params, data: LowerInput) -> Float[Array, ""]:
        """G(phi, theta)."""
        return self.posterior_loss(self.divergence, phi, theta, data)

    def higher_loss(
        self,
        theta: Params,
        phi: Params,
        v: Float[Array, "batch *visible"],
        noise: LevelNoise,
        trunk: Trunk | None = None,
    ) -> Float[Array, ""]:
        """J(theta, phi), with the latents drawn at the perturbed points; `trunk` is computed where None."""
        trunk = self.trunk(theta, v, noise.visible) if trunk is None else trunk

        def of_mean_score(latents: Noise) -> Float[Array, " batch"]:
            return self._point_losses(theta, phi, v, noise.visible, trunk, latents)

        if self.particle_average == "scores":
            return of_mean_score(noise.latent).mean()
        # The mean of the losses is that of mean scores of one particle each.
        alone = jax.tree.map(lambda leaf: leaf[:, None], noise.latent)
        return map_particles(of_mean_score, alone).mean()

    def _point_losses(
        self, theta: Params, phi: Params, v: Array, visible: Noise, trunk: Trunk, latents: Noise
    ) -> Float[Array, " batch"]:
        """The objective of each data point at the mean score of its particles, `[P, ...]`."""
        if not isinstance(self.objective, PointwiseObjective):
            # A Jacobian needs a function of v, and the trunk is values: the energy is evaluated whole.
            def score_fn(points: Array) -> Array:
                score_at = lambda latent: self._score_fn(theta, phi, trunk, latent)(points)  # noqa: E731
                return map_particles(score_at, latents).mean(axis=0)

            return self.objective.loss(score_fn, v, visible)
        posterior = self.posterior_fn(phi, trunk.points)

        def score_value(latent: Noise) -> Array:
            sample = sample_latents(posterior, latent)
            return factored_score(self.energy.head, self.posterior_fn, theta, phi, sample, *trunk)

        score = map_particles(score_value, latents).mean(axis=0)
        return self.objective.pointwise_loss(score, v, visible)

    def _score_fn(self, theta: Params, phi: Params, trunk: Trunk, latent: Noise) -> ScoreFn:
        """The field of one particle a data point, for an objective that takes its Jacobian."""
        if self.moves_latents:
            return moving_latent_score(self.energy, self.posterior_fn, theta, phi, latent)
        # Drawn outside the field, whose Jacobian therefore holds h.
        sample = sample_latents(self.posterior_fn(phi, trunk.points), latent)
        return latent_score(self.energy, self.posterior_fn, theta, phi, sample)

    def unrolled_loss(
        self,
        theta: Params,
        phi: Params,
        v: Float[Array, "batch *visible"],
        noise: LevelNoise,
        strategy: Strategy,
        lower_problem: LowerProblem,
        inputs: PyTree = None,
        opt_state: PyTree = None,
        trunk: Trunk | None = None,
    ) -> tuple[Float[Array, ""], LowerSolution]:
        """J(theta, phi^N(theta)), whose gradient in theta is the hypergradient, and the solution."""
        solution = strategy.solve(lower_problem, phi, theta, inputs, opt_state)
        return self.higher_loss(theta, solution.phi, v, noise, trunk), solution


def split_leading(tree: PyTree, index: int) -> tuple[Any, Any]:
    """The first `index` slices of each leaf, and the others."""
    return jax.tree.map(lambda leaf: leaf[:index], tree), jax.tree.map(lambda leaf: leaf[index:], tree)
