"""Tables and figures of measurements."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.depth.measure import Measurement
from bism_jax import plotting

_NUMBERS = ("num_steps", "median_ms", "low_ms", "high_ms", "compile_s", "temporary_mib", "peak_mib", "error")


def read_csv(path: Path) -> list[Measurement]:
    """The measurements of an earlier run."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return [_parse(row) for row in rows]


def append_csv(path: Path, row: Measurement) -> None:
    """Adds a line, so that an interrupted run loses nothing."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(Measurement._fields)
        writer.writerow(row)


def markdown(rows: Sequence[Measurement]) -> str:
    """A table for each model."""
    parts = []
    for model in dict.fromkeys(row.model for row in rows):
        parts.append(
            f"## {model}\n\n"
            "| strategy | N | ms (quartiles) | compile s | temporaries MiB | peak MiB | error |\n"
            "|---|---|---|---|---|---|---|"
        )
        parts += [_line(row) for row in _of_model(rows, model)]
        parts.append("")
    return "\n".join(parts)


def draw(rows: Sequence[Measurement], folder: Path) -> None:
    """Memory and time against N, and error against time, for each model."""
    for model in dict.fromkeys(row.model for row in rows):
        of_model = [row for row in _of_model(rows, model) if row.num_steps > 0]
        names = list(dict.fromkeys(row.strategy for row in of_model))
        by_name = {name: [row for row in of_model if row.strategy == name] for name in names}
        for column, label in (("temporary_mib", "temporaries, MiB"), ("median_ms", "ms an iteration")):
            curves: Any = {
                name: ([row.num_steps for row in some], [getattr(row, column) for row in some])
                for name, some in by_name.items()
            }
            figure = plotting.plot_curves(curves, "N", label, title=model, log_axes=True)
            plotting.save(figure, folder / f"{model}-{column.split('_')[0]}.png")
        errors: Any = {
            name: ([row.median_ms for row in some], [row.error for row in some])
            for name, some in by_name.items()
            if not any(math.isnan(row.error) for row in some)
        }
        if not errors:
            continue
        figure = plotting.plot_curves(
            errors, "ms an iteration", "error of the hypergradient", title=model, log_axes=True
        )
        plotting.save(figure, folder / f"{model}-error.png")


def _of_model(rows: Sequence[Measurement], model: str) -> list[Measurement]:
    """By N, since a run that continued another adds its lines after it."""
    return sorted((row for row in rows if row.model == model), key=lambda row: row.num_steps)


def _parse(row: dict[str, str]) -> Measurement:
    numbers: Any = {name: float(row[name]) for name in _NUMBERS}
    numbers["num_steps"] = int(numbers["num_steps"])
    return Measurement(model=row["model"], strategy=row["strategy"], **numbers)


def _line(row: Measurement) -> str:
    error = "" if math.isnan(row.error) else f"{row.error:.1e}"
    return (
        f"| {row.strategy} | {row.num_steps} | {row.median_ms:.3g} ({row.low_ms:.3g} to {row.high_ms:.3g}) "
        f"| {row.compile_s:.1f} | {row.temporary_mib:.2f} | {row.peak_mib:.1f} | {error} |"
    )
