"""Checkpoints of a run, by orbax."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from bism_jax.training.history import History
from bism_jax.training.loop import LoopState


class Restored(NamedTuple):
    """A checkpoint read back.

    Attributes:
        state: the loop's.
        source_position: the data source's.
    """

    state: LoopState
    source_position: Any


class CheckpointStore:
    """The checkpoints of one run in one folder.

    A checkpoint holds parameters, optimiser states, moving average, key, iteration, data position and
    history; saving happens in the background, and a checkpoint appears only when it is complete.

    Args:
        directory: the folder; made where it does not exist.
        description: what the run is, as JSON; a run continues only what has the same description.
        max_to_keep: how many of the newest checkpoints stay.
    """

    def __init__(self, directory: str | Path, description: dict[str, Any], max_to_keep: int = 3) -> None:
        self.directory = Path(directory).absolute()
        self._description = json.loads(json.dumps(description))
        options = ocp.CheckpointManagerOptions(max_to_keep=max_to_keep, create=True)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest_step(self) -> int | None:
        """The iteration of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def latest_path(self) -> Path | None:
        """Where the newest checkpoint is, or None."""
        step = self.latest_step()
        return None if step is None else self.directory / str(step)

    def save(self, state: LoopState, source_position: Any, history: History) -> None:
        """Saves a host copy of the state in the background."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        record = history.state()
        items = {
            "state": ocp.args.StandardSave(_as_leaves(state)),
            "run": ocp.args.JsonSave(
                {
                    "description": {**self._description, "structure": _structure(state)},
                    "source_position": source_position,
                    "evaluations": record["evaluations"],
                }
            ),
        }
        if record["scalars"]:
            items["history"] = ocp.args.StandardSave(record["scalars"])
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, target: LoopState, history: History) -> Restored:
        """Reads the newest checkpoint back into a state like `target`.

        Raises:
            ValueError: where it was written by another model, method, batch size or seed.
        """
        self.wait()
        step = self.latest_step()
        run = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]
        self._check_description(run["description"], {**self._description, "structure": _structure(target)})
        items = {"state": ocp.args.StandardRestore(_as_leaves(target))}
        if step:
            items["history"] = ocp.args.StandardRestore()
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        leaves = [restored["state"][key] for key in sorted(restored["state"])]
        state = jax.tree.unflatten(jax.tree.structure(target), leaves)
        scalars = {name: np.asarray(values) for name, values in restored["history"].items()} if step else {}
        history.restore(scalars, run["evaluations"])
        return Restored(state, run["source_position"])

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and releases what the store holds."""
        self._manager.close()

    def _check_description(self, found: dict[str, Any], expected: dict[str, Any]) -> None:
        for name, value in expected.items():
            if found.get(name) != value:
                raise ValueError(
                    f"checkpoint_dir={self.directory} holds a checkpoint of another run: its {name} is "
                    f"{_shorten(found.get(name))}, not {_shorten(value)}. Choose another checkpoint_dir, or "
                    "continue that run as it was started."
                )


def describe(value: Any) -> Any:
    """A JSON description of a model or a method that is the same in the next process."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {
            field.name: describe(getattr(value, field.name))
            for field in fields(value)
            if field.init and field.name not in ("parent", "name")
        }
        return {"type": type(value).__name__, **parts}
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, (tuple, list)):
        return [describe(item) for item in value]
    return getattr(value, "__name__", type(value).__name__)


def _as_leaves(state: PyTree) -> dict[str, Any]:
    # Named tuples come back from disk as lists and dicts; a flat dict comes back as it went.
    return {f"{index:05d}": np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(state))}


def _structure(state: PyTree) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _shorten(value: Any, limit: int = 200) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "..."
