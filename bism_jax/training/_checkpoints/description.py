"""What determines a run, so that a checkpoint continues only the run that wrote it."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import PyTree

from bism_jax._backend import backend_name
from bism_jax._tracing.jax_internals import is_traced
from bism_jax.training._checkpoints.digests import array_parts, digest
from bism_jax.training._loop.state import as_data

# JAX's settings that change numbers and are not in a trace.
_SETTINGS = ("jax_threefry_partitionable",)
# An object that refers to another and so on without an end, such as a linked list, ends here by its type.
_MAX_DEPTH = 12

Description = dict[str, Any]


def versions() -> dict[str, str]:
    """The versions of what decides a trace and its numbers, and the backend."""
    packages = ("bism-jax", "jax", "flax", "optax", "numpyro")
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a checkout that is only on the path
            found[package] = "unknown"
    return found | {"backend": backend_name()}


def settings() -> dict[str, Any]:
    """JAX's settings that change numbers."""
    return {name: getattr(jax.config, name) for name in _SETTINGS}


def describe_state(state: PyTree) -> Description:
    """Two numbers a leaf, by which another initialisation is told from the same one on another processor."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path).lstrip("."): _outline(np.asarray(as_data(leaf))) for path, leaf in leaves
    }


def _outline(leaf: np.ndarray) -> list[float]:
    """The norm, the projection on a fixed vector whose first entry is 1, and that of what is not finite."""
    if leaf.dtype.kind == "c":
        leaf = np.stack([leaf.real, leaf.imag])
    values = np.ravel(leaf).astype(np.float64) if leaf.dtype != jax.dtypes.float0 else np.zeros(0)
    # cos(j) = cos(k) only for j = k, as pi is irrational: entries that change places change the projection.
    finite, fixed = np.isfinite(values), np.cos(np.arange(values.size))
    # A norm that is NaN would equal no other, not even that of the same run.
    known = np.where(finite, values, 0.0)
    codes = np.where(finite, 0.0, np.nan_to_num(values, nan=3.0, posinf=1.0, neginf=2.0))
    return [float(np.linalg.norm(known)), float(known @ fixed), float(codes @ fixed)]


def describe(value: Any) -> Any:
    """A JSON description of a model, a method or an optimiser that is the same in the next process.

    Functions are described by what they close over: that is where optax keeps a learning rate.
    """
    return _describe(value, ())


def _describe(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, (bool, int, float, str, type(None))):
        is_nan = isinstance(value, float) and np.isnan(value)  # which equals no other
        return "nan" if is_nan else value
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return describe_array(value)
    if id(value) in above or len(above) > _MAX_DEPTH:
        return type(value).__name__
    parts = _parts_of(value)
    if parts is None:
        return getattr(value, "__name__", type(value).__name__)
    above = (*above, id(value))
    if isinstance(parts, list):
        return [_describe(part, above) for part in parts]
    return {name: _describe(part, above) for name, part in parts.items()}


def _parts_of(value: Any) -> dict[str, Any] | list[Any] | None:
    """What `value` is made of, or None where it has no parts that can be named."""
    if is_dataclass(value) and not isinstance(value, type):
        # One that the constructor does not take is no choice of a user's.
        named = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        # Linen's own fields; `parent` leads back up the tree.
        named = {name: part for name, part in named.items() if name not in ("parent", "name")}
        return {"type": type(value).__name__, **named}
    if isinstance(value, Mapping):
        return {str(name): part for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        names = getattr(value, "_fields", None)
        kind = "optimizer" if isinstance(value, optax.GradientTransformation) else type(value).__name__
        return list(value) if names is None else {"type": kind, **dict(zip(names, value, strict=True))}
    return _parts_of_function(value)


def _parts_of_function(value: Any) -> dict[str, Any] | None:
    if isinstance(value, functools.partial):
        return {"type": "partial", "function": value.func, "args": value.args, **value.keywords}
    if hasattr(value, "__func__"):  # a bound method
        return {"type": value.__name__, "of": value.__self__}
    if hasattr(value, "__code__"):
        return {"type": value.__name__, **_closed_over(value)}
    return None


def _closed_over(function: Any) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    return found


def describe_array(value: Any) -> Any:
    """A number as it is; of an array its dtype, its shape and a checksum."""
    if is_traced(value):
        return type(value).__name__
    array = np.asarray(as_data(value))
    if array.ndim == 0:
        return str(array)
    return f"{array.dtype}{list(array.shape)} {digest(*array_parts(array))}"
