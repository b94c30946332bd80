"""The Fisher divergence to data of unknown density, by a critic."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._contract import as_model, draw_latent_noise, map_particles, sample_latents
from bism_jax._contract.guarded_calls import check_parameters, guarded_model
from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.compilation import compiled
from bism_jax.checks import called
from bism_jax.evaluation._model_functions import checked_rows, energy_of, posterior_of, require
from bism_jax.methods._common.optimizers import apply_gradient
from bism_jax.models import MLPCritic
from bism_jax.objectives import SSM, latent_score, marginal_score, sum_events
from bism_jax.typing import Noise, Params, ScoreFn

_CALLER = "critic_fisher_divergence"


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


@dataclass(frozen=True)
class _Options:
    num_particles: int
    variance_reduced: bool
    num_steps: int
    batch_size: int
    num_projections: int
    num_held_out: int


@with_transfers
def critic_fisher_divergence(
    energy_fn: Any,
    theta: Params,
    v: Float[Array | np.ndarray, "rows *visible"],
    rng_key: Key[Array, ""],
    *,
    posterior_fn: Any = None,
    phi: Params = None,
    num_particles: int = 5,
    variance_reduced: bool = False,
    critic: Any = None,
    learning_rate: float = 1e-3,
    num_steps: int = 2000,
    batch_size: int = 100,
    num_projections: int = 1,
    held_out: float = 0.2,
) -> CriticFisher:
    """Trains a critic f whose value is, at its maximum, the Fisher divergence between data and model:

        1/2 E|grad log p_data - s|^2 = max_f E[s(v)^T f(v) + tr grad f(v) - 1/2 |f(v)|^2]

    The expectations are over the data, whose density is not needed; the maximum is at f = s - grad log
    p_data. The trace is u^T grad f u, u uniform on {-1, 1}^d. The critic is trained by Adam on a part of
    the rows, and its value on the others is a lower bound of the divergence in expectation: a better critic
    raises it. (VaGES-Fisher, Bao et al., ICML 2021, arXiv 2010.08258.)

    The model's score s is exact, -grad_v F, where no posterior is given. Otherwise it is the mean over fresh
    h ~ q(h | v; phi) of grad_v[-E(v, h)], or of grad_v[-E - log q] (`variance_reduced`), which is the same
    in expectation where q is the true posterior and varies less.

    Args:
        energy_fn: a model, with `free_energy` where no posterior is given.
        theta: its parameters.
        v: the data; its rows are split at random.
        rng_key: key.
        posterior_fn: `(phi, v) -> distribution`, for a model without a free energy.
        phi: its parameters.
        num_particles: draws of h for each point and step.
        variance_reduced: whether log q is part of the score.
        critic: a Flax module `[B, *visible] -> [B, *visible]`; by default `MLPCritic()`.
        learning_rate: of Adam.
        num_steps: training steps.
        batch_size: rows a step.
        num_projections: draws of u for each point.
        held_out: the fraction of the rows that the critic is not trained on.

    Raises:
        TypeError: where an argument is of the wrong kind.
        ValueError: where there is neither a free energy nor a posterior, the critic has no initial
            parameters or changes the shape, or a number is out of range.
    """
    for name, count in (
        ("num_particles", num_particles),
        ("num_steps", num_steps),
        ("batch_size", batch_size),
        ("num_projections", num_projections),
    ):
        checks.loop_count(name, count)
    checks.positive("learning_rate", learning_rate)
    checks.fraction("held_out", held_out)
    checks.boolean("variance_reduced", variance_reduced)
    critic = MLPCritic() if critic is None else critic
    _check_models(energy_fn, posterior_fn, phi)
    v, rng_key = checked_rows(energy_fn, theta, v), checks.rng_key("rng_key", rng_key)
    _check_critic(critic, v)
    options = _Options(
        num_particles, variance_reduced, num_steps, batch_size, num_projections, _num_held_out(v, held_out)
    )
    run = compiled(functools.partial(_train_and_measure, energy_fn, posterior_fn, critic, options))
    return run(theta, phi, v, rng_key, learning_rate)


def _train_and_measure(
    energy_fn: Any,
    posterior_fn: Any,
    critic: Any,
    options: _Options,
    theta: Params,
    phi: Params,
    v: Array,
    rng_key: Array,
    learning_rate: Array,
) -> CriticFisher:
    critic_model, optimizer = as_model("critic", critic), optax.adam(learning_rate)
    split_key, init_key, train_key, test_key = jax.random.split(rng_key, 4)
    v = jax.random.permutation(split_key, jnp.asarray(v))
    test, train = v[: options.num_held_out], v[options.num_held_out :]

    def values(critic_params: Params, key: Array, v: Array) -> Float[Array, " batch"]:
        score_key, projection_key = jax.random.split(key)
        score = _model_score(energy_fn, posterior_fn, options, theta, phi, score_key, v)
        projections = SSM().draw_noise(projection_key, v, (options.num_projections,))
        return _critic_values(lambda v: critic_model.apply(critic_params, v), score, v, projections)

    def step(carry: tuple[Params, Any], key: Array) -> tuple[tuple[Params, Any], Array]:
        critic_params, opt_state = carry
        row_key, value_key = jax.random.split(key)
        batch = train[jax.random.randint(row_key, (options.batch_size,), 0, len(train))]
        loss, grads = jax.value_and_grad(lambda p: -values(p, value_key, batch).mean())(critic_params)
        return apply_gradient(optimizer, grads, opt_state, critic_params), -loss

    critic_params = critic_model.init(init_key, v[:1])  # type: ignore[misc]
    carry = critic_params, optimizer.init(critic_params)
    carry, train_values = jax.lax.scan(step, carry, jax.random.split(train_key, options.num_steps))
    test_values = jax.lax.map(
        lambda inputs: values(carry[0], inputs[0], inputs[1][None])[0],
        (jax.random.split(test_key, len(test)), test),
        batch_size=options.batch_size,
    )
    standard_error = test_values.std(ddof=1) / jnp.sqrt(len(test))
    return CriticFisher(test_values.mean(), standard_error, train_values)


def _model_score(
    energy_fn: Any, posterior_fn: Any, options: _Options, theta: Params, phi: Params, rng_key: Array, v: Array
) -> Float[Array, "batch *visible"]:
    if posterior_fn is None:
        return marginal_score(require(_CALLER, energy_fn, "free_energy"), theta)(v)
    energy_fn, posterior_fn = energy_of(energy_fn), posterior_of(posterior_fn)
    posterior = posterior_fn(phi, v)

    def particle_score(noise: Noise) -> Float[Array, "batch *visible"]:
        sample = sample_latents(posterior, noise)
        if options.variance_reduced:
            return latent_score(energy_fn, posterior_fn, theta, phi, sample)(v)
        return marginal_score(lambda theta, v: energy_fn(theta, v, sample.h), theta)(v)

    noise = draw_latent_noise(rng_key, posterior, (options.num_particles,))
    return map_particles(particle_score, noise).mean(axis=0)


def _critic_values(
    critic_fn: ScoreFn, score: Array, v: Array, projections: Float[Array, "projections batch *visible"]
) -> Float[Array, " batch"]:
    """s^T f + mean_u u^T grad f u - 1/2 |f|^2 of each row."""
    f, jacobian_vector = jax.linearize(critic_fn, v)
    trace = jax.vmap(lambda u: sum_events(u * jacobian_vector(u)))(projections).mean(axis=0)
    return sum_events(score * f - 0.5 * f**2) + trace


def _num_held_out(v: Array | np.ndarray, fraction: float) -> int:
    count = round(fraction * len(v))
    if count < 2 or count == len(v):
        raise ValueError(
            f"held_out={fraction} leaves {count} of the {len(v)} rows of v to measure on and "
            f"{len(v) - count} to train on; at least 2 and 1 are needed."
        )
    return count


def _check_models(energy_fn: Any, posterior_fn: Any, phi: Params) -> None:
    if posterior_fn is None:
        require(_CALLER, energy_fn, "free_energy")
    else:
        as_model("energy_fn", energy_fn)
        as_model("posterior_fn", posterior_fn)
        if phi is None:
            raise ValueError(f"{_CALLER} needs phi, the parameters of posterior_fn.")
        check_parameters("phi", phi, "posterior_fn", posterior_fn)


def _check_critic(critic: Any, v: Any) -> None:
    model = guarded_model("critic", critic)
    init_fn = model.init
    if init_fn is None:
        raise ValueError(
            f"critic={model.name} has no initial parameters; pass a Flax module such as MLPCritic()."
        )
    row = jax.ShapeDtypeStruct((1, *v.shape[1:]), jnp.result_type(v))
    params = called(f"critic={model.name}", jax.eval_shape, init_fn, jax.random.key(0), row)
    f = jax.eval_shape(model.apply, params, row)
    if getattr(f, "shape", None) != row.shape:
        raise ValueError(
            f"critic={model.name} takes {row.shape} to {getattr(f, 'shape', f)}; it must keep the shape of v."
        )
