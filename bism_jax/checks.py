"""Checks of arguments: each error names the argument, the reason and the alternative."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from bism_jax._precision import as_working, is_floating_dtype
from bism_jax._tracing.jax_internals import is_traced

_ROUNDED_ROWS = 1000  # that are looked at
_MAX_ROUNDING = 0.1  # standard deviations
_MIN_SPREAD_ROWS = 3  # two rows of a small batch are nearly alike in some column sooner or later


def non_negative_int(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is an integer of at least 0."""
    if not _is_int(value) or value < 0:
        raise ValueError(f"{name} must be an integer of at least 0, not {value!r}.")


def positive_int(name: str, value: Any, alternative: str | None = None) -> None:
    """Raises ValueError unless `value` is an integer of at least 1."""
    if not _is_int(value) or value < 1:
        hint = f"; or use {alternative}" if alternative else ""
        raise ValueError(f"{name} must be an integer of at least 1, not {value!r}{hint}.")


def loop_count(name: str, value: Any, at_least: int = 1) -> None:
    """Raises ValueError unless `value` is an integer that a compiled loop can count to."""
    if not _is_int(value) or value < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}, not {value!r}.")
    if value >= 2**31:
        raise ValueError(f"{name} must be below 2**31, which a compiled loop can count to, not {value!r}.")


def positive(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is a finite number above 0."""
    if not _is_number(value) or not value > 0:
        raise ValueError(f"{name} must be a finite number above 0, not {value!r}.")


def non_negative(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is a finite number of at least 0."""
    if not _is_number(value) or not value >= 0:
        raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}.")


def learning_rate(name: str, value: Any) -> None:
    """Raises TypeError or ValueError unless `value` is a number of at least 0 or a schedule."""
    if isinstance(value, (jax.Array, np.ndarray)) and value.shape == ():
        return  # a number of a user's, which may be traced
    if hasattr(value, "update") or isinstance(value, type) or not (_is_scalar(value) or callable(value)):
        raise TypeError(f"{name} must be a number or an optax schedule, not {value!r}.")
    if not callable(value):
        non_negative(name, value)


def boolean(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}.")


def widths(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is a sequence of positive integers."""
    if not isinstance(value, (tuple, list)) or not all(_is_int(width) and width > 0 for width in value):
        raise ValueError(
            f"{name} must be a tuple of integers of at least 1, such as (64, 64), not {value!r}."
        )


def text(name: str, value: Any, example: str) -> None:
    """Raises TypeError unless `value` is a string; `example` says which."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, {example}, not {value!r}.")


