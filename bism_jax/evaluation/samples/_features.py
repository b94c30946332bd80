"""Features of images, and what distances between them are called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax._jax_switches import with_transfers
from bism_jax.checks import as_numbers, called
from bism_jax.evaluation._batches import padded_batches
from bism_jax.models import InceptionV3

Features = Float[Array | np.ndarray, "rows d"]
# The names that the literature keeps for distances on the features of Inception.
_INCEPTION_LABELS = {"Frechet distance": "FID", "kernel distance": "KID"}


class FeatureFn(Protocol):
    """A feature function: a callable on images in [0, 1] with a name, such as `ImageFeatures`."""

    @property
    def name(self) -> str:
        """What tells these features from others."""
        ...

    def __call__(self, images: Any) -> Array:
        """`[B, height, width, channels] -> [B, d]`."""
        ...


@with_transfers
def extract_features(
    feature_fn: FeatureFn,
    images: Float[Array | np.ndarray, "rows height width channels"],
    *,
    batch_size: int = 100,
) -> Float[np.ndarray, "rows d"]:
    """The features of all images.

    Args:
        feature_fn: images in [0, 1] to features, such as `load_cifar_resnet(path)`.
        images: an array, or anything with a length and slices.
        batch_size: images at a time.

    Raises:
        TypeError: for a feature function without a name, or images that are no numbers.
        ValueError: for images that the feature function does not take (those of this library refuse images
            outside [0, 1] or with their channels first), or features that are no finite `[batch, d]`.
    """
    return np.concatenate(list(feature_batches(feature_fn, images, batch_size)))


def feature_batches(
    feature_fn: FeatureFn, images: Any, batch_size: int
) -> Iterator[Float[np.ndarray, "batch d"]]:
    """The features of one batch of images after the other."""
    if not callable(feature_fn) or not isinstance(getattr(feature_fn, "name", None), str):
        raise TypeError(
            "feature_fn must be callable on images and have a name, such as load_cifar_resnet(path), not "
            f"{feature_fn!r}."
        )
    for batch, count in padded_batches("images", images, batch_size):
        features = called(f"feature_fn={feature_fn.name}", feature_fn, batch)
        features = as_numbers(f"feature_fn={feature_fn.name}", features, "[batch, d]")
        if features.ndim != 2 or len(features) != len(batch):
            raise ValueError(
                f"feature_fn={feature_fn.name} gives features of shape {features.shape} for {len(batch)} "
                "images; it must give [batch, d]."
            )
        # Batch by batch, so that NaN is told of before the rest is computed.
        yield checked_features(f"feature_fn={feature_fn.name}", features)[:count]


def checked_features(name: str, features: Any, min_rows: int = 1) -> Float[np.ndarray, "rows d"]:
    """`features` as an array, or a ValueError unless it is a finite matrix of at least `min_rows` rows."""
    features = np.asarray(as_numbers(name, features, "[rows, d]"))
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"{name}: features must be a matrix [rows, d], but their shape is {features.shape}.")
    if len(features) < min_rows:
        raise ValueError(f"{name}: at least {min_rows} rows of features are needed, not {len(features)}.")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{name}: {(~finite).sum()} rows of features hold NaN or infinite values, the first of them row "
            f"{np.argmin(finite)}; look at the images of these rows."
        )
    return features


def checked_pair(
    names: tuple[str, str], x: Any, y: Any, min_rows: int = 2
) -> tuple[Float[np.ndarray, "rows d"], Float[np.ndarray, "other d"]]:
    """Both matrices of features, checked, or a ValueError where their widths differ."""
    x, y = checked_features(names[0], x, min_rows), checked_features(names[1], y, min_rows)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{names[0]} has {x.shape[1]} features a row, but {names[1]} has {y.shape[1]}; take both from "
            "one feature function."
        )
    return x, y


def distance_label(distance: Literal["Frechet distance", "kernel distance"], features: str) -> str:
    """What to call a distance on the features of that name: FID or KID for those of Inception alone.

    Args:
        distance: which one.
        features: the `name` of the feature function.

    Raises:
        ValueError: for an unknown distance.
    """
    checks.one_of("distance", distance, tuple(_INCEPTION_LABELS))
    checks.text("features", features, "the name of a feature function, feature_fn.name")
    # A digest of the weights follows the label, and FID is FID with any copy of Inception.
    if features.partition("@")[0] == InceptionV3.__name__:
        return _INCEPTION_LABELS[distance]
    return f"{distance} ({features})"
