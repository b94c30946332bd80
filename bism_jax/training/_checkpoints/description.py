"""What determines a run, so that a checkpoint continues only the run that wrote it."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import PyTree

from bism_jax._tracing.jax_internals import ClosedJaxpr, Jaxpr, Literal, aval_of, host_function, is_traced
from bism_jax._tracing.jaxprs import bodies

# The parts that decide. The others, which name what a difference comes from, may differ where these agree: a
# function that was renamed, or a list that a closure fills, changes no number.
_DECISIVE = (
    "iteration",
    "data",
    "batch_size",
    "rng_key",
    "ema_decay",
    "init_params",
    "initial_state",
    "settings",
)
# JAX's settings that change numbers and are not in a trace.
_SETTINGS = ("jax_threefry_partitionable",)
# Another processor rounds an initial state otherwise, in the last of seven digits.
_SAME_INITIAL_STATE = 1e-5
_INITIAL = "initial state"
_MAX_DEPTH = 12
_MAX_NAMED = 8
_MAX_LENGTH = 60
# How optax nests what a user wrote: of method.optimizer.update.update_fns[1].tx.update.step_size they know
# method.optimizer.step_size.
_OPTAX_PARTS = re.compile(r"\.(update|init|update_fns\[\d+\]|init_fns\[\d+\]|tx)(?=\.)")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+|0x[0-9a-f]{6,}")

Description = dict[str, Any]


def versions() -> dict[str, str]:
    """Of what a trace and its numbers depend on."""
    packages = ("bism-jax", "jax", "flax", "optax", "numpyro")
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found | {"backend": jax.default_backend()}


def settings() -> dict[str, Any]:
    """Of JAX, for what they change beside the trace."""
    return {name: getattr(jax.config, name) for name in _SETTINGS}


def describe_state(state: PyTree) -> Description:
    """Two numbers a leaf, by which another initialisation is told from the same one on another processor."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path).lstrip("."): _outline(np.asarray(leaf)) for path, leaf in leaves}


def _outline(leaf: np.ndarray) -> list[float]:
    """The norm, the projection on a fixed vector whose first entry is 1, and that of what is not finite."""
    if leaf.dtype.kind == "c":
        leaf = np.stack([leaf.real, leaf.imag])
    values = np.ravel(leaf).astype(np.float64) if leaf.dtype != jax.dtypes.float0 else np.zeros(0)
    finite, fixed = np.isfinite(values), np.cos(np.arange(values.size))
    known = np.where(finite, values, 0.0)
    codes = np.where(finite, 0.0, np.nan_to_num(values, nan=3.0, posinf=1.0, neginf=2.0))
    return [float(np.linalg.norm(known)), float(known @ fixed), float(codes @ fixed)]


def describe(value: Any) -> Any:
    """A JSON description of a model, a method or an optimiser that is the same in the next process.

    Functions are described by what they close over: that is where optax keeps a learning rate.
    """
    return _describe(value, ())


def describe_iteration(traced: ClosedJaxpr) -> Description:
    """A digest of a traced iteration, and the constants in it."""
    lines: list[str] = []
    constants: list[Any] = []
    _walk(traced.jaxpr, list(traced.consts), lines, constants, {})
    return {"operations": digest("\n".join(lines).encode()), "constants": constants}


def digest_of_arrays(tree: PyTree) -> str:
    """A checksum of the values, shapes and dtypes of a tree."""
    return digest(*(part for leaf in jax.tree.leaves(tree) for part in _parts(np.asarray(leaf))))


def digest(*parts: Any) -> str:
    """A short checksum of bytes or of arrays of bytes."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What differs between two descriptions of runs, `name: old → new` each; empty for the same run.

    `found` may lack parts, as one that an earlier version wrote does.
    """
    start, expected_start = found.get("initial_state"), expected.get("initial_state")
    found = {**found, "initial_state": _as_expected(start, expected_start)}
    if all(found.get(name) == expected.get(name) for name in _DECISIVE):
        return []
    named = [*_compare("", _without_iteration(found), _without_iteration(expected))]
    causes = [text for text in named if not text.startswith(_INITIAL)]
    if found.get("iteration") == expected.get("iteration") and found["initial_state"] == expected_start:
        return [text for text in causes if text.startswith(_DECISIVE)]  # nothing else decides
    return (
        causes
        or _shortened(named)
        or [_difference_of_iterations(found.get("iteration") or {}, expected["iteration"])]
    )


def _shortened(texts: list[str]) -> list[str]:
    more = len(texts) - _MAX_NAMED
    return texts if more <= 0 else [*texts[:_MAX_NAMED], f"and {more} more"]


def _as_expected(found: Any, expected: Any) -> Any:
    """The initial state that was found, where it is the expected one but for rounding as that one."""
    if not isinstance(found, Mapping) or not isinstance(expected, Mapping) or found.keys() != expected.keys():
        return found
    return {
        path: expected[path] if _is_same_leaf(leaf, expected[path]) else leaf for path, leaf in found.items()
    }


def _is_same_leaf(found: list[float], expected: list[float]) -> bool:
    same_codes = found[2:] == expected[2:]
    return same_codes and np.allclose(found[:2], expected[:2], 0, _SAME_INITIAL_STATE * expected[0])


