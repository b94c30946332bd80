"""A small classifier of small images."""

from __future__ import annotations

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.networks._image_features import check_shape


class ImageClassifier(nn.Module):
    """Convolutions of stride 2 with ReLUs, a hidden layer whose values are the features, and the logits.

    Attributes:
        num_classes: the number of classes.
        widths: the channels of each convolution.
        num_features: the width of the hidden layer.

    Raises:
        ValueError: for numbers out of range, or images that are not `[batch, height, width, channels]`.
    """

    num_classes: int = 10
    widths: tuple[int, ...] = (16, 32, 64)
    num_features: int = 128

    def __post_init__(self) -> None:
        checks.positive_int("num_classes", self.num_classes)
        checks.widths("widths", self.widths)
        checks.positive_int("num_features", self.num_features)
        super().__post_init__()

    def setup(self) -> None:
        """The trunk and the last layer."""
        self.trunk = _Trunk(self.widths, self.num_features)
        self.head = nn.Dense(self.num_classes)

    def features(self, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch d"]:
        """The hidden layer, `[B, num_features]`."""
        check_shape("ImageClassifier", images)
        return self.trunk(images)

    def logits(self, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        """The logits of the classes, `[B, num_classes]`."""
        return self.head(self.features(images))

    def __call__(self, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        """The logits of the classes, `[B, num_classes]`."""
        return self.logits(images)


class _Trunk(nn.Module):
    widths: tuple[int, ...]
    num_features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in self.widths:
            x = jax.nn.relu(nn.Conv(width, (3, 3), 2, padding=1)(x))
        x = x.reshape(x.shape[0], -1)
        return jax.nn.relu(nn.Dense(self.num_features)(x))
