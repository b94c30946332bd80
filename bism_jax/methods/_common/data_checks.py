"""What a score-matching objective needs of a batch, told before the first iteration is compiled."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Array, Float

from bism_jax._tracing.jax_internals import is_traced
from bism_jax.objectives import DSM, MDSM, SM, SSM, Objective

_MAX_VALUES = 2**18  # that are looked at, of so many rows at least
_ROWS = 20
_TIMES_EACH = 4  # that values are met, on average, where they are few
_OFTEN = 3  # times that most of them are met, so that values that meet by chance do not count
# At 5 the smoothed density halfway between two values is 9 % of that at either.
_STDS_APART = 5  # standard deviations of the noise between values that it no longer joins
# 256 grey levels that are equally frequent lie 0.014 apart.
_FINE = 0.05  # standard deviations of the data between values that pass for continuous
# The 30 of MDSM's defaults, largest to smallest, make 3.1 with four rows and 5.5 with three.
_MAX_RATIO = 5  # of one noise level to the last


def check_batch(objective: Objective, batch: Float[Array, "batch *visible"]) -> None:
    """Checks a batch for an objective.

    Raises:
        ValueError: for `MDSM` with one row, which has one of its levels.

    Warns:
        UserWarning: for data of a few separate values that the objective's noise does not join, such as zeros
            and ones, and for an `MDSM` with so few rows that its levels lie far apart.
    """
    if isinstance(objective, MDSM):
        _check_levels(objective, batch.shape[0])
    reach = _noise_reach(objective)
    if reach is not None and not is_traced(batch):
        _warn_of_separate_values(objective, reach, np.asarray(batch))


def _check_levels(objective: MDSM, batch_size: int) -> None:
    if objective.min_std == objective.max_std:
        return
    levels = f"objective={objective!r} spreads its noise levels over the rows of the (global) batch"
    if batch_size == 1:
        raise ValueError(
            f"{levels}, and a batch of 1 has only the smallest; take a larger batch_size, such as 100, or "
            f"DSM({objective.min_std})."
        )
    grid = objective.noise_levels(batch_size)
    ratio = float((grid[1:] / grid[:-1]).max())
    if ratio > _MAX_RATIO:
        warnings.warn(
            f"{levels}, and a batch of {batch_size} has levels up to {ratio:.3g} times the last, between "
            "which nothing is learnt; take a larger batch_size, such as 100, or a smaller max_std.",
            stacklevel=4,
        )


def _noise_reach(objective: Objective) -> float | None:
    """The largest noise that is added to the data, or None where the data's score is not asked for."""
    if isinstance(objective, DSM):
        return objective.noise_std
    if isinstance(objective, MDSM):
        return objective.max_std
    return 0.0 if isinstance(objective, (SM, SSM)) else None


def _warn_of_separate_values(objective: Objective, reach: float, batch: np.ndarray) -> None:
    rows = batch.reshape(len(batch), -1).astype(np.float64)
    spacing = _spacing_of_rows(rows[: max(_ROWS, _MAX_VALUES // rows.shape[1])])
    if spacing <= _STDS_APART * reach:
        return
    noise = f"noise of {reach:.3g}" if reach else "no noise"
    warnings.warn(
        f"data takes a few values only, {spacing:.3g} apart, and objective={objective!r} adds {noise}: "
        "separate values have no density and so no score, and the model's narrows to spikes around them. Add "
        f"noise of about half the spacing, DSM({spacing / 2:.2g}), or spread the values, data + "
        f"{spacing:.3g} * uniform noise.",
        stacklevel=4,
    )


def _spacing_of_rows(rows: Float[np.ndarray, "rows d"]) -> float:
    """The distance between the few values that the data takes, 0 where it takes many.

    Of the columns where most are few-valued; otherwise of all values together, since a column of a picture
    may meet few of its many levels; otherwise of the few-valued columns among others.
    """
    columns = rows.T[: _MAX_VALUES // len(rows)]
    # A constant column, such as a picture's border, has no spacing and no say in what most columns are.
    varying = columns[columns.min(axis=1) < columns.max(axis=1)]
    found = [spacing for column in varying if (spacing := _spacing(column)) is not None]
    if found and 2 * len(found) >= len(varying):
        return float(np.median(found))
    together = _spacing(rows.ravel())
    return max(found, default=0.0) if together is None else together


def _spacing(values: Float[np.ndarray, " values"]) -> float | None:
    """The median distance between neighbours, 0 where they are close, None where the values are many."""
    distinct, counts = np.unique(values, return_counts=True)
    is_few = 2 <= distinct.size <= values.size / _TIMES_EACH
    if not is_few or (counts < _OFTEN).sum() >= distinct.size / 2:
        return None
    spacing = float(np.median(np.diff(distinct)))
    return spacing if spacing > _FINE * values.std() else 0.0
