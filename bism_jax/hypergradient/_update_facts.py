"""What is known of the values in an optimiser's update at a gradient of zero, without running it.

Roots and quotients are guarded only where they may be at a singular point there: a guard on each would cost
an iteration of a small model two fifths of its time. (benchmarks/NOTES.md)
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from bism_jax._tracing.jax_internals import JaxprEqn, aval_of, exponent_of

Kind = Literal["zero", "positive", "nonzero", "unknown"]


class Fact(NamedTuple):
    """What is known of an array.

    Attributes:
        kind: of all its entries; `"nonzero"` says nothing of their signs.
        is_finite: whether no operation before may have made it infinite or NaN.
        value: of a scalar that is known: its values at `COUNTS`, or one for all of them.
    """

    kind: Kind = "unknown"
    is_finite: bool = True
    value: Any = None


ZERO = Fact("zero")
UNKNOWN = Fact()
# Numbers of updates at which what depends on a counter is looked at: the first ones, and some later.
COUNTS = np.array([*range(12), 20, 50, 100, 1000, 10**4, 10**6])
COUNTER = Fact("unknown", value=COUNTS)

# A result of these has the kind of their operand.
_KIND_OF_OPERAND = frozenset(
    """broadcast_in_dim cbrt convert_element_type copy dynamic_slice reduce_max reduce_min
    reduce_precision reshape sign slice squeeze stop_gradient transpose""".split()  # noqa: SIM905
)
_POSITIVE_OF_NONZERO = frozenset({"abs", "sqrt", "rsqrt", "square"})
_ON_SCALARS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "and": np.logical_and,
    # NumPy rounds down and XLA towards zero, which for counters is the same.
    "div": lambda x, y: np.true_divide(x, y) if np.issubdtype(np.result_type(x, y), np.inexact) else x // y,
    "eq": operator.eq,
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "lt": operator.lt,
    "max": np.maximum,
    "min": np.minimum,
    "mul": operator.mul,
    "ne": operator.ne,
    "neg": operator.neg,
    "not": np.logical_not,
    "or": np.logical_or,
    "pow": lambda x, y: np.power(np.asarray(x, float), y),  # NumPy refuses negative powers of integers
    "select_n": lambda which, *cases: np.choose(np.asarray(which, int), cases),
    "sqrt": np.sqrt,
    "sub": operator.sub,
}
_UNCHANGED_SCALARS = frozenset({"convert_element_type", "copy", "stop_gradient"})


def fact_of_value(value: Any) -> Fact:
    """What a literal or a constant says."""
    if not isinstance(value, (np.ndarray, np.generic, int, float)):  # traced, or on a device
        return UNKNOWN
    array = np.asarray(value)
    if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
        return UNKNOWN
    return Fact(
        _kind_of_array(array), bool(np.isfinite(array).all()), array[()] if array.shape == () else None
    )


def _kind_of_array(array: np.ndarray) -> Kind:
    if not array.any():
        return "zero"
    return "positive" if (array > 0).all() else "nonzero" if array.all() else "unknown"


def fact_of_result(eqn: JaxprEqn, operands: Sequence[Fact], is_singular: bool) -> Fact:
    """What an equation makes of its operands."""
    name = eqn.primitive.name
    # sqrt(0) is 0, though its slope is infinite; the values of log and 1 / x are infinite as well.
    stays_finite = not is_singular or (name in ("sqrt", "cbrt") and operands[0].kind == "zero")
    is_finite = stays_finite and all(operand.is_finite for operand in operands)
    value = _value(eqn, operands)
    if value is not None:
        return Fact(_kind_of_array(np.asarray(value)), is_finite and bool(np.isfinite(value).all()), value)
    return Fact(_kind(eqn, name, [operand.kind for operand in operands]), is_finite)


def _value(eqn: JaxprEqn, operands: Sequence[Fact]) -> Any:
    # Scalars are enough: Adam divides by 1 - b^count, and the sign of that is known from its values.
    values = [operand.value for operand in operands]
    if aval_of(eqn.outvars[0]).shape != () or any(value is None for value in values):
        return None
    name = eqn.primitive.name
    if name in _UNCHANGED_SCALARS:
        return values[0]
    with np.errstate(all="ignore"):  # divisions by zero are what is looked for
        if name == "integer_pow":
            return np.power(np.asarray(values[0], float), exponent_of(eqn))
        return _ON_SCALARS[name](*values) if name in _ON_SCALARS else None


def _kind(eqn: JaxprEqn, name: str, kinds: Sequence[Kind]) -> Kind:
    first = kinds[0] if kinds else "unknown"
    if name in _KIND_OF_OPERAND or (name == "integer_pow" and exponent_of(eqn) % 2):
        return first
    if name in _POSITIVE_OF_NONZERO or name == "integer_pow":
        return "positive" if first == "nonzero" else first
    if name == "pow" and first == "positive":
        return "positive"
    if name in _OF_TWO:
        return _OF_TWO[name](*kinds)
    if name == "select_n":
        # Either case may be taken, so that only what they share is known.
        return _kind_of_extremum(kinds[1], kinds[-1]) if len(kinds) == 3 else "unknown"
    return "zero" if name in ("reduce_sum", "cumsum", "concatenate") and set(kinds) == {"zero"} else "unknown"


def _kind_of_sum(one: Kind, other: Kind) -> Kind:
    if "zero" in (one, other):
        return other if one == "zero" else one
    return "positive" if one == other == "positive" else "unknown"  # others may cancel


def _kind_of_difference(one: Kind, other: Kind) -> Kind:
    if other == "zero":
        return one
    return "nonzero" if one == "zero" and other in ("positive", "nonzero") else "unknown"


def _kind_of_product(one: Kind, other: Kind) -> Kind:
    if "zero" in (one, other):
        return "zero"
    if "unknown" in (one, other):
        return "unknown"
    return "positive" if one == other == "positive" else "nonzero"


def _kind_of_quotient(one: Kind, other: Kind) -> Kind:
    return _kind_of_product(one, other) if other in ("positive", "nonzero") else "unknown"


def _kind_of_extremum(one: Kind, other: Kind) -> Kind:
    return one if one == other else "unknown"


_OF_TWO: dict[str, Callable[[Kind, Kind], Kind]] = {
    "add": _kind_of_sum,
    "add_any": _kind_of_sum,
    "div": _kind_of_quotient,
    "max": _kind_of_extremum,
    "min": _kind_of_extremum,
    "mul": _kind_of_product,
    "sub": _kind_of_difference,
}
