"""Measurements of a run by a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bism_jax import checks
from bism_jax.training.callbacks._callback import Callback, Snapshot
from bism_jax.training.callbacks._measurements import numbers_of


@dataclass(frozen=True)
class Evaluate(Callback):
    """Measures a run; the results are in `FitResult.evaluations` and in the logs.

    Attributes:
        fn: `Snapshot -> {name: number}`.
        every: the number of iterations between evaluations.

    Raises:
        ValueError: where `every` is no integer of at least 1.
        TypeError: where `fn` is no function.
    """

    fn: Callable[[Snapshot], Mapping[str, float]]
    every: int = 1000

    def __post_init__(self) -> None:
        checks.positive_int("every", self.every)
        if not callable(self.fn):
            raise TypeError(f"fn must be a function of a Snapshot, not {self.fn!r}.")

    def __call__(self, snapshot: Snapshot) -> Mapping[str, float]:
        """What `fn` measures, as plain numbers."""
        return numbers_of("Evaluate: fn", self.fn(snapshot))
