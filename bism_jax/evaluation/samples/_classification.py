"""A classifier of images that is trained on the spot, and what it says about samples."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from bism_jax import checks
from bism_jax._jax_switches import with_transfers
from bism_jax.checks import as_numbers, called
from bism_jax.evaluation._batches import padded_batches
from bism_jax.models import ImageClassifier, ImageFeatures, image_features
from bism_jax.models.networks._image_features import check_range, check_shape
from bism_jax.typing import Params

# For 99 % of the MNIST test images after six epochs, about a minute on one core.
_LEARNING_RATE = 4e-3
_WARM_UP = 0.3  # of all steps
_MAX_SHIFT = 1  # pixels, up or down and left or right


class ClassCoverage(NamedTuple):
    """How clearly samples belong to classes, and to how many.

    Attributes:
        confident_fraction: the fraction of the samples whose largest probability exceeds the threshold.
        num_classes: how many classes occur among those.
    """

    confident_fraction: float
    num_classes: int


@with_transfers
def train_image_classifier(
    images: Float[Array | np.ndarray, "rows height width channels"],
    labels: Int[Array | np.ndarray, " rows"],
    rng_key: Key[Array, ""],
    *,
    num_epochs: int = 6,
    batch_size: int = 128,
) -> ImageFeatures:
    """Trains an `ImageClassifier` by Adam, whose hidden layer is a feature function of 128 features.

    Each batch is shifted by at most one pixel, around the edge, so the border should be empty. With its
    defaults it classifies more than 99 % of the MNIST test images, padded to 32 x 32, after about a minute
    on one CPU core.

    Args:
        images: in [0, 1].
        labels: their classes, 0 to C - 1.
        rng_key: key.
        num_epochs: passes through the images.
        batch_size: images a step.

    Returns:
        The feature function; `class_probabilities` takes it too.

    Raises:
        ValueError: for images outside [0, 1] or of another shape, labels that are no classes of the rows,
            or fewer images than a batch.
    """
    checks.loop_count("num_epochs", num_epochs)
    checks.positive_int("batch_size", batch_size)
    rng_key = checks.rng_key("rng_key", rng_key)
    images = np.asarray(as_numbers("images", images, "[rows, height, width, channels]"))
    labels = np.asarray(as_numbers("labels", labels, "[rows]"))
    check_shape(ImageClassifier.__name__, images)
    check_range(ImageClassifier.__name__, images)
    _check_labels(labels, len(images))
    checks.batch_fits(batch_size, len(images))
    checks.loop_count("num_epochs times the batches of an epoch", num_epochs * (len(images) // batch_size))
    # Counted up to the largest: a class that no image has keeps its number.
    network = ImageClassifier(int(labels.max()) + 1)
    params = _train(network, images, labels, rng_key, num_epochs, batch_size)
    return image_features(ImageClassifier.__name__, network, params)


@with_transfers
def class_probabilities(
    classifier: ImageFeatures,
    images: Float[Array | np.ndarray, "rows height width channels"],
    *,
    batch_size: int = 500,
) -> Float[np.ndarray, "rows classes"]:
    """The probabilities of the classes of each image.

    Args:
        classifier: from `train_image_classifier` or `load_cifar_resnet`.
        images: in [0, 1].
        batch_size: images at a time.

    Raises:
        ValueError: for a network without classes, or images that it does not take.
    """
    network = getattr(classifier, "network", None)
    if not hasattr(network, "logits"):
        raise ValueError(
            "class_probabilities needs a network with logits as classifier, such as that of "
            "train_image_classifier, not "
            f"{type(classifier if network is None else network).__name__}."
        )
    probabilities = []
    for batch, count in padded_batches("images", images, batch_size):
        check_shape(classifier.name, batch)
        check_range(classifier.name, batch)
        rows = called(f"classifier={classifier.name}", _probabilities, network, classifier.params, batch)
        probabilities.append(np.asarray(rows)[:count])
    return np.concatenate(probabilities)


@with_transfers
def class_coverage(
    probabilities: Float[Array | np.ndarray, "rows classes"], *, threshold: float = 0.9
) -> ClassCoverage:
    """The fraction of confidently classified samples, and the number of classes among them.

    Args:
        probabilities: of the classes, from `class_probabilities`.
        threshold: what the largest probability must exceed.

    Raises:
        ValueError: where the rows are no probabilities, or the threshold is not in [0, 1).
    """
    checks.fraction("threshold", threshold)
    probabilities = np.asarray(as_numbers("probabilities", probabilities, "[rows, classes]"))
    is_matrix = probabilities.ndim == 2 and probabilities.size > 0
    if not is_matrix or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3) or probabilities.min() < 0:
        raise ValueError(
            f"probabilities must be a matrix [rows, classes] whose rows sum to 1, not shape "
            f"{probabilities.shape}; take them from class_probabilities."
        )
    confident = probabilities.max(axis=1) > threshold
    classes = np.unique(probabilities[confident].argmax(axis=1))
    return ClassCoverage(float(confident.mean()), len(classes))


def _train(
    network: ImageClassifier, images: Any, labels: Any, rng_key: Array, num_epochs: int, batch_size: int
) -> Params:
    init_key, order_key, shift_key = jax.random.split(rng_key, 3)
    # What is left of an epoch would be a batch of another size, and compiled anew.
    steps_an_epoch = len(images) // batch_size
    num_steps = num_epochs * steps_an_epoch
    params = network.init(init_key, images[:1])
    opt_state = _optimizer(num_steps).init(params)
    # A program a step: convolutions in a compiled loop are far slower on a CPU, as `_backend` measures.
    for step in range(num_steps):
        epoch, index = divmod(step, steps_an_epoch)
        if index == 0:
            order = np.asarray(jax.random.permutation(jax.random.fold_in(order_key, epoch), len(images)))
        # Taken on the host, so that the device holds one batch of the images.
        rows = order[index * batch_size : (index + 1) * batch_size]
        key = jax.random.fold_in(shift_key, step)
        params, opt_state = _step(network, num_steps, params, opt_state, images[rows], labels[rows], key)
    return params


# The number of steps instead of the optimiser: two of optax with equal settings compare unequal.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(
    network: ImageClassifier,
    num_steps: int,
    params: Params,
    opt_state: Any,
    images: Array,
    labels: Array,
    key: Array,
) -> tuple[Params, Any]:
    shift = jax.random.randint(key, (2,), -_MAX_SHIFT, _MAX_SHIFT + 1)
    shifted = jnp.roll(images, shift, axis=(1, 2))

    def loss_fn(params: Params) -> Float[Array, ""]:
        logits = network.apply(params, shifted)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    updates, opt_state = _optimizer(num_steps).update(jax.grad(loss_fn)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _optimizer(num_steps: int) -> optax.GradientTransformation:
    warm_up = max(1, int(_WARM_UP * num_steps))
    # optax 0.2.8 refuses a decay of no steps, which a training of one step would have.
    schedule = optax.warmup_cosine_decay_schedule(0, _LEARNING_RATE, warm_up, max(num_steps, warm_up + 1))
    return optax.adam(schedule)


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(network: Any, params: Params, images: Array) -> Float[Array, "batch classes"]:
    return jax.nn.softmax(network.apply(params, images, method="logits"))


def _check_labels(labels: np.ndarray, num_rows: int) -> None:
    if labels.shape != (num_rows,):
        raise ValueError(f"labels must hold one class for each of the {num_rows} images, not {labels.shape}.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() == 0:
        raise ValueError(
            "labels must be integers from 0 on, of at least two classes; number the classes with "
            "np.unique(labels, return_inverse=True)."
        )
