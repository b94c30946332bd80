"""The kernel distance between features, by a polynomial kernel."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._jax_switches import with_transfers
from bism_jax.evaluation.samples._features import Features, checked_pair

_DEGREE = 3  # that of the KID


class KernelDistance(NamedTuple):
    """An estimate of a squared maximum mean discrepancy.

    Attributes:
        value: the mean over the subsets.
        standard_error: of `value`, from the spread over the subsets, which share no rows.
        num_subsets: how many there were.
    """

    value: float
    standard_error: float
    num_subsets: int


@with_transfers
def kernel_distance(
    x: Features, y: Features, rng_key: Key[Array, ""], *, subset_size: int = 1000
) -> KernelDistance:
    """The squared maximum mean discrepancy with a polynomial kernel, averaged over subsets of the rows.

        MMD^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y),    k(a, b) = (a^T b / d + 1)^3

    X' and Y' are other rows than X and Y, so each subset's estimate is unbiased and can be negative; its
    expectation depends neither on the number of rows nor on `subset_size`. The rows are split at random
    into as many disjoint subsets as there are. On the features of Inception this is the KID (`distance_label`
    says when). (Binkowski et al., ICLR 2018, arXiv 1801.01401; disjoint subsets: Zaremba et al., NeurIPS
    2013, arXiv 1307.1954.)

    Args:
        x: features.
        y: others, whose number of rows may differ.
        rng_key: key of the split.
        subset_size: rows of x and of y in a subset.

    Raises:
        TypeError: where the features or the key have the wrong type.
        ValueError: for features of other widths, that are not finite, or too few rows for two subsets.
    """
    checks.positive_int("subset_size", subset_size)
    if subset_size < 2:
        raise ValueError("subset_size must be at least 2: the estimate compares different rows of a subset.")
    x, y = checked_pair(("x", "y"), x, y)
    rng_key = checks.rng_key("rng_key", rng_key)
    num_subsets = min(len(x), len(y)) // subset_size
    if num_subsets < 2:
        raise ValueError(
            f"kernel_distance needs two subsets of subset_size={subset_size} rows, but x has {len(x)} rows "
            f"and y has {len(y)}; take subset_size={min(len(x), len(y)) // 2} or less, or more rows."
        )
    x_key, y_key = jax.random.split(rng_key)
    x_subsets, y_subsets = (
        _split(key, rows, num_subsets, subset_size) for key, rows in ((x_key, x), (y_key, y))
    )
    values = np.array([_unbiased_estimate(*pair) for pair in zip(x_subsets, y_subsets, strict=True)])
    if not np.isfinite(values).all():
        raise ValueError(
            "x or y holds features so large that their kernel overflows; divide both by one number."
        )
    standard_error = values.std(ddof=1) / np.sqrt(num_subsets)
    return KernelDistance(float(values.mean()), float(standard_error), num_subsets)


def _split(
    rng_key: Array, rows: Features, num_subsets: int, size: int
) -> Float[np.ndarray, "subsets size d"]:
    order = np.asarray(jax.random.permutation(rng_key, len(rows)))[: num_subsets * size]
    return np.asarray(rows)[order].reshape(num_subsets, size, -1)


def _unbiased_estimate(x: Float[np.ndarray, "size d"], y: Float[np.ndarray, "size d"]) -> float:
    # The estimate is a small difference of large means of cubes.
    x, y = x.astype(np.float64), y.astype(np.float64)
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * _kernel(x, y).mean()


def _mean_of_pairs(x: Float[np.ndarray, "size d"]) -> float:
    kernel, size = _kernel(x, x), len(x)
    # E k(X, X) >= E k(X, X'), so the pairs of a row with itself would bias the mean upwards.
    return (kernel.sum() - np.trace(kernel)) / (size * (size - 1))


def _kernel(x: Float[np.ndarray, "size d"], y: Float[np.ndarray, "size d"]) -> Float[np.ndarray, "size size"]:
    return (x @ y.T / x.shape[1] + 1) ** _DEGREE
