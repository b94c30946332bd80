"""Metrics as lines of JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bism_jax.training.callbacks._callback import Snapshot
from bism_jax.training.callbacks._file_log import FileLog, is_up_to
from bism_jax.training.callbacks._text_files import whole_lines


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
        lines = whole_lines(text).splitlines(keepends=True)
        return "".join(line for line in lines if is_up_to(_step_of(line), step))


def _step_of(line: str) -> Any:
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):  # no JSON, no object, or one without a step: a user's own line
        return None
