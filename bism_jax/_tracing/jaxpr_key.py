"""A key of a traced function: equal keys are equal programs."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from bism_jax._tracing.jax_internals import (
    DERIVATIVE_RULES,
    ClosedJaxpr,
    Jaxpr,
    Literal,
    aval_of,
    context_of,
    host_function,
)
from bism_jax._tracing.jaxprs import bodies

# 128 programs are kept at the most, so half a gigabyte of constants.
_MAX_CONSTANT_BYTES = 2**22
# Whose values are equal where they mean the same; two objects of a user's may be equal and act otherwise.
_TRUSTED = frozenset({"builtins", "jax", "jaxlib", "ml_dtypes", "numpy"})


class _Identity(NamedTuple):
    """An object that is equal to itself alone; it is kept, so that no other takes its address."""

    address: int
    kept: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.kept is other.kept

    def __hash__(self) -> int:
        return self.address


def jaxpr_key(traced: ClosedJaxpr) -> Hashable:
    """A key that two traces share only where they are the same program, constants included.

    None for a program with more than 4 MiB of constants, which is not worth keeping them in memory.

    Arrays count by a checksum of 128 bits, values of Python, NumPy and JAX by their equality, and a user's
    objects and functions, such as the target of a callback, by identity.
    """
    if sum(_constant_bytes(traced.jaxpr, traced.consts)) > _MAX_CONSTANT_BYTES:
        return None
    return _of_jaxpr(traced.jaxpr, traced.consts, {})


def _constant_bytes(jaxpr: Jaxpr, consts: Iterable[Any]) -> Iterator[int]:
    """Of each array that the program holds."""
    yield from (getattr(const, "nbytes", 0) for const in consts)
    for eqn in jaxpr.eqns:
        yield from (getattr(atom.val, "nbytes", 0) for atom in eqn.invars if isinstance(atom, Literal))
        for body, body_consts in bodies(eqn):
            yield from _constant_bytes(body, body_consts)


def _of_jaxpr(jaxpr: Jaxpr, consts: Any, known: dict[int, Hashable]) -> Hashable:
    if id(jaxpr) in known and not consts:  # one body that is called many times: its number will do
        return known[id(jaxpr)]
    known[id(jaxpr)] = ("body", len(known))
    numbers: dict[Any, int] = {}

    def number(var: Any) -> Hashable:
        # By order of appearance, since each trace has variables of its own.
        return numbers.setdefault(var, len(numbers))

    def operand(atom: Any) -> Hashable:
        return _of_array(atom.val) if isinstance(atom, Literal) else number(atom)

    inputs = tuple((number(var), aval_of(var)) for var in [*jaxpr.constvars, *jaxpr.invars])
    equations = tuple(
        (
            eqn.primitive,
            context_of(eqn),
            _of_params(eqn.primitive.name, eqn.params, known),
            tuple(map(operand, eqn.invars)),
            tuple((number(var), aval_of(var)) for var in eqn.outvars),
        )
        for eqn in jaxpr.eqns
    )
    outputs = tuple(map(operand, jaxpr.outvars))
    return inputs, equations, outputs, tuple(map(_of_array, consts))


def _of_params(primitive: str, params: Mapping[str, Any], known: dict[int, Hashable]) -> Hashable:
    dropped: set[str] = DERIVATIVE_RULES.get(primitive, set())
    return tuple(
        (name, _of_callback(value) if name == "callback" else _of_value(value, known))
        for name, value in sorted(params.items())
        if name not in dropped
    )


def _of_callback(value: Any) -> Hashable:
    """A function on the host, which runs when the program does."""
    function = host_function(value)
    return _Identity(id(function), function), getattr(value, "in_tree", None)


def _of_value(value: Any, known: dict[int, Hashable]) -> Hashable:
    if isinstance(value, ClosedJaxpr):
        return _of_jaxpr(value.jaxpr, value.consts, known)
    if isinstance(value, Jaxpr):
        return _of_jaxpr(value, (), known)
    if isinstance(value, Mapping):
        value = tuple(sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return (type(value), *(_of_value(item, known) for item in value))
    if isinstance(value, (np.ndarray, jax.Array)):
        return _of_array(value)
    if isinstance(value, (float, complex)):
        return type(value), repr(value)  # 0.0 and -0.0 are equal
    is_trusted = type(value).__module__.partition(".")[0] in _TRUSTED and _is_hashable(value)
    # 1 and True are equal, but not the same.
    return (type(value), value) if is_trusted else _Identity(id(value), value)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _of_array(value: Any) -> Hashable:
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return str(jax.random.key_impl(value)), _of_array(jax.random.key_data(value))
    array = np.asarray(value)
    if array.dtype.kind == "O":
        return _Identity(id(value), value)
    # A checksum, so that a key does not hold the constants of its program a second time.
    content: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return type(value), str(array.dtype), array.shape, hashlib.blake2b(content, digest_size=16).digest()
