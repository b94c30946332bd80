"""The compiled training loop: several iterations a call, without a host round trip."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array, Int, PyTree, UInt

from bism_jax._precision import as_working
from bism_jax._tracing.compilation import compiled_once
from bism_jax._tracing.jaxprs import contains_primitive
from bism_jax.training._loop.devices import Layout
from bism_jax.training._sources.source import DataSource
from bism_jax.typing import IterationFn, Params

_MAX_STEPS_PER_CALL = 1024
_MAX_CHUNK_BYTES = 2**26

KeyImpls = tuple[str | None, ...]


class LoopState(NamedTuple):
    """What the loop carries.

    Attributes:
        method_state: the algorithm's.
        theta_ema: the exponential moving average of theta, or None.
        key_data: the key of the run.
        step: the number of iterations done.
    """

    method_state: Any
    theta_ema: Params | None
    key_data: UInt[Array, "..."]
    step: Int[Array, ""]


class TrainingLoop:
    """Runs an algorithm from a data source on a layout of devices.

    Attributes:
        max_steps_per_call: the most iterations that one call can run.
        state: the current state, on the devices.
    """

    def __init__(
        self,
        step_fn: IterationFn,
        source: DataSource,
        layout: Layout,
        state: LoopState,
        key_impl: str,
        ema_decay: float | None,
        one_step_a_call: bool,
        key_impls: KeyImpls = (),
        iteration_key: Hashable = None,
    ) -> None:
        self._source, self._layout = source, layout
        self.state = layout.replicate(state)
        self._data = None if source.resident is None else layout.replicate(source.resident)
        self.max_steps_per_call = 1 if one_step_a_call else self._count_steps_per_call()
        selection = self._select(self._example_selection(1), self.max_steps_per_call)
        args = (self.state, self._data, selection, layout.replicate(np.int32(0)))

        def compile_program() -> Callable[..., Any]:
            iterate = _make_iteration(step_fn, key_impl, ema_decay, key_impls)
            make_program = _make_single if one_step_a_call else _make_loop
            return layout.compile(make_program(iterate, layout, self.max_steps_per_call), *args)

        is_kept = iteration_key is not None and layout.key is not None
        settings = (key_impl, key_impls, ema_decay, one_step_a_call)
        key = ("loop", iteration_key, layout.key, settings, _outline(args))
        self._call = compiled_once(key if is_kept else None, compile_program)

    def run(self, step: int, num_steps: int) -> dict[str, np.ndarray]:
        """Runs iterations `step .. step + num_steps - 1`; returns each scalar of Info, `[num_steps]`."""
        selection = self._select(self._source.take(step, num_steps), self.max_steps_per_call)
        count = self._layout.replicate(np.int32(num_steps))
        self.state, infos = self._call(self.state, self._data, selection, count)
        host = self._layout.to_host(infos)._asdict()
        return {name: values[:num_steps] for name, values in host.items()}

    def host_state(self) -> LoopState:
        """A copy of the state as NumPy arrays."""
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


def _make_iteration(
    step_fn: IterationFn, key_impl: str, ema_decay: float | None, key_impls: KeyImpls
) -> Iteration:
    def iterate(state: LoopState, batch: Array) -> tuple[LoopState, Any]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key_data, impl=key_impl), state.step)
        method_state, info = step_fn(key, _wrap_keys(state.method_state, key_impls), batch)
        theta_ema = state.theta_ema
        if ema_decay is not None:
            theta_ema = _move_average(theta_ema, method_state.theta, ema_decay, state.step)
        return LoopState(unwrap_keys(method_state), theta_ema, state.key_data, state.step + 1), info

    return iterate


def unwrap_keys(tree: PyTree) -> PyTree:
    """The tree as arrays; of typed keys their data, which alone can be copied to a host and to disk."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf), tree)


def key_impls_of(tree: PyTree) -> KeyImpls:
    """The implementation of each leaf that is a typed key, None for the others."""
    return tuple(str(jax.random.key_impl(leaf)) if _is_key(leaf) else None for leaf in jax.tree.leaves(tree))


def _wrap_keys(tree: PyTree, key_impls: KeyImpls) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    impls = key_impls or (None,) * len(leaves)
    wrapped = [
        leaf if impl is None else jax.random.wrap_key_data(leaf, impl=impl)
        for leaf, impl in zip(leaves, impls, strict=True)
    ]
    return jax.tree.unflatten(structure, wrapped)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _move_average(average: Params | None, theta: Params, max_decay: float, step: Array) -> Params:
    """With a short memory at first, so that the initial parameters are soon forgotten."""
    decay = jnp.minimum(max_decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: (decay * old + (1 - decay) * new).astype(old.dtype), average, theta)


def trace_step(step_fn: IterationFn, rng_key: Array, method_state: PyTree, batch: Array) -> ClosedJaxpr:
    """An iteration of the algorithm as it is traced."""
    return jax.make_jaxpr(step_fn)(rng_key, method_state, batch)


def runs_slowly_in_loop(iteration: ClosedJaxpr) -> bool:
    """Whether the iteration must stay out of a loop: XLA's CPU convolutions are far slower in one.

    Decided on the traced iteration, not on measured time, so that a run and its resumption are the same
    program.
    """
    return contains_primitive(iteration.jaxpr, "conv_general_dilated")


def start_state(method_state: PyTree, rng_key: Array, ema_decay: float | None) -> LoopState:
    """The state before the first iteration."""
    theta_ema = None if ema_decay is None else method_state.theta
    return LoopState(
        unwrap_keys(method_state), theta_ema, jax.random.key_data(rng_key), jax.device_put(np.int32(0))
    )
