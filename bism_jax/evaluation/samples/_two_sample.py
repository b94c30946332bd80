"""Distances between two samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.jax_internals import is_traced
from bism_jax.checks import as_numbers, finite_rows, not_empty, positive_scalar
from bism_jax.evaluation.samples._squared_distances import rows_at_a_time, squared_distances

# Of each sample: all pairs of both are held at once, 16 MiB in float32.
_MEDIAN_ROWS = 1000

Sample = Float[Array | np.ndarray, "rows *event"]


@with_transfers
def maximum_mean_discrepancy(
    x: Sample, y: Sample, *, bandwidth: Float[Array, ""] | float | None = None
) -> Float[Array, ""]:
    """The squared maximum mean discrepancy, by its unbiased estimate.

        MMD^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y),    k(a, b) = exp(-|a - b|^2 / (2 bandwidth^2))

    X' and Y' are other rows than X and Y, so the estimate can be slightly negative. (Gretton et al., JMLR
    2012, eq. 3.) Pairs are taken in blocks, and never held all at once.

    Args:
        x: a sample.
        y: another, whose number of rows may differ.
        bandwidth: of the kernel, in units of the data; by default the median distance between two rows that
            differ, of both samples together, of which at most 1000 of each are looked at.

    Raises:
        TypeError: where a sample is no array of numbers.
        ValueError: where a sample has fewer than two rows or rows that are not finite, the shapes of the
            rows differ, or the bandwidth is not above 0.
    """
    x, y = _checked("maximum_mean_discrepancy", x, y)
    if bandwidth is not None:
        positive_scalar("bandwidth", bandwidth)
    return _maximum_mean_discrepancy(x, y, bandwidth)


@with_transfers
def energy_distance(x: Sample, y: Sample) -> Float[Array, ""]:
    """The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'|, in units of the data, by its unbiased estimate.

    X' and Y' are other rows than X and Y, so the estimate can be slightly negative. (Szekely and Rizzo,
    Journal of Statistical Planning and Inference 2013.) Pairs are taken in blocks.

    Args:
        x: a sample.
        y: another, whose number of rows may differ.

    Raises:
        TypeError: where a sample is no array of numbers.
        ValueError: where a sample has fewer than two rows or rows that are not finite, or the shapes of the
            rows differ.
    """
    x, y = _checked("energy_distance", x, y)
    return _energy_distance(x, y)


@jax.jit
def _maximum_mean_discrepancy(x: Array, y: Array, bandwidth: Array | None) -> Float[Array, ""]:
    x, y = _as_vectors(x), _as_vectors(y)
    if bandwidth is None:
        bandwidth = _median_distance(x, y)

    def kernel(squared_distance: Array) -> Array:
        return jnp.exp(-squared_distance / (2 * bandwidth**2))

    return _mean_of_pairs(kernel, x) + _mean_of_pairs(kernel, y) - 2 * _mean_of_pairs(kernel, x, y)


@jax.jit
def _energy_distance(x: Array, y: Array) -> Float[Array, ""]:
    x, y = _as_vectors(x), _as_vectors(y)
    return 2 * _mean_of_pairs(jnp.sqrt, x, y) - _mean_of_pairs(jnp.sqrt, x) - _mean_of_pairs(jnp.sqrt, y)


def _mean_of_pairs(
    fn: Callable[[Array], Array], x: Float[Array, "rows d"], y: Float[Array, "other d"] | None = None
) -> Float[Array, ""]:
    """The mean of fn(|x_i - y_j|^2) over all pairs, or over the pairs i != j of one sample."""
    one_sample = y is None
    x, others = _centred(x, x if y is None else y)

    def row_sum(inputs: tuple[Array, Array]) -> Float[Array, ""]:
        row, index = inputs
        values = fn(squared_distances(row, others))
        # What a row has with itself is taken off as computed, 1 for a kernel and 0 for a distance.
        return values.sum() - values[index] if one_sample else values.sum()

    sums = jax.lax.map(row_sum, (x, jnp.arange(len(x))), batch_size=rows_at_a_time(others))
    return sums.mean() / (len(others) - one_sample)


def _median_distance(x: Float[Array, "rows d"], y: Float[Array, "other d"]) -> Float[Array, ""]:
    # Every so many rows, since the first ones of a chain or a sorted set are alike.
    rows = jnp.concatenate([sample[:: -(-len(sample) // _MEDIAN_ROWS)] for sample in _centred(x, y)])
    squared = jax.vmap(partial(squared_distances, x=rows))(rows)
    distances = jnp.sqrt(squared[jnp.triu_indices(len(rows), k=1)])
    # Rows that are equal, as those of a collapsed sampler, have no distance to scale a kernel by. Where all
    # are, every kernel is 1 whatever its bandwidth.
    median = jnp.nanmedian(jnp.where(distances > 0, distances, jnp.nan))
    return jnp.where(jnp.isnan(median), 1.0, median)


def _as_vectors(x: Array) -> Float[Array, "rows d"]:
    return x.reshape(len(x), -1)


def _centred(
    x: Float[Array, "rows d"], y: Float[Array, "other d"]
) -> tuple[Float[Array, "rows d"], Float[Array, "other d"]]:
    """Around their common mean, which keeps the squared distances accurate."""
    mean = (x.mean(axis=0) + y.mean(axis=0)) / 2
    return x - mean[None], y - mean[None]


def _checked(caller: str, x: Sample, y: Sample) -> tuple[Array, Array]:
    """Both samples in float32 at least, since the squares of a half-precision row overflow."""
    x, y = as_numbers("x", x), as_numbers("y", y)
    for name, sample in (("x", x), ("y", y)):
        if sample.ndim == 0 or len(sample) < 2:
            raise ValueError(f"{caller} needs at least two rows of {name}, whose shape is {sample.shape}.")
        not_empty(name, sample, "[rows, *event]")
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"{caller} needs rows of one shape, but x has shape {x.shape} and y has shape {y.shape}."
        )
    return _as_real("x", x), _as_real("y", y)


def _as_real(name: str, sample: Sample) -> Array:
    dtype = jnp.promote_types(jnp.result_type(sample), jnp.float32)
    if not is_traced(sample):
        values = np.asarray(sample, np.float64)
        # A hundredth of the root: a difference is up to twice as large, and a row sums up to 2,500 squares.
        _check_scale(name, values[np.isfinite(values)], float(np.sqrt(jnp.finfo(dtype).max) / 100))
        finite_rows(name, values, "leave them out, and report their number beside the distance")
    return jnp.asarray(sample, dtype)


def _check_scale(name: str, values: np.ndarray, limit: float) -> None:
    """Raises ValueError for numbers whose squares, summed over a row, leave the range of the dtype."""
    largest = np.abs(values).max(initial=0.0)
    if largest > limit:
        raise ValueError(
            f"{name} holds values of {largest:.2g}, whose squared distances would overflow; divide both "
            "samples by a common number."
        )
    spread = float(np.ptp(values)) if values.size else 0.0
    if 0 < spread < 1 / limit:
        raise ValueError(
            f"{name} holds values that differ by at most {spread:.2g}, whose squared distances would be "
            "rounded to 0; multiply both samples by a common number."
        )
