"""Residual networks that classify CIFAR-10."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.networks._image_features import (
    ImageFeatures,
    check_range,
    check_shape,
    image_features,
)
from bism_jax.models.networks._pretrained import LayerNames, folded_parameters, read_arrays

_SIZE, _CHANNELS, _CLASSES = (32, 32), 3, 10
_WIDTHS = (16, 32, 64)
# The means and standard deviations of ImageNet, with which these networks were trained.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EPSILON = 1e-5  # of PyTorch's batch normalisation


class CifarResNet(nn.Module):
    """A residual network of He et al. for 32 x 32 colour images in [0, 1], for inference.

    Three stages of 16, 32 and 64 channels with (depth - 2) / 6 blocks each. Shortcuts have no parameters:
    where the channels double, every second pixel is taken and the new channels are zero. Batch
    normalisations are folded into the convolutions. (He et al., CVPR 2016, arXiv 1512.03385, sec. 4.2.)

    Attributes:
        depth: 6 n + 2, such as 20 or 56.

    Raises:
        ValueError: for another depth, or other images.
    """

    depth: int = 20

    def __post_init__(self) -> None:
        checks.positive_int("depth", self.depth)
        if self.depth < 8 or (self.depth - 2) % 6:
            raise ValueError(f"depth must be 6 n + 2, such as 20 or 56, not {self.depth}.")
        super().__post_init__()

    def setup(self) -> None:
        """The layers, which bear the names of the weights' file."""
        self.conv1 = nn.Conv(_WIDTHS[0], (3, 3), padding=1)
        self.layer1, self.layer2, self.layer3 = (self._stage(width) for width in _WIDTHS)
        self.linear = nn.Dense(_CLASSES)

    def features(self, images: Float[Array, "batch 32 32 3"]) -> Float[Array, "batch 64"]:
        """The last stage, averaged over the pixels, `[B, 64]`."""
        check_shape("CifarResNet", images, _CHANNELS, _SIZE)
        check_range("CifarResNet", images)
        # In the dtype of the images, which float64 constants would widen under x64.
        mean, std = jnp.asarray(_MEAN, images.dtype), jnp.asarray(_STD, images.dtype)
        x = jax.nn.relu(self.conv1((images - mean) / std))
        for block in (*self.layer1, *self.layer2, *self.layer3):
            x = block(x)
        return x.mean(axis=(1, 2))

    def logits(self, images: Float[Array, "batch 32 32 3"]) -> Float[Array, "batch 10"]:
        """The logits of the ten classes, `[B, 10]`."""
        return self.linear(self.features(images))

    def __call__(self, images: Float[Array, "batch 32 32 3"]) -> Float[Array, "batch 10"]:
        """The logits of the ten classes, `[B, 10]`."""
        return self.logits(images)

    def _stage(self, width: int) -> list[_Block]:
        return [_Block(width, width > _WIDTHS[0] and not index) for index in range((self.depth - 2) // 6)]


class _Block(nn.Module):
    channels: int
    halves: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        stride = 2 if self.halves else 1
        # Padding by number: "SAME" of a stride of 2 pads behind alone, where PyTorch pads both sides.
        inner = jax.nn.relu(nn.Conv(self.channels, (3, 3), stride, padding=1, name="conv1")(x))
        residual = nn.Conv(self.channels, (3, 3), padding=1, name="conv2")(inner)
        return jax.nn.relu(residual + (self._shortcut(x) if self.halves else x))

    def _shortcut(self, x: Array) -> Array:
        # Half of the new channels on either side, as the networks of such files were trained (option A).
        new = (self.channels - x.shape[-1]) // 2
        return jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (new, new)))


def load_cifar_resnet(path: str | Path) -> ImageFeatures:
    """The features of a trained `CifarResNet`, whose depth the file tells.

    The file is an `.npz` of raw arrays, named as in a PyTorch state dict (`conv1.weight`, `bn1.*`,
    `layer1.0.conv1.weight`, .., `linear.bias`), for inputs that were standardised with the means and
    standard deviations of ImageNet.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or lacks a layer, has an unknown one, or one of another shape.
    """
    arrays = read_arrays(path)
    matches = (re.match(r"layer[123]\.(\d+)\.", name) for name in arrays)
    blocks = [int(match[1]) for match in matches if match]
    if not blocks:
        raise ValueError(f"path {str(path)!r} has no layers such as 'layer1.0.conv1.weight'.")
    # The depth from the file: a state dict holds no settings.
    network = CifarResNet(6 * (max(blocks) + 1) + 2)
    params = folded_parameters(path, arrays, network, (*_SIZE, _CHANNELS), _layer_names, _EPSILON)
    return image_features(f"CifarResNet{network.depth}", network, params)


def _layer_names(layer: tuple[str, ...]) -> LayerNames:
    name = ".".join(layer).replace("_", ".")  # a list of submodules is named layer1_0, layer1_1, ..
    return LayerNames(name, None if name == "linear" else name.replace("conv", "bn"))
