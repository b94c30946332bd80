"""What a stage consists of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accelerator.options import Options
from benchmarks.accelerator.rows import DONE, Rows


@dataclass(frozen=True)
class Context:
    """What measurements know of the call that they are part of.

    Attributes:
        options: of the command.
        rows: of all stages so far.
        deadline: of the stage, in seconds since 1970; its process is killed then.
    """

    options: Options
    rows: Rows
    deadline: float

    @property
    def seconds_left(self) -> float:
        """Until the stage is stopped."""
        return self.deadline - time.time()

    def folder(self, name: str) -> Path:
        """A folder for what the next call continues from."""
        folder = self.options.work / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def value(self, stage: str, case: str, column: str) -> Any:
        """What an earlier case measured, or None."""
        row = self.rows.find(stage, case)
        return row.get(column) if row is not None and row["status"] == DONE else None


class Case(NamedTuple):
    """One measurement.

    Attributes:
        name: unique within its stage.
        run: returns the columns of its row. With `status` among them the row has that instead of "done",
            with `error` as the reason.
    """

    name: str
    run: Callable[[], dict[str, Any]]


class UnavailableError(Exception):
    """Something that the measurement needs is not on this machine."""
