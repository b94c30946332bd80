"""Many small runs at once: iterations a second of the checkerboard's step under `jax.vmap`."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.accelerator.cases import Case, Context
from benchmarks.accelerator.measure import compile_program, time_iterations
from bism_jax.models import GRBM, BernoulliPosterior
from experiments.methods import MethodConfig

_BATCH = 100
METHOD = MethodConfig(keep_unrolled=True, lower_steps=0, noise="shared")  # the library's default


def cases(context: Context) -> list[Case]:
    """By the number of seeds."""
    counts = (1, 4) if context.options.quick else (1, 16, 256, 1024)
    return [Case(_name(count), functools.partial(_measure, count, context)) for count in counts]


def _name(num_seeds: int) -> str:
    return f"{num_seeds} seeds"


def _measure(num_seeds: int, context: Context) -> dict[str, Any]:
    algorithm = METHOD.make().bind(GRBM(4), BernoulliPosterior(4))
    data = jax.random.uniform(jax.random.key(0), (20 * _BATCH, 2))
    keys = jax.random.split(jax.random.key(1), num_seeds)

    def iterate(index: Any, carry: Any) -> Any:
        key, state = carry
        key, rows_key, step_key = jax.random.split(key, 3)
        rows = jax.random.randint(rows_key, (_BATCH,), 0, len(data))
        return key, algorithm.step(step_key, state, data[rows])[0]

    def loop(count: Any, key: Any, state: Any) -> Any:
        return jax.lax.fori_loop(0, count, iterate, (key, state))

    state = jax.vmap(lambda key: algorithm.init(key, data[:_BATCH]))(keys)
    program = compile_program(jax.vmap(loop, in_axes=(None, 0, 0)), jnp.int32(1), keys, state)
    times = time_iterations(
        lambda count: jax.block_until_ready(program.call(jnp.int32(count), keys, state)),
        0.1 if context.options.quick else 2.0,
    )
    rate = 1e3 * num_seeds / times["ms"]
    single = context.value("seeds", _name(1), "iterations_per_s")
    return {
        "seeds": num_seeds,
        **times,
        "iterations_per_s": rate,
        "over_one_seed": None if single is None else rate / single,
        **program.columns,
    }
