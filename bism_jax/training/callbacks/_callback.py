"""What a callback is, and what it is shown."""

# ruff: noqa: B027 - a hook does nothing unless a callback overrides it
from __future__ import annotations

import abc
from collections.abc import Mapping
from types import MethodType
from typing import Any, NamedTuple, Protocol

from bism_jax.typing import Params

_HOOKS = ("state", "restore", "resume", "rewind", "close")


class Snapshot(NamedTuple):
    """A run after some iteration.

    Attributes:
        step: the number of iterations done.
        theta: energy parameters.
        phi: posterior parameters, or None.
        theta_ema: the moving average of theta, or None.
        metrics: the mean of each scalar of `Info` since the callback's last turn, and what callbacks
            before it in the list measured at this step.
    """

    step: int
    theta: Params
    phi: Params
    theta_ema: Params
    metrics: Mapping[str, float]


class PeriodicCallable(Protocol):
    """What `fit` takes for a callback: a callable that says how often. It may have hooks of `Callback`."""

    @property
    def every(self) -> int:
        """The number of iterations between calls."""
        ...

    def __call__(self, snapshot: Snapshot) -> Mapping[str, float] | None:
        """Returns what it measured, if anything."""
        ...


class Callback(abc.ABC):
    """Called after every `every` iterations and after the last; its hooks do nothing unless overridden.

    It may raise `StopTraining` to end the run. A class of your own need not inherit from this one: a callable
    with an attribute `every` is a callback, with those of the hooks that it has.

    Attributes:
        every: the number of iterations between calls.
    """

    every: int

    @abc.abstractmethod
    def __call__(self, snapshot: Snapshot) -> Mapping[str, float] | None:
        """Returns what it measured, if anything."""

    def state(self) -> Any:
        """What each checkpoint keeps of it: numbers, text, lists and dicts with text for keys."""

    def restore(self, state: Any) -> None:
        """Takes back, in a resumed run and before `resume`, what `state` gave."""

    def resume(self, step: int) -> None:
        """Is told, before the first iteration, how many iterations are done."""

    def rewind(self, step: int) -> None:
        """Is told when a rollback undoes what came after `step`."""

    def close(self) -> None:
        """Is called at the end of the run, however it ends."""


class _Adapted(Callback):
    """A user's own callable with `every`: its hooks where it has them, its attributes throughout."""

    def __init__(self, callback: PeriodicCallable) -> None:
        self.callback = callback
        # On the instance, where a hook hides the one of the class and `has_own` finds it.
        vars(self).update({hook: getattr(callback, hook) for hook in _HOOKS if hasattr(callback, hook)})

    def __call__(self, snapshot: Snapshot) -> Mapping[str, float] | None:
        return self.callback(snapshot)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.callback, name)


def as_callback(callback: PeriodicCallable) -> Callback:
    """`callback` with every hook, so that nobody after this need ask which it has."""
    return callback if isinstance(callback, Callback) else _Adapted(callback)


def type_name(callback: Callback) -> str:
    """The name of the class that a user wrote."""
    return type(callback.callback if isinstance(callback, _Adapted) else callback).__name__


def has_own(callback: Callback, hook: str) -> bool:
    """Whether it overrides a hook, which for `state` and `rewind` says what a checkpoint must keep."""
    return getattr(callback, hook) != MethodType(getattr(Callback, hook), callback)
