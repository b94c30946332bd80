"""The rows as Markdown: tables for each stage, one for rows with the same columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

_HIDDEN = ("stage", "case", "status", "at", "quick", "device", "error", "took_s")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """What was measured, on which device, and what was not and why."""
    devices = ", ".join(dict.fromkeys(row["device"] for row in rows if row.get("device")))
    parts = [f"Device: {devices or 'none yet'}\n"]
    for stage in dict.fromkeys(row["stage"] for row in rows):
        parts.append(f"## {stage}\n")
        of_stage = [row for row in rows if row["stage"] == stage]
        parts += [f"{_table(columns, list(some))}\n" for columns, some in groupby(of_stage, _columns)]
    return "\n".join(parts)


def _columns(row: dict[str, Any]) -> list[str]:
    return [name for name in row if name not in _HIDDEN]


def _table(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    columns = [name for name in names if any(row[name] is not None for row in rows)]
    titles = [name.replace("_", " ") for name in columns]
    lines = ["| " + " | ".join(["case", *titles, "status"]) + " |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        cells = [row["case"], *(_shown(row.get(name)) for name in columns), _status(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _status(row: dict[str, Any]) -> str:
    reason = row.get("error")
    return row["status"] if not reason else f"{row['status']}: {_in_cell(reason)}"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"
    return _in_cell(str(value))


def _in_cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:200]
