"""Squared distances between rows, of which equal ones have none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_PAIRS_AT_A_TIME = 2**22  # 16 MiB of distances in float32


def squared_distances(row: Float[Array, " d"], x: Float[Array, "rows d"]) -> Float[Array, " rows"]:
    """|row - x_i|^2, and exactly 0 where it is within rounding of 0.

    The rows should be centred, since what is left of a distance between rows far from the origin is rounding.
    """
    norms = (row**2).sum() + (x**2).sum(axis=1)
    # By products of matrices, since the differences would take d times the memory.
    squared = norms - 2 * jnp.matmul(x, row, precision=jax.lax.Precision.HIGHEST)
    # Equal rows, as those of a collapsed sampler, would otherwise be a root of the rounding error apart.
    rounding = 4 * jnp.finfo(x.dtype).eps * len(row) ** 0.5 * norms
    return jnp.where(squared > rounding, squared, 0)


def rows_at_a_time(x: Float[Array, "rows d"]) -> int:
    """Of how many rows the distances to all of x are held at once."""
    return max(1, _PAIRS_AT_A_TIME // len(x))
