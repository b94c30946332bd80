"""The mean and the covariance of features, gathered batch by batch and kept in a file."""

from __future__ import annotations

import functools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax._jax_switches import with_transfers
from bism_jax.checks import shown
from bism_jax.evaluation.samples._features import (
    FeatureFn,
    Features,
    checked_features,
    feature_batches,
)

_KEYS = ("features", "data", "num_rows", "mean", "scatter")


# By identity: a generated `__eq__` would ask arrays for one truth value.
@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """The mean and the spread of rows of features, in float64.

    Attributes:
        features: the name of the features; None where it is not known.
        data: the name of the data; None where it is not known.
        num_rows: n.
        mean: m = 1/n sum_i x_i.
        scatter: sum_i (x_i - m)(x_i - m)^T.
    """

    features: str | None
    data: str | None
    num_rows: int
    mean: Float[np.ndarray, " d"]
    scatter: Float[np.ndarray, "d d"]

    @classmethod
    def of(cls, rows: Features, *, features: str | None = None, data: str | None = None) -> FeatureStatistics:
        """The statistics of one matrix of features, `[rows, d]`.

        Raises:
            ValueError: where it is no finite matrix with at least one row.
        """
        for name, value in (("features", features), ("data", data)):
            if value is not None:
                checks.text(name, value, "such as a name, or None")
        # In float64: the small eigenvalues of a covariance are below the rounding of float32.
        rows = checked_features("rows", rows).astype(np.float64)
        mean = rows.mean(axis=0)
        return cls(features, data, len(rows), mean, (rows - mean).T @ (rows - mean))

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """The unbiased covariance, scatter / (n - 1).

        Raises:
            ValueError: for fewer than two rows.
        """
        if self.num_rows < 2:
            raise ValueError(f"a covariance needs at least 2 rows of features, not {self.num_rows}.")
        return self.scatter / (self.num_rows - 1)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """The statistics of the rows of both. (Chan, Golub and LeVeque, 1983.)

        Raises:
            ValueError: where names or widths differ.
        """
        if not isinstance(other, FeatureStatistics):
            raise TypeError(f"other must be FeatureStatistics, not {shown(other)}.")
        if self.data != other.data:
            raise ValueError(
                f"statistics of the data {self.data!r} and {other.data!r} are not of one data set, so other "
                "cannot be merged."
            )
        check_comparable(self, other, ("self", "other"))
        num_rows, difference = self.num_rows + other.num_rows, other.mean - self.mean
        weight = self.num_rows * other.num_rows / num_rows
        # Scatters about their own means add up without the cancellation of sums of squares.
        scatter = self.scatter + other.scatter + weight * np.outer(difference, difference)
        mean = self.mean + difference * (other.num_rows / num_rows)
        return FeatureStatistics(self.features, self.data, num_rows, mean, scatter)

    def save(self, path: str | Path) -> None:
        """Writes them to an `.npz` file.

        Raises:
            FileNotFoundError: where the path is a folder, or in none.
            ValueError: where the features or the data have no name, by which `load` could tell them.
        """
        if self.features is None or self.data is None:
            raise ValueError("statistics need names to be saved: pass features=... and data=... to of().")
        path = checks.path("path", path)
        if path.is_dir() or not path.parent.is_dir():
            raise FileNotFoundError(
                f"path {str(path)!r} is a folder, or in a folder that is missing; name a file in a folder."
            )
        # Of a path without .npz, NumPy would write another file.
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **{key: getattr(self, key) for key in _KEYS})

    @classmethod
    def load(cls, path: str | Path, *, features: str, data: str) -> FeatureStatistics:
        """Reads what `save` wrote.

        Args:
            path: of the file.
            features: the name of the features that are wanted, such as `feature_fn.name`.
            data: the name of the data that is wanted.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds other data, or statistics of other features or other data.
        """
        for name, value in (("features", features), ("data", data)):
            checks.text(name, value, "the name of what is wanted")
        values = _read(checks.path("path", path))
        # Widths do not tell features apart: a distance between two networks' is a number without a meaning.
        for key, wanted in (("features", features), ("data", data)):
            if str(values[key]) != wanted:
                raise ValueError(
                    f"{str(path)!r} holds statistics of the {key} {str(values[key])!r}, not {wanted!r}; "
                    "compute them anew with feature_statistics."
                )
        mean, scatter = checked_features("mean", values["mean"][None])[0], values["scatter"]
        if checked_features("scatter", scatter).shape != (len(mean), len(mean)):
            raise ValueError(
                f"{str(path)!r} holds a scatter of shape {scatter.shape} for {len(mean)} features."
            )
        return cls(features, data, int(values["num_rows"]), mean, scatter)


@with_transfers
def feature_statistics(
    feature_fn: FeatureFn,
    images: Float[Array | np.ndarray, "rows height width channels"],
    *,
    data: str | None = None,
    batch_size: int = 100,
) -> FeatureStatistics:
    """The statistics of the features of images, of which one batch is held at a time.

    Args:
        feature_fn: images in [0, 1] to features, such as `load_cifar_resnet(path)`.
        images: an array, or anything with a length and slices.
        data: the name of the images, where the statistics are to be saved.
        batch_size: images at a time.

    Raises:
        ValueError: for images that the feature function does not take, or features that are not finite.
    """
    if data is not None:
        checks.text("data", data, "the name of the images, or None")
    batches = feature_batches(feature_fn, images, batch_size)
    statistics = (FeatureStatistics.of(rows, features=feature_fn.name, data=data) for rows in batches)
    return functools.reduce(FeatureStatistics.merge, statistics)


def check_comparable(x: FeatureStatistics, y: FeatureStatistics, names: tuple[str, str] = ("x", "y")) -> None:
    """Raises ValueError unless both are statistics of the same features."""
    if x.features != y.features:
        raise ValueError(
            f"{names[0]} and {names[1]} of the features {x.features!r} and {y.features!r} cannot be "
            "compared; take both from one feature function by feature_statistics."
        )
    if x.mean.shape != y.mean.shape:
        raise ValueError(
            f"{names[0]} has {len(x.mean)} features a row, but {names[1]} has {len(y.mean)}; take both "
            "from one feature function."
        )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There are no feature statistics at path {str(path)!r}.")
    try:
        # NumPy leaves a file open that it has opened and cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in _KEYS}
    except (OSError, ValueError, EOFError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"path {str(path)!r} holds no feature statistics: {error}") from error
