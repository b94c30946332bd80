"""Features of images: a network with the parameters that make them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.errors import FlaxError
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax._tracing.jax_internals import is_traced
from bism_jax.typing import Params

_COLOURS = (1, 3)  # by which an axis of channels is told from one of pixels


# By identity: the arrays in `params` have no one truth value to compare by.
@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """A feature function: images in [0, 1], `[B, height, width, channels]`, to features, `[B, d]`.

    Attributes:
        name: what tells these features from others: a label and a digest of the parameters.
        network: a Linen module with a method `features`.
        params: its parameters.
    """

    name: str
    network: nn.Module
    params: Params = field(repr=False)

    def __call__(self, images: Float[Array | np.ndarray, "batch height width channels"]) -> Array:
        """The features of each image, `[B, d]`.

        Raises:
            ValueError: for images of another shape or dtype than the network takes, or outside [0, 1].
        """
        check_range(self.name, images)
        try:
            features = _features(self.network, self.params, images)
        # Flax would tell of the shape of a kernel, not of the images.
        except FlaxError as error:
            check_shape(self.name, images)
            raise ValueError(
                f"{self.name} cannot take images of shape {images.shape}, for which it has no parameters: "
                f"{error}"
            ) from error
        check_shape(self.name, images)  # of what a network that checks nothing lets pass
        return features


def image_features(label: str, network: nn.Module, params: Params) -> ImageFeatures:
    """The features of a network, named after its label and its parameters.

    Raises:
        TypeError: where the label is no text, or the network no Linen module with a method `features`.
        ValueError: for parameters that are not floating and finite.
    """
    if not isinstance(label, str):
        raise TypeError(f"label must be a text, not {label!r}.")
    if not isinstance(network, nn.Module) or not hasattr(type(network), "features"):
        raise TypeError(
            f"network must be a Linen module with a method features(images), such as ImageClassifier(), not "
            f"{network!r}."
        )
    checks.no_result("params", params)
    if not isinstance(params, Mapping):
        raise TypeError(
            f"params must be a dictionary, such as network.init(...), not a {type(params).__name__}."
        )
    if jax.tree.leaves(params):  # a network may have none
        checks.parameters("params", params)
    return ImageFeatures(f"{label}@{_digest(params)}", network, params)


def check_shape(
    network: str, images: Array | np.ndarray, channels: int | None = None, size: tuple[int, int] | None = None
) -> None:
    """Raises ValueError unless `images` are floating, of the size and with the channels that are given."""
    if not isinstance(images, (jax.Array, np.ndarray)):
        raise TypeError(f"{network} takes an array of images, not a {type(images).__name__}.")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"{network} takes images of shape [batch, height, width, channels], not {images.shape}."
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"{network} takes floating images in [0, 1], not {images.dtype}; divide bytes by 255."
        )
    if channels is not None and images.shape[3] != channels:
        raise ValueError(
            f"{network} takes images with {channels} channels on the last axis, but their shape is "
            f"{images.shape}; repeat the channel of grey images, or move the axis of colours to the end."
        )
    # Only where no other reading fits: an image may be one or three pixels high.
    if images.shape[1] in _COLOURS and images.shape[3] not in _COLOURS and images.shape[2] not in _COLOURS:
        raise ValueError(
            f"{network} takes images of shape [batch, height, width, channels], but {images.shape} has the "
            "channels before the pixels; move them to the end: images.transpose(0, 2, 3, 1)."
        )
    if size is not None and images.shape[1:3] != size:
        raise ValueError(
            f"{network} takes images of {size[0]} x {size[1]} pixels, but their shape is {images.shape}; pad "
            "or crop them."
        )


def check_range(name: str, images: Array | np.ndarray) -> None:
    """Raises ValueError unless the values of `images` lie in [0, 1]; inside a trace they are not known."""
    if is_traced(images) or np.size(images) == 0:
        return
    values = np.asarray(images)
    # Negated, so that NaN, which is above and below nothing, is refused too.
    if np.issubdtype(values.dtype, np.floating) and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"{name} takes images in [0, 1], but theirs lie between {values.min()} and {values.max()}; scale "
            "them, or clip the samples of a model that leaves the range."
        )


# Parameters are an argument, not constants that each program would hold a copy of.
@functools.partial(jax.jit, static_argnums=0)
def _features(network: Any, params: Params, images: Array) -> Float[Array, "batch d"]:
    return network.apply(params, images, method="features")


def _digest(params: Params) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        # Names and shapes too: the same bytes in another order of axes are another network.
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    # 32 bits tell a few files apart, and fit into a figure's label.
    return digest.hexdigest()[:8]
