"""Finds custom rules in a traced function that may make its derivative something else than a derivative.

Mixed mode rests on the symmetry of second derivatives. A custom rule that is not the true derivative breaks
it without a trace in the numbers, so such rules are looked for in the jaxpr. JAX's own rules are true
derivatives; they are told apart by the files that define them. `stop_gradient` needs no guard: its value is
a constant to every order of differentiation and in both modes, so the function that JAX differentiates is
one of fixed constants, and its second derivatives are symmetric.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import jax
from jax.extend.core import JaxprEqn

from bism_jax.jaxprs import dependent_equations, is_floating

_JAX_ROOT = Path(jax.__file__).parent
_CUSTOM_CALLS = frozenset(
    {"custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin", "custom_transpose_call", "linear_call"}
)


def find_untrusted_rule(fn: Callable[..., Any], *args: Any) -> str | None:
    """Names the first rule on the way from a floating argument that cannot be trusted, if any.

    Args:
        fn: a function of pytrees.
        *args: its arguments, arrays or `jax.ShapeDtypeStruct`.

    Returns:
        A description for a message (`"custom_vjp_call at model.py:12"`), or None.
    """
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    found: list[str] = []

    def visit(eqn: JaxprEqn) -> None:
        if not _is_trusted(eqn):
            found.append(f"{eqn.primitive.name} at {_user_location(eqn)}")

    dependent_equations(jaxpr, [is_floating(leaf) for leaf in jax.tree.leaves(args)], visit)
    return found[0] if found else None


def _is_trusted(eqn: JaxprEqn) -> bool:
    name = eqn.primitive.name
    if name == "custom_jvp_call":
        return _is_defined_in_jax(eqn.params.get("jvp_jaxpr_fun"))
    return name not in _CUSTOM_CALLS


def _is_inside_jax(file_name: str) -> bool:
    return Path(file_name).is_relative_to(_JAX_ROOT)


def _is_defined_in_jax(rule: Any) -> bool:
    """Whether each function that the traced rule was assembled from stands in a file of JAX."""
    functions = list(_reachable_functions(rule, set()))
    return bool(functions) and all(
        isinstance(fn, FunctionType) and _is_inside_jax(fn.__code__.co_filename) for fn in functions
    )


def _reachable_functions(value: Any, seen: set[int]) -> Iterator[Any]:
    """Every function inside wrappers, closures and partials; whatever else is callable as itself."""
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: tuple[Any, ...] = ()
    if isinstance(value, FunctionType):
        yield value
        cells = value.__closure__ or ()
        parts = tuple(_cell_contents(cell) for cell in cells)
    elif isinstance(value, (tuple, list)):
        parts = tuple(value)
    elif isinstance(value, functools.partial):
        parts = (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        parts = (value.__func__,)
    elif isinstance(value, jax.custom_jvp):
        parts = (value.fun,)
    elif hasattr(value, "transforms") and hasattr(value, "f"):  # JAX's wrapped, transformed function
        parts = (value.f, value.transforms)
    elif hasattr(value, "__wrapped__"):
        parts = (value.__wrapped__,)
    elif callable(value) and not isinstance(value, type):
        yield value
    for part in parts:
        yield from _reachable_functions(part, seen)


def _cell_contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a cell that is not filled yet
        return None


def _user_location(eqn: JaxprEqn) -> str:
    traceback = eqn.source_info.traceback
    frames: list[Any] = list(traceback.frames) if traceback is not None else []
    for frame in frames:
        if not _is_inside_jax(frame.file_name):
            return f"{Path(frame.file_name).name}:{frame.line_num}"
    return "an unknown place"