def _without_iteration(description: Mapping[str, Any]) -> Description:
    return {name: value for name, value in description.items() if name not in ("iteration", "structure")}


def _difference_of_iterations(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    if found.get("operations") != expected["operations"]:
        return (
            "the iteration has other operations: the code of the energy, the posterior, an optimiser or a "
            "setting of JAX has changed"
        )
    pairs = zip(found["constants"], expected["constants"], strict=True)
    changed = list(dict.fromkeys(f"{old} → {new}" for old, new in pairs if old != new))
    more = f" and {len(changed) - _MAX_NAMED} more" if len(changed) > _MAX_NAMED else ""
    return f"constants of the iteration: {', '.join(changed[:_MAX_NAMED])}{more}"


def _compare(name: str, found: Any, expected: Any) -> Iterator[str]:
    if found == expected:
        return
    if isinstance(found, Mapping) and isinstance(expected, Mapping) and _type(found) == _type(expected):
        for key in sorted({*found, *expected}):
            yield from _compare(f"{name}.{key}" if name else key, found.get(key), expected.get(key))
    elif name.startswith("initial_state."):
        part = name.partition(".")[2]
        old, new = (
            f"{of[1]:g}" if of and of[0] == abs(of[1]) else "other values" for of in (found, expected)
        )
        yield f"{_INITIAL}: {part}: {old} → {new}" if old != new else f"{_INITIAL}: {part} has {new}"
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (old, new) in enumerate(zip(found, expected, strict=True)):
            yield from _compare(f"{name}[{index}]", old, new)
    else:
        old, new = _brief(found), _brief(expected)
        if old == new:
            old, new = f"{old} {digest(str(found).encode())}", f"{new} {digest(str(expected).encode())}"
        yield f"{_OPTAX_PARTS.sub('', name)}: {old} → {new}"


def _type(description: Mapping[str, Any]) -> Any:
    return description.get("type")


def _brief(value: Any) -> str:
    """A value in a message; of a part with many parts of its own, what it is."""
    if isinstance(value, Mapping):
        parts = ", ".join(f"{name}={_brief(part)}" for name, part in value.items() if name != "type")
        kind = value.get("type", "")
        return f"{kind}({parts if len(parts) <= _MAX_LENGTH else '...'})"
    if isinstance(value, list):
        parts = ", ".join(map(_brief, value))
        return f"[{parts if len(parts) <= _MAX_LENGTH else '...'}]"
    return str(value)


def _describe(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, (bool, int, float, str, type(None))):
        is_nan = isinstance(value, float) and np.isnan(value)  # which equals no other
        return "nan" if is_nan else value
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _describe_array(value)
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
        named = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
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


def _describe_array(value: Any) -> Any:
    if is_traced(value):
        return type(value).__name__
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    if array.ndim == 0:
        return str(array)
    return f"{array.dtype}{list(array.shape)} {digest(*_parts(array))}"


def _parts(array: np.ndarray) -> tuple[bytes, Any]:
    outline = f"{array.dtype}{array.shape}".encode()
    if array.dtype.kind == "O":
        return outline, str(array).encode()
    return outline, np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _walk(
    jaxpr: Jaxpr, consts: list[Any], lines: list[str], constants: list[Any], seen: dict[int, int]
) -> None:
    """Writes the equations of a trace without names and addresses, and collects its constants."""
    numbers: dict[Any, int] = {}

    def number(var: Any) -> str:
        return f"{numbers.setdefault(var, len(numbers))}:{aval_of(var)}"

    def operand(atom: Any) -> str:
        if not isinstance(atom, Literal):
            return number(atom)
        constants.append(_describe_array(np.asarray(atom.val)))
        return f"constant:{aval_of(atom)}"

    lines.append(f"{{ {' '.join(map(number, [*jaxpr.constvars, *jaxpr.invars]))}")
    constants.extend(_describe_array(const) for const in consts)
    for eqn in jaxpr.eqns:
        operands = " ".join(map(operand, eqn.invars))
        lines.append(
            f"{eqn.primitive.name} {_params(eqn.params)} {operands} = {' '.join(map(number, eqn.outvars))}"
        )
        for body, body_consts in bodies(eqn):
            if id(body) in seen and not body_consts:  # one body that is called many times
                lines.append(f"body {seen[id(body)]}")
                continue
            seen[id(body)] = len(seen)
            _walk(body, body_consts, lines, constants, seen)
    lines.append(f"}} {' '.join(map(operand, jaxpr.outvars))}")


def _params(params: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_param(name, value)}" for name, value in sorted(params.items()))


def _param(name: str, value: Any) -> str:
    if name == "callback":  # what runs on the host is not traced
        return json.dumps(_describe(host_function(value), ()), sort_keys=True)
    if isinstance(value, (ClosedJaxpr, Jaxpr)):
        return "body"
    if isinstance(value, (tuple, list, set, frozenset)):
        items = [_param(name, item) for item in value]
        is_ordered = isinstance(value, (tuple, list))  # that of a set is another in each process
        return f"({','.join(items if is_ordered else sorted(items))})"
    if isinstance(value, (np.ndarray, jax.Array)):
        return str(_describe_array(value))
    if callable(value) and not isinstance(value, type):
        return getattr(value, "__name__", type(value).__name__)
    return _ADDRESS.sub("", str(value))
