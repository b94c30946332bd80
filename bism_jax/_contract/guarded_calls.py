"""Checks of a model's parameters, and models whose failures are told in terms of the arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from bism_jax._contract.adapters import Model, as_model, is_nnx
from bism_jax._precision import is_floating_dtype
from bism_jax.checks import is_finite, is_known, shapes_of, shown, told_as
from bism_jax.errors import ModelError
from bism_jax.typing import Params

_PARAMETERS_OF = {"energy_fn": "theta", "posterior_fn": "phi", "critic": "its parameters"}
_LISTED = 6  # leaves in a message


def guarded_model(argument: str, fn: Any) -> Model:
    """`as_model`, whose functions say which arguments they cannot be evaluated on.

    They do so where they are traced, so before anything is compiled and at no cost.
    """
    model = as_model(argument, fn)
    name = f"{argument}={model.name}"
    params_name = _PARAMETERS_OF.get(argument, "params")

    def method(method_name: str) -> Callable[..., Any] | None:
        found = model.method(method_name)
        return None if found is None else guarded(f"{name}: {method_name}", found, params_name)

    return replace(model, apply=guarded(name, model.apply, params_name), method=method)


def guarded(name: str, fn: Callable[..., Any], params_name: str = "theta") -> Callable[..., Any]:
    """`fn(params, *args)`, whose errors name `name` and the parameters and say the shapes that were given."""

    # A callable object's fields, which `wraps` copies by default, are no attributes of the guard.
    @functools.wraps(fn, updated=())
    def call(params: Params, *args: Any) -> Any:
        def describe() -> str:
            return (
                f"{name} cannot be evaluated with {params_name} of {_outline(params)} on arrays of shapes "
                f"{shapes_of(args)}; {params_name} must be that of this model, and the rows those it was "
                "trained on."
            )

        with told_as(describe):
            return fn(params, *args)

    return call


def one_value_a_row(name: str, values: Any, num_rows: int) -> None:
    """Raises ModelError unless `values`, an array or its shape, is a floating vector with one entry a row."""
    shape, dtype = getattr(values, "shape", None), getattr(values, "dtype", None)
    if shape != (num_rows,) or dtype is None or not is_floating_dtype(dtype):
        found = f"shape {shape} and dtype {dtype}" if shape is not None else shown(values)
        raise ModelError(
            f"{name} must return one floating number a row, shape ({num_rows},), but returns {found}; sum "
            "over all axes but the first, and look at the shape of the rows."
        )


def check_parameters(name: str, params: PyTree, argument: str, fn: Any) -> None:
    """Checks parameters for the model `fn` that is passed as `argument`.

    A plain function may take any tree of arrays and numbers, also an empty one. Those of a module are checked
    against it where it is evaluated; an NNX module, which takes any shapes, against its own.

    Raises:
        TypeError: for what holds parameters, such as a `FitResult`, or for no tree of arrays.
        ValueError: for parameters that are not finite, or not those of an NNX module.
    """
    model = as_model(argument, fn)
    _refuse_containers(name, params)
    if model.init is None:
        check_leaves(name, params)
        return
    if not isinstance(params, Mapping):
        raise TypeError(
            f"{name} must be the parameters of {argument}={model.name}, such as fit(...).{name}, not "
            f"{shown(params)}."
        )
    check_leaves(name, params, only_floating=True)
    if is_nnx(fn):
        # An NNX module holds its parameters, so that `init` needs no key.
        _check_shapes(name, params, f"{argument}={model.name}", model.init(None))


def check_leaves(name: str, params: PyTree, *, only_floating: bool = False) -> None:
    """Raises TypeError unless all leaves are arrays or numbers, ValueError where they are not finite.

    A module's are floating; a function may take any.
    """
    _refuse_containers(name, params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        where = name + jax.tree_util.keystr(path)
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            raise TypeError(f"{where} is {shown(leaf)}; parameters are arrays.")
        dtype = np.asarray(leaf).dtype if isinstance(leaf, (int, float, complex)) else leaf.dtype
        if only_floating and not is_floating_dtype(dtype):
            raise ValueError(f"{where} has dtype {dtype}, but the parameters of a module are floating.")
        if is_known(leaf) and is_floating_dtype(dtype) and not is_finite(leaf).all():
            raise ValueError(
                f"{where} holds NaN or infinite values; take parameters from before it diverged."
            )


def _refuse_containers(name: str, params: PyTree) -> None:
    if isinstance(params, tuple) and hasattr(params, name):
        raise TypeError(f"{name} is a {type(params).__name__}; pass its part, .{name}.")
    if isinstance(params, tuple) and len(params) == 2 and all(isinstance(part, Mapping) for part in params):
        index = {"theta": 0, "phi": 1}.get(name, 0)
        raise TypeError(f"{name} is a pair such as (theta, phi); pass its part, [{index}].")


def _check_shapes(name: str, params: PyTree, model: str, expected: PyTree) -> None:
    given, wanted = (
        {
            jax.tree_util.keystr(path): np.shape(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (params, expected)
    )
    if given != wanted:
        raise ValueError(
            f"{name} has {_outline(params)}, but {model} has parameters of {_outline(expected)}."
        )


def _outline(tree: PyTree) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    listed = ", ".join(f"{jax.tree_util.keystr(path)} {np.shape(leaf)}" for path, leaf in leaves[:_LISTED])
    rest = f" and {len(leaves) - _LISTED} more" if len(leaves) > _LISTED else ""
    return f"shapes {{{listed}{rest}}}"
