"""Where a run starts: at its newest checkpoint, or at the beginning."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

from bism_jax.training._checkpoints.content import Restored
from bism_jax.training._checkpoints.description import Description
from bism_jax.training._loop import hosts
from bism_jax.training._loop.history import History
from bism_jax.training._loop.options import Options
from bism_jax.training._loop.prepared_run import PreparedRun
from bism_jax.training._loop.state import LoopState
from bism_jax.training._sources.data_source import DataSource
from bism_jax.training.callbacks._states import resume_all

if TYPE_CHECKING:
    from bism_jax.training._checkpoints.store import CheckpointStore


def start(
    store: CheckpointStore | None,
    run: PreparedRun,
    history: History,
    options: Options,
) -> tuple[LoopState, bool]:
    """The newest checkpoint's state, or the first one where there is none, and whether turns are due.

    Data, record and callbacks go to where that is.

    Raises:
        ValueError: where the checkpoint is of another run or further than `num_steps`, or where there is none
            to take parameters from.

    Warns:
        UserWarning: where the data cannot be set back.
    """
    restored = None if store is None else _newest(store, run, history, options)
    if restored is None:
        resume_all(options.callbacks, {}, 0)
        return run.state, False
    num_done = int(restored.state.step)
    _set_position(run.source, restored)
    resume_all(options.callbacks, restored.callbacks, num_done)
    if hosts.is_first():
        _say_from_where(restored, run.description, num_done, options.num_steps)
    return restored.state, restored.turns_due


def _newest(store: CheckpointStore, run: PreparedRun, history: History, options: Options) -> Restored | None:
    if not run.source.has_position:
        warnings.warn(
            "data is an iterable without get_state and set_state: a resumed run sees other data than an "
            "uninterrupted one. Pass an array, a list of batches, a source with __len__ and __getitem__, or "
            "an iterator that has both.",
            stacklevel=4,
        )
    num_steps, strictly = options.num_steps, options.resume == "strict"
    restored = store.restore(run.state, history, strictly)
    if restored is None and not strictly:
        raise ValueError(
            f"resume='parameters', but checkpoint_dir={store.directory} has no checkpoint to take them "
            "from; pass the folder of that run, or leave resume out to start anew."
        )
    if restored is not None and num_steps < int(restored.state.step):
        raise ValueError(
            f"num_steps={num_steps}, but the run in checkpoint_dir={store.directory} has done "
            f"{int(restored.state.step)} iterations; pass at least as many, or another checkpoint_dir."
        )
    return restored


def _set_position(source: DataSource, restored: Restored) -> None:
    """Sets the data back, or for another run on other data leaves it at its beginning."""
    if restored.source_position is None:
        return
    # An iterator has moved by the time that it refuses, since the next batch is read to be compared.
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
