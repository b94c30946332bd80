"""Errors that a caller may want to tell apart by their type."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

Cause = Literal["value", "derivative", "overflow", "growth", "sudden"]


class ModelError(ValueError):
    """An energy, a posterior or another function of a user's breaks its contract.

    The message names the argument and the model. Code that calls a model for another lets it pass as it is.
    """


class MissingCapability(ValueError):  # noqa: N818  (it names what is missing)
    """A model lacks a function that a method or an evaluation needs, such as `free_energy`."""


class DivergenceError(RuntimeError):
    """A loss or a gradient stopped being finite.

    Attributes:
        step: the iteration at which it happened, counted from 0.
        checkpoint: the last good checkpoint, or None.
        cause: the likeliest: `"value"` (the first loss itself), `"derivative"` (an infinite derivative of a
            finite first loss), `"overflow"` (of a dtype of few digits), `"growth"` (over iterations: the
            learning rate) or `"sudden"`.
    """

    def __init__(self, message: str, step: int, checkpoint: Path | None, cause: Cause) -> None:
        super().__init__(message)
        self.step, self.checkpoint, self.cause = step, checkpoint, cause

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it passes from a process of a pool to its parent."""
        return type(self), (str(self), self.step, self.checkpoint, self.cause)
