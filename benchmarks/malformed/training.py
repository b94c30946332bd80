"""Malformed calls of `bism_jax.training`, but for those of `fit` itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bism_jax
from benchmarks.malformed.campaign import Call
from benchmarks.malformed.values import scratch_folder
from bism_jax import DSM, KL, BiSM, FitResult, PersistentVI, ScoreMatching, StopGradient, training
from bism_jax.models import GRBM, BernoulliPosterior

PACKAGE = "bism_jax.training"
EXEMPT = {
    "Callback": "abstract",
    "DivergenceError": "raised by fit",
    "FitResult": "a result",
    "Plan": "a result",
    "PlannedStrategy": "a result",
    "Snapshot": "a result",
    "StopTraining": "raised by a callback",
    "clear_programs": "takes no arguments",
    "release_freed_memory": "takes no arguments",
}
V = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
_FOLDER = scratch_folder()
_HUGE = {"every: huge": "never but at the end"}
_SGD = optax.sgd(0.1)


def count(fn: Any, argument: Any, while_turns: Any) -> float:
    """`count_flops` with its arguments by name."""
    return training.count_flops(fn, argument, while_turns=while_turns)


def traced_fit(data: Any) -> Any:
    """`fit` on the rows of `(transformation, rows)`, within the transformation."""
    transform, rows = data
    options: Any = {"method": ScoreMatching(optimizer=_SGD), "num_steps": 1, "batch_size": 4}
    return transform(lambda rows: bism_jax.fit(GRBM(2), None, rows, **options).history["loss"].sum())(rows)


def fit_by(optimizer: Any = _SGD, num_data: Any = None) -> Any:
    """A short run by a method without a posterior."""
    method = ScoreMatching(optimizer=optimizer) if num_data is None else PersistentVI(num_data)
    return bism_jax.fit(GRBM(2), None, V, method=method, num_steps=1, batch_size=3)


def calls() -> dict[str, Call]:
    """One valid call for each public name."""
    theta = GRBM(2).init(jax.random.key(0), V, np.zeros((6, 2), np.float32))
    result = FitResult(theta, theta, {}, None, [])
    logs = {
        name: Call(
            log,
            {"path": _FOLDER / "log", "every": 10},
            {"path": "path", "every": "count"},
            (),
            _HUGE,
        )
        for name, log in (("CSVLog", training.CSVLog), ("JSONLLog", training.JSONLLog))
    }
    asking = {
        "lbfgs": optax.lbfgs(),
        "polyak": optax.polyak_sgd(),
        "plateau": optax.chain(_SGD, optax.contrib.reduce_on_plateau()),
    }
    refused = tuple({"optimizer": optimizer} for optimizer in asking.values())
    refused += tuple({"num_data": rows} for rows in (3, 5, 60))
    return {
        "fit": Call(fit_by, {"optimizer": _SGD}, {}, refused),
        "fit inside a transformation": Call(
            traced_fit,
            {"data": (lambda fn: fn, jnp.asarray(V))},
            {},
            tuple({"data": (around, jnp.asarray(V))} for around in (jax.jit, jax.grad, jax.vmap)),
        ),
        "Evaluate": Call(
            training.Evaluate,
            {"fn": lambda snapshot: {}, "every": 10},
            {"fn": "function", "every": "count"},
            (),
            {**_HUGE, "fn: no_arguments": "it is called later", "fn: a_class": "one that makes a mapping"},
        ),
        **logs,
        "TensorBoardLog": Call(
            training.TensorBoardLog,
            {"log_dir": _FOLDER / "board", "every": 10},
            {"log_dir": "path", "every": "count"},
            (),
            _HUGE,
        ),
        "count_flops": Call(
            count,
            {"fn": jnp.sin, "argument": V, "while_turns": 1},
            {"fn": "function", "while_turns": "count"},
            ({"argument": "x"},),
            {"while_turns: huge": "a loop that long may be meant"},
        ),
        "plan": Call(
            training.plan,
            {"energy_fn": GRBM(2), "posterior_fn": BernoulliPosterior(2), "batch": V, "method": BiSM()}
            | {"strategies": [StopGradient(1)], "memory_budget": None, "init_params": None}
            | {"progress": False},
            {"energy_fn": "model", "posterior_fn": "model", "batch": "rows", "method": "instance"}
            | {"memory_budget": "batch_size", "progress": "flag"},
            (
                {"strategies": []},
                {"strategies": 3},
                {"strategies": [KL()]},
                {"strategies": StopGradient(1)},
                {"strategies": [StopGradient]},
                {"method": ScoreMatching(DSM(0.1))},
                {"init_params": result},
                {"init_params": (theta, theta)},
                {"init_params": (theta, None)},
            ),
            {
                "batch: NaN": "its values do not matter",
                "batch: infinite": "its values do not matter",
                "batch: one column more": "initial parameters fit any number of columns",
            },
        ),
    }
