"""The visible variables of models whose data are vectors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array


def count_visible(model: str, v: Array | np.ndarray) -> int:
    """The length of the rows of v; raises ValueError unless v is a matrix."""
    if v.ndim != 2:
        raise ValueError(
            f"{model} takes v of shape [batch, visible], not {v.shape}; flatten it: v.reshape(len(v), -1)."
        )
    return v.shape[1]
