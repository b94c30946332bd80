"""What of a run is made before anything of its loop is compiled."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bism_jax._precision import as_working
from bism_jax._tracing.compilation import call_compiled
from bism_jax._tracing.jaxpr_key import jaxpr_key
from bism_jax.training._checkpoints.description import (
    Description,
    describe,
    describe_iteration,
    describe_state,
    digest_of_arrays,
    settings,
    versions,
)
from bism_jax.training._freed_memory import release_freed_memory
from bism_jax.training._loop.chunk import (
    KeyImpls,
    LoopState,
    key_impls_of,
    runs_slowly_in_loop,
    start_state,
    trace_step,
    unwrap_keys,
)
from bism_jax.training._loop.devices import Layout, make_layout
from bism_jax.training._sources.source import DataSource, as_data_source
from bism_jax.typing import IterationFn, Method


class PreparedRun(NamedTuple):
    """A run before its first iteration.

    Attributes:
        step_fn: the algorithm's step, as it is mapped over the devices.
        source: where its batches come from.
        layout: the devices.
        state: the state before the first iteration.
        key_impl: the PRNG implementation of its key.
        key_impls: those of the typed keys in its state.
        one_step_a_call: whether the iteration must stay out of a loop.
        description: what determines the run; empty where nobody asks.
        iteration_key: a key of the iteration that others share only where it is the same program.
    """

    step_fn: IterationFn
    source: DataSource
    layout: Layout
    state: LoopState
    key_impl: str
    key_impls: KeyImpls
    one_step_a_call: bool
    description: Description
    iteration_key: Hashable


def prepare_run(
    method: Method,
    models: tuple[Any, Any, Any],
    data: Any,
    batch_size: int,
    rng_key: int | Array,
    ema_decay: float | None,
    parallel: str | None,
    is_described: bool,
) -> PreparedRun:
    """Checks data and models, and initialises.

    Args:
        method: how to train.
        models: energy, posterior and `init_params` of `fit`.
        data: as of `fit`, like the arguments that follow.
        batch_size: rows of the global batch.
        rng_key: a seed or a key.
        ema_decay: of the moving average, or None.
        parallel: the layout.
        is_described: whether the run is to be told from others, by its checkpoints or by other hosts.
    """
    key = _as_key(rng_key)
    energy_fn, posterior_fn, init_params = models
    algorithm = method.bind(energy_fn, posterior_fn, init_params=init_params)
    source = as_data_source(data, batch_size, tuple(np.ravel(jax.random.key_data(key)).tolist()))
    _check_num_rows(method, data)
    layout = make_layout(parallel, batch_size)
    mapped = method.bind(energy_fn, posterior_fn, init_params=init_params, axis_name=layout.axis_name)
    init_key, loop_key = call_compiled(lambda key: tuple(jax.random.split(key)), key)
    example = jax.device_put(as_working(source.example()))
    method_state = algorithm.init(init_key, example)
    release_freed_memory()
    key_impl = str(jax.random.key_impl(key))
    on_cpu = jax.default_backend() == "cpu"
    iteration = trace_step(algorithm.step, loop_key, method_state, example)
    description: Description = {}
    if is_described:
        description = {
            "method": describe(method),
            "energy_fn": describe(energy_fn),
            "posterior_fn": describe(posterior_fn),
            "init_params": None if init_params is None else digest_of_arrays(init_params),
            "data": source.fingerprint(),
            "batch_size": batch_size,
            "rng_key": f"{key_impl} {np.ravel(jax.random.key_data(key)).tolist()}",
            "ema_decay": ema_decay,
            "versions": versions(),
            "settings": settings(),
            "initial_state": describe_state(unwrap_keys(method_state)),
            "iteration": describe_iteration(iteration),
        }
    return PreparedRun(
        mapped.step,
        source,
        layout,
        start_state(method_state, loop_key, ema_decay),
        key_impl,
        key_impls_of(method_state),
        on_cpu and runs_slowly_in_loop(iteration),
        description,
        jaxpr_key(iteration),
    )


def _as_key(rng_key: int | Array) -> Array:
    is_seed = isinstance(rng_key, (int, np.integer)) and not isinstance(rng_key, bool)
    if is_seed and -(2**31) <= rng_key < 2**32:
        return jax.random.key(int(rng_key))
    is_key = jnp.issubdtype(getattr(rng_key, "dtype", float), jax.dtypes.prng_key)
    if not is_key or jnp.shape(rng_key) != ():
        raise ValueError(
            "rng_key must be a seed or a key of jax.random.key(seed), with a seed of 32 bits, not "
            f"{rng_key!r}."
        )
    return jnp.asarray(rng_key)


def _check_num_rows(method: Any, data: Any) -> None:
    """Tells a method the number of rows, where the method asks for it and the data knows it."""
    is_sized = hasattr(data, "__len__") and hasattr(data, "__getitem__")  # a loader's length is in batches
    if hasattr(method, "check_num_rows") and is_sized and not isinstance(data, list):
        method.check_num_rows(len(data))
