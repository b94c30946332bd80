"""What happens every so many iterations of a run: evaluations and logs."""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.util
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from etils import epath

from bism_jax import checks
from bism_jax._paths import as_path, is_local, is_unicode
from bism_jax.training._loop import hosts
from bism_jax.typing import Params


class Snapshot(NamedTuple):
    """A run after some iteration.

    Attributes:
        step: the number of iterations done.
        theta: energy parameters.
        phi: posterior parameters, or None.
        theta_ema: the moving average of theta, or None.
        metrics: the mean of each scalar of `Info` since the callback's last turn, and what callbacks
            before it in the list measured at this step.
    """

    step: int
    theta: Params
    phi: Params
    theta_ema: Params
    metrics: Mapping[str, float]


class Callback(Protocol):
    """Called after every `every` iterations and after the last.

    It may raise `StopTraining` to end the run. A callback may have methods besides:

    - `state()` gives JSON that is kept in each checkpoint, and `restore(state)` takes it back in a resumed
      run, before `resume`.
    - `resume(step)` is told, before the first iteration, how many are done.
    - `rewind(step)` is told when a rollback undoes what came after.
    - `close()` is called at the end.
    """

    @property
    def every(self) -> int:
        """The number of iterations between calls."""
        ...

    def __call__(self, snapshot: Snapshot) -> Mapping[str, float] | None:
        """Returns what it measured, if anything."""
        ...


def states_of(callbacks: Sequence[Callback], of_rewindable: bool = True) -> dict[str, Any]:
    """The states of the callbacks that keep one, by name; of those with `rewind` where that is asked for."""
    states = {
        name: callback.state()
        for name, callback in _named(callbacks)
        if hasattr(callback, "state") and (of_rewindable or not hasattr(callback, "rewind"))
    }
    for name, state in states.items():
        try:
            json.dumps(state)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"callbacks: the state() of {name.rpartition(' ')[0]} cannot be kept in a checkpoint "
                f"({error}); return numbers, text, lists and dicts with text for keys."
            ) from error
    return states


def resume_all(callbacks: Sequence[Callback], states: Mapping[str, Any], step: int) -> None:
    """Gives callbacks their states of a checkpoint, and tells them how many iterations are done."""
    for name, callback in _named(callbacks):
        at_path = _state_at_path(callback, states)
        if (at_path or name in states) and hasattr(callback, "restore"):
            callback.restore(at_path or states[name])
        if hasattr(callback, "resume"):
            callback.resume(step)


def _state_at_path(callback: Any, states: Mapping[str, Any]) -> Any:
    """That of a log of the same kind in the same file, whatever its place in the list was."""
    if not isinstance(callback, FileLog):
        return None
    of_kind = [state for name, state in states.items() if name.startswith(f"{type(callback).__name__} ")]
    return next((state for state in of_kind if state["path"] == str(as_path("path", callback.path))), None)


def _named(callbacks: Sequence[Callback]) -> Iterator[tuple[str, Any]]:
    """Each callback by its type, its file where it has one, and its number among those."""
    counts: dict[str, int] = {}
    for callback in callbacks:
        path = getattr(callback, "path", None)
        name = type(callback).__name__ + (f" {Path(path).name}" if isinstance(path, (str, Path)) else "")
        counts[name] = counts.get(name, 0) + 1
        yield f"{name} {counts[name]}", callback


def numbers_of(source: str, measured: Any) -> dict[str, float]:
    """What `source` measured, as numbers by name.

    Raises:
        TypeError: where it is none of named numbers, naming what is not.
    """
    if not isinstance(measured, Mapping):
        raise TypeError(
            f"{source} must return a mapping of names to numbers, not a {type(measured).__name__}."
        )
    found = {}
    for name, value in measured.items():
        dtype = np.asarray(value).dtype
        is_number = np.ndim(value) == 0 and (dtype.kind in "biuf" or jnp.issubdtype(dtype, jnp.floating))
        if not isinstance(name, str) or not is_unicode(name) or not is_number:
            what = f"an array of shape {np.shape(value)}" if np.ndim(value) else repr(value)
            raise TypeError(
                f"{source} must return numbers by name, but {name!r} is {what}; return one such as "
                f"{{'{name}': float(value.mean())}}."
            )
        found[name] = float(value)
    return found


