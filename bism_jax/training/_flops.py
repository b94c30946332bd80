"""Floating-point operations of a traced function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from bism_jax import checks
from bism_jax._tracing.jax_internals import (
    Jaxpr,
    JaxprEqn,
    aval_of,
    contracted_axes,
    convolution_of,
    scan_of,
    used_part,
)
from bism_jax._tracing.jaxprs import sub_jaxprs

# These move or relabel numbers.
_FREE = frozenset(
    {
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "dynamic_slice",
        "dynamic_update_slice",
        "gather",
        "iota",
        "pad",
        "random_seed",
        "random_split",
        "random_unwrap",
        "random_wrap",
        "reshape",
        "rev",
        "slice",
        "split",
        "squeeze",
        "stop_gradient",
        "transpose",
    }
)


def count_flops(fn: Callable[..., Any], *args: Any, while_turns: int = 1) -> float:
    """The operations that one call of `fn` needs, loops counted as often as they turn.

    XLA's own analysis counts the body of a loop once. Here a product of matrices and a convolution count two
    for each multiplication and addition, and any other arithmetic one for each number; what no output
    depends on is left out.

    Args:
        fn: a traceable function.
        *args: its arguments, arrays or `jax.ShapeDtypeStruct`.
        while_turns: turns of a `while` loop, whose number no trace tells.

    Raises:
        TypeError: for what is no function.
        ValueError: where it cannot be traced on its arguments, or a count is none.
    """
    checks.function("fn", fn, "of arrays")
    checks.positive_int("while_turns", while_turns)
    return flops_of_jaxpr(checks.called("fn", jax.make_jaxpr(fn), *args).jaxpr, while_turns)


def flops_of_jaxpr(jaxpr: Jaxpr, while_turns: int) -> float:
    """As `count_flops`, of what is traced already."""
    return _of_jaxpr(used_part(jaxpr), while_turns)


def _of_jaxpr(jaxpr: Jaxpr, while_turns: int) -> float:
    return sum(_of_equation(eqn, while_turns) for eqn in jaxpr.eqns)


def _of_equation(eqn: JaxprEqn, while_turns: int) -> float:
    name = eqn.primitive.name
    bodies = [_of_jaxpr(body, while_turns) for body in sub_jaxprs(eqn)]
    if bodies:
        if name == "cond":
            # Which branch runs no trace tells: the dearest is an upper bound.
            return max(bodies)
        turns = scan_of(eqn).length if name == "scan" else while_turns if name == "while" else 1
        return sum(bodies) * turns
    if name in _FREE:
        return 0
    size = max(map(_size, eqn.outvars), default=0)
    if name == "dot_general":
        return 2 * size * math.prod(_shape(eqn.invars[0])[axis] for axis in contracted_axes(eqn))
    if name == "conv_general_dilated":
        kernel = _shape(eqn.invars[1])
        convolution = convolution_of(eqn)
        # `size` counts the output channels already.
        products = 2 * size * math.prod(kernel) // kernel[convolution.output_axis]
        # Between the rows of an input gradient stand zeros: with them an iteration on the MNIST network
        # (N = 5) counted 1,196 GFLOP instead of 804.
        return products // math.prod(convolution.input_dilation)
    # A reduction does as many operations as it reads, not as it returns.
    return max([size, *map(_size, eqn.invars)])


def _shape(atom: Any) -> tuple[int, ...]:
    return getattr(aval_of(atom), "shape", ())


def _size(atom: Any) -> int:
    return math.prod(_shape(atom))
