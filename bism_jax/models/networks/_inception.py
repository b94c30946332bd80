"""The Inception network of the Frechet inception distance."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax.models.networks._image_features import (
    ImageFeatures,
    check_range,
    check_shape,
    image_features,
)
from bism_jax.models.networks._pretrained import LayerNames, folded_parameters, read_arrays

_SIDE, _CHANNELS, _NUM_FEATURES, _CLASSES = 299, 3, 2048, 1008
_EPSILON = 1e-3  # of the batch normalisation that it was trained with, not PyTorch's default


class InceptionV3(nn.Module):
    """The trunk of the Inception-v3 of 2015-12-05, from images in [0, 1] to its last pooled layer.

    Images of any size are resized to 299 x 299 by bilinear interpolation without antialiasing and scaled to
    [-1, 1]. Its average pools leave the padding out of the average, and its last block has a max pool
    instead: the TensorFlow graph of the FID, as `pytorch-fid` rebuilds it. Batch normalisations are folded
    into the convolutions. (Szegedy et al., CVPR 2016, arXiv 1512.00567.)

    Raises:
        ValueError: for images without three channels.
    """

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch 2048"]:
        """The features, `[B, 2048]`."""
        check_shape("InceptionV3", images, _CHANNELS)
        check_range("InceptionV3", images)
        x = 2 * resize(images) - 1
        x = _conv("Conv2d_1a_3x3", x, 32, 3, stride=2)
        x = _conv("Conv2d_2a_3x3", x, 32, 3)
        x = _max_pool(_conv("Conv2d_2b_3x3", x, 64, 3, padding=1))
        x = _conv("Conv2d_3b_1x1", x, 80, 1)
        x = _max_pool(_conv("Conv2d_4a_3x3", x, 192, 3))
        for name, pool_channels in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = _BlockA(pool_channels, name=name)(x)
        x = _ReductionA(name="Mixed_6a")(x)
        for name, channels in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = _BlockB(channels, name=name)(x)
        x = _ReductionB(name="Mixed_7a")(x)
        x = _BlockC(max_pool=False, name="Mixed_7b")(x)
        x = _BlockC(max_pool=True, name="Mixed_7c")(x)
        return x.mean(axis=(1, 2))

    def features(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch 2048"]:
        """The features, `[B, 2048]`."""
        return self(images)


class _BlockA(nn.Module):
    pool_channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        double = _conv("branch3x3dbl_2", _conv("branch3x3dbl_1", x, 64, 1), 96, 3, padding=1)
        branches = [
            _conv("branch1x1", x, 64, 1),
            _conv("branch5x5_2", _conv("branch5x5_1", x, 48, 1), 64, 5, padding=2),
            _conv("branch3x3dbl_3", double, 96, 3, padding=1),
            _conv("branch_pool", _mean_pool(x), self.pool_channels, 1),
        ]
        return jnp.concatenate(branches, axis=-1)


class _ReductionA(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        double = _conv("branch3x3dbl_2", _conv("branch3x3dbl_1", x, 64, 1), 96, 3, padding=1)
        branches = [
            _conv("branch3x3", x, 384, 3, stride=2),
            _conv("branch3x3dbl_3", double, 96, 3, stride=2),
            _max_pool(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class _BlockB(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        single = _row_conv("branch7x7_2", _conv("branch7x7_1", x, self.channels, 1), self.channels, 7)
        double = _conv("branch7x7dbl_1", x, self.channels, 1)
        double = _column_conv("branch7x7dbl_2", double, self.channels, 7)
        double = _row_conv("branch7x7dbl_3", double, self.channels, 7)
        double = _column_conv("branch7x7dbl_4", double, self.channels, 7)
        branches = [
            _conv("branch1x1", x, 192, 1),
            _column_conv("branch7x7_3", single, 192, 7),
            _row_conv("branch7x7dbl_5", double, 192, 7),
            _conv("branch_pool", _mean_pool(x), 192, 1),
        ]
        return jnp.concatenate(branches, axis=-1)


class _ReductionB(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        factored = _row_conv("branch7x7x3_2", _conv("branch7x7x3_1", x, 192, 1), 192, 7)
        factored = _column_conv("branch7x7x3_3", factored, 192, 7)
        branches = [
            _conv("branch3x3_2", _conv("branch3x3_1", x, 192, 1), 320, 3, stride=2),
            _conv("branch7x7x3_4", factored, 192, 3, stride=2),
            _max_pool(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class _BlockC(nn.Module):
    max_pool: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        single = _conv("branch3x3_1", x, 384, 1)
        double = _conv("branch3x3dbl_2", _conv("branch3x3dbl_1", x, 448, 1), 384, 3, padding=1)
        pooled = _max_pool(x, stride=1, padding=1) if self.max_pool else _mean_pool(x)
        branches = [
            _conv("branch1x1", x, 320, 1),
            _row_conv("branch3x3_2a", single, 384, 3),
            _column_conv("branch3x3_2b", single, 384, 3),
            _row_conv("branch3x3dbl_3a", double, 384, 3),
            _column_conv("branch3x3dbl_3b", double, 384, 3),
            _conv("branch_pool", pooled, 192, 1),
        ]
        return jnp.concatenate(branches, axis=-1)


def load_inception_v3(path: str | Path) -> ImageFeatures:
    """The features of the Frechet inception distance, with weights from a file.

    The file is an `.npz` of the arrays of `pt_inception-2015-12-05-6726825d.pth`, the weights of
    `pytorch-fid` (`Conv2d_1a_3x3.conv.weight`, `.bn.*`, .., `fc.bias`), which PyTorch turns into:

        state = torch.load("pt_inception-2015-12-05-6726825d.pth", map_location="cpu")
        arrays = {name: array.numpy() for name, array in state.items()}
        numpy.savez("inception.npz", **arrays)

    Its last layer, which is not used, has 1008 classes; that of torchvision's network, whose features are
    not those of the FID, has 1000, and is refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or lacks a layer, has an unknown one, or one of another shape.
    """
    network, unused = InceptionV3(), {"fc.weight": (_CLASSES, _NUM_FEATURES), "fc.bias": (_CLASSES,)}
    image_shape = (_SIDE, _SIDE, _CHANNELS)
    params = folded_parameters(path, read_arrays(path), network, image_shape, _layer_names, _EPSILON, unused)
    return image_features(InceptionV3.__name__, network, params)


def resize(images: Float[Array, "batch height width channels"]) -> Float[Array, "batch 299 299 channels"]:
    """Bilinear interpolation to 299 x 299 with pixels as areas, and without antialiasing."""
    shape = (images.shape[0], _SIDE, _SIDE, images.shape[3])
    # JAX antialiases by default (0.10.2), which would be another distance.
    return jax.image.resize(images, shape, method="bilinear", antialias=False)


def _layer_names(layer: tuple[str, ...]) -> LayerNames:
    name = ".".join(layer)
    return LayerNames(f"{name}.conv", f"{name}.bn")


def _conv(
    name: str,
    x: Array,
    channels: int,
    size: int | tuple[int, int],
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
) -> Array:
    kernel = (size, size) if isinstance(size, int) else size
    height, width = (padding, padding) if isinstance(padding, int) else padding
    # Both sides alike: Flax's "SAME" of a stride of 2 would pad behind alone.
    pads = [(height, height), (width, width)]
    return jax.nn.relu(nn.Conv(channels, kernel, (stride, stride), padding=pads, name=name)(x))


def _row_conv(name: str, x: Array, channels: int, size: int) -> Array:
    return _conv(name, x, channels, (1, size), padding=(0, size // 2))


def _column_conv(name: str, x: Array, channels: int, size: int) -> Array:
    return _conv(name, x, channels, (size, 1), padding=(size // 2, 0))


def _max_pool(x: Array, stride: int = 2, padding: int = 0) -> Array:
    return nn.max_pool(x, (3, 3), (stride, stride), [(padding, padding)] * 2)


def _mean_pool(x: Array) -> Array:
    """The average over 3 x 3 pixels, fewer at the border, where the padding does not count."""
    return nn.avg_pool(x, (3, 3), padding=[(1, 1), (1, 1)], count_include_pad=False)
