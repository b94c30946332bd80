"""Variational noise-contrastive estimation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from bism_jax import checks
from bism_jax._contract import factor, latent_log_prob, map_particles, sample_latents
from bism_jax._contract.initialisation import init_latent_model
from bism_jax.hypergradient import LowerSolution
from bism_jax.methods._common.algorithm import start_optimizers
from bism_jax.methods._common.descent import descend
from bism_jax.methods._common.lower_level import fit_posterior
from bism_jax.methods._common.method import BoundModel, TrainingMethod
from bism_jax.methods._common.optimizers import DEFAULT_OPTIMIZERS, Optimizers
from bism_jax.methods._common.states import no_iterations
from bism_jax.methods.losses._bilevel import LatentModel, LowerInput
from bism_jax.methods.losses._noise_contrast import (
    check_distribution,
    check_noise,
    draw_noise_points,
    logistic_loss,
    noise_for,
)
from bism_jax.objectives import KL
from bism_jax.typing import Algorithm, Noise, Params


class VNCEState(NamedTuple):
    """What the next iteration of `VNCE` needs.

    Attributes:
        theta: energy parameters.
        phi: posterior parameters.
        log_partition: the learned log Z.
        theta_opt_state: the optimiser's state, of theta and log Z.
        phi_opt_state: the lower level's.
        iteration: the number of iterations done.
    """

    theta: Params
    phi: Params
    log_partition: Float[Array, ""]
    theta_opt_state: PyTree
    phi_opt_state: PyTree
    iteration: Int[Array, ""]


class VNCEInfo(NamedTuple):
    """Diagnostics of an iteration of `VNCE`.

    Attributes:
        loss: the logistic loss before the step in theta.
        lower_loss: the lower-level loss before its last step.
        grad_norm: the norm of the gradient in theta.
        log_partition: the learned log Z after the step.
    """

    loss: Float[Array, ""]
    lower_loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    log_partition: Float[Array, ""]


class VNCENoise(NamedTuple):
    """The noise of the loss in theta.

    Attributes:
        v: noise points, `[nu, B, *visible]`.
        data_latent: the posterior's noise at the data, `[1, B, ...]`.
        noise_latent: and at the noise points, `[nu, P, B, ...]`.
    """

    v: Array
    data_latent: Noise
    noise_latent: Noise


@dataclass(frozen=True)
class VNCE(TrainingMethod):
    """Variational noise-contrastive estimation of an energy with latents and its log-partition.

        min_{theta, c} mean_data softplus(log nu - G(v, h)) + nu mean_noise softplus(G_P(y) - log nu)
        G(v, h) = -E(v, h) - log q(h | v) - c - log p_noise(v),                        h ~ q(h | v)
        G_P(y) = log mean_p exp(-E(y, h_p) - log q(h_p | y)) - c - log p_noise(y),   h_p ~ q(h | y)

    One iteration: K steps on KL(q || p(h | v; theta)) in phi, at the data, as Bao et al. have it (the authors
    maximise their own bound in phi, with the same optimum); one step in theta and c with the latents held
    fixed. (Rhodes and Gutmann, AISTATS 2019, arXiv 1810.08010.)

    Attributes:
        lower_steps: K.
        noise_ratio: nu, noise points a data point.
        num_particles: P, latents a noise point.
        noise: a distribution over one data point; None is the standard normal.
        optimizers: of theta (with c) and phi.

    Raises:
        ValueError: where a count is no integer of at least 1.
        TypeError: for what is no distribution or no pair of optimisers.
    """

    state_type = VNCEState
    fits_posterior = True

    lower_steps: int = 5
    noise_ratio: int = 1
    num_particles: int = 5
    noise: Any = None
    optimizers: Optimizers = DEFAULT_OPTIMIZERS

    def __post_init__(self) -> None:
        check_distribution(self.noise)
        for name in ("lower_steps", "noise_ratio", "num_particles"):
            checks.positive_int(name, getattr(self, name))
        checks.optimizer_pair("optimizers", self.optimizers)

    def _bind(self, model: BoundModel) -> Algorithm:
        energy, posterior, init_params, shard = model
        latent_model = LatentModel(factor(energy), posterior.apply, shard=shard)

        def init(rng_key: Key[Array, ""], batch: Array) -> VNCEState:
            check_noise(self.noise, batch)
            theta, phi = init_latent_model(energy, posterior, rng_key, batch, init_params)
            # In the data's dtype: with x64 a float64 scalar would widen the loss of float32 data.
            log_partition = jnp.zeros((), batch.dtype)
            opt_states = start_optimizers(self.optimizers, (theta, log_partition), phi)
            return VNCEState(theta, phi, log_partition, *opt_states, no_iterations())

        def step(rng_key: Key[Array, ""], state: VNCEState, batch: Array) -> tuple[VNCEState, VNCEInfo]:
            lower_key, noise_key = jax.random.split(rng_key)
            lower = self._fit_posterior(latent_model, lower_key, state, batch)
            noise = self.draw_noise(latent_model, noise_key, lower.phi, batch)

            def loss_fn(params: tuple[Params, Array]) -> Float[Array, ""]:
                return self.higher_loss(latent_model, params, lower.phi, batch, noise)

            params = (state.theta, state.log_partition)
            (theta, log_partition), theta_opt_state, loss, grads, _ = descend(
                loss_fn, self.optimizers.theta, params, state.theta_opt_state, shard, state.iteration
            )
            info = VNCEInfo(loss, lower.losses[-1], optax.tree.norm(grads[0]), log_partition)
            new_state = VNCEState(
                theta, lower.phi, log_partition, theta_opt_state, lower.opt_state, state.iteration + 1
            )
            return new_state, info

        return Algorithm(init, step)

    def draw_noise(self, model: LatentModel, rng_key: Key[Array, ""], phi: Params, v: Array) -> VNCENoise:
        """All noise of the loss in theta."""
        point_key, data_key, latent_key = jax.random.split(rng_key, 3)
        points = draw_noise_points(self.noise, point_key, v, self.noise_ratio, model.shard)
        # log(1 + nu / r) is convex in the ratio r, so one latent bounds the data's part from above in mean;
        # log(1 + r / nu) is concave, so on noise the ratios of P latents are averaged before the logarithm.
        data_latent = model.draw_particles_noise(data_key, phi, v, (1,))
        sample_shape = (self.noise_ratio, self.num_particles)
        return VNCENoise(points, data_latent, model.draw_particles_noise(latent_key, phi, v, sample_shape))

    def higher_loss(
        self,
        model: LatentModel,
        params: tuple[Params, Array],
        phi: Params,
        v: Float[Array, "batch *visible"],
        noise: VNCENoise,
    ) -> Float[Array, ""]:
        """The logistic loss as a deterministic function of its noise; no gradient flows to phi."""
        theta, log_partition = params
        phi = jax.lax.stop_gradient(phi)
        log_noise = noise_for(self.noise, v).log_prob

        def log_ratio(v: Array, latent: Noise) -> Float[Array, " batch"]:
            # Outside the map over particles, which then share one pass through the features.
            posterior, features = model.posterior_fn(phi, v), model.energy.features(theta, v)

            def log_weight(latent: Noise) -> Float[Array, " batch"]:
                sample = jax.lax.stop_gradient(sample_latents(posterior, latent))
                return -model.energy.head(theta, v, features, sample.h) - latent_log_prob(posterior, sample)

            log_weights = map_particles(log_weight, latent)
            # In logarithms: float32 has no exp(-E) where E is below -88.
            log_mean = jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])
            return log_mean - log_partition - log_noise(v)

        # Not by vmap: with nu = 1, the default, its batched product of one is slower than the product.
        on_noise = map_particles(lambda point: log_ratio(*point), (noise.v, noise.noise_latent))
        return logistic_loss(log_ratio(v, noise.data_latent), on_noise)

    def _fit_posterior(
        self, model: LatentModel, rng_key: Key[Array, ""], state: VNCEState, v: Array
    ) -> LowerSolution:
        """K optimiser steps on KL(q || p(h | v; theta)) at the data, each on fresh noise."""
        # As `BilevelProblem.draw_noise` splits it; the other half is for visible noise, and there is none.
        latent_key = jax.random.split(rng_key)[1]
        latent = model.draw_particles_noise(latent_key, state.phi, v, (self.lower_steps, 1))
        # Neither theta nor v moves in the K steps.
        features = model.energy.features(state.theta, v)

        def loss_fn(phi: Params, theta: Params, latent: Noise) -> Float[Array, ""]:
            return model.posterior_loss(KL(), phi, theta, LowerInput(v, 1.0, latent, features))

        return fit_posterior(loss_fn, self.lower_steps, self.optimizers.phi, state, latent, model.shard)
