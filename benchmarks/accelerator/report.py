"""The rows as Markdown: a table for each stage, with the columns that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_HIDDEN = ("stage", "case", "status", "at", "quick", "device", "error")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """What was measured, on which device, and what was not and why."""
    devices = ", ".join(dict.fromkeys(row["device"] for row in rows if row.get("device")))
    parts = [f"Device: {devices or 'none yet'}\n"]
    for stage in dict.fromkeys(row["stage"] for row in rows):
        parts.append(f"## {stage}\n\n{_table([row for row in rows if row['stage'] == stage])}\n")
    return "\n".join(parts)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    measured = dict.fromkeys(name for row in rows for name in row if name not in _HIDDEN)
    columns = [name for name in measured if any(row.get(name) is not None for row in rows)]
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
