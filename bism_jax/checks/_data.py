"""Checks of the data that a model is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bism_jax._precision import as_working, is_floating_dtype

# The rounding is looked at on the first rows: whether a column is far from zero for its spread shows there.
_ROUNDED_ROWS = 1000
_MAX_ROUNDING = 0.1  # standard deviations
_MIN_SPREAD_ROWS = 3  # two rows of a small batch are nearly alike in some column sooner or later


def data_array(
    array: np.ndarray, subject: str = "data", place: str = "", rows: Sequence[int] | None = None
) -> None:
    """Raises ValueError unless `array` holds rows of finite floating numbers.

    Args:
        array: the numbers.
        subject: what a user writes for them in an expression.
        place: where in the data they are, such as " in batch 3".
        rows: what the rows are numbered by, instead of by their place in `array`.
    """
    # First: what stands under a mask may be NaN, for which the remedy is another.
    unmasked(array, subject, place)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"data is empty{place}: its shape is {array.shape}; it must be [rows, *visible].")
    data_dtype(array.dtype, subject, place, array)
    finite = np.isfinite(as_working(array))
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(array), -1).all(axis=1)))
        raise not_finite(int(array.size - finite.sum()), row if rows is None else rows[row], place)
    _check_rounding(array[:_ROUNDED_ROWS].reshape(min(len(array), _ROUNDED_ROWS), -1))


def unmasked(array: np.ndarray, subject: str = "data", place: str = "") -> None:
    """Raises ValueError for an array with masked numbers."""
    # By its values: a masked array in which nothing is masked loses nothing.
    if np.ma.is_masked(array):
        subject = subject.replace("np.asarray", "np.ma.asarray")
        is_row_bad = f"np.ma.getmaskarray({subject}).reshape(len({subject}), -1).any(axis=1)"
        raise ValueError(
            f"data is a masked array{place}, whose mask would be lost; fill it in, {subject}.filled(0.0), or "
            f"drop the rows with masked numbers, {subject}[~{is_row_bad}]."
        )


def data_dtype(dtype: Any, subject: str = "data", place: str = "", array: np.ndarray | None = None) -> None:
    """Raises ValueError unless data of this dtype are floating numbers; the advice may look at the array."""
    if not is_floating_dtype(dtype):
        advice = _conversion(dtype, subject, array)
        raise ValueError(f"data has dtype {dtype}{place}, but scores need floating data; {advice}.")


def not_finite(count: int, row: int, place: str = "") -> ValueError:
    """The error for data with so many values that are NaN or infinite."""
    return ValueError(
        f"data holds {count} values{place} that are NaN or infinite, the first in row {row}; remove those "
        "rows or fill them in."
    )


def batch_fits(batch_size: int, num_rows: int) -> None:
    """Raises ValueError where the data has fewer rows than a batch."""
    if num_rows == 0:
        raise ValueError("data is empty: it has no rows.")
    if batch_size > num_rows:
        raise ValueError(
            f"batch_size={batch_size} exceeds the {num_rows} rows of data; pass batch_size={num_rows} or "
            "less."
        )


def _conversion(dtype: Any, subject: str, array: np.ndarray | None) -> str:
    """How to make numbers of it."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return "pass what is drawn with these keys"
    if dtype.names is not None:
        return _columns_of_records(dtype, subject)
    if dtype.kind == "O" and array is not None and any(np.ndim(item) for item in array.flat):
        if len({np.shape(item) for item in array.flat}) > 1:
            return "its rows have different shapes, so pad or cut them to one, and np.stack them"
        return f"stack its rows, np.stack([np.asarray(row, np.float32) for row in {subject}])"
    advice = {  # by NumPy's letter for the kind of a dtype
        "b": f"convert it, {subject}.astype(np.float32)",
        "c": f"pass its real and imaginary parts, np.stack([{subject}.real, {subject}.imag], axis=-1)",
        "M": f"count from the first, ({subject} - {subject}.min()) / np.timedelta64(1, 's')",
        "m": f"divide it by a unit, {subject} / np.timedelta64(1, 's')",
    }
    numbers = f"where it holds numbers, convert them, {subject}.astype(np.float32)"
    advice |= dict.fromkeys("OSUT", numbers)
    scaled = f"convert and scale it, for instance {subject}.astype(np.float32) / 255"
    return advice.get(dtype.kind, scaled)


def _columns_of_records(dtype: np.dtype, subject: str) -> str:
    """How to make an array of a structured one, without its fields that are no numbers."""
    names = [name for name in dtype.names or () if dtype[name].base.kind in "fiub"]
    columns = subject if subject.startswith("np.") else f"np.asarray({subject})"
    columns += "" if len(names) == len(dtype.names or ()) else f"[{names}]"
    if not names:
        return "none of its fields is numeric"
    to_columns = "numpy.lib.recfunctions.structured_to_unstructured"
    return f"make columns of its fields, {to_columns}({columns}, np.float32)"


def _check_rounding(rows: np.ndarray) -> None:
    """Raises ValueError where float32 has no digits for how the rows of float64 differ."""
    rounded = as_working(rows)
    if rows.dtype.itemsize <= rounded.dtype.itemsize or len(rows) < _MIN_SPREAD_ROWS:
        return
    error, spread = np.abs(rows - rounded).max(axis=0), rows.std(axis=0)
    if (error > _MAX_ROUNDING * spread)[spread > 0].any():  # a constant column has no spread to lose
        # Below, nine digits tell any two numbers of float32 apart.
        column = int(np.argmax(error / np.where(spread > 0, spread, np.inf)))
        raise ValueError(
            f"data has dtype {rows.dtype}, whose column {column} varies by {spread[column]:.3g} around "
            f"{rows[:, column].mean():.9g}: float32, in which it is computed, rounds that away. Subtract the "
            "mean, or set jax_enable_x64."
        )
