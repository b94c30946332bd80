"""Finds rules in a traced function that may not be its true derivative.

Mixed mode rests on the symmetry of second derivatives. A rule that is not the true derivative breaks it
without a trace in the numbers, so a function runs in mixed mode only where every primitive on the way is on a
list of those whose derivative is true, with the rule that JAX registered for it. Whatever is not on the list
(a primitive or a custom rule of a user, one that a newer JAX renames or adds) is not trusted; the price is
plain reverse mode.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import jax

from bism_jax._tracing.jax_internals import (
    EXACT_SOLVES,
    MACHINERY,
    SOLVES,
    JaxprEqn,
    Primitive,
    frames_of,
    is_in_jax,
    jvp_rule,
    registered_jvp,
    wrapped_parts,
)
from bism_jax._tracing.jaxprs import dependent_equations, is_inexact

# Elementwise. Steps and roundings have the derivative 0 that they have almost everywhere.
_ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp complex
    conj cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igammac imag
    integer_pow is_finite le le_to lgamma log log1p log2 logistic lt lt_to max min mul mulhi ne neg
    nextafter not one_minus_square or polygamma polynomial pow real regularized_incomplete_beta rem round
    rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square
    stop_gradient sub tan tanh xor
"""
# Conversions and copies. A conversion to fewer digits is the identity but for rounding.
_CONVERSIONS = """
    bitcast_convert_type convert_element_type copy device_put from_edtype layout_constraint name
    optimization_barrier reduce_precision reshard sharding_constraint tie to_edtype
"""
# Shapes, indices and order.
_SHAPES = """
    approx_top_k argmax argmin broadcast_in_dim concatenate dynamic_slice dynamic_update_slice gather pad
    reshape rev scatter scatter-add scatter-max scatter-min scatter-mul scatter-sub select_and_gather_add
    select_and_scatter_add slice sort split squeeze stack tile top_k transpose unstack
"""
# Sums, products, reductions and transforms.
_REDUCTIONS = """
    conv_general_dilated cumlogsumexp cummax cummin cumprod cumsum dot_general fft ragged_dot_general reduce
    reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_window reduce_window_max
    reduce_window_min reduce_window_sum
"""
# Factorisations, whose rules solve exactly.
_FACTORISATIONS = """
    cholesky eig eigh lu qr svd triangular_solve tridiagonal_solve
"""
# Random numbers as functions of their parameters: reparameterised derivatives.
_RANDOM = """
    random_gamma random_bits random_fold_in random_seed random_split random_unwrap random_wrap
"""
# Under `shard_map` with its checks on, these two are each other's transposes.
_COLLECTIVES = """
    psum_invariant pvary
"""
# By name: a primitive of JAX under a name that is not here, old or new, is not trusted.
_TRUE_DERIVATIVES = frozenset(
    (_ELEMENTWISE + _CONVERSIONS + _SHAPES + _REDUCTIONS + _FACTORISATIONS + _RANDOM + _COLLECTIVES).split()
)
# Calls and loops: what they run is looked at equation by equation.
_BODIES = frozenset(
    "checkpoint closed_call composite cond core_call eval_jaxpr jit pjit remat2 remat_opt scan while".split()  # noqa: SIM905
)
_NO_OUTPUT = frozenset({"debug_callback", "debug_print"})


def find_untrusted_rule(fn: Callable[..., Any], *args: Any, trusted: Sequence[Any] = ()) -> str | None:
    """Names the first rule on the way from a real or complex argument that cannot be trusted, if any.

    Args:
        fn: a function of pytrees.
        *args: its arguments, arrays or `jax.ShapeDtypeStruct`.
        trusted: what a user vouches for; see `Unrolled`.

    Returns:
        A description for a message (`"custom_vjp_call at model.py:12"`), or None.
    """
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    found: list[str] = []

    def visit(eqn: JaxprEqn) -> None:
        if not _is_trusted(eqn) and not any(_vouches(value, eqn) for value in trusted):
            found.append(f"{eqn.primitive.name} at {_user_location(eqn)}")

    dependent_equations(jaxpr, [is_inexact(leaf) for leaf in jax.tree.leaves(args)], visit)
    return found[0] if found else None


def check_trusted(trusted: Any) -> None:
    """Raises TypeError unless `trusted` is a tuple of functions and primitives with a forward mode."""
    if not isinstance(trusted, tuple) or not all(callable(v) or isinstance(v, Primitive) for v in trusted):
        raise TypeError(
            f"trusted must be a tuple of functions and primitives whose derivatives are true, not "
            f"{trusted!r}; pass trusted=(my_function,)."
        )
    if any(isinstance(value, jax.custom_vjp) for value in trusted):
        raise TypeError(
            "trusted holds a custom_vjp, which has no forward mode, and mixed mode needs one; write the "
            "rule by jax.custom_jvp, or leave it to plain reverse mode."
        )


def has_forward_mode(rule: str) -> bool:
    """Whether mixed mode could run through a rule that is described by `find_untrusted_rule`."""
    return not rule.startswith("custom_vjp")


