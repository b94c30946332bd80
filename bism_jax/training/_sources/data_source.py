"""What the training loop asks of its data."""

# ruff: noqa: B027 - a source whose order the iteration decides has no position
from __future__ import annotations

import abc
from typing import Any

import numpy as np

from bism_jax.training._checkpoints.description import Description


class DataSource(abc.ABC):
    """A source of minibatches with a position.

    Attributes:
        batch_size: rows of the global batch.
        resident: all data, for a source that is gathered on the device; None for a streamed one.
        has_position: whether `position` allows an exact resume.
    """

    batch_size: int
    resident: np.ndarray | None = None
    has_position = True

    @abc.abstractmethod
    def example(self) -> np.ndarray:
        """A batch like those to come, `[B, *visible]`, which consumes nothing."""

    @abc.abstractmethod
    def take(self, step: int, num_steps: int) -> np.ndarray:
        """What iterations `step .. step + num_steps - 1` see.

        Row indices `[num_steps, B]` for a resident source; this process's rows of each batch,
        `[num_steps, B / processes, *visible]`, for a streamed one.
        """

    @abc.abstractmethod
    def fingerprint(self) -> Description:
        """What tells this data from other data."""

    def position(self) -> Any:
        """What `set_position` needs, as JSON; None where the iteration says it all."""

    def set_position(self, position: Any) -> None:
        """Returns to a position; raises ValueError where other data follows there than did before."""
