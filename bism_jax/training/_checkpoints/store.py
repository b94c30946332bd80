"""Checkpoints of a run, by orbax."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from bism_jax.training._checkpoints.description import (
    Description,
    differences,
    digest,
    digest_of_arrays,
)
from bism_jax.training._loop import hosts
from bism_jax.training._loop.chunk import LoopState
from bism_jax.training._loop.history import History

_Result = TypeVar("_Result")

# Orbax numbers the operations of a process, and those of two threads take each other's numbers.
_ORBAX = threading.RLock()
_saving: list[CheckpointStore] = []
_MARK = "_CHECKPOINT_METADATA"  # which orbax writes into every checkpoint
_SECONDS_FOR_LATE_CALLBACKS = 0.2


class Restored(NamedTuple):
    """A checkpoint read back.

    Attributes:
        state: the loop's.
        source_position: the data source's, or None where it is of other data.
        callbacks: the states of the callbacks that keep one.
        turns_due: whether an error ended the run before the callbacks of its last iteration were done.
        new_parts: what of the state starts anew.
        changes: how the run that wrote it differs from this one.
        description: what the run was that wrote it.
    """

    state: LoopState
    source_position: Any
    callbacks: dict[str, Any]
    turns_due: bool
    new_parts: list[str]
    changes: list[str]
    description: Description


class _Damaged(Exception):  # noqa: N818 - it never leaves this file
    """A checkpoint that cannot be read, and why."""


class _Content(NamedTuple):
    run: dict[str, Any]
    leaves: dict[str, np.ndarray]
    scalars: dict[str, np.ndarray]


class CheckpointStore:
    """The checkpoints of one run in one folder.

    A checkpoint holds parameters, optimiser states, moving average, key, iteration, data position, history
    and the states of callbacks; saving happens in the background, and a checkpoint appears only when it is
    complete.

    Args:
        directory: the folder; made where it does not exist.
        description: what the run is, as JSON; a run continues only what has the same description.
        max_to_keep: how many of the newest checkpoints stay.
    """

    def __init__(self, directory: epath.Path, description: Description, max_to_keep: int = 3) -> None:
        self.directory = directory
        self._description = json.loads(json.dumps(description))
        self._failure: Exception | None = None
        self._step_of_turns: int | None = None  # of a checkpoint whose callbacks have yet to have their turn
        options = ocp.CheckpointManagerOptions(max_to_keep=max_to_keep, create=True)
        with _ORBAX:
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest_step(self) -> int | None:
        """The iteration of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def latest_path(self) -> epath.Path | None:
        """Where the newest checkpoint is that is complete, or None."""
        complete = [step for step in self._manager.all_steps() if self._path(step).exists()]
        return self._path(max(complete)) if complete else None

    def save(
        self,
        state: LoopState,
        source_position: Any,
        history: History,
        callbacks: dict[str, Any],
        turns_due: bool = False,
    ) -> None:
        """Saves a host copy of the state in the background.

        Args:
            state: the loop's.
            source_position: the data source's.
            history: the record so far.
            callbacks: the states of those that keep one.
            turns_due: whether the callbacks have yet to have their turn after this iteration.

        Raises:
            OSError: where this one or the one before it could not be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            if step != self._step_of_turns or turns_due:
                return
            self._alone(lambda: self._manager.delete(step))  # the callbacks have had their turn now
        self._step_of_turns = step if turns_due else None
        record = history.state()
        run = {
            "description": {**self._description, "structure": _structure(state)},
            "source_position": source_position,
            "evaluations": record["evaluations"],
            "callbacks": callbacks,
            "turns_due": turns_due,
            "scalars": list(record["scalars"]),
        }
        leaves, scalars = _as_leaves(state), record["scalars"]
        run["checksum"] = _checksum(run, leaves, scalars)
        items = {"state": ocp.args.StandardSave(leaves), "run": ocp.args.JsonSave(run)}
        if scalars:
            items["history"] = ocp.args.StandardSave(scalars)
        self._try_writing(lambda: self._manager.save(step, args=ocp.args.Composite(**items)))
        _saving.append(self)

    def restore(self, target: LoopState, history: History, strictly: bool = True) -> Restored | None:
        """Reads the newest whole checkpoint back into a state like `target`; None where there is none.

        Args:
            target: the state before the first iteration of this run.
            history: the record, which is set to that of the checkpoint.
            strictly: whether the checkpoint must be of this very run; otherwise its parameters are taken,
                and whatever else has the same structure.

        Raises:
            ValueError: where it was written by another run, or no checkpoint of several can be read.

        Warns:
            UserWarning: where newer checkpoints are damaged; they are moved aside.
        """
        self.wait()
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                content = self._read(step, target if strictly else None)
            except _Damaged as error:
                damaged[step] = str(error)
                continue
            damaged |= {
                older: "it holds no checkpoint"  # and would be deleted as the oldest one
                for older in self._manager.all_steps()
                if older < step and not (self._path(older) / _MARK).exists()
            }
            if damaged:
                self._move_aside(damaged, step)
            return self._unpack(content, target, history, strictly)
        if damaged:
            raise ValueError(
                f"checkpoint_dir={self.directory} has no checkpoint that can be read: {_listed(damaged)}. "
                "Choose another checkpoint_dir to start anew."
            )
        return None

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
            OSError: where it could not be written.
        """
        self._try_writing(self._manager.wait_until_finished)

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits, and releases what the store holds; an error on the way out does not hide the first one."""
        if kind is not None and issubclass(kind, hosts.HostGoneError):
            return  # to wait is to wait for the process that is gone
        try:
            with contextlib.suppress(*([Exception] if kind is not None else [])):
                self.wait()
        finally:
            with contextlib.suppress(*([Exception] if kind is not None else [])):
                self._alone(self._manager.close)

    def _path(self, step: int) -> epath.Path:
        return self.directory / str(step)

    def _try_writing(self, write: Callable[[], Any]) -> None:
        try:
            self._alone(write)
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
        except Exception as error:
            if jax.process_count() > 1 and hosts.is_of_transport(error):
                raise  # it is not the disk: another process is gone
            path = self.latest_path()
            last = f"the last whole one is {path}" if path else "there is none before it"
            raise OSError(
                f"a checkpoint could not be written to checkpoint_dir={self.directory} "
                f"({type(error).__name__}: {error}); {last}. See to the space left and the permissions; the "
                "same call continues from the last one."
            ) from error

    def _alone(self, operation: Callable[[], _Result]) -> _Result:
        """`operation()` while orbax does nothing else in this process."""
        with _ORBAX, _without_late_callbacks():
            while _saving:
                _saving.pop()._finish()
            return operation()

    def _finish(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # it is for the run that this store belongs to
            self._failure = error
            time.sleep(_SECONDS_FOR_LATE_CALLBACKS)

    def _read(self, step: int, expected: LoopState | None) -> _Content:
        """A checkpoint, which must be of this very run where a state like that is expected."""
        run = self._read_items(step, run=ocp.args.JsonRestore())["run"]
        if not isinstance(run, dict) or not isinstance(run.get("description"), dict):
            raise _Damaged("its run/metadata is not complete")
        if expected is not None:
            self._check_description(run["description"], expected)
        items = {"state": ocp.args.StandardRestore()}
        if step:
            items["history"] = ocp.args.StandardRestore()
        found = self._read_items(step, **items)
        leaves = {name: np.asarray(leaf) for name, leaf in found["state"].items()}
        scalars = {name: np.asarray(values) for name, values in (found.get("history") or {}).items()}
        checksum = run.pop("checksum", None)  # version 0.1.0 wrote none
        if checksum not in (None, _checksum(run, leaves, scalars)):
            raise _Damaged("its content is not what was written")
        if len(leaves) != len(run["description"].get("structure", {})):
            raise _Damaged("its state is not complete")
        return _Content(run, leaves, scalars)

    def _read_items(self, step: int, **items: Any) -> Any:
        try:
            return self._alone(lambda: self._manager.restore(step, args=ocp.args.Composite(**items)))
        except Exception as error:  # whatever a dependency raises for a file that is cut
            raise _Damaged(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error

    def _check_description(self, found: Description, expected: LoopState) -> None:
        if "iteration" not in found:
            raise ValueError(
                f"checkpoint_dir={self.directory} was written by version 0.1.0, which did not record what "
                "decides a run. Choose another checkpoint_dir, or pass resume='parameters' to go on from "
                "its parameters and optimiser states."
            )
        changes = differences(found, self._description)
        if not changes:
            return
        message = (
            f"checkpoint_dir={self.directory} is that of another run: {'; '.join(changes)}. Choose another "
            "checkpoint_dir, or continue that run as it was started"
        )
        misfit = _first_misfit(found.get("structure", {}), _structure(expected))
        if misfit:
            raise ValueError(f"{message}: {misfit}, so its parameters are of no use here.")
        raise ValueError(
            f"{message}, or pass resume='parameters' to go on from its parameters under the new settings."
        )

    def _unpack(self, content: _Content, target: LoopState, history: History, strictly: bool) -> Restored:
        description = content.run["description"]
        found = {
            path: content.leaves[name]
            for path, name in zip(description["structure"], sorted(content.leaves), strict=True)
        }
        state, new_parts = _carry_over(target, found, strictly)
        if strictly and new_parts:
            raise ValueError(
                f"checkpoint_dir={self.directory} is that of another run: its {', '.join(new_parts)} has "
                "another structure. Choose another checkpoint_dir."
            )
        if content.run.get("turns_due"):
            self._step_of_turns = int(state.step)
        is_same_data = description.get("data") == self._description.get("data")
        scalars = {name: content.scalars[name] for name in content.run.get("scalars", content.scalars)}
        history.restore(scalars, content.run["evaluations"])
        if strictly:
            state = state._replace(key_data=jax.device_put(found[".key_data"]))
        return Restored(
            state,
            content.run["source_position"] if is_same_data else None,
            content.run.get("callbacks") or {},
            content.run.get("turns_due", False),
            new_parts,
            differences(description, self._description) if "iteration" in description else [],
            description,
        )

    def _move_aside(self, damaged: dict[int, str], whole: int) -> None:
        if hosts.is_first():
            for step in damaged:
                aside = self.directory / f"{step}.damaged"
                number = 1
                while aside.exists():
                    number += 1
                    aside = self.directory / f"{step}.damaged-{number}"
                self._path(step).rename(aside)
        hosts.wait("damaged checkpoints are moved")
        with _ORBAX:
            self._manager.reload()
        warnings.warn(
            f"checkpoint_dir={self.directory}: {_listed(damaged)}; going back to the newest whole one, "
            f"{self._path(whole)}. What was damaged is kept beside it, as NAME.damaged.",
            stacklevel=2,
        )


@contextlib.contextmanager
def _without_late_callbacks() -> Iterator[None]:
    """Drops what open files report once one has failed and orbax has closed their loop."""
    hook = sys.unraisablehook

    def drop(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = drop
    try:
        yield
    except Exception:
        time.sleep(_SECONDS_FOR_LATE_CALLBACKS)
        raise
    finally:
        sys.unraisablehook = hook


def _listed(damaged: dict[int, str]) -> str:
    return "; ".join(f"checkpoint {step} is damaged ({reason})" for step, reason in damaged.items())


def _carry_over(
    target: LoopState, found: dict[str, np.ndarray], strictly: bool
) -> tuple[LoopState, list[str]]:
    """`target` with the parts of a checkpoint that fit it, and the names of those that do not.

    Raises:
        ValueError: where the parameters do not fit.
    """
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(target)]
    leaves = dict(zip(paths, map(np.asarray, jax.tree.leaves(target)), strict=True))
    taken, new_parts = dict(leaves), []
    for part in sorted({_part_of(path) for path in [*paths, *found]}):
        own = {path: leaf for path, leaf in leaves.items() if _part_of(path) == part}
        saved = {path: leaf for path, leaf in found.items() if _part_of(path) == part}
        if _outline(own) == _outline(saved):
            # The hyperparameters that optax.inject_hyperparams keeps in a state are settings.
            taken |= {path: leaf for path, leaf in saved.items() if ".hyperparams[" not in path or strictly}
        elif own:
            new_parts.append(part.removeprefix(".method_state").removeprefix("."))
            if part in (".method_state.theta", ".method_state.phi"):
                raise ValueError(_misfit(new_parts[-1], own, saved))
    taken[".key_data"] = leaves[".key_data"]
    if "theta_ema" in new_parts:
        average = [path for path in paths if _part_of(path) == ".theta_ema"]
        taken |= {path: taken[path.replace(".theta_ema", ".method_state.theta", 1)] for path in average}
    return jax.tree.unflatten(jax.tree.structure(target), [taken[path] for path in paths]), new_parts


def _part_of(path: str) -> str:
    """The attribute of the method's state that a leaf is in, or of the loop's."""
    names = path.partition("[")[0].split(".")
    return ".".join(names[:3] if names[1] == "method_state" else names[:2])


def _outline(leaves: dict[str, np.ndarray]) -> dict[str, str]:
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves.items()}


def _misfit(name: str, own: dict[str, np.ndarray], saved: dict[str, np.ndarray]) -> str:
    return (
        f"checkpoint_dir: the {name} of its checkpoint does not fit the model: "
        f"{_first_difference(_outline(saved), _outline(own))}. Pass the same model, or choose another "
        "checkpoint_dir."
    )


def _first_misfit(found: dict[str, str], expected: dict[str, str]) -> str:
    """The first parameter of another shape or dtype, or an empty text."""
    parts = (".method_state.theta", ".method_state.phi")
    there, here = (
        {path: leaf for path, leaf in structure.items() if _part_of(path) in parts}
        for structure in (found, expected)
    )
    return "" if there == here else _first_difference(there, here)


def _first_difference(there: dict[str, str], here: dict[str, str]) -> str:
    path = next(path for path in sorted({*here, *there}) if here.get(path) != there.get(path))
    old, new = there.get(path, "nothing"), here.get(path, "nothing")
    return f"{path.removeprefix('.method_state.')} is {old} there and {new} here"


def _as_leaves(state: PyTree) -> dict[str, Any]:
    # Named tuples come back from disk as lists and dicts; a flat dict comes back as it went.
    return {f"{index:05d}": np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(state))}


def _structure(state: PyTree) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _checksum(run: dict[str, Any], leaves: dict[str, np.ndarray], scalars: dict[str, np.ndarray]) -> str:
    parts: Sequence[Any] = (json.loads(json.dumps(run)), digest_of_arrays(leaves), digest_of_arrays(scalars))
    return digest(json.dumps(parts, sort_keys=True).encode())
