"""The rows of measurements, whole on the disk at every moment."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.accelerator import report

Row = dict[str, Any]
WAITING, RUNNING, DONE, PARTIAL = "waiting", "running", "done", "partial"
FAILED, UNAVAILABLE, CUT_OFF = "failed", "unavailable", "cut off"
START = "start"  # the case of a stage that does not come to its cases


class Rows:
    """Rows by stage and case, in rows.json; rows.csv and rows.md are written from it.

    A row has `stage`, `case`, `status`, `at` (when it was tried, in seconds since 1970), `quick`, and what
    was measured. Each change reads the file and replaces it as a whole, so that a kill between any two
    instructions leaves whole rows, and the processes that take turns see each other's.

    Args:
        folder: where the files are; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def all(self) -> list[Row]:
        """Every row, in the order of first mention."""
        file = self._folder / "rows.json"
        try:
            return json.loads(file.read_text()) if file.exists() else []
        except ValueError as error:
            raise ValueError(f"{file} was cut off or edited ({error}); choose another --output.") from error

    def find(self, stage: str, case: str) -> Row | None:
        """The row of a case."""
        return next((row for row in self.all() if (row["stage"], row["case"]) == (stage, case)), None)

    def put(self, stage: str, case: str, status: str, **values: Any) -> Row:
        """Adds the row of a case, or replaces it."""
        row = _new_row(stage, case, status, values)
        rows = self.all()
        places = [i for i, old in enumerate(rows) if (old["stage"], old["case"]) == (stage, case)]
        if places:
            rows[places[0]] = row
        else:
            rows.append(row)
        self._write(rows)
        return row

    def announce(self, stage: str, cases: Iterable[str], **values: Any) -> None:
        """Rows of what is still to be measured, so that a report shows it; the stage has started."""
        rows = [row for row in self.all() if (row["stage"], row["case"]) != (stage, START)]
        known = {row["case"] for row in rows if row["stage"] == stage}
        self._write(rows + [_new_row(stage, case, WAITING, values) for case in cases if case not in known])

    def end_running(self, status: str, error: str) -> list[Row]:
        """Marks the rows of measurements that were stopped from outside, and returns them.

        They keep the time at which they were tried, which may be that of an earlier call.
        """
        rows = self.all()
        ended = [row for row in rows if row["status"] == RUNNING]
        for row in ended:
            row |= {"status": status, "error": error}
        self._write(rows)
        return ended

    def _write(self, rows: list[Row]) -> None:
        replace_text(self._folder / "rows.json", json.dumps(rows, indent=1, allow_nan=False) + "\n")
        replace_text(self._folder / "rows.csv", _as_csv(rows))
        replace_text(self._folder / "rows.md", report.markdown(rows))


def replace_text(path: Path, text: str) -> None:
    """Writes a whole file at once."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _new_row(stage: str, case: str, status: str, values: Row) -> Row:
    plain = {name: _plain(value) for name, value in values.items()}
    return {"stage": stage, "case": case, "status": status, "at": time.time(), **plain}


def _plain(value: Any) -> Any:
    """A number of JSON, which has neither NumPy's scalars nor NaN."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_csv(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
