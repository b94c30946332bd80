"""One view of a Flax Linen module, a Flax NNX module and a plain function."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from flax import errors, linen
from jaxtyping import Array, Key

from bism_jax.errors import ModelError
from bism_jax.typing import Params

if TYPE_CHECKING:
    from flax import nnx


@dataclass(frozen=True)
class Model:
    """A model as pure functions of its parameters.

    Attributes:
        name: what to call it in messages.
        apply: `(params, *args) -> result`.
        init: `(rng_key, *args) -> params`, or None where the parameters must be given.
        method: the pure form of an extra function by its name, or None where the model lacks it. A plain
            function of (theta, v) without a `free_energy` is its own.
    """

    name: str
    apply: Callable[..., Any]
    init: Callable[..., Params] | None
    method: Callable[[str], Callable[..., Any] | None]


def as_model(argument: str, fn: Any) -> Model:
    """Adapts `fn`, which was passed as `argument`, to a `Model`.

    Raises:
        TypeError: where `argument` is no text, or `fn` is a class, or nothing that can be called.
        ModelError: where a module keeps state beside its parameters.
    """
    if not isinstance(argument, str):
        raise TypeError(f"argument must be the name of an argument, for messages, not {argument!r}.")
    # A class can be called too, and would fail far from here.
    if isinstance(fn, type):
        raise TypeError(f"{argument} is the class {fn.__name__}; pass an instance, {fn.__name__}(...).")
    if isinstance(fn, linen.Module):
        return _adapt_linen(argument, fn)
    if is_nnx(fn):
        return _adapt_nnx(argument, fn)
    if not callable(fn):
        raise TypeError(
            f"{argument} must be a Flax module or a function (params, ...), not {type(fn).__name__}."
        )
    name = getattr(fn, "__name__", type(fn).__name__)
    return Model(name, fn, None, functools.partial(_method_of_function, fn))


def is_nnx(fn: Any) -> bool:
    """Whether it is an NNX module, for which whoever made it has imported NNX."""
    if "flax.nnx" not in sys.modules:  # 0.12 CPU seconds, a sixth of what JAX and Flax take
        return False
    from flax import nnx

    return isinstance(fn, nnx.Module)


def _method_of_function(fn: Callable[..., Any], method: str) -> Callable[..., Any] | None:
    """An attribute of a plain function; one of (theta, v) alone is its own free energy."""
    found = getattr(fn, method, None)
    return fn if found is None and method == "free_energy" and _takes_two_arguments(fn) else found


def _takes_two_arguments(fn: Callable[..., Any]) -> bool:
    try:
        inspect.signature(fn).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a built-in without a signature
        return True
    return True


def _adapt_linen(argument: str, module: linen.Module) -> Model:
    name = type(module).__name__

    def init(rng_key: Key[Array, ""], *args: Any, method: str = "__call__") -> Params:
        variables = _call(module.init, rng_key, *args, method=method)
        extra = sorted(set(variables) - {"params"})
        if extra:
            raise _stateful(argument, name, f"mutable collections {extra}")
        return variables

    def apply(params: Params, *args: Any, **kwargs: Any) -> Any:
        # Here too, since parameters of a user have not come through `init`.
        extra = sorted(set(params) - {"params"}) if isinstance(params, Mapping) else []
        if "params" in params and extra:
            raise _stateful(argument, name, f"mutable collections {extra}")
        return _call(module.apply, params, *args, **kwargs)

    def _call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        # Linen lists nowhere what a module draws; only a run without keys tells.
        except errors.InvalidRngError as error:
            raise _stateful(argument, name, "dropout or another draw of random numbers") from error
        except errors.ModifyScopeVariableError as error:
            raise _stateful(argument, name, "mutable collections (batch_stats)") from error

    def method(method_name: str) -> Callable[..., Any] | None:
        if not hasattr(type(module), method_name):
            return None
        return lambda params, *args: apply(params, *args, method=method_name)

    return Model(name, apply, init, method)


def _adapt_nnx(argument: str, module: nnx.Module) -> Model:
    from flax import nnx

    name = type(module).__name__
    graph, params, rest = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]
    extra = sorted({type(value).__name__ for _, value in nnx.to_flat_state(rest)})
    if extra:
        raise _stateful(argument, name, f"the state {extra}")
    params = nnx.to_pure_dict(params)

    def call(params: Params, method: str, *args: Any) -> Any:
        state = nnx.state(nnx.merge(graph, nnx.State(jax.tree.map(nnx.Param, params))), nnx.Param)
        return getattr(nnx.merge(graph, state), method)(*args)

    def method(method_name: str) -> Callable[..., Any] | None:
        if not hasattr(module, method_name):
            return None
        return lambda params, *args: call(params, method_name, *args)

    def init(rng_key: Key[Array, ""], *args: Any, method: str = "__call__") -> Params:
        return params

    return Model(name, lambda params, *args: call(params, "__call__", *args), init, method)


def _stateful(argument: str, name: str, what: str) -> ModelError:
    return ModelError(
        f"{argument}={name} uses {what}, but an energy and a posterior must be pure functions of their "
        "parameters and inputs, or the unrolled steps would not see the same function. Remove it, or "
        "switch it off in the module (deterministic=True, use_running_average=True with given statistics)."
    )
