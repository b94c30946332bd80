"""Marginal score matching on a known free energy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from bism_jax import checks
from bism_jax.methods.batch_shard import BatchShard
from bism_jax.methods.model_checks import check_free_energy
from bism_jax.methods.optimizers import paper_adam
from bism_jax.methods.parameters import init_free_energy
from bism_jax.models import as_model
from bism_jax.objectives import DSM, Objective, marginal_score
from bism_jax.typing import Algorithm, Params

_DEFAULT_OPTIMIZER = paper_adam()


class ScoreMatchingState(NamedTuple):
    """What the next iteration needs.

    Attributes:
        theta: energy parameters.
        theta_opt_state: the optimiser's state.
        iteration: the number of iterations done.
    """

    theta: Params
    theta_opt_state: PyTree
    iteration: Int[Array, ""]


class ScoreMatchingInfo(NamedTuple):
    """What a person wants to look at.

    Attributes:
        loss: the objective before the step.
        grad_norm: the norm of its gradient.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]


@dataclass(frozen=True)
class ScoreMatching:
    """Score matching of a marginal density p(v) = exp(-F(v; theta)) / Z whose free energy is known.

        min_theta mean_b F(-grad_v F(v_b; theta), noise_b, v_b)

    The energy's `free_energy` is used where it has one, `(theta, v) -> [B]`; a plain function without
    one is taken as the free energy itself. No posterior is needed.

    Attributes:
        objective: `DSM`, `MDSM`, `SSM` or `SM`.
        optimizer: of theta.
    """

    objective: Objective = DSM()
    optimizer: optax.GradientTransformation = _DEFAULT_OPTIMIZER

    def __post_init__(self) -> None:
        checks.instance("objective", self.objective, Objective, "DSM(noise_std=0.1)")
        checks.optimizer("optimizer", self.optimizer)

    def bind(
        self,
        energy_fn: Any,
        posterior_fn: Any = None,
        *,
        init_params: tuple[Params, Params] | None = None,
        axis_name: str | None = None,
    ) -> Algorithm:
        """The algorithm on a model; see `bism_jax.typing.Method.bind`.

        Raises:
            ValueError: where a posterior is given, or the model has no free energy.
        """
        if posterior_fn is not None:
            raise ValueError("ScoreMatching takes no posterior_fn: pass None, or train by BiSM.")
        energy = as_model("energy_fn", energy_fn)
        free_energy = energy.method("free_energy")
        if free_energy is None and energy.init is not None:
            raise ValueError(
                f"ScoreMatching needs a free energy, but energy_fn={energy.name} has no method "
                "free_energy(v). Add it where the latents can be summed out, or train by BiSM."
            )
        marginal = replace(energy, apply=free_energy or energy.apply)
        shard = BatchShard(axis_name)

        def init(rng_key: Key[Array, ""], batch: Array) -> ScoreMatchingState:
            theta = init_free_energy(energy, rng_key, batch, init_params)
            check_free_energy(marginal, theta, batch)
            return ScoreMatchingState(theta, self.optimizer.init(theta), jnp.zeros((), jnp.int32))

        def step(
            rng_key: Key[Array, ""], state: ScoreMatchingState, batch: Array
        ) -> tuple[ScoreMatchingState, ScoreMatchingInfo]:
            noise = self.objective.draw_noise(rng_key, shard.global_batch(batch))
            noise = shard.rows(noise, 0, batch.shape[0])

            def loss_fn(theta: Params) -> Float[Array, ""]:
                score_fn = marginal_score(marginal.apply, theta)
                return self.objective.loss(score_fn, batch, noise).mean()

            loss, grads = shard.mean(jax.value_and_grad(loss_fn)(state.theta))
            updates, opt_state = self.optimizer.update(grads, state.theta_opt_state, state.theta)
            theta = optax.apply_updates(state.theta, updates)
            info = ScoreMatchingInfo(loss, optax.tree.norm(grads))
            return ScoreMatchingState(theta, opt_state, state.iteration + 1), info

        return Algorithm(init, step)
