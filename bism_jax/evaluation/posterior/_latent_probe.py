"""What a linear classifier finds in the latents."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from bism_jax import checks
from bism_jax._contract import as_model
from bism_jax._contract.guarded_calls import check_parameters
from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.compilation import compiled
from bism_jax.checks import floating_rows, same_row_shapes
from bism_jax.evaluation._model_functions import posterior_of
from bism_jax.evaluation.posterior._posterior_mean import posterior_mean
from bism_jax.typing import Params

_MAX_ITERATIONS = 1000  # ten times the default of scikit-learn, which warns where it has not converged


class LatentProbe(NamedTuple):
    """The fraction of labels that the classifier gets right.

    Attributes:
        train_accuracy: on the rows it was fitted to.
        test_accuracy: on the others.
    """

    train_accuracy: float
    test_accuracy: float


@with_transfers
def latent_probe(
    posterior_fn: Any,
    phi: Params,
    train: Float[Array | np.ndarray, "train_rows *visible"],
    train_labels: Shaped[Array | np.ndarray, " train_rows"],
    test: Float[Array | np.ndarray, "test_rows *visible"],
    test_labels: Shaped[Array | np.ndarray, " test_rows"],
    *,
    batch_size: int = 500,
) -> LatentProbe:
    """The accuracy of multinomial logistic regression on the posterior means E[h | v; phi].

    The latents are standardised, and the classifier fitted with scikit-learn's default L2 penalty; mean,
    scale and weights come from the training rows alone.

    Args:
        posterior_fn: `(phi, v) -> distribution` with a `mean`.
        phi: its parameters.
        train: points to fit the classifier to.
        train_labels: their classes.
        test: other points.
        test_labels: their classes.
        batch_size: points at a time.

    Raises:
        ImportError: where scikit-learn is not installed.
        TypeError: where an argument has the wrong type.
        ValueError: where labels and rows differ in number, the training labels are of one class, or the
            posterior has no mean or cannot be evaluated with phi on the rows; for no rows, or rows with NaN.
    """
    checks.positive_int("batch_size", batch_size)
    as_model("posterior_fn", posterior_fn)
    check_parameters("phi", phi, "posterior_fn", posterior_fn)
    train, test = floating_rows("train", train), floating_rows("test", test)
    same_row_shapes("train", train, "test", test)
    train_labels = _checked_labels("train", train, train_labels)
    test_labels = _checked_labels("test", test, test_labels)
    if len(np.unique(train_labels)) < 2:
        raise ValueError("train_labels are all of one class, so there is nothing to classify.")
    # Before the features are computed, so that a missing library costs no wait.
    classifier = _new_classifier()
    train_features = _features(posterior_fn, phi, train, batch_size)
    classifier.fit(train_features, train_labels)
    test_features = _features(posterior_fn, phi, test, batch_size)
    return LatentProbe(
        float(classifier.score(train_features, train_labels)),
        float(classifier.score(test_features, test_labels)),
    )


def _features(posterior_fn: Any, phi: Params, v: Any, batch_size: int) -> Float[np.ndarray, "rows latent"]:
    mean_fn = compiled(functools.partial(_flat_means, posterior_fn))
    blocks = [mean_fn(phi, v[start : start + batch_size]) for start in range(0, len(v), batch_size)]
    return np.concatenate([np.asarray(block, np.float64) for block in blocks])


def _flat_means(posterior_fn: Any, phi: Params, v: Array) -> Float[Array, "rows latent"]:
    mean = posterior_mean("latent_probe", posterior_of(posterior_fn)(phi, v))
    return jnp.reshape(mean, (len(v), -1))


def _new_classifier() -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(
            "latent_probe needs scikit-learn; install it with pip install 'bism-jax[experiments]'."
        ) from error
    # The penalty is on the weights, which are the larger the smaller the scale of a latent is.
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=_MAX_ITERATIONS))


def _checked_labels(name: str, v: Any, labels: Any) -> np.ndarray:
    labels = np.asarray(np.asarray(labels).tolist())  # of objects, what they are
    if labels.ndim != 1 or len(labels) != len(v) or not len(labels):
        raise ValueError(
            f"{name}_labels must hold one label for each of the {len(v)} rows of {name}, but has shape "
            f"{labels.shape}."
        )
    # Whole floats are classes too: `np.loadtxt` reads integers as such. Others scikit-learn would refuse
    # only in `fit`, after the features.
    is_class = labels.dtype.kind in "biuUS" or (
        labels.dtype.kind == "f" and bool(np.all(labels == np.floor(labels)))
    )
    if not is_class:
        raise ValueError(f"{name}_labels must be classes, such as integers, not numbers of {labels.dtype}.")
    return labels
