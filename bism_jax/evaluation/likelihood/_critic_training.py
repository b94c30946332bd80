"""The training of a critic whose value is a Fisher divergence at its maximum."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bism_jax._contract import as_model, draw_latent_noise, map_particles, sample_latents
from bism_jax.evaluation._model_functions import capability_of, energy_of, posterior_of
from bism_jax.methods._common.optimizers import apply_gradient
from bism_jax.objectives import SSM, latent_score, marginal_score, sum_events
from bism_jax.typing import Noise, Params, ScoreFn


class CriticFisher(NamedTuple):
    """A lower bound of a Fisher divergence, reached by a critic.

    Attributes:
        value: the critic's value on the held-out rows.
        standard_error: of `value`, over those rows.
        train_values: its value on each training batch, `[num_steps]`; level at the end where the critic has
            converged, and above `value` where it has overfitted.
    """

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    train_values: Float[Array, " num_steps"]


class CriticValue(NamedTuple):
    """s^T f + mean_u u^T grad f u - 1/2 |f|^2 of each row, s the model's score; of the models in it."""

    energy_fn: Any
    posterior_fn: Any
    critic: Any
    num_particles: int
    variance_reduced: bool
    num_projections: int

    def bind(self, theta: Params, phi: Params) -> Callable[[Params, Array, Array], Float[Array, " batch"]]:
        """`(critic_params, rng_key, v) -> [batch]`."""
        critic = as_model("critic", self.critic)

        def values(critic_params: Params, rng_key: Array, v: Array) -> Float[Array, " batch"]:
            score_key, projection_key = jax.random.split(rng_key)
            score = self._model_score(theta, phi, score_key, v)
            projections = SSM().draw_noise(projection_key, v, (self.num_projections,))
            return _critic_values(lambda v: critic.apply(critic_params, v), score, v, projections)

        return values

    def _model_score(
        self, theta: Params, phi: Params, rng_key: Array, v: Array
    ) -> Float[Array, "batch *visible"]:
        if self.posterior_fn is None:
            free_energy = capability_of("critic_fisher_divergence", self.energy_fn, "free_energy")
            return marginal_score(free_energy, theta)(v)
        energy_fn, posterior_fn = energy_of(self.energy_fn), posterior_of(self.posterior_fn)
        posterior = posterior_fn(phi, v)

        def particle_score(noise: Noise) -> Float[Array, "batch *visible"]:
            sample = sample_latents(posterior, noise)
            if self.variance_reduced:
                return latent_score(energy_fn, posterior_fn, theta, phi, sample)(v)
            # At a given h an energy is a free energy of v, whose score needs no q.
            return marginal_score(lambda theta, v: energy_fn(theta, v, sample.h), theta)(v)

        noise = draw_latent_noise(rng_key, posterior, (self.num_particles,))
        return map_particles(particle_score, noise).mean(axis=0)


def _critic_values(
    critic_fn: ScoreFn, score: Array, v: Array, projections: Float[Array, "projections batch *visible"]
) -> Float[Array, " batch"]:
    """s^T f + mean_u u^T grad f u - 1/2 |f|^2 of each row."""
    # One evaluation of the critic gives f and the linear map that all projections go through.
    f, jacobian_vector = jax.linearize(critic_fn, v)
    trace = jax.vmap(lambda u: sum_events(u * jacobian_vector(u)))(projections).mean(axis=0)
    return sum_events(score * f - 0.5 * f**2) + trace


class TrainingPlan(NamedTuple):
    """The steps of a critic's training, and the rows that it leaves to measure on."""

    num_steps: int
    batch_size: int
    num_held_out: int


def train_and_measure(
    value: CriticValue,
    plan: TrainingPlan,
    theta: Params,
    phi: Params,
    v: Array,
    rng_key: Array,
    learning_rate: Array,
) -> CriticFisher:
    """Trains the critic on a part of the rows of v, and takes its value on the others."""
    split_key, init_key, train_key, test_key = jax.random.split(rng_key, 4)
    # Data sets often lie in order of class or time, and both parts must be of one distribution.
    v = jax.random.permutation(split_key, jnp.asarray(v))
    test, train = v[: plan.num_held_out], v[plan.num_held_out :]
    values, optimizer = value.bind(theta, phi), optax.adam(learning_rate)

    def step(carry: tuple[Params, Any], key: Array) -> tuple[tuple[Params, Any], Array]:
        critic_params, opt_state = carry
        row_key, value_key = jax.random.split(key)
        # With replacement, so that the compiled loop carries no order of an epoch.
        batch = train[jax.random.randint(row_key, (plan.batch_size,), 0, len(train))]
        loss, grads = jax.value_and_grad(lambda p: -values(p, value_key, batch).mean())(critic_params)
        return apply_gradient(optimizer, grads, opt_state, critic_params), -loss

    critic_params = as_model("critic", value.critic).init(init_key, v[:1])  # type: ignore[misc]
    carry = critic_params, optimizer.init(critic_params)
    carry, train_values = jax.lax.scan(step, carry, jax.random.split(train_key, plan.num_steps))
    measure = functools.partial(values, carry[0])
    return _measured(measure, test, test_key, plan.batch_size, train_values)


def _measured(
    values: Callable[[Array, Array], Array], v: Array, rng_key: Array, batch_size: int, train_values: Array
) -> CriticFisher:
    # A key a row, so that the value does not depend on the batch size.
    found = jax.lax.map(
        lambda inputs: values(inputs[0], inputs[1][None])[0],
        (jax.random.split(rng_key, len(v)), v),
        batch_size=batch_size,
    )
    return CriticFisher(found.mean(), found.std(ddof=1) / jnp.sqrt(len(v)), train_values)
