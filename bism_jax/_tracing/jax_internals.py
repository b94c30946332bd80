"""What the library takes from inside JAX, which a release of JAX may move or rename.

No other file names these: `tests/test_layers.py` sees to it, and `tests/test_jax_internals.py` says by name
what a JAX has moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.extend.core
from jax.interpreters.ad import primitive_jvps
from jax.interpreters.partial_eval import dce_jaxpr

ClosedJaxpr = jax.extend.core.ClosedJaxpr
Jaxpr = jax.extend.core.Jaxpr
JaxprEqn = jax.extend.core.JaxprEqn
Literal = jax.extend.core.Literal
Primitive = jax.extend.core.Primitive
eval_jaxpr = jax.core.eval_jaxpr
jaxpr_as_fun = jax.extend.core.jaxpr_as_fun

_JAX_ROOT = Path(jax.__file__).parent

# Calls whose body takes and returns exactly the operands of the equation, once each. `jit` was `pjit` before.
PLAIN_CALLS = frozenset({"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2"})

# Parameters that say how to differentiate what is traced: made anew by each trace, dropped when compiled.
DERIVATIVE_RULES = {
    "custom_jvp_call": {"jvp_jaxpr_fun", "jvp_jaxpr_thunk"},
    "custom_vjp_call": {"fwd_jaxpr_thunk", "bwd", "out_trees"},
    "custom_vjp_call_jaxpr": {"fwd_jaxpr_thunk", "bwd", "out_trees"},
}

# Files of JAX, as a traceback names them, since a primitive does not say who called it.
SOLVES = "_src/lax/control_flow/solves.py"
# By a factorisation; `custom_linear_solve` from anywhere else may be iterative, and so inexact.
EXACT_SOLVES = ("_src/lax/linalg.py", "_src/numpy/linalg.py", "_src/scipy/linalg.py")
# Beginnings of paths, so that `_src/api` is api.py and api_util.py.
MACHINERY = (
    "_src/interpreters/",
    "_src/api",
    "_src/core.py",
    "_src/linear_util.py",
    "_src/pjit.py",
    SOLVES,
    "_src/traceback_util.py",
    "_src/tree_util.py",
    "_src/util.py",
    "_src/custom_batching.py",
)


class Scan(NamedTuple):
    """The loop of a `scan`, whose operands are constants, then the carry, then what has a slice a step."""

    length: int
    reverse: bool
    unroll: int
    num_consts: int
    num_carry: int


class Convolution(NamedTuple):
    """What the work of a `conv_general_dilated` depends on.

    Attributes:
        output_axis: of the kernel.
        input_dilation: between whose entries are zeros.
    """

    output_axis: int
    input_dilation: tuple[int, ...]


def is_traced(*trees: Any) -> bool:
    """Whether a leaf has no value here, as within `jit` or `grad`; an iterator, which is no tree, is not."""
    leaves = jax.tree.leaves(trees, is_leaf=lambda leaf: hasattr(leaf, "__next__"))
    return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def aval_of(atom: Any) -> Any:
    """The shape and dtype of a variable or a literal, whose type JAX declares without them."""
    return atom.aval


def bind(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """The results of an equation on other operands."""
    # The parameters of a custom rule hold functions that `bind` takes in another form.
    results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return list(results) if eqn.primitive.multiple_results else [results]


def scan_of(eqn: JaxprEqn) -> Scan:
    """The loop of a `scan` equation."""
    params = eqn.params
    if "ft_in" in params:  # since JAX 0.12: trees of the constants, the carry and the slices
        num_consts, num_carry, _ = map(len, params["ft_in"].unpack())
    else:
        num_consts, num_carry = params["num_consts"], params["num_carry"]
    return Scan(params["length"], params["reverse"], params["unroll"], num_consts, num_carry)


def exponent_of(eqn: JaxprEqn) -> int:
    """The n of an `integer_pow` equation, x^n."""
    exponent: int = eqn.params["y"]
    return exponent


def contracted_axes(eqn: JaxprEqn) -> Iterable[int]:
    """The axes of its first operand that a `dot_general` equation sums over."""
    (axes, _), _ = eqn.params["dimension_numbers"]
    contracted: Iterable[int] = axes
    return contracted


def convolution_of(eqn: JaxprEqn) -> Convolution:
    """The layout of a `conv_general_dilated` equation."""
    return Convolution(eqn.params["dimension_numbers"].rhs_spec[0], eqn.params["lhs_dilation"])


def jvp_rule(eqn: JaxprEqn) -> Any:
    """The rule of a `custom_jvp_call` equation, in JAX's wrappers."""
    return eqn.params.get("jvp_jaxpr_fun")


def registered_jvp(primitive: Primitive) -> Any:
    """The derivative that is registered for a primitive; None where there is none."""
    return primitive_jvps.get(primitive)


def wrapped_parts(value: Any) -> tuple[Any, ...]:
    """What JAX's wrapped, transformed function is made of; nothing for any other value."""
    return (value.f, value.transforms) if hasattr(value, "transforms") and hasattr(value, "f") else ()


def frames_of(eqn: JaxprEqn) -> list[Any]:
    """The calls that led to an equation, the innermost first, those inside JAX as well."""
    traceback = eqn.source_info.traceback
    return list(traceback.frames) if traceback is not None else []


def is_in_jax(file_name: str) -> bool:
    """Whether a file is one of JAX's."""
    return Path(file_name).is_relative_to(_JAX_ROOT)


def context_of(eqn: JaxprEqn) -> Any:
    """The settings under which an equation was traced."""
    return eqn.ctx


def host_function(callback: Any) -> Any:
    """The function of a user that the parameter `callback` of an equation runs on the host."""
    return getattr(callback, "callback_func", callback)


def used_part(jaxpr: Jaxpr) -> Jaxpr:
    """The equations on which an output depends."""
    return dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]


def children_of(node: Any) -> Iterable[Any]:
    """The children of a node of a pytree; None stands among them, which is a node without children."""
    return jax.tree_util.default_registry.flatten_one_level(node)[0]


def jit_is_disabled() -> bool:
    """Whether JAX is told to compile nothing."""
    is_disabled: bool = jax.config.jax_disable_jit  # type: ignore[attr-defined]
    return is_disabled


def settings() -> tuple[tuple[str, str], ...]:
    """JAX's configuration, of this thread: precision, debugging and more change what is compiled."""
    return tuple((name, repr(getattr(jax.config, name, None))) for name in sorted(jax.config.values))
