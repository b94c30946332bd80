"""The Fisher divergence to data of unknown density, by a critic."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._contract import as_model
from bism_jax._contract.guarded_calls import check_parameters, guarded_model
from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.compilation import compiled
from bism_jax.checks import called
from bism_jax.evaluation._model_functions import capability_of, checked_rows
from bism_jax.evaluation.likelihood._critic_training import (
    CriticFisher,
    CriticValue,
    TrainingPlan,
    train_and_measure,
)
from bism_jax.models import MLPCritic
from bism_jax.typing import Params

_CALLER = "critic_fisher_divergence"


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
    value = CriticValue(energy_fn, posterior_fn, critic, num_particles, variance_reduced, num_projections)
    plan = TrainingPlan(num_steps, batch_size, _num_held_out(v, held_out))
    # The learning rate is an argument of the program, so that another one compiles nothing.
    return compiled(functools.partial(train_and_measure, value, plan))(theta, phi, v, rng_key, learning_rate)


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
        capability_of(_CALLER, energy_fn, "free_energy")
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
    # Shapes alone, before anything is compiled; no key changes them.
    params = called(f"critic={model.name}", jax.eval_shape, init_fn, jax.random.key(0), row)
    f = jax.eval_shape(model.apply, params, row)
    if getattr(f, "shape", None) != row.shape:
        raise ValueError(
            f"critic={model.name} takes {row.shape} to {getattr(f, 'shape', f)}; it must keep the shape of v."
        )
