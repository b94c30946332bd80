"""Precision and recall of samples, by nearest neighbours in feature space."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from bism_jax import checks
from bism_jax._jax_switches import with_transfers
from bism_jax.evaluation.samples._features import Features, checked_pair
from bism_jax.evaluation.samples._squared_distances import rows_at_a_time, squared_distances


class PrecisionRecall(NamedTuple):
    """How far the samples of a model and the data overlap.

    Attributes:
        precision: the fraction of the samples that lie in the manifold of the data: quality.
        recall: the fraction of the data that lies in the manifold of the samples: variety.
    """

    precision: float
    recall: float


@with_transfers
def precision_recall(data: Features, samples: Features, *, num_neighbours: int = 3) -> PrecisionRecall:
    """Precision and recall with manifolds that are estimated by nearest neighbours.

    A set's manifold is the union of the balls around its points whose radius is the distance to their k-th
    nearest other point. Both numbers depend on the number of rows: take the same on both sides and in every
    comparison. Pairs are taken in blocks, and never held all at once. (Kynkaanniemi et al., NeurIPS 2019,
    arXiv 1904.06991, eq. 1-2.)

    Args:
        data: features of the data.
        samples: features of the samples of a model.
        num_neighbours: k.

    Raises:
        ValueError: for features of other widths, that are not finite, or no more than k rows.
    """
    checks.positive_int("num_neighbours", num_neighbours)
    x, y = checked_pair(("data", "samples"), data, samples)
    if num_neighbours >= min(len(x), len(y)):
        raise ValueError(
            f"num_neighbours={num_neighbours} needs as many other rows, but data has {len(x)} and "
            f"samples {len(y)}; take fewer, or more rows."
        )
    x, y = _of_order_one(x, y)
    inside = _inside_each_other(num_neighbours, jnp.asarray(x, float), jnp.asarray(y, float))
    return PrecisionRecall(*(float(np.asarray(rows).mean()) for rows in inside))


def _of_order_one(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both over one power of two, exactly, since squares of very large and very small numbers are lost.

    What lies inside a manifold depends on no scale.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    exponent = np.frexp(max(np.abs(x).max(), np.abs(y).max()))[1]
    return np.ldexp(x, -exponent), np.ldexp(y, -exponent)


@functools.partial(jax.jit, static_argnums=0)
def _inside_each_other(
    num_neighbours: int, x: Float[Array, "rows d"], y: Float[Array, "other d"]
) -> tuple[Bool[Array, " other"], Bool[Array, " rows"]]:
    """Whether each y lies in the manifold of x, and each x in that of y."""
    centre = (x.mean(axis=0) + y.mean(axis=0)) / 2  # squared distances are the more accurate for it
    x, y = x - centre[None], y - centre[None]
    radii_x, radii_y = (_squared_radii(num_neighbours, rows) for rows in (x, y))
    return _is_inside(y, x, radii_x), _is_inside(x, y, radii_y)


def _squared_radii(num_neighbours: int, x: Float[Array, "rows d"]) -> Float[Array, " rows"]:
    def squared_radius(row: Array) -> Float[Array, ""]:
        # Squares are in the order of distances, so that no root is taken.
        nearest = -jax.lax.top_k(-squared_distances(row, x), num_neighbours + 1)[0]
        return nearest[num_neighbours]  # the nearest is the row itself

    # In blocks: all pairs of 50,000 rows would be 9.3 GiB in float32.
    return jax.lax.map(squared_radius, x, batch_size=rows_at_a_time(x))


def _is_inside(
    points: Float[Array, "rows d"], x: Float[Array, "other d"], squared_radii: Float[Array, " other"]
) -> Bool[Array, " rows"]:
    def is_inside(row: Array) -> Bool[Array, ""]:
        return (squared_distances(row, x) <= squared_radii).any()

    return jax.lax.map(is_inside, points, batch_size=rows_at_a_time(x))
