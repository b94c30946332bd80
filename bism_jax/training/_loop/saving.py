"""Checkpoints of a running loop: when all is well, and when an error ends it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax

from bism_jax.training._loop.chunk import CompiledChunks
from bism_jax.training._loop.history import History
from bism_jax.training.callbacks._callback import Callback
from bism_jax.training.callbacks._states import states_of

if TYPE_CHECKING:
    from bism_jax.training._checkpoints.store import CheckpointStore


@dataclass
class Saver:
    """Saves a run, or does nothing for one without a `checkpoint_dir`."""

    store: CheckpointStore | None
    chunks: CompiledChunks
    history: History
    callbacks: Sequence[Callback]

    def save(self, turns_due: bool = False, states: dict[str, Any] | None = None) -> None:
        """In the background, with the states of callbacks now, or those that are given."""
        if self.store is not None:
            callbacks = states_of(self.callbacks) | (states or {})
            state, position = self.chunks.host_state(), self.chunks.source.position()
            self.store.save(state, position, self.history, callbacks, turns_due)

    def wait(self) -> None:
        """Returns when everything is on disk."""
        if self.store is not None:
            self.store.wait()

    def save_first(self) -> None:
        """Before a log has rows: a run that is killed now is started again by the same call."""
        if self.store is not None and self.store.latest_path() is None:
            self.save()
            self.wait()

    def keep(self, error: Exception, turns_due: bool, states: dict[str, Any] | None = None) -> None:
        """Saves before an error ends the run, where that is still possible, and says how to go on."""
        if self.store is None or jax.process_count() > 1:  # the others do not know of it
            return
        with contextlib.suppress(Exception):  # the first error is the one to tell
            self.save(turns_due, states)
            self.wait()
        error.add_note(self.how_to_go_on())

    def how_to_go_on(self) -> str:
        """For whoever reads why the run ended."""
        path = None if self.store is None else self.store.latest_path()
        if path is None:
            return "There is no checkpoint; a run with a checkpoint_dir could be continued."
        return f"The last checkpoint is {path}; the same call continues from it."
