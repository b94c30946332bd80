"""The dtype in which a module draws its parameters."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array


def parameter_dtype(x: Array) -> Any:
    """That of the module's input, and at least float32.

    The data decides, not `jax_enable_x64`: float32 data trains the same float32 model with it and without,
    float64 data a float64 one. Weights in a narrower dtype would lose small updates.
    """
    return jnp.promote_types(x.dtype, jnp.float32)
