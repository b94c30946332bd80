"""`fit`: trains an energy-based latent-variable model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from bism_jax import checks
from bism_jax.jaxprs import is_within_jit
from bism_jax.methods import BiSM
from bism_jax.precision import as_working
from bism_jax.training.callbacks import Callback
from bism_jax.training.checkpoint import CheckpointStore, describe
from bism_jax.training.data_source import DataSource, as_data_source
from bism_jax.training.devices import make_layout
from bism_jax.training.history import History
from bism_jax.training.loop import LoopState, TrainingLoop, runs_slowly_in_loop, start_state
from bism_jax.training.memory import release_freed_memory
from bism_jax.training.run import Run
from bism_jax.typing import Method, Params


class FitResult(NamedTuple):
    """What `fit` returns.

    Attributes:
        theta: energy parameters.
        phi: posterior parameters, or None.
        history: each scalar of the method's `Info`, `[num_steps]`.
        theta_ema: the moving average of theta, or None.
        evaluations: what `Evaluate` callbacks measured, a row with its `step` each.
    """

    theta: Params
    phi: Params
    history: dict[str, np.ndarray]
    theta_ema: Params
    evaluations: list[dict[str, float]]


def fit(
    energy_fn: Any,
    posterior_fn: Any,
    data: Any,
    *,
    method: Method | None = None,
    init_params: tuple[Params, Params] | None = None,
    num_steps: int = 10_000,
    batch_size: int = 100,
    rng_key: int | Key[Array, ""] = 0,
    callbacks: Sequence[Callback] = (),
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 1000,
    ema_decay: float | None = None,
    parallel: Literal["jit", "pmap"] | None = None,
    steps_per_call: int | None = None,
    on_divergence: Literal["raise", "rollback"] = "raise",
    progress: bool | None = None,
) -> FitResult:
    """Trains p(v, h; theta) = exp(-E(v, h; theta)) / Z on data, with a posterior q(h | v; phi).

    The same arguments give the same bits, whatever `steps_per_call`, and also after an interruption:
    a run with a `checkpoint_dir` continues from its newest checkpoint. (Same backend, number of devices
    and versions; for an iterable without a state the data is not set back, and a warning says so.)

    Args:
        energy_fn: E, a Flax Linen or NNX module called as `(v, h)`, or a function `(theta, v, h)`; takes
            `[B, *visible]` and `[B, *latent]`, returns `[B]`.
        posterior_fn: q, a module called as `(v)`, or a function `(phi, v)`; returns a distribution of
            batch shape `(B,)` and event shape `latent`. None for a method that needs none.
        data: an array `[rows, *visible]` of floats, shuffled each epoch; a source with `__len__` and
            `__getitem__`; or an iterable of batches `[B, *visible]`. Data and parameters of any floating
            dtype are computed with in float32: float16, bfloat16 and float8 are converted, batch by batch;
            float64 and longer are rounded, or computed with in float64 under `jax_enable_x64`, and refused
            where they do not fit. A network may compute in another by its own `dtype`.
        method: how to train; `BiSM()` by default.
        init_params: `(theta, phi)`; required for plain functions.
        num_steps: iterations in all, those of a resumed run included.
        batch_size: rows of the global batch.
        rng_key: a seed or a key; its PRNG implementation draws all noise.
        callbacks: see `bism_jax.training.callbacks`.
        checkpoint_dir: a folder for the checkpoints of this run, from which it continues.
        checkpoint_every: iterations between checkpoints.
        ema_decay: of the moving average of theta an iteration, at most (1 + t) / (10 + t) at iteration t;
            None keeps none.
        parallel: `"jit"` for one program over all devices (the default), `"pmap"` for explicit averages.
        steps_per_call: iterations in one call of the compiled loop; None chooses by their measured time.
        on_divergence: `"raise"`, or `"rollback"` to continue from the last checkpoint with new noise,
            at most three times.
        progress: whether to show a bar; None shows it on a terminal.

    Raises:
        ValueError: for data, a model, an option or a checkpoint that does not fit, before compilation.
        DivergenceError: where a loss or a gradient stops being finite.

    Warns:
        UserWarning: for data or a posterior that the method's objective can be evaluated on but not be
            right for, such as data of zeros and ones.
    """
    method = BiSM() if method is None else method
    checks.instance("method", method, Method, "BiSM()")
    _check_untraced(data, init_params, rng_key)
    _check_counts(num_steps, checkpoint_every, steps_per_call, ema_decay)
    callbacks = _check_callbacks(callbacks)
    _check_directory(checkpoint_dir, on_divergence)
    with contextlib.ExitStack() as at_the_end:
        with jax.transfer_guard("allow"):  # what follows moves the data and the first state to the devices
            key = _as_key(rng_key)
            algorithm = method.bind(energy_fn, posterior_fn, init_params=init_params)
            source = as_data_source(data, batch_size, tuple(np.ravel(jax.random.key_data(key)).tolist()))
            _check_num_rows(method, data)
            layout = make_layout(parallel, batch_size)

            init_key, loop_key = jax.random.split(key)
            example = jnp.asarray(as_working(source.example()))
            method_state = algorithm.init(init_key, example)
            release_freed_memory()
            state = start_state(method_state, loop_key, ema_decay)
            history, store = History(), None
            if checkpoint_dir is not None:
                description = _describe_run(method, energy_fn, posterior_fn, batch_size, key)
                store = CheckpointStore(checkpoint_dir, description)
                at_the_end.callback(store.close)
                state = _resume(store, state, source, history)
            num_done = int(state.step)
            if num_steps < num_done:
                raise ValueError(
                    f"num_steps={num_steps}, but the run in checkpoint_dir={checkpoint_dir} has done "
                    f"{num_done} iterations; pass at least as many, or another checkpoint_dir."
                )
            for callback in callbacks:
                getattr(callback, "resume", lambda step: None)(num_done)
                at_the_end.callback(getattr(callback, "close", lambda: None))
            mapped = method.bind(energy_fn, posterior_fn, init_params=init_params, axis_name=layout.axis_name)
            key_impl = str(jax.random.key_impl(key))
            one_step_a_call = runs_slowly_in_loop(algorithm.step, method_state, example)
            loop = TrainingLoop(mapped.step, source, layout, state, key_impl, ema_decay, one_step_a_call)
            release_freed_memory()
            run = Run(loop, source, history, callbacks, store, checkpoint_every, key_impl)
        run.train(num_done, num_steps, steps_per_call, on_divergence == "rollback", progress)
    final = loop.host_state()
    return FitResult(
        final.method_state.theta,
        getattr(final.method_state, "phi", None),
        history.scalars(),
        final.theta_ema,
        history.evaluations(),
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


def _check_untraced(*arguments: Any) -> None:
    """Raises TypeError inside a transformation, where there are no values to train on."""
    if is_within_jit() or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments)):
        raise TypeError(
            "fit is called inside jax.jit, vmap or grad, where data, init_params and rng_key have no values; "
            "call it outside, or bind a method and trace its own step: "
            "algorithm = method.bind(energy_fn, posterior_fn), algorithm.init, algorithm.step."
        )


def _check_num_rows(method: Any, data: Any) -> None:
    """Tells a method the number of rows, where the method asks for it and the data knows it."""
    is_sized = hasattr(data, "__len__") and hasattr(data, "__getitem__")  # a loader's length is in batches
    if hasattr(method, "check_num_rows") and is_sized and not isinstance(data, list):
        method.check_num_rows(len(data))


def _check_counts(
    num_steps: int, checkpoint_every: int, steps_per_call: int | None, ema_decay: float | None
) -> None:
    checks.non_negative_int("num_steps", num_steps)
    checks.positive_int("checkpoint_every", checkpoint_every)
    if steps_per_call is not None:
        checks.positive_int("steps_per_call", steps_per_call, alternative="None")
    if ema_decay is not None:
        checks.fraction("ema_decay", ema_decay)


def _check_callbacks(callbacks: Any) -> list[Callback]:
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a sequence of callbacks, not {callbacks!r}; pass a list.")
    callbacks = list(callbacks)
    for callback in callbacks:
        checks.callback(callback)
    return callbacks


def _check_directory(checkpoint_dir: Any, on_divergence: str) -> None:
    checks.one_of("on_divergence", on_divergence, ("raise", "rollback"))
    if checkpoint_dir is None:
        if on_divergence == "rollback":
            raise ValueError("on_divergence='rollback' needs a checkpoint_dir to go back to.")
        return
    if not isinstance(checkpoint_dir, (str, Path)):
        raise TypeError(f"checkpoint_dir must be a path, not {checkpoint_dir!r}.")
    if checkpoint_dir == "":
        raise ValueError("checkpoint_dir is empty; pass a folder, or None for no checkpoints.")
    if Path(checkpoint_dir).exists() and not Path(checkpoint_dir).is_dir():
        raise ValueError(f"checkpoint_dir={checkpoint_dir} is a file; pass a folder.")


def _describe_run(
    method: Method, energy_fn: Any, posterior_fn: Any, batch_size: int, key: Array
) -> dict[str, Any]:
    return {
        "method": describe(method),
        "energy_fn": describe(energy_fn),
        "posterior_fn": describe(posterior_fn),
        "batch_size": batch_size,
        "rng_key": [str(jax.random.key_impl(key)), np.ravel(jax.random.key_data(key)).tolist()],
    }


def _resume(store: CheckpointStore, state: LoopState, source: DataSource, history: History) -> LoopState:
    """The newest checkpoint's state, or `state` where there is none."""
    if not source.has_position:
        warnings.warn(
            "data is an iterable without get_state and set_state: a resumed run sees other data than an "
            "uninterrupted one.",
            stacklevel=3,
        )
    if store.latest_step() is None:
        return state
    restored = store.restore(state, history)
    source.set_position(restored.source_position)
    return restored.state
