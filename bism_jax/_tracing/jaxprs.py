"""What a traced function depends on: the structural checks of the library read jaxprs, not values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bism_jax._tracing.jax_internals import PLAIN_CALLS, ClosedJaxpr, Jaxpr, JaxprEqn, Literal, is_traced

_TRANSPARENT_CALLS = PLAIN_CALLS | {"custom_jvp_call"}


def is_within_jit() -> bool:
    """Whether the caller is being traced, where whatever reaches a device is traced too."""
    # Under a user's transfer guard even this number may not move to the device.
    with jax.transfer_guard("allow"):
        return is_traced(jax.device_put(np.float32(0)))


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf has a real or complex floating dtype, so that it can carry a gradient."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def bodies(eqn: JaxprEqn) -> Iterator[tuple[Jaxpr, list[Any]]]:
    """What an equation calls, with its constants: the body of a `jit`, a `scan`, a custom rule, and so on."""
    # By type: the parameters' names (`jaxpr`, `call_jaxpr`, `branches`) differ with primitive and release.
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr, list(item.consts)
            elif isinstance(item, Jaxpr):
                yield item, []


def sub_jaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """What an equation calls, without its constants."""
    return (body for body, _ in bodies(eqn))


def dependent_equations(
    jaxpr: Jaxpr, dependent: Sequence[bool], visit: Callable[[JaxprEqn], None]
) -> list[bool]:
    """Visits every equation, nested ones too, that depends on the marked inputs of `jaxpr`.

    The dependence is exact through plain calls and an over-estimate through loops and branches.

    Args:
        jaxpr: the traced function.
        dependent: a mark for each of its inputs.
        visit: called with each equation that uses a marked value.

    Returns:
        A mark for each output: whether it depends on a marked input.
    """
    marked = {var for var, mark in zip(jaxpr.invars, dependent, strict=True) if mark}

    def is_marked(atom: Any) -> bool:
        return not isinstance(atom, Literal) and atom in marked

    for eqn in jaxpr.eqns:
        marks = [is_marked(atom) for atom in eqn.invars]
        if not any(marks):
            continue
        visit(eqn)
        # A primitive without a body may use every operand in every result.
        out_marks = [True] * len(eqn.outvars)
        branches: list[list[bool]] = []
        for body in sub_jaxprs(eqn):
            aligned = len(body.invars) == len(marks)
            body_marks = marks if aligned else [True] * len(body.invars)
            if eqn.primitive.name in _TRANSPARENT_CALLS and aligned:
                out_marks = dependent_equations(body, body_marks, visit)
            elif eqn.primitive.name == "cond" and not marks[0]:  # nothing marked decides which branch it is
                branches.append(dependent_equations(body, marks[1:], visit))
                out_marks = [any(of_branches) for of_branches in zip(*branches, strict=True)]
            else:  # a loop carries what depends on the marks to operands that do not in the first turn
                dependent_equations(body, [True] * len(body.invars), visit)
        marked.update(var for var, mark in zip(eqn.outvars, out_marks, strict=True) if mark)
    return [is_marked(atom) for atom in jaxpr.outvars]


def is_used(jaxpr: Jaxpr, var: Any) -> bool:
    """Whether an equation or an output of `jaxpr` takes the variable."""
    operands = [*(atom for eqn in jaxpr.eqns for atom in eqn.invars), *jaxpr.outvars]
    return any(atom is var for atom in operands)


def count_equations(jaxpr: Jaxpr) -> int:
    """The number of equations of `jaxpr` and of the bodies that it calls."""
    return sum(1 + sum(map(count_equations, sub_jaxprs(eqn))) for eqn in jaxpr.eqns)


def contains_primitive(jaxpr: Jaxpr, name: str) -> bool:
    """Whether an equation of `jaxpr`, or of a body that it calls, is the primitive `name`."""
    return any(
        eqn.primitive.name == name or any(contains_primitive(body, name) for body in sub_jaxprs(eqn))
        for eqn in jaxpr.eqns
    )


def has_gradient(fn: Callable[..., Any], argnum: int, *args: Any) -> bool:
    """Whether reverse mode sends anything from the output of `fn` back to argument `argnum`.

    Decided on the jaxpr of the vector-Jacobian product, so that neither values nor a lucky zero
    matter: a value that passes through a comparison, a rounding or `stop_gradient` does not count.

    Args:
        fn: a function of pytrees that returns a pytree of floating arrays.
        argnum: which argument.
        *args: arguments, arrays or `jax.ShapeDtypeStruct`.
    """

    def pull_back(cotangent: Any, *args: Any) -> Any:
        def of_argument(argument: Any) -> Any:
            return fn(*args[:argnum], argument, *args[argnum + 1 :])

        return jax.vjp(of_argument, args[argnum])[1](cotangent)

    # An input of the trace, since dependence on a constant could not be marked.
    cotangent = jax.eval_shape(fn, *args)
    jaxpr = jax.make_jaxpr(pull_back)(cotangent, *args).jaxpr
    num_cotangents = len(jax.tree.leaves(cotangent))
    marks = [index < num_cotangents for index in range(len(jaxpr.invars))]
    return any(dependent_equations(jaxpr, marks, lambda eqn: None))
