"""Methods that survive pickling, for process pools, `spawn` and queues."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
from collections.abc import Callable, Hashable
from typing import Any

import optax


class _Rebuilt(optax.GradientTransformationExtraArgs):
    """A transformation that pickles as the call that builds it."""

    call: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self.call


def picklable(
    builder: Callable[..., optax.GradientTransformation], *args: Any, **kwargs: Any
) -> optax.GradientTransformationExtraArgs:
    """The transformation `builder(*args, **kwargs)`, which pickles as this call.

    Optax makes transformations of closures, which pickle refuses. Equal calls give one value, so a method
    that was pickled equals the one it came from, and `jit` does not trace it anew.

    Args:
        builder: a function of a module, such as `optax.adam`, or one of your own that takes nothing and
            builds all, schedules included.
        *args: its arguments, which must pickle too.
        **kwargs: its named arguments, which must pickle too.

    Raises:
        TypeError: where `builder` is no function, or builds no transformation.
    """
    if not callable(builder):
        raise TypeError(
            f"builder must be a function that builds a transformation, such as optax.adam, not {builder!r}."
        )
    return _rebuild(builder, args, tuple(kwargs.items()))


class PicklableMethod:
    """A frozen dataclass that pickles as its options, or says which of them does not."""

    def __reduce__(self) -> tuple[Any, ...]:
        options = self._options()
        for name, value in options.items():
            _check_pickles(type(self).__name__, name, value)
        return _with_options, (type(self), options)

    def __copy__(self) -> Any:
        # Not by __reduce__, which refuses what copies but does not pickle, such as a bare optax.adam(...).
        return _with_options(type(self), self._options())

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _with_options(type(self), copy.deepcopy(self._options(), memo))

    def _options(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


def _with_options(method: type, options: dict[str, Any]) -> Any:
    return method(**options)


def _rebuild(
    builder: Callable[..., optax.GradientTransformation], args: tuple[Any, ...], kwargs: tuple[Any, ...]
) -> _Rebuilt:
    if all(isinstance(value, Hashable) for value in (builder, *args, *kwargs)):
        return _build(builder, args, kwargs)
    # Arguments without a hash, such as a mask in a dict, cannot be looked up: each call is its own value.
    return _build.__wrapped__(builder, args, kwargs)


# A tuple of closures equals another only where they are the same objects, so equal calls must share one.
# Bounded, or a sweep over learning rates would keep every optimiser.
@functools.lru_cache(maxsize=256)
def _build(
    builder: Callable[..., optax.GradientTransformation], args: tuple[Any, ...], kwargs: tuple[Any, ...]
) -> _Rebuilt:
    made = builder(*args, **dict(kwargs))
    if not isinstance(made, optax.GradientTransformation):
        raise TypeError(
            f"builder={builder!r} builds {made!r:.100}, no optax transformation; pass one such as optax.adam."
        )
    built = _Rebuilt(*optax.with_extra_args_support(made))
    built.call = (builder, args, kwargs)
    return built


def _check_pickles(method: str, name: str, value: Any) -> None:
    """Raises TypeError, naming the option, where it does not."""
    is_transformation = isinstance(value, optax.GradientTransformation)
    try:
        pickle.dumps(value)
    except Exception as error:
        # pickle raises PicklingError, AttributeError or TypeError, and whatever a __reduce__ does.
        if isinstance(value, tuple) and not is_transformation:
            for field, part in zip(getattr(value, "_fields", range(len(value))), value, strict=True):
                _check_pickles(method, f"{name}.{field}", part)
        what = _describe_transformation(value) if is_transformation else repr(value)
        advice = (
            "Build it by methods.picklable(optax.adam, 1e-3), or picklable(fn) with a function of a module "
            "that takes nothing and builds it"
            if is_transformation
            else "Take what is defined in a module: no lambda, and nothing that is local to a function"
        )
        raise TypeError(
            f"{method} cannot be pickled, because of {name}={what}: {error}. {advice}; or build the method "
            "in the process that uses it."
        ) from error


def _describe_transformation(value: optax.GradientTransformation) -> str:
    # A closure is called "chain.<locals>.update_fn" or the like, of which the first part names its builder.
    builder = getattr(value.update, "__qualname__", type(value).__name__).split(".")[0]
    return f"<optax transformation of {builder}>"
