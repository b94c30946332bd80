"""Metrics as rows of a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bism_jax.training.callbacks._callback import Snapshot
from bism_jax.training.callbacks._file_log import FileLog, is_up_to
from bism_jax.training.callbacks._text_files import whole_lines


@dataclass(frozen=True)
class CSVLog(FileLog):
    """Writes the metrics as rows of a CSV file.

    A file that exists is continued by a resumed run, from which rows after its step are dropped, and
    otherwise left alone with an error.

    Attributes:
        path: the file.
        every: the number of iterations that a row averages over.
    """

    # An ordered set, changed in place since the dataclass is frozen.
    _columns: dict[str, None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, snapshot: Snapshot) -> None:
        """Adds a row."""
        row = {"step": snapshot.step, **snapshot.metrics}
        if row.keys() <= self._columns.keys():
            self._append(_csv_text(self._columns, [row], with_header=False))
            return
        # A new name changes the header, which stands above all rows: they are written anew.
        rows = [*_csv_rows("".join(self._text)), row]
        self._set_text(_csv_text(self._columns | dict.fromkeys(row), rows, with_header=True))
        self._write_all()

    def _set_text(self, text: str) -> None:
        super()._set_text(text)
        self._columns.clear()
        self._columns.update(dict.fromkeys(next(csv.reader(io.StringIO(text)), [])))

    def _is_row(self, line: str) -> bool:
        step, comma, _ = line.partition(",")
        # Without a line end it may be cut before its first comma.
        return step.isdecimal() and (bool(comma) or not line.endswith("\n"))

    def _up_to(self, text: str, step: int) -> str:
        text = whole_lines(text)
        rows = _csv_rows(text)
        # `DictReader` fills up a row that is cut with None.
        kept = [row for row in rows if None not in row.values() and is_up_to(row.get("step"), step)]
        if kept and len(kept) == len(rows):
            return text  # not written anew, which would end lines and quote in its own way
        columns = dict.fromkeys(name for row in kept for name in row)
        return _csv_text(columns, kept, with_header=True) if kept else ""


def _csv_rows(text: str) -> list[dict[str, Any]]:
    # newline="": a name may hold a line end, which is to come back as it was.
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _csv_text(columns: Mapping[str, None], rows: Sequence[Mapping[str, Any]], with_header: bool) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(columns), restval="")
    if with_header:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