@dataclass(frozen=True)
class Evaluate:
    """Measures a run; the results are in `FitResult.evaluations` and in the logs.

    Attributes:
        fn: `Snapshot -> {name: number}`.
        every: the number of iterations between evaluations.

    Raises:
        ValueError: where `every` is no integer of at least 1.
        TypeError: where `fn` is no function.
    """

    fn: Callable[[Snapshot], Mapping[str, float]]
    every: int = 1000

    def __post_init__(self) -> None:
        checks.positive_int("every", self.every)
        if not callable(self.fn):
            raise TypeError(f"fn must be a function of a Snapshot, not {self.fn!r}.")

    def __call__(self, snapshot: Snapshot) -> Mapping[str, float]:
        """The measurements."""
        return numbers_of("Evaluate: fn", self.fn(snapshot))


@dataclass(frozen=True)
class FileLog:
    """What the logs in one file share: they start anew, or continue, and lose nothing of another run.

    The text so far is part of a checkpoint, so that a resumed run goes on from it byte for byte, whatever
    became of the file. Of several hosts only the first writes.
    """

    path: str | Path
    every: int = 100
    _text: list[str] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        checks.positive_int("every", self.every)
        self._file  # noqa: B018 - refuses what is no path

    def resume(self, step: int) -> None:
        """Starts the file, or goes on after its rows up to `step`.

        Raises:
            FileExistsError: where the run starts anew and the file holds anything.
        """
        if not hosts.is_first():
            return
        file = self._file
        text = _read_text(file)
        if step == 0 and text:
            raise FileExistsError(
                f"{file} exists and this run starts anew; choose another path, or resume the run that wrote "
                "it by its checkpoint_dir."
            )
        if step > 0 and text != "".join(self._text):  # no checkpoint has vouched for it
            self._keep_aside("it begins anew")
            text = ""
        self._set_text(self._up_to(text, step))
        self._write_all()

    def state(self) -> dict[str, str]:
        """The text so far and its file, for a checkpoint."""
        return {"path": str(self._file), "text": "".join(self._text)}

    def restore(self, state: Mapping[str, str]) -> None:
        """Goes on from the text of a checkpoint.

        Warns:
            UserWarning: where the file holds anything else than that text and what came after it; that
                is kept beside it.
        """
        if not hosts.is_first():
            return
        is_moved = state["path"] != str(self._file)  # then rows alone do not show that it is that of this run
        if not self._is_as_left(_read_text(self._file), state["text"], is_moved):
            self._keep_aside("it goes on from its checkpoint")
        self._set_text(state["text"])
        self._write_all()

    def rewind(self, step: int) -> None:
        """Drops what was written after `step`."""
        self._set_text(self._up_to("".join(self._text), step))
        self._write_all()

    @functools.cached_property
    def _file(self) -> epath.Path:
        return as_path("path", self.path)

    def _keep_aside(self, what_follows: str) -> None:
        """Leaves a file that this run cannot have written where its user finds it."""
        file = self._file
        warnings.warn(
            f"{file} is not as this run left it: it is kept as {_move_aside(file)}, and {what_follows}.",
            stacklevel=2,
        )

    def _is_as_left(self, found: str, state: str, is_moved: bool) -> bool:
        """Whether the file is that of a checkpoint, cut or with rows that came after it."""
        if state == "":  # which any text begins with
            return found == "" or (not is_moved and self._up_to(found, sys.maxsize) != "")
        return state.startswith(found) or (
            found.startswith(state) and all(map(self._is_row, found[len(state) :].splitlines(keepends=True)))
        )

    def _is_row(self, line: str) -> bool:
        """Whether a line may be a row of this log, or what a kill left of one."""
        raise NotImplementedError

    def _up_to(self, text: str, step: int) -> str:
        """The whole rows of `text` up to `step`."""
        raise NotImplementedError

    def _set_text(self, text: str) -> None:
        self._text[:] = [text]

    def _append(self, text: str) -> None:
        self._text.append(text)
        file = self._file
        if not hosts.is_first():
            return
        if not is_local(file) or not file.exists():  # a bucket cannot be appended to
            self._write_all()
            return
        with _naming(file), open(file, "a", newline="", encoding="utf-8") as stream:
            stream.write(text)

    def _write_all(self) -> None:
        if hosts.is_first():
            _replace_text(self._file, "".join(self._text))


