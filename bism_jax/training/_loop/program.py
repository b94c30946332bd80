"""What is compiled: an iteration with its batch, and a loop of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from bism_jax._precision import as_working
from bism_jax.training._loop.layout import Layout
from bism_jax.training._loop.state import LoopState
from bism_jax.typing import IterationFn, Params

Iteration = Callable[[LoopState, Array], tuple[LoopState, Any]]
Program = Callable[[LoopState, Array | None, Array, Array], tuple[LoopState, Any]]


def make_program(
    step_fn: IterationFn, layout: Layout, ema_decay: float | None, max_steps: int, is_loop: bool
) -> Program:
    """`(state, data, selection, count) -> (state, infos)`: `count` iterations, each on a batch of its own.

    Args:
        step_fn: the algorithm's step.
        layout: the devices.
        ema_decay: of the moving average of theta, or None.
        max_steps: the length of the selection and of each scalar of `infos`.
        is_loop: whether there may be more than one iteration.
    """
    iterate = _make_iteration(step_fn, ema_decay)
    return _make_loop(iterate, layout, max_steps) if is_loop else _make_single(iterate, layout)


def _select_batch(layout: Layout, data: Array | None, selection: Array, index: Any) -> Array:
    selected = selection[index]
    # Converted after the gather, so that float16 data takes half the memory on the devices.
    return as_working(layout.constrain(selected if data is None else data[selected]))


def _make_single(iterate: Iteration, layout: Layout) -> Program:
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

        # A loop of a traced length cannot stack its outputs as `scan` does: it writes into arrays made before
        # it, whose shapes one more trace tells.
        shapes = jax.eval_shape(select_and_iterate, state, jnp.int32(0))[1]
        infos = jax.tree.map(lambda leaf: jnp.zeros((max_steps,), leaf.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (state, infos))

    return loop


def _make_iteration(step_fn: IterationFn, ema_decay: float | None) -> Iteration:
    """A step with the moving average after it; its key is a function of the iteration alone."""

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
    # At a constant 0.999 a third of the average (0.999**1000 = 0.37) is the initial parameters after 1,000
    # iterations.
    decay = jnp.minimum(max_decay, (1 + step) / (10 + step))
    # A loop's carry keeps its dtype, and `decay` may be wider than theta.
    return jax.tree.map(lambda old, new: (decay * old + (1 - decay) * new).astype(old.dtype), average, theta)
