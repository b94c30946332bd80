"""The Frechet distance between Gaussians fitted to features."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float

from bism_jax._jax_switches import with_transfers
from bism_jax.evaluation.samples._feature_statistics import FeatureStatistics, check_comparable
from bism_jax.evaluation.samples._features import Features, checked_features


@with_transfers
def frechet_distance(x: Features | FeatureStatistics, y: Features | FeatureStatistics) -> float:
    """The squared Frechet distance between the Gaussians with the moments of x and of y:

        |m_x - m_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^{1/2}

    With R_x R_x^T = S_x and R_y R_y^T = S_y, the last trace is the sum of the singular values of R_x^T R_y,
    which is exact for singular covariances too; no root of a matrix that is not symmetric is taken. The
    estimate exceeds the distance of the distributions, the more so the fewer rows there are, so only
    numbers of the same number of rows are to be compared. `distance_label` says when it may be called FID.
    (Heusel et al., NeurIPS 2017, arXiv 1706.08500, eq. 6.)

    Args:
        x: features, `[rows, d]`, or their statistics.
        y: others, of the same kind.

    Returns:
        The distance, in squared units of the features, at least 0.

    Warns:
        UserWarning: for no more rows than features, whose covariance is singular.

    Raises:
        ValueError: for features of other names or widths, that are not finite, or fewer than two rows.
    """
    x, y = (_statistics(name, value) for name, value in (("x", x), ("y", y)))
    check_comparable(x, y)
    for name, statistics in (("x", x), ("y", y)):
        _warn_where_singular(name, statistics)
    difference = x.mean - y.mean
    if (
        not np.isfinite(x.scatter).all()
        or not np.isfinite(y.scatter).all()
        or not np.isfinite(difference @ difference)
    ):
        raise ValueError(
            "x or y holds features so large that their squares overflow; divide both by one number."
        )
    root_x, root_y = _root(x.covariance), _root(y.covariance)
    # Of the roots rather than the covariances: what rounding took off is taken off on both sides, and
    # equal features have no distance, however singular.
    traces = (root_x**2).sum() + (root_y**2).sum()
    overlap = np.linalg.svd(root_x.T @ root_y, compute_uv=False).sum()
    # A difference of nearly equal sums may round below 0.
    return float(max(difference @ difference + traces - 2 * overlap, 0.0))


def _statistics(name: str, value: Features | FeatureStatistics) -> FeatureStatistics:
    if isinstance(value, FeatureStatistics):
        if value.num_rows < 2:
            raise ValueError(f"{name}: at least 2 rows of features are needed, not {value.num_rows}.")
        return value
    return FeatureStatistics.of(checked_features(name, value, min_rows=2))


def _root(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d rank"]:
    """R with R R^T = S, from the eigenvalues of S that are above its rounding error."""
    # `eigh` reads one triangle; files and merges may differ between the two by rounding.
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    # The tolerance of `numpy.linalg.matrix_rank`; no value is kept where nothing varies.
    kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
    return vectors[:, kept] * np.sqrt(values[kept])


def _warn_where_singular(name: str, statistics: FeatureStatistics) -> None:
    if statistics.num_rows <= len(statistics.mean):
        warnings.warn(
            f"{name} has {statistics.num_rows} rows for {len(statistics.mean)} features, so its covariance "
            "is singular and the Frechet distance far too large; take more rows.",
            stacklevel=4,  # this function, the distance, its `with_transfers`, the caller
        )