def one_of(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises ValueError unless `value` is among `choices`."""
    is_plain = isinstance(value, (str, int, np.integer, type(None))) and not isinstance(value, bool)
    if not is_plain or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}={value!r} is unknown; choose one of {listed}.")


def floating_tree(name: str, tree: PyTree) -> None:
    """Raises ValueError unless `tree` has leaves and all of them are real floating arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise ValueError(f"{name} has no parameters: it is an empty tree.")
    for path, leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            where = name + jax.tree_util.keystr(path)
            is_complex = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
            advice = "pass its real and imaginary parts" if is_complex else "use a floating dtype"
            raise ValueError(
                f"{where} has dtype {leaf.dtype}, which cannot be optimised; {advice}, or pass it in theta "
                "or inputs."
            )


def arrays(name: str, tree: PyTree) -> PyTree:
    """The leaves of `tree` as arrays.

    Raises:
        TypeError: for a leaf that is none, such as a string.
    """

    def convert(path: Any, leaf: Any) -> Array:
        try:
            if isinstance(leaf, (str, bytes)):  # NumPy may take it for the name of a dtype
                raise TypeError("a text")
            return jnp.asarray(leaf)
        except (TypeError, ValueError, OverflowError) as error:
            where = name + jax.tree_util.keystr(path)
            raise TypeError(
                f"{where} is a {type(leaf).__name__}, which is no array of numbers ({error}); pass arrays, "
                "and what is none in a closure."
            ) from error

    return jax.tree_util.tree_map_with_path(convert, tree)


def no_result(name: str, value: Any) -> None:
    """Raises TypeError where a result of `fit` or a state of a method is given in the place of a part."""
    fields = getattr(value, "_fields", ())
    if "theta" in fields and ("history" in fields or "iteration" in fields):
        part = name.rpartition(" ")[2] if name.endswith(("theta", "phi")) else "theta"
        raise TypeError(f"{name} is a whole {type(value).__name__}; pass a part of it, such as its .{part}.")


def function(name: str, value: Any, signature: str) -> None:
    """Raises TypeError unless `value` can be called and is no class."""
    if isinstance(value, type) or not callable(value):
        raise TypeError(f"{name} must be a function {signature}, not {value!r}.")


def called(name: str, fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`; raises ValueError, naming the function and the shapes, where it cannot be evaluated."""
    try:
        return fn(*args)
    except (TypeError, AttributeError, LookupError, ValueError) as error:
        shapes = ", ".join(str(np.shape(leaf)) for leaf in jax.tree.leaves(args)) or "none"
        raise ValueError(
            f"{name} cannot be evaluated on arrays of shapes {shapes}: {type(error).__name__}: {error}"
        ) from error


def array(name: str, value: Any, shape: str) -> None:
    """Raises TypeError unless `value` is an array, ValueError unless it is floating and not empty.

    Only what is known of a traced array is looked at, so values may be anything.
    """
    if not isinstance(value, (jax.Array, np.ndarray)) or isinstance(value, np.ma.MaskedArray):
        masked = " a masked array, whose mask would be lost;" if isinstance(value, np.ma.MaskedArray) else ""
        raise TypeError(
            f"{name} is{masked or f' a {type(value).__name__};'} it must be an array of shape {shape}."
        )
    if not is_floating_dtype(value.dtype):
        raise ValueError(
            f"{name} has dtype {value.dtype}, but it must be floating; convert it, for instance "
            f"{name}.astype(np.float32)."
        )
    if value.ndim == 0 or value.size == 0:
        raise ValueError(f"{name} is empty or no batch: its shape is {value.shape}; it must be {shape}.")


def shape(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is a tuple of integers of at least 0."""
    if not isinstance(value, tuple) or not all(_is_int(size) and size >= 0 for size in value):
        raise TypeError(f"{name} must be a tuple of integers of at least 0, such as (), not {value!r}.")


def path(name: str, value: Any) -> Path:
    """`value` as a path, with `~` expanded.

    Raises:
        TypeError: for what is no text and no path.
        ValueError: for an empty text, which would be the current folder.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, not {value!r}.")
    if value == "":
        raise ValueError(f"{name} is empty; pass a path.")
    return Path(value).expanduser()


def seed(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is an integer of 32 bits, the seed of a key."""
    if not _is_int(value) or not -(2**31) <= value < 2**32:
        raise ValueError(f"{name} must be an integer of 32 bits, not {value!r}.")


def floating_dtype(name: str, value: Any) -> None:
    """Raises TypeError unless `value` names a floating dtype, or is None."""
    try:
        is_floating = value is None or is_floating_dtype(jnp.dtype(value))
    except TypeError:
        is_floating = False
    if not is_floating:
        raise TypeError(f"{name} must be a floating dtype such as jnp.bfloat16, or None, not {value!r}.")


def same_shape(name: str, found: Any, like: str, expected: tuple[int, ...]) -> None:
    """Raises ValueError unless `found` has the shape of what is called `like`."""
    if getattr(found, "shape", None) != expected:
        shown = f"shape {found.shape}" if hasattr(found, "shape") else f"a {type(found).__name__}"
        raise ValueError(f"{name} has {shown}, but {like} has shape {expected}; they must be equal.")


def leading_axis(name: str, tree: PyTree, length: int) -> None:
    """Raises ValueError unless each leaf has a leading axis of `length`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if leaf.ndim == 0 or leaf.shape[0] != length:
            where = name + jax.tree_util.keystr(path)
            raise ValueError(
                f"{where} has shape {leaf.shape}, but needs a leading axis of num_steps={length}: one "
                "slice a lower-level step. Pass what does not change in theta."
            )


def scalar_loss(name: str, shape: Any) -> None:
    """Raises ValueError unless `shape` is that of one floating scalar."""
    if not hasattr(shape, "shape") or shape.shape != () or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise ValueError(f"{name} must return one floating scalar, but returns {shape}; average it.")


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    is_bool = isinstance(value, (bool, np.bool_))
    return isinstance(value, (int, float, np.number)) and not is_bool and bool(np.isfinite(value))


def instance(name: str, value: Any, protocol: type, example: str) -> None:
    """Raises TypeError unless `value` has what the protocol asks for and is not a class."""
    members = [member for member in dir(protocol) if not member.startswith("_")]
    if isinstance(value, type) or not all(hasattr(value, member) for member in members):
        raise TypeError(f"{name} must be a value such as {example}, not {value!r}.")


def optimizer(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is an optax transformation."""
    if not callable(getattr(value, "init", None)) or not callable(getattr(value, "update", None)):
        raise TypeError(f"{name} must be an optax transformation such as optax.adam(1e-3), not {value!r}.")


def optimizer_pair(name: str, value: Any) -> None:
    """Raises TypeError unless `value` holds the optimisers of theta and phi."""
    if not isinstance(value, tuple) or not hasattr(value, "theta") or not hasattr(value, "phi"):
        raise TypeError(f"{name} must be Optimizers(theta=..., phi=...), not {value!r}.")
    optimizer(f"{name}.theta", value.theta)
    optimizer(f"{name}.phi", value.phi)


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
    advice = {
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


def not_finite(count: int, row: int, place: str = "") -> ValueError:
    """The error for data with so many values that are NaN or infinite."""
    return ValueError(
        f"data holds {count} values{place} that are NaN or infinite, the first in row {row}; remove those "
        "rows or fill them in."
    )


def _check_rounding(rows: np.ndarray) -> None:
    """Raises ValueError where float32 has no digits for how the rows of float64 differ."""
    rounded = as_working(rows)
    if rows.dtype.itemsize <= rounded.dtype.itemsize or len(rows) < _MIN_SPREAD_ROWS:
        return
    error, spread = np.abs(rows - rounded).max(axis=0), rows.std(axis=0)
    if (error > _MAX_ROUNDING * spread)[spread > 0].any():
        column = int(np.argmax(error / np.where(spread > 0, spread, np.inf)))
        raise ValueError(
            f"data has dtype {rows.dtype}, whose column {column} varies by {spread[column]:.3g} around "
            f"{rows[:, column].mean():.9g}: float32, in which it is computed, rounds that away. Subtract the "
            "mean, or set jax_enable_x64."
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


def fraction(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is at least 0 and below 1."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, not {value!r}.")


def parameters(name: str, tree: PyTree) -> None:
    """Raises ValueError unless `tree` has leaves and all of them are finite floating arrays."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float)):
            where = name + jax.tree_util.keystr(path)
            raise ValueError(f"{where} is a {type(leaf).__name__}; parameters are floating arrays.")
    floating_tree(name, jax.tree.map(lambda leaf: jnp.asarray(as_working(leaf)), tree))
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_traced(leaf) and not np.isfinite(as_working(np.asarray(leaf))).all():
            raise ValueError(f"{name}{jax.tree_util.keystr(path)} holds NaN or infinite values.")


def callback(value: Any) -> None:
    """Raises TypeError or ValueError unless `value` can be called every so many iterations."""
    if isinstance(value, type) or not callable(value) or not hasattr(value, "every"):
        raise TypeError(
            f"callbacks must be values such as Evaluate(fn, every=1000), callable and with an attribute "
            f"every, not {value!r}."
        )
    positive_int(f"callbacks: every of {type(value).__name__}", value.every)


def rng_key(name: str, value: Any) -> Array:
    """`value` as one typed key; a raw key of `jax.random.PRNGKey` is one too.

    Raises:
        TypeError: for a seed or anything else that is no key.
        ValueError: for an array of keys.
    """
    dtype, shape = getattr(value, "dtype", None), np.shape(value) if hasattr(value, "dtype") else ()
    is_typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    is_raw = dtype == np.uint32 and shape[-1:] == jax.random.key_data(jax.random.key(0)).shape
    if not is_typed and not is_raw:
        raise TypeError(f"{name} must be a key such as jax.random.key(0), not {value!r}.")
    key = value if is_typed else jax.random.wrap_key_data(jnp.asarray(value))
    if key.shape != ():
        raise ValueError(
            f"{name} is an array of keys of shape {key.shape}, but one key is needed; pass {name}[0], or map "
            "over them by jax.vmap."
        )
    return key
