"""Malformed calls of `bism_jax.samplers`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks.malformed.campaign import Call
from bism_jax import samplers
from bism_jax.models import GRBM, as_model, factor
from bism_jax.samplers import AnnealingSchedule

PACKAGE = "bism_jax.samplers"
EXEMPT = {"AnnealedSamples": "a result"}
KEY = jax.random.key(0)
_ROWS = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
_SCHEDULE = AnnealingSchedule(num_hot=2, num_cooling=2, num_freezing=2)
_OWN = "a function of one's own, which takes them"


def quadratic(x: Array) -> Array:
    """An energy of states, `[chains]`."""
    return 0.5 * (x**2).sum(axis=1)


def _broken(*args: Any) -> Any:
    raise KeyError("a fault of the function's own")


def _wrong_energies() -> tuple[Any, ...]:
    """Of any arguments: functions whose fault shows when they are called."""
    return (
        _broken,
        lambda *args: args[-1],
        lambda *args: args[-1].sum(),
        lambda *args: "energy",
        lambda *args: args[-1][:, 0] > 0,
    )


def calls() -> dict[str, Call]:
    """One valid call for each public name."""
    return {**_of_states(), **_of_models(), **_of_schedules()}


def _of_states() -> dict[str, Call]:
    energies = tuple({"energy_fn": fn} for fn in (*_wrong_energies(), GRBM(2)))
    states: tuple[dict[str, Any], ...] = (
        {"x": {"a": _ROWS, "b": _ROWS[:2]}},
        {"x": {}},
        {"x": (_ROWS, "b")},
        {"x": np.float32(1)},
    )
    start = {"energy_fn": quadratic, "rng_key": KEY, "x": _ROWS}
    kinds = {"energy_fn": "function", "rng_key": "key", "x": "states"}
    return {
        "langevin": Call(
            samplers.langevin,
            {**start, "num_steps": 2, "step_size": 0.1},
            {**kinds, "num_steps": "count_from_0", "step_size": "positive"},
            (*energies, *states),
        ),
        "annealed_langevin": Call(
            samplers.annealed_langevin,
            {**start, "schedule": _SCHEDULE, "num_snapshots": 1},
            {**kinds, "schedule": "instance", "num_snapshots": "count_from_0"},
            (*energies, *states, {"num_snapshots": 7}),
        ),
        "nuts": Call(
            samplers.nuts,
            {**start, "num_samples": 1, "num_warmup": 1, "progress": False},
            {**kinds, "num_samples": "count", "num_warmup": "count_from_0", "progress": "flag"},
            (*energies, *states),
        ),
        "initial_noise": Call(
            samplers.initial_noise,
            {"rng_key": KEY, "shape": (2, 3), "dtype": np.float32},
            {"rng_key": "key", "shape": "widths", "dtype": "dtype"},
        ),
        "interpolate": Call(
            samplers.interpolate,
            {"start": np.ones((2, 3)), "stop": np.full((2, 3), 2.0), "num": 3, "spherical": True},
            {"start": "features", "stop": "features", "num": "count", "spherical": "flag"},
            ({"num": 1}, {"start": np.zeros((2, 3))}, {"start": -np.ones((2, 3))}),
        ),
    }


def _of_models() -> dict[str, Call]:
    model, v, h = as_model("energy_fn", GRBM(3)), jnp.asarray(_ROWS), jnp.ones((4, 3))
    theta = jax.jit(GRBM(3).init)(KEY, v, h)
    wrong = tuple({"energy_fn": fn} for fn in (*_wrong_energies(), GRBM(3)))
    chains = ({"h": h[:2]}, {"v": v[:2]}, {"h": jnp.ones((4, 2))})
    both = {"energy_fn": model.apply, "theta": theta, "rng_key": KEY, "v": v, "h": h}
    both |= {"schedule": _SCHEDULE, "num_snapshots": 0}
    kinds = {"energy_fn": "function", "theta": "theta", "rng_key": "key", "v": "rows", "h": "rows"}
    kinds |= {"schedule": "instance", "num_snapshots": "count_from_0"}
    # Parameters are used as they are by a function, whatever their dtype.
    allowed = {"theta: integers": _OWN}
    observed = np.asarray(_ROWS) > 0
    found = {
        name: Call(getattr(samplers, name), both, kinds, (*wrong, *chains), allowed)
        for name in ("sample_joint", "sample_visible", "sample_latent")
    }
    return found | {
        "sample_latent of a factored energy": Call(
            samplers.sample_latent,
            {**both, "energy_fn": factor(model)},
            {"theta": "theta", "v": "rows", "h": "rows"},
            chains,
            allowed,
        ),
        "inpaint": Call(
            samplers.inpaint,
            {**both, "observed": observed},
            {**kinds, "observed": "mask"},
            (*wrong, *chains),
            {**allowed, "v: NaN": "what v holds where it is not observed does not matter"},
        ),
        "gibbs": Call(
            samplers.gibbs,
            {"sample_h": model.method("sample_h"), "sample_v": model.method("sample_v"), "theta": theta}
            | {"rng_key": KEY, "v": v, "num_steps": 2},
            {"sample_h": "function", "sample_v": "function", "theta": "theta", "rng_key": "key", "v": "rows"}
            | {"num_steps": "count"},
            tuple({name: fn} for name in ("sample_h", "sample_v") for fn in (_broken, lambda *args: 1.0)),
            allowed,
        ),
    }


def _of_schedules() -> dict[str, Call]:
    counts = dict.fromkeys(("num_hot", "num_cooling", "num_freezing"), "count_from_0")
    return {
        "AnnealingSchedule": Call(
            AnnealingSchedule,
            {"step_size": 0.02, "max_temperature": 100.0, "denoising_std": 0.1, **dict.fromkeys(counts, 2)},
            {
                "step_size": "positive",
                "max_temperature": "positive",
                "denoising_std": "non_negative",
                **counts,
            },
        ),
        "AnnealingSchedule.scaled": Call(_SCHEDULE.scaled, {"num_steps": 2}, {"num_steps": "count"}),
        "AnnealingSchedule.snapshot_steps": Call(
            _SCHEDULE.snapshot_steps, {"num_snapshots": 2}, {"num_snapshots": "count_from_0"}
        ),
    }
