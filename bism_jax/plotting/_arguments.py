"""Checks of what is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bism_jax import checks
from bism_jax.checks import as_numbers, called, finite_scalar, shown


def named(name: str, value: Any, entry: str) -> None:
    """Raises unless `value` is a mapping from names to entries, of which there is one at least.

    Raises:
        TypeError: where it is no mapping, or a name is no string.
        ValueError: where it is empty.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping from names to {entry}, not {shown(value)}.")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{name}: each name must be a string, not {shown(key)}.")
    if not value:
        raise ValueError(f"{name} is empty: give at least one {entry}.")


def reals(name: str, value: Any, expected: str) -> np.ndarray:
    """`value` as an array of real numbers in float64, which may hold NaN."""
    return np.asarray(as_numbers(name, value, expected), np.float64)


def parts(name: str, value: Any, expected: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """The parts of one curve as arrays."""
    if not isinstance(value, (tuple, list)) or len(value) != len(expected):
        raise TypeError(f"{name} must be a tuple ({', '.join(expected)}), not {shown(value)}.")
    return tuple(reals(f"{name}: {part}", array, "[n]") for part, array in zip(expected, value, strict=True))


def references(value: Any) -> dict[str, float]:
    """Heights of horizontal lines by name."""
    # An empty mapping is no lines here; of curves it would be an empty picture, and is refused.
    if value is None or (isinstance(value, Mapping) and not value):
        return {}
    named("reference", value, "height")
    for name, height in value.items():
        finite_scalar(f"reference[{name!r}]", height)
    return {name: float(height) for name, height in value.items()}


def optional_text(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is a string or None."""
    if value is not None:
        checks.text(name, value, "or None")


def labels(name: str, value: Any) -> list[str]:
    """One label each, as text."""
    # A string is a sequence of letters, which nobody means as labels.
    is_sequence = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))
    if not is_sequence or np.ndim(value) == 0:
        raise TypeError(f"{name} must be a sequence with one label each, not {shown(value)}.")
    return [str(label) for label in value]


def interval(name: str, value: Any) -> tuple[float, float]:
    """Two finite numbers of which the first is the lower."""
    if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != 2:
        raise TypeError(f"{name} must be a pair (low, high), not {shown(value)}.")
    for end in value:
        finite_scalar(f"each end of {name}", end)
    low, high = float(value[0]), float(value[1])
    # matplotlib draws reversed limits as a mirrored axis, and widens equal ones.
    if not low < high:
        raise ValueError(f"{name} must be a pair (low, high) with low < high, not {value!r}.")
    return low, high


def box(name: str, value: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """An interval for each coordinate of the plane."""
    if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != 2:
        raise TypeError(f"{name} must be ((x_low, x_high), (y_low, y_high)), not {shown(value)}.")
    return interval(f"{name}[0]", value[0]), interval(f"{name}[1]", value[1])


def values_at(name: str, fn: Callable[..., Any], points: Any) -> np.ndarray:
    """`fn` at points of the plane, one number each.

    Raises:
        TypeError: where it is no function.
        ValueError: where it fails, or returns another shape.
    """
    checks.function(name, fn, "[n, 2] -> [n]")
    values = np.asarray(as_numbers(name, called(name, fn, points), "[n]"))
    if values.shape != (len(points),):
        raise ValueError(
            f"{name} returned shape {values.shape} for {len(points)} points; it must return one log "
            "density a point, [n, 2] -> [n]."
        )
    return values


def file(path: Any, suffixes: Sequence[str]) -> Path:
    """`path` as the path of a file to write, whose folders are made.

    Raises:
        TypeError: where it is no path.
        ValueError: where it has another suffix, or is a folder.
    """
    path = checks.path("path", path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"path must end in one of {', '.join(suffixes)}, not {path.name!r}.")
    if path.is_dir():
        raise ValueError(f"path {str(path)!r} is a folder; name a file.")
    # `mkdir` would name the folder, and not the argument it came from.
    blocking = [folder for folder in path.parents if folder.exists() and not folder.is_dir()]
    if blocking:
        raise ValueError(f"path {str(path)!r} lies in {str(blocking[0])!r}, which is no folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
