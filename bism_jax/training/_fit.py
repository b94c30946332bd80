"""`fit`: trains an energy-based latent-variable model."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, Key

from bism_jax import checks
from bism_jax._paths import as_path
from bism_jax._tracing.jax_internals import is_traced
from bism_jax._tracing.jaxprs import is_within_jit
from bism_jax.methods import BiSM
from bism_jax.training._checkpoints import folder_lock
from bism_jax.training._checkpoints.description import Description
from bism_jax.training._checkpoints.digests import digest
from bism_jax.training._freed_memory import release_freed_memory
from bism_jax.training._loop import hosts
from bism_jax.training._loop.chunk import CompiledChunks
from bism_jax.training._loop.history import History
from bism_jax.training._loop.interruption import watch_signals
from bism_jax.training._loop.loop import TrainingLoop
from bism_jax.training._loop.prepared_run import PreparedRun, prepare_run
from bism_jax.training._loop.state import LoopState
from bism_jax.training._sources.source import DataSource
from bism_jax.training.callbacks._callback import Callback, PeriodicCallable, as_callback, type_name
from bism_jax.training.callbacks._file_log import FileLog
from bism_jax.training.callbacks._states import resume_all
from bism_jax.typing import Method, Params

if TYPE_CHECKING:
    from bism_jax.training._checkpoints.content import Restored
    from bism_jax.training._checkpoints.store import CheckpointStore


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
    callbacks: Sequence[PeriodicCallable] = (),
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 1000,
    ema_decay: float | None = None,
    parallel: Literal["jit", "pmap"] | None = None,
    steps_per_call: int | None = None,
    on_divergence: Literal["raise", "rollback"] = "raise",
    progress: bool | None = None,
    resume: Literal["strict", "parameters"] = "strict",
) -> FitResult:
    """Trains p(v, h; theta) = exp(-E(v, h; theta)) / Z on data, with a posterior q(h | v; phi).

    The same arguments give the same bits, whatever `steps_per_call`, and also after an interruption:
    a run with a `checkpoint_dir` continues from its newest whole checkpoint. (Same backend, number of
    devices and versions; for an iterable without a state the data is not set back, and a warning says so.)

    SIGINT and SIGTERM let the running call end, save a checkpoint and exit with status 130 or 143; at a
    prompt, as in a notebook, an interrupt returns the result so far, and so does a callback that raises
    `StopTraining`. An error in a callback or in the data is raised after what was done is saved.

    One run at a time uses a `checkpoint_dir`; of several processes, which must agree on every argument, the
    first writes. A process compiles equal models, methods and shapes once, whoever calls and with whatever
    seed; `clear_programs()` frees what is kept for that.

    Args:
        energy_fn: E, a Flax Linen or NNX module called as `(v, h)`, or a function `(theta, v, h)`; takes
            `[B, *visible]` and `[B, *latent]`, returns `[B]`.
        posterior_fn: q, a module called as `(v)`, or a function `(phi, v)`; returns a distribution of
            batch shape `(B,)` and event shape `latent`. None for a method that needs none.
        data: an array `[rows, *visible]` of floats, shuffled each epoch (or a sparse array, or a table of
            floating columns); a source with `__len__` and `__getitem__`; or an iterable of batches
            `[B, *visible]`, or of `[batch]`. Data and parameters of any floating
            dtype are computed with in float32: float16, bfloat16 and float8 are converted, batch by batch;
            float64 and longer are rounded, or computed with in float64 under `jax_enable_x64`, and refused
            where they do not fit. A network may compute in another by its own `dtype`.
        method: how to train; `BiSM()` by default.
        init_params: `(theta, phi)`; required for plain functions.
        num_steps: iterations in all, those of a resumed run included.
        batch_size: rows of the global batch.
        rng_key: a seed or a key; its PRNG implementation draws all noise.
        callbacks: see `bism_jax.training.Callback`.
        checkpoint_dir: a folder for the checkpoints of this run, from which it continues; `~` is the home
            folder, and `gs://` and other schemes of etils.epath are buckets.
        checkpoint_every: iterations between checkpoints.
        ema_decay: of the moving average of theta an iteration, at most (1 + t) / (10 + t) at iteration t;
            None keeps none.
        parallel: `"jit"` for one program over all devices (the default), `"pmap"` for explicit averages.
        steps_per_call: iterations in one call of the compiled loop; None chooses by their measured time.
        on_divergence: `"raise"`, or `"rollback"` to continue from the last checkpoint with new noise,
            at most three times.
        progress: whether to show a bar; None shows it on a terminal.
        resume: what a checkpoint must be to be continued: `"strict"` for one of this very run, with the same
            data, iteration (constants such as learning rates included), batch size, seed and average;
            `"parameters"` to go on from the theta and phi of another run of the same model, and from its
            optimiser states and record where they have the same structure: for one call, which says what has
            changed, and after which the folder is that of the new run.

    Raises:
        ValueError: for data, a model, an option or a checkpoint that does not fit, before compilation.
        DivergenceError: where a loss or a gradient stops being finite.
        OSError: where a checkpoint or a log cannot be written.
        RuntimeError: where another process of the run is gone.

    Warns:
        UserWarning: for data or a posterior that the method's objective can be evaluated on but not be
            right for, such as data of zeros and ones; for damaged checkpoints and edited logs, which are kept
            aside.
    """
    method = BiSM() if method is None else method
    folder: epath.Path | None = None
    hooked: list[Callback] = []
    # From here on, since an exception that a signal raises within JAX's callbacks is lost.
    with contextlib.ExitStack() as at_the_end, watch_signals() as interruption:
        with jax.transfer_guard("allow"):  # what follows moves the data and the first state to the devices

            def begin() -> PreparedRun:
                nonlocal folder, hooked
                checks.instance("method", method, Method, "BiSM()")
                _check_untraced(data, init_params, rng_key)
                _check_counts(num_steps, checkpoint_every, steps_per_call, ema_decay)
                hooked = _check_callbacks(callbacks)
                folder = _check_directory(checkpoint_dir, on_divergence, resume)
                if folder is not None and hosts.is_first():
                    at_the_end.enter_context(folder_lock.hold(folder))
                models = (energy_fn, posterior_fn, init_params)
                is_described = folder is not None or jax.process_count() > 1
                return prepare_run(
                    method, models, data, batch_size, rng_key, ema_decay, parallel, is_described
                )

            run = hosts.together(begin)
            hosts.check_agreement(
                run.description
                | {
                    "iteration": digest(json.dumps(run.description.get("iteration")).encode()),
                    "num_steps": num_steps,
                    "steps_per_call": steps_per_call,
                    "checkpoint_dir": None if folder is None else str(folder),
                    "checkpoint_every": checkpoint_every,
                    "callbacks": [[type_name(callback), callback.every] for callback in hooked],
                    "on_divergence": on_divergence,
                    "parallel": parallel,
                    "resume": resume,
                }
            )
            history, store = History(), None
            if folder is not None:
                from bism_jax.training._checkpoints.store import CheckpointStore

                store = at_the_end.enter_context(CheckpointStore(folder, run.description))
            for callback in hooked:
                at_the_end.callback(callback.close)
            state, turns_due = hosts.together(
                lambda: _resume(store, run, history, hooked, num_steps, resume == "strict")
            )
            chunks = CompiledChunks(
                run.step_fn,
                run.source,
                run.layout,
                state,
                ema_decay,
                run.one_step_a_call,
                run.iteration_key,
            )
            release_freed_memory()
            loop = TrainingLoop(chunks, run.source, history, hooked, store, checkpoint_every)
        rolls_back = on_divergence == "rollback"
        loop.train(int(state.step), num_steps, steps_per_call, rolls_back, progress, interruption, turns_due)
    final = chunks.host_state()
    return FitResult(
        final.method_state.theta,
        getattr(final.method_state, "phi", None),
        history.scalars(),
        final.theta_ema,
        history.evaluations(),
    )


def _check_untraced(*arguments: Any) -> None:
    """Raises TypeError inside a transformation, where there are no values to train on."""
    leaves = jax.tree.leaves(
        arguments, is_leaf=lambda leaf: hasattr(leaf, "__next__")
    )  # no iterator is a tree
    if is_within_jit() or is_traced(leaves):
        raise TypeError(
            "fit is called inside jax.jit, vmap or grad, where data, init_params and rng_key have no values; "
            "call it outside, or bind a method and trace its own step: "
            "algorithm = method.bind(energy_fn, posterior_fn), algorithm.init, algorithm.step."
        )


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
    """A list of them; raises TypeError or ValueError for what is none, or for two logs in one file."""
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a sequence of callbacks, not {callbacks!r}; pass a list.")
    callbacks = list(callbacks)
    for callback in callbacks:
        checks.callback(callback)
    hooked = [as_callback(callback) for callback in callbacks]
    paths = [as_path("path", callback.path) for callback in callbacks if isinstance(callback, FileLog)]
    for path in paths:
        if path.is_dir():
            raise ValueError(f"callbacks: the path of a log, {path}, is a folder; pass a file in it.")
        if paths.count(path) > 1:
            raise ValueError(f"callbacks: two logs have the path {path}; give each a file of its own.")
    return hooked


def _check_directory(checkpoint_dir: Any, on_divergence: str, resume: str) -> epath.Path | None:
    checks.one_of("on_divergence", on_divergence, ("raise", "rollback"))
    checks.one_of("resume", resume, ("strict", "parameters"))
    if checkpoint_dir is None:
        if on_divergence == "rollback":
            raise ValueError("on_divergence='rollback' needs a checkpoint_dir to go back to.")
        if resume == "parameters":
            raise ValueError("resume='parameters' needs a checkpoint_dir to continue from.")
        return None
    folder = as_path("checkpoint_dir", checkpoint_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"checkpoint_dir={folder} is a file; pass a folder.")
    return folder


def _resume(
    store: CheckpointStore | None,
    run: PreparedRun,
    history: History,
    callbacks: Sequence[Callback],
    num_steps: int,
    strictly: bool,
) -> tuple[LoopState, bool]:
    """The newest checkpoint's state, or the first one where there is none, and whether turns are due.

    Callbacks are told where they start.
    """
    if store is None:
        resume_all(callbacks, {}, 0)
        return run.state, False
    if not run.source.has_position:
        warnings.warn(
            "data is an iterable without get_state and set_state: a resumed run sees other data than an "
            "uninterrupted one. Pass an array, a list of batches, a source with __len__ and __getitem__, or "
            "an iterator that has both.",
            stacklevel=3,
        )
    restored = store.restore(run.state, history, strictly)
    if restored is None:
        if not strictly:
            raise ValueError(
                f"resume='parameters', but checkpoint_dir={store.directory} has no checkpoint to take them "
                "from; pass the folder of that run, or leave resume out to start anew."
            )
        resume_all(callbacks, {}, 0)
        return run.state, False
    num_done = int(restored.state.step)
    if num_steps < num_done:
        raise ValueError(
            f"num_steps={num_steps}, but the run in checkpoint_dir={store.directory} has done "
            f"{num_done} iterations; pass at least as many, or another checkpoint_dir."
        )
    _set_position(run.source, restored)
    resume_all(callbacks, restored.callbacks, num_done)
    if hosts.is_first():
        _say_from_where(restored, run.description, num_done, num_steps)
    return restored.state, restored.turns_due


def _set_position(source: DataSource, restored: Restored) -> None:
    """Sets the data back, or for another run on other data leaves it at its beginning."""
    if restored.source_position is None:
        return
    beginning = source.position()
    try:
        source.set_position(restored.source_position)
    except ValueError:
        if not restored.changes:
            raise
        source.set_position(beginning)


def _say_from_where(restored: Restored, description: Description, num_done: int, num_steps: int) -> None:
    text = f"continuing from {num_done:,} of {num_steps:,}"
    if restored.changes:
        text += f" under other settings ({'; '.join(restored.changes)})"
    if restored.new_parts:
        text += f"; {', '.join(restored.new_parts)} start anew"
    written_by = restored.description.get("versions", {})
    changed = [
        f"{name} {version}"
        for name, version in written_by.items()
        if version != description["versions"].get(name)
    ]
    if changed:
        text += f"; written by {', '.join(changed)}, so not to the same bits"
    print(text, file=sys.stderr, flush=True)
