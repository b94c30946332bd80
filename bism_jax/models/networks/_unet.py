"""A small U-Net that passes its coarsest scale through a vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax.models.networks._image_layers import Conv, dense
from bism_jax.models.networks._residual_block import ResidualBlock, check_image_shape


class Reconstruction(NamedTuple):
    """What a `UNet` makes of images.

    Attributes:
        image: `[B, height, width, colours]`.
        code: the vector at the coarsest scale, `[B, num_code]`.
    """

    image: Array
    code: Array


class UNet(nn.Module):
    """Images to images of the same shape, at three scales: 1/2, 1/4 and 1/8 of the height and the width.

    The finest scale holds patches of 2 x 2 pixels. The two finer scales skip over the coarsest, of which the
    way up sees no more than the code (Ronneberger et al., MICCAI 2015, arXiv 1505.04597, with a bottleneck).

    Attributes:
        num_code: the length of the code.
        channels: at the finest scale; they double with each.
        activation: an elementwise function.
        spectral_norm: whether the convolutions are divided by their spectral norm.
        dtype: what they compute in; None for that of v.
    """

    num_code: int
    channels: int
    activation: Callable[[Array], Array]
    spectral_norm: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, v: Float[Array, "batch height width colours"]) -> Reconstruction:
        """The reconstruction, and the code it went through."""
        check_image_shape(v)
        # All further layers are on a quarter of the pixels, at no loss: a patch keeps its four.
        patches = _to_patches(v)
        x = self._conv(self.channels)(patches)
        fine = self._block(1)(x)
        x = self._block(2, halves=True)(fine)
        middle = self._block(2)(x)
        x = self._block(4, halves=True)(middle)
        coarse = self._block(4)(x)
        flat = coarse.reshape(len(v), -1).astype(v.dtype)
        code = dense(flat, self.num_code)
        x = dense(code, flat.shape[-1])
        x = self._block(4)(x.reshape(coarse.shape))
        # A 1 x 1 convolution and the doubling commute, and before it there are a quarter of the pixels.
        x = self._block(2)(_double(self._conv(2 * self.channels, size=1)(x)) + middle)
        x = self._block(1)(_double(self._conv(self.channels, size=1)(x)) + fine)
        x = self._conv(patches.shape[-1], activation=self.activation)(x)
        return Reconstruction(_from_patches(x).astype(v.dtype), code)

    def _conv(self, channels: int, **options: Any) -> Conv:
        return Conv(channels, spectral_norm=self.spectral_norm, dtype=self.dtype, **options)

    def _block(self, multiple: int, halves: bool = False) -> ResidualBlock:
        channels = multiple * self.channels
        return ResidualBlock(channels, halves, self.activation, self.spectral_norm, self.dtype)


def _to_patches(v: Array) -> Float[Array, "batch h w patch"]:
    batch, height, width, colours = v.shape
    parts = v.reshape(batch, height // 2, 2, width // 2, 2, colours).transpose(0, 1, 3, 2, 4, 5)
    return parts.reshape(batch, height // 2, width // 2, 4 * colours)


def _from_patches(x: Array) -> Float[Array, "batch height width colours"]:
    batch, height, width, size = x.shape
    parts = x.reshape(batch, height, width, 2, 2, size // 4).transpose(0, 1, 3, 2, 4, 5)
    return parts.reshape(batch, 2 * height, 2 * width, size // 4)


def _double(x: Array) -> Float[Array, "batch height width channels"]:
    return x.repeat(2, axis=1).repeat(2, axis=2)
