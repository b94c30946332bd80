"""Tables with named columns (pandas, polars, pyarrow) as arrays: all of their columns must be floating."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

# pandas writes float64, Float64, double[pyarrow], Sparse[float64, 0]; polars Float64; pyarrow halffloat.
_FLOATING = re.compile(r"(sparse\[)?(float|double|halffloat)", re.IGNORECASE)
_NUMBERS = re.compile(r"u?int|bool|object|decimal", re.IGNORECASE)
_LISTED = 5  # columns of an error: a table may have thousands


def is_frame(value: Any) -> bool:
    """Whether it has columns of dtypes of their own, or is one such column."""
    return _is_table(value) or _is_column(value)


def frame_to_array(frame: Any, place: str = "") -> np.ndarray:
    """The numbers of a table, `[rows, columns]`, or of one column, `[rows]`; its index is left out.

    Raises:
        ValueError: a column is not floating, or the table has none.
    """
    if _is_column(frame):
        is_floating = _is_floating(frame.dtype)
        return frame_to_array(frame.to_frame(), place)[:, 0] if is_floating else np.asarray(frame)
    columns = _columns(frame)
    others = [(name, dtype) for name, dtype in columns if not _is_floating(dtype)]
    if others:
        raise ValueError(_not_floating(frame, others, place))
    if not columns:
        raise ValueError(f"data is empty{place}: a {type(frame).__name__} without columns.")
    array = np.asarray(frame)
    if array.dtype == object:  # pandas' nullable columns; a missing value is NaN, for the caller to find
        return frame.to_numpy(dtype=_common_dtype(columns), na_value=np.nan)
    return array


def _is_table(value: Any) -> bool:
    kind = type(value)  # whose properties are not evaluated
    has_dtypes = hasattr(kind, "columns") and hasattr(kind, "dtypes")
    return has_dtypes or (hasattr(kind, "schema") and hasattr(kind, "column_names"))


def _is_column(value: Any) -> bool:
    return hasattr(value, "to_frame") and hasattr(value, "__array__")


def _columns(frame: Any) -> list[tuple[Any, Any]]:
    """Names and dtypes, in order; two columns may have one name."""
    if hasattr(frame, "dtypes"):
        return list(zip(frame.columns, frame.dtypes, strict=True))
    return list(zip(frame.schema.names, frame.schema.types, strict=True))


def _common_dtype(columns: list[tuple[Any, Any]]) -> np.dtype:
    is_double = any(re.search("64|double", str(dtype)) for _, dtype in columns)
    return np.dtype(np.float64 if is_double else np.float32)


def _is_floating(dtype: Any) -> bool:
    return _FLOATING.match(str(dtype)) is not None


def _not_floating(frame: Any, others: list[tuple[Any, Any]], place: str) -> str:
    listed = ", ".join(f"{name!r} ({dtype})" for name, dtype in others[:_LISTED])
    more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
    numbers = [name for name, dtype in others if _NUMBERS.match(str(dtype))]
    num_columns = len(_columns(frame))
    advice = []
    if len(others) < num_columns:
        advice.append(f"leave them out, {_without(frame, [name for name, _ in others])}")
    if numbers:
        converted = _converted(frame, None if len(numbers) == num_columns else numbers)
        advice.append(f"where they hold numbers, convert and scale them, {converted}")
    return (
        f"data is a {type(frame).__name__} with columns that are not floating{place}: {listed}{more}; "
        f"{', or '.join(advice) or 'pass an array of numbers made from them'}."
    )


def _without(frame: Any, names: list[Any]) -> str:
    names = list(dict.fromkeys(names))
    if len(names) > _LISTED and hasattr(frame, "iloc"):
        return "data.select_dtypes('floating')"
    if not hasattr(frame, "dtypes"):
        return f"data.drop_columns({names!r})"
    return f"data.drop(columns={names!r})" if hasattr(frame, "iloc") else f"data.drop({names!r})"


def _converted(frame: Any, names: list[Any] | None) -> str:
    """The conversion of some columns, or of all for None."""
    # pandas alone has `iloc`, and pyarrow alone no `dtypes`; none of them need be installed.
    if hasattr(frame, "iloc"):
        return f"data.astype({'float32' if names is None else dict.fromkeys(names, 'float32')!r})"
    if hasattr(frame, "dtypes"):
        return f"data.cast({'pl.Float32' if names is None else f'dict.fromkeys({names!r}, pl.Float32)'})"
    return "with pyarrow.compute.cast"
