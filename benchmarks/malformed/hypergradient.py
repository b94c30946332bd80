"""Malformed calls of `bism_jax.hypergradient`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.malformed.allowed import of_kinds
from benchmarks.malformed.campaign import Call
from bism_jax import hypergradient
from bism_jax.hypergradient import Implicit, LowerProblem, StopGradient, Truncated, Unrolled

PACKAGE = "bism_jax.hypergradient"
EXEMPT = {"AdjointSolution": "a result", "LowerSolution": "a result", "Strategy": "a protocol"}
_PHI = {"w": jnp.ones(3), "b": jnp.zeros(2)}
_OTHER = {"w": jnp.ones(4), "b": jnp.zeros(2)}
_SGD = optax.sgd(0.1)
_TRACED = "values are traced as a rule, so they are not looked at"
_HUGE = {f"{name}: huge": "a loop that long may be wanted" for name in ("num_steps", "solver_steps", "last")}
# The upper level takes any tree of numbers.
_THETA = {
    "theta: NaN": _TRACED,
    "theta: infinite": _TRACED,
    "theta: integers": "they carry no derivative",
    "phi: NaN": _TRACED,
    "phi: infinite": _TRACED,
}
_BY_ADAM = LowerProblem(lambda phi, theta, x: jnp.sum(phi["w"] ** 2), optax.adam(0.1))
_STATES = (
    {"opt_state": optax.adam(0.1).init(_PHI)},
    {"opt_state": optax.sgd(0.1, momentum=0.9).init(_PHI)},
    {"opt_state": ()},
    {"opt_state": {"count": jnp.zeros(())}},
    {"problem": _BY_ADAM, "opt_state": _SGD.init(_PHI)},
    {"problem": _BY_ADAM, "opt_state": optax.adam(0.1).init(_OTHER)},
)


def loss(phi: Any, theta: Any, x: Any) -> Any:
    """A quadratic in phi."""
    return jnp.sum((phi["w"] - theta["w"] * x) ** 2) + jnp.sum((phi["b"] - theta["b"]) ** 2)


def _problems(*losses: Any) -> tuple[dict[str, Any], ...]:
    return tuple({"problem": LowerProblem(fn, _SGD)} for fn in losses)


def _with(optimizer: optax.GradientTransformation) -> dict[str, Any]:
    return {"problem": LowerProblem(loss, optimizer)}


def calls() -> dict[str, Call]:
    """One valid call for each public name."""
    solve: dict[str, Any] = {"problem": LowerProblem(loss, _SGD), "phi": _PHI, "theta": _PHI}
    solve |= {"inputs": jnp.ones((2, 3)), "opt_state": None}
    kinds = {"problem": "instance", "phi": "phi", "theta": "theta", "opt_state": "instance"}
    inputs = tuple(
        {"inputs": bad} for bad in (jnp.ones((3, 3)), jnp.ones(()), "x", jnp.ones((2, 4)), {"x": object()})
    )
    losses = _problems(lambda phi, theta: 0.0, lambda phi, theta, x: phi["w"], lambda phi, theta, x: None)
    losses += _problems(lambda phi, theta, x: (loss(phi, theta, x), 0.0), lambda phi, theta, x: 3)
    asking = (
        _with(optax.lbfgs()),
        _with(optax.polyak_sgd()),
        _with(optax.chain(_SGD, optax.contrib.reduce_on_plateau())),
        _with(optax.chain(_SGD, optax.scale_by_backtracking_linesearch(3))),
        {"problem": LowerProblem(loss, _SGD, axis_name="devices")},
    )
    strategies: dict[str, Any] = {
        "Unrolled.solve": Unrolled(2),
        "Truncated.solve": Truncated(2, 1),
        "Implicit.solve": Implicit(2),
        "StopGradient.solve": StopGradient(2),
    }
    solved = {
        name: Call(
            strategy.solve,
            solve,
            kinds,
            (*inputs, *losses, *_STATES, *asking, {"phi": _PHI, "theta": _OTHER}),
            _THETA,
        )
        for name, strategy in strategies.items()
    }
    return {
        "Unrolled": Call(
            Unrolled,
            {"num_steps": 2, "segment": 1, "mixed_mode": True, "trusted": ()},
            {"num_steps": "count_from_0", "mixed_mode": "flag"},
            ({"segment": 0}, {"segment": "cbrt"}, {"segment": 1.5}, {"trusted": [loss]}, {"trusted": ("f",)}),
            of_kinds({"num_steps": "count"}, _HUGE),
        ),
        "Truncated": Call(
            Truncated,
            {"num_steps": 2, "last": 1, "mixed_mode": True},
            {"num_steps": "count", "last": "count", "mixed_mode": "flag"},
            ({"last": 3}, {"trusted": loss}),
            {"num_steps: huge": _HUGE["num_steps: huge"]},
        ),
        "Implicit": Call(
            Implicit,
            {"num_steps": 2, "solver": "cg", "solver_steps": 5, "damping": 0.0, "step_size": 0.1}
            | {"tolerance": 0.1},
            {"num_steps": "count", "solver": "choice", "solver_steps": "count", "damping": "non_negative"}
            | {"step_size": "positive", "tolerance": "positive"},
            (),
            of_kinds({"num_steps": "count", "solver_steps": "count"}, _HUGE),
        ),
        "StopGradient": Call(
            StopGradient,
            {"num_steps": 2},
            {"num_steps": "count_from_0"},
            ({"num_steps": -2},),
            of_kinds({"num_steps": "count"}, _HUGE),
        ),
        "LowerProblem": Call(
            hypergradient.LowerProblem,
            {"loss_fn": loss, "optimizer": _SGD, "axis_name": None},
            {"loss_fn": "function", "optimizer": "instance"},
            ({"axis_name": 3}, {"axis_name": ["i"]}, {"optimizer": optax.sgd}, {"optimizer": 0.1}),
            {"loss_fn: no_arguments": "it is called by solve, which refuses it"},
        ),
        **solved,
        "Implicit.solve_adjoint": Call(
            Implicit(2).solve_adjoint,
            {"problem": LowerProblem(loss, _SGD), "phi": _PHI, "theta": _PHI, "input_k": jnp.ones(3)}
            | {"cotangent": _PHI},
            {"problem": "instance", "phi": "phi", "theta": "theta", "cotangent": "phi"},
            ({"input_k": jnp.ones(4)}, {"input_k": "x"}, {"cotangent": _OTHER}, {"cotangent": np.ones(3)}),
            {**_THETA, "cotangent: NaN": _TRACED, "cotangent: infinite": _TRACED},
        ),
    }
