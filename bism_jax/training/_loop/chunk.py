"""The compiled program: several iterations a call, without a host round trip."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from bism_jax._precision import as_working
from bism_jax._tracing.compilation import compiled_once
from bism_jax._tracing.jax_internals import ClosedJaxpr
from bism_jax._tracing.jaxprs import contains_primitive
from bism_jax.training._loop.devices import Layout
from bism_jax.training._loop.state import LoopState
from bism_jax.training._sources.source import DataSource
from bism_jax.typing import Params, StepFn

_MAX_STEPS_PER_CALL = 1024
_MAX_CHUNK_BYTES = 2**26


class CompiledChunks:
    """Runs an algorithm from a data source on a layout of devices.

    Attributes:
        max_steps_per_call: the most iterations that one call can run.
        state: the current state, on the devices.
    """

    def __init__(
        self,
        step_fn: StepFn,
        source: DataSource,
        layout: Layout,
        state: LoopState,
        ema_decay: float | None,
        one_step_a_call: bool,
        iteration_key: Hashable,
    ) -> None:
        self._source, self._layout = source, layout
        self.state = layout.replicate(state)
        self._data = None if source.resident is None else layout.replicate(source.resident)
        self.max_steps_per_call = 1 if one_step_a_call else self._count_steps_per_call()
        selection = self._select(self._example_selection(1), self.max_steps_per_call)
        args = (self.state, self._data, selection, layout.replicate(np.int32(0)))

        def compile_program() -> Callable[..., Any]:
            iterate = _make_iteration(step_fn, ema_decay)
            make_program = _make_single if one_step_a_call else _make_loop
            return layout.compile(make_program(iterate, layout, self.max_steps_per_call), *args)

        key = ("loop", iteration_key, layout.key, ema_decay, one_step_a_call, _outline(args))
        self._call = compiled_once(None if iteration_key is None else key, compile_program)

    def run(self, step: int, num_steps: int) -> dict[str, np.ndarray]:
        """Runs iterations `step .. step + num_steps - 1`; returns each scalar of Info, `[num_steps]`."""
        selection = self._select(self._source.take(step, num_steps), self.max_steps_per_call)
        count = self._layout.replicate(np.int32(num_steps))
        self.state, infos = self._call(self.state, self._data, selection, count)
        host = self._layout.to_host(infos)._asdict()
        return {name: values[:num_steps] for name, values in host.items()}

    def host_state(self) -> LoopState:
        """A copy of the state as NumPy arrays and keys."""
        return self._layout.to_host(self.state)

    def set_state(self, state: LoopState) -> None:
        """Continues from a host copy of a state."""
        self.state = self._layout.replicate(state)

    def _count_steps_per_call(self) -> int:
        size = self._example_selection(1).nbytes
        return int(np.clip(_MAX_CHUNK_BYTES // size, 1, _MAX_STEPS_PER_CALL))

    def _example_selection(self, num_steps: int) -> np.ndarray:
        if self._source.resident is not None:
            return np.zeros((num_steps, self._source.batch_size), np.int32)
        example = self._source.example()[: self._source.batch_size // jax.process_count()]
        return np.broadcast_to(example, (num_steps, *example.shape))

    def _select(self, selection: np.ndarray, length: int) -> Array:
        """On the devices, padded to the length that the program was compiled for."""
        padding = [(0, length - len(selection)), *[(0, 0)] * (selection.ndim - 1)]
        padded = np.pad(selection, padding)
        if self._source.resident is not None:
            return self._layout.split_indices(padded)
        return self._layout.split_batches(padded)


Iteration = Callable[[LoopState, Array], tuple[LoopState, Any]]
Program = Callable[[LoopState, Array | None, Array, Array], tuple[LoopState, Any]]


def _outline(args: Any) -> Hashable:
    """What a program is compiled for: structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(args)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _select_batch(layout: Layout, data: Array | None, selection: Array, index: Any) -> Array:
    selected = selection[index]
    return as_working(layout.constrain(selected if data is None else data[selected]))


def _make_single(iterate: Iteration, layout: Layout, num_steps: int) -> Program:
    """One iteration a call."""

    def single(state: LoopState, data: Array | None, selection: Array, count: Array) -> tuple[Any, Any]:
        state, info = iterate(state, _select_batch(layout, data, selection, 0))
        return state, jax.tree.map(lambda leaf: leaf[None], info)

    return single


def _make_loop(iterate: Iteration, layout: Layout, max_steps: int) -> Program:
    """A loop of `count` iterations: one program for every count, so the same bits for each."""

    def loop(state: LoopState, data: Array | None, selection: Array, count: Array) -> tuple[Any, Any]:
        def select_and_iterate(state: LoopState, index: Any) -> tuple[LoopState, Any]:
            return iterate(state, _select_batch(layout, data, selection, index))

        def body(index: Any, carry: tuple[LoopState, Any]) -> tuple[LoopState, Any]:
            state, info = select_and_iterate(carry[0], index)
            infos = jax.tree.map(lambda all_, one: all_.at[index].set(one), carry[1], info)
            return state, infos

        shapes = jax.eval_shape(select_and_iterate, state, jnp.int32(0))[1]
        infos = jax.tree.map(lambda leaf: jnp.zeros((max_steps,), leaf.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (state, infos))

    return loop


def _make_iteration(step_fn: StepFn, ema_decay: float | None) -> Iteration:
    def iterate(state: LoopState, batch: Array) -> tuple[LoopState, Any]:
        key = jax.random.fold_in(state.rng_key, state.step)
        method_state, info = step_fn(key, state.method_state, batch)
        theta_ema = state.theta_ema
        if ema_decay is not None:
            theta_ema = _move_average(theta_ema, method_state.theta, ema_decay, state.step)
        return LoopState(method_state, theta_ema, state.rng_key, state.step + 1), info

    return iterate


def _move_average(average: Params | None, theta: Params, max_decay: float, step: Array) -> Params:
    """With a short memory at first, so that the initial parameters are soon forgotten."""
    decay = jnp.minimum(max_decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: (decay * old + (1 - decay) * new).astype(old.dtype), average, theta)


def trace_step(step_fn: StepFn, rng_key: Array, method_state: PyTree, batch: Array) -> ClosedJaxpr:
    """An iteration of the algorithm as it is traced."""
    return jax.make_jaxpr(step_fn)(rng_key, method_state, batch)


def runs_slowly_in_loop(iteration: ClosedJaxpr) -> bool:
    """Whether the iteration must stay out of a loop: XLA's CPU convolutions are far slower in one.

    Decided on the traced iteration, not on measured time, so that a run and its resumption are the same
    program.
    """
    return contains_primitive(iteration.jaxpr, "conv_general_dilated")
