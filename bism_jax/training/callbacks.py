"""What happens every so many iterations of a run: evaluations and logs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bism_jax import checks
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

    A callback with a method `resume(step)` is told, before the first iteration, how many are done; one with
    `rewind(step)` is told when a rollback undoes what came after; `close()` is called at the end.
    """

    @property
    def every(self) -> int:
        """The number of iterations between calls."""
        ...

    def __call__(self, snapshot: Snapshot) -> Mapping[str, float] | None:
        """Returns what it measured, if anything."""
        ...


@dataclass(frozen=True)
class Evaluate:
    """Measures a run; the results are in `FitResult.evaluations` and in the logs.

    Attributes:
        fn: `Snapshot -> {name: number}`.
        every: the number of iterations between evaluations.
    """

    fn: Callable[[Snapshot], Mapping[str, float]]
    every: int = 1000

    def __post_init__(self) -> None:
        checks.positive_int("every", self.every)
        if not callable(self.fn):
            raise TypeError(f"fn must be a function of a Snapshot, not {self.fn!r}.")

    def __call__(self, snapshot: Snapshot) -> Mapping[str, float]:
        """The measurements."""
        measured = self.fn(snapshot)
        if not isinstance(measured, Mapping):
            raise TypeError(f"Evaluate: fn must return a mapping of names to numbers, not {type(measured)}.")
        return {name: float(value) for name, value in measured.items()}


@dataclass(frozen=True)
class _FileLog:
    """What the logs in one file share: they start anew, or continue, and lose nothing of another run."""

    path: str | Path
    every: int = 100

    def __post_init__(self) -> None:
        checks.path("path", self.path)
        checks.positive_int("every", self.every)

    def resume(self, step: int) -> None:
        """Continues the file of a resumed run, or starts one."""
        path = Path(self.path)
        if step == 0 and path.exists() and path.stat().st_size > 0:
            raise FileExistsError(
                f"{path} exists and this run starts anew; choose another path, or resume the run that wrote "
                "it by its checkpoint_dir."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rewind(step)

    def rewind(self, step: int) -> None:
        """Drops what was written after `step`."""
        raise NotImplementedError


@dataclass(frozen=True)
class CSVLog(_FileLog):
    """Writes the metrics as rows of a CSV file.

    A file that exists is continued by a resumed run, from which rows after its step are dropped, and
    otherwise left alone with an error.

    Attributes:
        path: the file.
        every: the number of iterations that a row averages over.
    """

    _rows: list[dict[str, Any]] = field(default_factory=list, repr=False, compare=False)
    _columns: dict[str, None] = field(default_factory=dict, repr=False, compare=False)

    def rewind(self, step: int) -> None:
        """Drops the rows after `step`, and one that a kill left unfinished."""
        path = Path(self.path)
        self._rows.clear()
        if path.exists():
            with path.open(newline="") as file:
                whole = (row for row in csv.DictReader(file) if None not in row.values())
                self._rows.extend(row for row in whole if int(row["step"]) <= step)
        self._columns.clear()
        self._columns.update(dict.fromkeys(name for row in self._rows for name in row))
        self._write_all()

    def __call__(self, snapshot: Snapshot) -> None:
        """Adds a row."""
        row = {"step": snapshot.step, **snapshot.metrics}
        self._rows.append(row)
        if row.keys() <= self._columns.keys():
            with Path(self.path).open("a", newline="") as file:
                csv.DictWriter(file, list(self._columns), restval="").writerow(row)
        else:
            self._columns.update(dict.fromkeys(row))
            self._write_all()

    def _write_all(self) -> None:
        buffer = io.StringIO(newline="")
        if self._rows:
            writer = csv.DictWriter(buffer, list(self._columns), restval="")
            writer.writeheader()
            writer.writerows(self._rows)
        _replace_text(Path(self.path), buffer.getvalue())


@dataclass(frozen=True)
class JSONLLog(_FileLog):
    """Writes the metrics as lines of JSON; what exists is treated as by `CSVLog`.

    Attributes:
        path: the file.
        every: the number of iterations that a line averages over.
    """

    def rewind(self, step: int) -> None:
        """Drops the lines after `step`, and one that a kill left unfinished."""
        path = Path(self.path)
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        _replace_text(path, "".join(line + "\n" for line in kept))

    def __call__(self, snapshot: Snapshot) -> None:
        """Adds a line."""
        with Path(self.path).open("a") as file:
            file.write(json.dumps({"step": snapshot.step, **snapshot.metrics}) + "\n")


class TensorBoardLog:
    """Writes the metrics for TensorBoard, by way of tensorboardX.

    Args:
        log_dir: the folder of event files; each run adds one.
        every: the number of iterations that a point averages over.

    Raises:
        ImportError: where tensorboardX is not installed.
    """

    def __init__(self, log_dir: str | Path, every: int = 100) -> None:
        checks.path("log_dir", log_dir)
        checks.positive_int("every", every)
        self.every = every
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoardLog needs tensorboardX: pip install tensorboardX, or use CSVLog."
            ) from error
        self._writer = SummaryWriter(str(log_dir))

    def __call__(self, snapshot: Snapshot) -> None:
        """Adds a point to each curve."""
        for name, value in snapshot.metrics.items():
            self._writer.add_scalar(name, value, snapshot.step)
        self._writer.flush()

    def close(self) -> None:
        """Writes what is still in the queue."""
        self._writer.close()


def _replace_text(path: Path, text: str) -> None:
    """Writes a whole file at once, so that a kill loses nothing of the old one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, newline="")
    os.replace(temporary, path)
