"""What of a run is made before anything of its loop is compiled."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bism_jax._backend import convolves_slowly_in_loops
from bism_jax._precision import as_working
from bism_jax._tracing.compilation import call_compiled
from bism_jax._tracing.jax_internals import ClosedJaxpr
from bism_jax._tracing.jaxpr_key import jaxpr_key
from bism_jax._tracing.jaxprs import contains_primitive
from bism_jax.training._checkpoints.description import (
    Description,
    describe,
    describe_state,
    settings,
    versions,
)
from bism_jax.training._checkpoints.digests import digest_of_arrays
from bism_jax.training._checkpoints.iteration import describe_iteration
from bism_jax.training._freed_memory import release_freed_memory
from bism_jax.training._loop.devices import make_layout
from bism_jax.training._loop.layout import Layout
from bism_jax.training._loop.options import Options
from bism_jax.training._loop.state import LoopState, start_state
from bism_jax.training._sources.data_source import DataSource
from bism_jax.training._sources.source import as_data_source
from bism_jax.typing import IterationFn, Method


class PreparedRun(NamedTuple):
    """A run before its first iteration.

    Attributes:
        step_fn: the algorithm's step, as it is mapped over the devices.
        source: where its batches come from.
        layout: the devices.
        state: the state before the first iteration.
        ema_decay: of the moving average of theta, or None.
        one_step_a_call: whether the iteration must stay out of a loop.
        description: what determines the run; empty where nobody asks.
        iteration_key: a key of the iteration that others share only where it is the same program; None where
            the program is not kept.
    """

    step_fn: IterationFn
    source: DataSource
    layout: Layout
    state: LoopState
    ema_decay: float | None
    one_step_a_call: bool
    description: Description
    iteration_key: Hashable


def prepare_run(
    method: Method, models: tuple[Any, Any, Any], data: Any, rng_key: int | Array, options: Options
) -> PreparedRun:
    """Checks data and models, and initialises.

    Args:
        method: how to train.
        models: energy, posterior and `init_params` of `fit`.
        data: as of `fit`.
        rng_key: a seed or a key.
        options: of the run.
    """
    key = _as_key(rng_key)
    energy_fn, posterior_fn, init_params = models
    bind = functools.partial(method.bind, energy_fn, posterior_fn, init_params=init_params)
    # Before the data is read: a method that needs what the model cannot do is refused at once.
    algorithm = bind()
    source = as_data_source(data, options.batch_size, tuple(np.ravel(jax.random.key_data(key)).tolist()))
    _check_num_rows(method, data)
    layout = make_layout(options.parallel, options.batch_size)
    init_key, loop_key = call_compiled(lambda key: tuple(jax.random.split(key)), key)
    example = jax.device_put(as_working(source.example()))
    method_state = algorithm.init(init_key, example)
    release_freed_memory()
    # One trace for three questions: is there a convolution, which run is it, which program. It has no mapped
    # axis, so that another number of devices or processes is the same run.
    iteration = jax.make_jaxpr(algorithm.step)(loop_key, method_state, example)
    description: Description = {}
    if options.checkpoint_dir is not None or jax.process_count() > 1:
        description = {
            **_describe_arguments(method, models, key, options),
            "data": source.fingerprint(),
            "initial_state": describe_state(method_state),
            "iteration": describe_iteration(iteration),
        }
    return PreparedRun(
        algorithm.step if layout.axis_name is None else bind(axis_name=layout.axis_name).step,
        source,
        layout,
        start_state(method_state, loop_key, options.ema_decay),
        options.ema_decay,
        convolves_slowly_in_loops() and _runs_slowly_in_loop(iteration),
        description,
        None if layout.key is None else jaxpr_key(iteration),
    )


def _runs_slowly_in_loop(iteration: ClosedJaxpr) -> bool:
    """Whether the iteration must stay out of a loop: XLA's CPU convolutions are far slower in one.

    Decided on the traced iteration, not on measured time, so that a run and its resumption are the same
    program.
    """
    return contains_primitive(iteration.jaxpr, "conv_general_dilated")


def _describe_arguments(
    method: Method, models: tuple[Any, Any, Any], key: Array, options: Options
) -> Description:
    energy_fn, posterior_fn, init_params = models
    return {
        "method": describe(method),
        "energy_fn": describe(energy_fn),
        "posterior_fn": describe(posterior_fn),
        "init_params": None if init_params is None else digest_of_arrays(init_params),
        "batch_size": options.batch_size,
        "rng_key": f"{jax.random.key_impl(key)} {np.ravel(jax.random.key_data(key)).tolist()}",
        "ema_decay": options.ema_decay,
        "versions": versions(),
        "settings": settings(),
    }


def _as_key(rng_key: int | Array) -> Array:
    is_seed = isinstance(rng_key, (int, np.integer)) and not isinstance(rng_key, bool)
    # Without x64 JAX makes a key of the low 32 bits: seeds that differ above them would be one.
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
