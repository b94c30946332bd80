"""The states of callbacks in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bism_jax._paths import as_path
from bism_jax.training.callbacks._callback import Callback, has_own, type_name
from bism_jax.training.callbacks._file_log import FileLog


def states_of(callbacks: Sequence[Callback], of_rewindable: bool = True) -> dict[str, Any]:
    """A copy as JSON of the states of those that keep one, by name.

    Args:
        callbacks: in the order of their turns.
        of_rewindable: whether also of those that can go back by themselves.

    Raises:
        TypeError: where a state is no JSON, naming the callback.
    """
    return {
        name: _as_json(name.rpartition(" ")[0], callback.state())
        for name, callback in _named(callbacks)
        if has_own(callback, "state") and (of_rewindable or not has_own(callback, "rewind"))
    }


def _as_json(name: str, state: Any) -> Any:
    try:
        # A copy too: the callback goes on changing its own while this one is written in the background.
        return json.loads(json.dumps(state))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"callbacks: the state() of {name} cannot be kept in a checkpoint "
            f"({error}); return numbers, text, lists and dicts with text for keys."
        ) from error


def resume_all(callbacks: Sequence[Callback], states: Mapping[str, Any], step: int) -> None:
    """Gives callbacks their states of a checkpoint, and tells them how many iterations are done."""
    for name, callback in _named(callbacks):
        at_path = _state_at_path(callback, states)
        if at_path or name in states:  # not by its truth: a state may be None, 0 or empty
            callback.restore(at_path or states[name])
        callback.resume(step)


def _state_at_path(callback: Callback, states: Mapping[str, Any]) -> Any:
    """That of a log of the same kind in the same file, whatever its place in the list was."""
    if not isinstance(callback, FileLog):
        return None
    of_kind = [state for name, state in states.items() if name.startswith(f"{type_name(callback)} ")]
    return next((state for state in of_kind if state["path"] == str(as_path("path", callback.path))), None)


def _named(callbacks: Sequence[Callback]) -> Iterator[tuple[str, Callback]]:
    """Each callback by its type, its file where it has one, and its number among those."""
    counts: dict[str, int] = {}
    for callback in callbacks:
        path = getattr(callback, "path", None)
        # Without its folder, so that a run whose folder was moved finds its logs.
        name = type_name(callback) + (f" {Path(path).name}" if isinstance(path, (str, Path)) else "")
        counts[name] = counts.get(name, 0) + 1
        yield f"{name} {counts[name]}", callback
