"""Values as they are shown in a message."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

_ABBREVIATED = 60  # characters, so that a message with a value in it fits two lines of a terminal


def shown(value: Any) -> str:
    """A short description of a value that is no array."""
    text = repr(value)
    text = text if len(text) <= _ABBREVIATED else f"{text[:_ABBREVIATED]}..."
    return f"{type(value).__name__} {text}"


def shapes_of(args: tuple[Any, ...]) -> str:
    """The shapes of the arrays in `args`."""
    return " and ".join(str(np.shape(leaf)) for leaf in jax.tree.leaves(args)) or "none"