@dataclass(frozen=True)
class CSVLog(FileLog):
    """Writes the metrics as rows of a CSV file.

    A file that exists is continued by a resumed run, from which rows after its step are dropped, and
    otherwise left alone with an error.

    Attributes:
        path: the file.
        every: the number of iterations that a row averages over.
    """

    _columns: dict[str, None] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, snapshot: Snapshot) -> None:
        """Adds a row."""
        row = {"step": snapshot.step, **snapshot.metrics}
        if row.keys() <= self._columns.keys():
            self._append(_csv_text(self._columns, [row], with_header=False))
            return
        rows = [*_csv_rows("".join(self._text)), row]
        self._set_text(_csv_text(self._columns | dict.fromkeys(row), rows, with_header=True))
        self._write_all()

    def _set_text(self, text: str) -> None:
        super()._set_text(text)
        self._columns.clear()
        self._columns.update(dict.fromkeys(next(csv.reader(io.StringIO(text)), [])))

    def _is_row(self, line: str) -> bool:
        step, comma, _ = line.partition(",")
        return step.isdecimal() and (bool(comma) or not line.endswith("\n"))

    def _up_to(self, text: str, step: int) -> str:
        text = _whole_lines(text)
        rows = _csv_rows(text)
        kept = [row for row in rows if None not in row.values() and _is_up_to(row.get("step"), step)]
        if kept and len(kept) == len(rows):
            return text
        columns = dict.fromkeys(name for row in kept for name in row)
        return _csv_text(columns, kept, with_header=True) if kept else ""


@dataclass(frozen=True)
class JSONLLog(FileLog):
    """Writes the metrics as lines of JSON; what exists is treated as by `CSVLog`.

    Attributes:
        path: the file.
        every: the number of iterations that a line averages over.
    """

    def __call__(self, snapshot: Snapshot) -> None:
        """Adds a line."""
        self._append(json.dumps({"step": snapshot.step, **snapshot.metrics}) + "\n")

    def _is_row(self, line: str) -> bool:
        return _step_of(line) is not None if line.endswith("\n") else line.startswith("{"[: len(line)])

    def _up_to(self, text: str, step: int) -> str:
        lines = _whole_lines(text).splitlines(keepends=True)
        return "".join(line for line in lines if _is_up_to(_step_of(line), step))


class TensorBoardLog:
    """Writes the metrics for TensorBoard, by way of tensorboardX.

    Args:
        log_dir: the folder of event files; each run adds one.
        every: the number of iterations that a point averages over.

    Raises:
        ImportError: where tensorboardX is not installed.
    """

    def __init__(self, log_dir: str | Path, every: int = 100) -> None:
        checks.positive_int("every", every)
        self.every = every
        self._log_dir = as_path("log_dir", log_dir)
        self._writer: Any = None
        if importlib.util.find_spec("tensorboardX") is None:
            raise ImportError("TensorBoardLog needs tensorboardX: pip install tensorboardX, or use CSVLog.")

    def resume(self, step: int) -> None:
        """Starts a file, which hides the points of others in the folder after `step`."""
        if hosts.is_first():
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(self._log_dir), purge_step=step + 1 if step else None)

    def __call__(self, snapshot: Snapshot) -> None:
        """Adds a point to each curve."""
        if self._writer is not None:
            for name, value in snapshot.metrics.items():
                self._writer.add_scalar(name, value, snapshot.step)
            self._writer.flush()

    def close(self) -> None:
        """Writes what is still in the queue."""
        if self._writer is not None:
            self._writer.close()


def _whole_lines(text: str) -> str:
    """Without the last line, where a kill cut it off."""
    return text[: text.rfind("\n") + 1]


def _csv_rows(text: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _csv_text(columns: Mapping[str, None], rows: Sequence[Mapping[str, Any]], with_header: bool) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(columns), restval="")
    if with_header:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _is_up_to(found: Any, step: int) -> bool:
    return str(found).isdecimal() and int(found) <= step


def _step_of(line: str) -> Any:
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return None


def _read_text(file: epath.Path) -> str:
    if not file.exists():
        return ""
    return file.read_bytes().decode("utf-8-sig", errors="replace")  # an editor may have put a mark before it


def _move_aside(file: epath.Path) -> epath.Path:
    number = 1
    while (aside := file.with_name(f"{file.name}.edited-{number}")).exists():
        number += 1
    return file.rename(aside) or aside


def _replace_text(file: epath.Path, text: str) -> None:
    """Writes a whole file at once, so that a kill loses nothing of the old one."""
    with _naming(file):
        if not is_local(file):  # a bucket replaces an object at once, and has no cheaper rename
            file.write_bytes(text.encode())
            return
        file = epath.Path(os.path.realpath(file))  # of a link, what it points to
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        temporary.write_bytes(text.encode())
        temporary.replace(file)


@contextlib.contextmanager
def _naming(file: epath.Path) -> Iterator[None]:
    """Names the log in an error of the system."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"the log {file} cannot be written ({error.strerror}); see to the space left and the "
            "permissions, or choose another path",
        ) from error