def _is_trusted(eqn: JaxprEqn) -> bool:
    name = eqn.primitive.name
    if name in _BODIES or name in _NO_OUTPUT:
        return True
    # JAX has such rules for speed or accuracy (`jax.nn.relu`), and those are true derivatives.
    if name == "custom_jvp_call":
        rule = jvp_rule(eqn)
        # The derivative of `custom_root` is only as exact as the solve that its user gives.
        return _is_defined_in_jax(rule) and not any(_is_in(fn, SOLVES) for fn in _functions(rule))
    if name == "custom_linear_solve":
        return _is_exact_solve(eqn)
    return name in _TRUE_DERIVATIVES and _has_rule_of_jax(eqn.primitive)


@functools.cache
def _has_rule_of_jax(primitive: Primitive) -> bool:
    """Whether nobody else registered the primitive, or another derivative for it."""
    rule = registered_jvp(primitive)
    # Without any rule a derivative is an error, never wrong.
    return type(primitive).__module__.startswith("jax") and (rule is None or _is_defined_in_jax(rule))


def _is_exact_solve(eqn: JaxprEqn) -> bool:
    """Whether a factorisation of JAX called `custom_linear_solve`; what transforms it stands in between."""
    files = [frame.file_name for frame in frames_of(eqn)]
    inside = [index for index, file in enumerate(files) if file.endswith(SOLVES)]
    callers = files[inside[0] + 1 :] if inside else []
    return next((file for file in callers if not any(part in file for part in MACHINERY)), "").endswith(
        EXACT_SOLVES
    )


def _vouches(trusted: Any, eqn: JaxprEqn) -> bool:
    """Whether a user's word covers an equation: its primitive, custom rule, or a function around it."""
    if isinstance(trusted, Primitive):
        return eqn.primitive is trusted
    # The equation of a custom rule stands where the function is called, not within it: its parts tell.
    rules = _rules_of(trusted)
    if rules:
        return any(fn in rules for value in eqn.params.values() for fn in _functions(value))
    # Wrappers such as `jit`'s are not in the traceback, the function is.
    code = getattr(inspect.unwrap(trusted), "__code__", None)
    if code is None:
        return False
    name = code.co_qualname  # tracebacks hold names, and methods share short ones
    return any(
        frame.file_name == code.co_filename and frame.function_name == name for frame in frames_of(eqn)
    )


def _rules_of(trusted: Any) -> list[Any]:
    """The functions of a user that a custom rule is made of."""
    if not isinstance(trusted, jax.custom_jvp):
        return []
    # JAX's own wrappers are in every rule and would vouch for them all.
    return [fn for fn in _functions(trusted.jvp) if not _is_inside_jax(fn)]


def _is_defined_in_jax(rule: Any) -> bool:
    """Whether each function that a rule was assembled from stands in a file of JAX."""
    functions = list(_functions(rule))
    # A rule in which no function is found cannot be judged.
    return bool(functions) and all(map(_is_inside_jax, functions))


def _is_inside_jax(fn: Any) -> bool:
    return isinstance(fn, FunctionType) and is_in_jax(fn.__code__.co_filename)


def _is_in(fn: Any, file_name: str) -> bool:
    return isinstance(fn, FunctionType) and fn.__code__.co_filename.endswith(file_name)


def _functions(value: Any) -> list[Any]:
    return list(_reachable_functions(value, set()))


def _reachable_functions(value: Any, seen: set[int]) -> Iterator[Any]:
    """Every function inside wrappers, closures and partials; a callable of any other kind is one itself."""
    if id(value) in seen:  # a recursive function is in its own closure
        return
    seen.add(id(value))
    parts = _parts_of(value)
    is_opaque = parts is None and callable(value) and not isinstance(value, type)
    if isinstance(value, FunctionType) or is_opaque:
        yield value
    for part in parts or ():
        yield from _reachable_functions(part, seen)


def _parts_of(value: Any) -> tuple[Any, ...] | None:
    """What a function, a wrapper or a sequence holds; None for anything else."""
    if isinstance(value, FunctionType):
        parts: tuple[Any, ...] | None = tuple(map(_cell_contents, value.__closure__ or ()))
    elif isinstance(value, (tuple, list)):
        parts = tuple(value)
    elif isinstance(value, functools.partial):
        parts = (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        parts = (value.__func__,)
    elif isinstance(value, jax.custom_jvp):
        parts = (value.fun,)
    elif isinstance(value, Primitive) or hasattr(value, "__enter__"):  # decorators that only set options
        parts = ()
    else:
        parts = wrapped_parts(value) or ((value.__wrapped__,) if hasattr(value, "__wrapped__") else None)
    return parts


def _cell_contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a cell that is not filled yet
        return None


def _user_location(eqn: JaxprEqn) -> str:
    for frame in frames_of(eqn):
        if not is_in_jax(frame.file_name):
            return f"{Path(frame.file_name).name}:{frame.line_num}"
    return "an unknown place"
