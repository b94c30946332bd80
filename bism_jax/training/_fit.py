"""`fit`: trains an energy-based latent-variable model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from bism_jax import checks
from bism_jax.methods import BiSM
from bism_jax.training._checkpoints import folder_lock
from bism_jax.training._checkpoints.digests import digest
from bism_jax.training._checkpoints.resume import start
from bism_jax.training._freed_memory import release_freed_memory
from bism_jax.training._loop import hosts
from bism_jax.training._loop.chunk import CompiledChunks
from bism_jax.training._loop.history import History
from bism_jax.training._loop.interruption import watch_signals
from bism_jax.training._loop.loop import TrainingLoop
from bism_jax.training._loop.options import Options, check_untraced
from bism_jax.training._loop.prepared_run import PreparedRun, prepare_run
from bism_jax.training.callbacks._callback import PeriodicCallable
from bism_jax.typing import Method, Params

if TYPE_CHECKING:
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
    options = Options(
        num_steps,
        batch_size,
        callbacks,
        checkpoint_dir,
        checkpoint_every,
        ema_decay,
        parallel,
        steps_per_call,
        on_divergence,
        resume,
    )
    # From here on, since an exception that a signal raises within JAX's callbacks is lost.
    with contextlib.ExitStack() as at_the_end, watch_signals() as interruption:
        with jax.transfer_guard("allow"):  # what follows moves the data and the first state to the devices

            def begin() -> tuple[Options, PreparedRun]:
                checks.instance("method", method, Method, "BiSM()")
                check_untraced(data, init_params, rng_key)
                checked = options.check()
                if checked.checkpoint_dir is not None and hosts.is_first():
                    at_the_end.enter_context(folder_lock.hold(checked.checkpoint_dir))
                models = (energy_fn, posterior_fn, init_params)
                return checked, prepare_run(method, models, data, rng_key, checked)

            options, run = hosts.together(begin)
            hosts.check_agreement(_to_agree_on(run, options))
            history, store = History(), _open_store(options, run, at_the_end)
            # Before `start`, in which callbacks open what must be closed however the run ends.
            for callback in options.callbacks:
                at_the_end.callback(callback.close)
            state, turns_due = hosts.together(lambda: start(store, run, history, options))
            chunks = CompiledChunks(run, state)
            # With the one after initialising: a peak of 1,466 MiB instead of 1,644 (MNIST network, N = 5).
            release_freed_memory()
        loop = TrainingLoop(chunks, history, store, options)
        loop.train(int(state.step), turns_due, progress, interruption)
    final = chunks.host_state()
    return FitResult(
        final.method_state.theta,
        getattr(final.method_state, "phi", None),
        history.scalars(),
        final.theta_ema,
        history.evaluations(),
    )


def _to_agree_on(run: PreparedRun, options: Options) -> dict[str, Any]:
    """What the processes of one run must have in common; of the iteration, which is long, a checksum."""
    iteration = digest(json.dumps(run.description.get("iteration")).encode())
    return {**run.description, **options.in_words(), "iteration": iteration}


def _open_store(
    options: Options, run: PreparedRun, at_the_end: contextlib.ExitStack
) -> CheckpointStore | None:
    if options.checkpoint_dir is None:
        return None
    from bism_jax.training._checkpoints.store import CheckpointStore  # and orbax, which no other run needs

    return at_the_end.enter_context(CheckpointStore(options.checkpoint_dir, run.description))
