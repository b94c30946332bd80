"""Checkpoints of a run, by orbax."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from bism_jax.training._checkpoints.content import Content, Restored, check_same_run, content_of, continued
from bism_jax.training._checkpoints.description import Description
from bism_jax.training._checkpoints.orbax_quirks import ORBAX, await_late_callbacks, without_late_callbacks
from bism_jax.training._loop import hosts
from bism_jax.training._loop.history import History
from bism_jax.training._loop.state import LoopState

_Result = TypeVar("_Result")

_saving: list[CheckpointStore] = []  # of this process: whose checkpoints orbax is yet writing
_MARK = "_CHECKPOINT_METADATA"  # which orbax writes into every checkpoint
# The newest may be damaged by what ended the run, and so may the one before it by what filled the disk.
_NUM_KEPT = 3


class _Damaged(Exception):  # noqa: N818 - it never leaves this file
    """A checkpoint that cannot be read, and why."""


class CheckpointStore:
    """The checkpoints of one run in one folder.

    A checkpoint holds parameters, optimiser states, moving average, key, iteration, data position, history
    and the states of callbacks; saving happens in the background, and a checkpoint appears only when it is
    complete.

    Args:
        directory: the folder; made where it does not exist.
        description: what the run is, as JSON; a run continues only what has the same description.
    """

    def __init__(self, directory: epath.Path, description: Description) -> None:
        self.directory = directory
        # As it comes back from disk, tuples as lists: the two are compared.
        self._description = json.loads(json.dumps(description))
        self._failure: Exception | None = None
        self._step_of_turns: int | None = None  # of a checkpoint whose callbacks have yet to have their turn
        options = ocp.CheckpointManagerOptions(max_to_keep=_NUM_KEPT, create=True)
        with ORBAX:
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest_path(self) -> epath.Path | None:
        """Where the newest checkpoint is that is complete, or None."""
        # orbax lists also the one that it is yet writing.
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
        if step in self._manager.all_steps():  # which orbax refuses to write again
            if step != self._step_of_turns or turns_due:
                return
            self._alone(lambda: self._manager.delete(step))  # the callbacks have had their turn now
        self._step_of_turns = step if turns_due else None
        content = content_of(state, self._description, source_position, history, callbacks, turns_due)
        run = {**content.run, "checksum": content.checksum()}
        items = {"state": ocp.args.StandardSave(content.leaves), "run": ocp.args.JsonSave(run)}
        if content.scalars:  # orbax 0.12 refuses an empty item
            items["history"] = ocp.args.StandardSave(content.scalars)
        self._try_writing(lambda: self._manager.save(step, args=ocp.args.Composite(**items)))
        _saving.append(self)

    def restore(self, target: LoopState, history: History, strictly: bool = True) -> Restored | None:
        """Reads the newest whole checkpoint back into a state like `target`; None where there is none.

        Args:
            target: the state before the first iteration of this run.
            history: the record, which is set to that of the checkpoint.
            strictly: whether the checkpoint must be of this very run; otherwise its parameters are taken,
                with what else has the same structure.

        Raises:
            ValueError: where it was written by another run, or no checkpoint of several can be read.

        Warns:
            UserWarning: where newer checkpoints are damaged; they are moved aside.
        """
        content = self._newest_whole(target if strictly else None)
        if content is None:
            return None
        restored = continued(content, target, self._description, strictly, self.directory)
        if restored.turns_due:
            self._step_of_turns = int(restored.state.step)
        names = content.run.get("scalars", content.scalars)  # in the order in which they were recorded
        history.restore({name: content.scalars[name] for name in names}, content.run["evaluations"])
        return restored

    def _newest_whole(self, expected: LoopState | None) -> Content | None:
        self.wait()  # a rollback may come while the newest is being written
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                content = self._read(step, expected)
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
            return content
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
            failure, self._failure = self._failure, None  # of a save that whoever came next has waited for
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
        with ORBAX, without_late_callbacks():
            while _saving:
                _saving.pop()._finish()
            return operation()

    def _finish(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # it is for the run that this store belongs to
            self._failure = error
            await_late_callbacks()

    def _read(self, step: int, expected: LoopState | None) -> Content:
        """A checkpoint, which must be of this very run where a state like that is expected."""
        # Before the arrays: they may be large, and those of another run are of no use.
        run = self._read_items(step, run=ocp.args.JsonRestore())["run"]
        if not isinstance(run, dict) or not isinstance(run.get("description"), dict):
            raise _Damaged("its run/metadata is not complete")
        if expected is not None:
            check_same_run(run["description"], self._description, expected, self.directory)
        items = {"state": ocp.args.StandardRestore()}
        if step:  # that of iteration 0 has no record
            items["history"] = ocp.args.StandardRestore()
        found = self._read_items(step, **items)
        leaves = {name: np.asarray(leaf) for name, leaf in found["state"].items()}
        scalars = {name: np.asarray(values) for name, values in (found.get("history") or {}).items()}
        checksum = run.pop("checksum", None)  # version 0.1.0 wrote none
        content = Content(run, leaves, scalars)
        if checksum not in (None, content.checksum()):
            raise _Damaged("its content is not what was written")
        if len(leaves) != len(run["description"].get("structure", {})):
            raise _Damaged("its state is not complete")
        return content

    def _read_items(self, step: int, **items: Any) -> Any:
        try:
            return self._alone(lambda: self._manager.restore(step, args=ocp.args.Composite(**items)))
        except Exception as error:  # whatever a dependency raises for a file that is cut
            raise _Damaged(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error

    def _move_aside(self, damaged: dict[int, str], whole: int) -> None:
        if hosts.is_first():
            for step in damaged:
                aside = self.directory / f"{step}.damaged"
                number = 1
                while aside.exists():
                    number += 1
                    aside = self.directory / f"{step}.damaged-{number}"
                self._path(step).rename(aside)
        hosts.wait("damaged checkpoints are moved")  # or another process reloads what is yet to move
        with ORBAX:
            self._manager.reload()
        warnings.warn(
            f"checkpoint_dir={self.directory}: {_listed(damaged)}; going back to the newest whole one, "
            f"{self._path(whole)}. What was damaged is kept beside it, as NAME.damaged.",
            stacklevel=2,
        )


def _listed(damaged: dict[int, str]) -> str:
    return "; ".join(f"checkpoint {step} is damaged ({reason})" for step, reason in damaged.items())
