"""A convolutional decoder of latents into images."""

from __future__ import annotations

import math

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.networks._image_layers import Conv, dense


class ConvDecoder(nn.Module):
    """g(h), an image in (0, 1): a linear layer, then convolutions after doublings of the size, and a sigmoid.

    The mirror image of `ConvGaussianPosterior`'s encoder.

    Attributes:
        image_shape: height, width and colours of what it draws; each width doubles height and width once.
        widths: the channels before each doubling.
    """

    image_shape: tuple[int, int, int] = (32, 32, 1)
    widths: tuple[int, ...] = (256, 128, 64)

    def __post_init__(self) -> None:
        checks.widths("widths", self.widths)
        checks.widths("image_shape", self.image_shape)
        if not self.widths:
            raise ValueError("widths is empty; a decoder needs one width at least, such as (64,).")
        if len(self.image_shape) != 3 or any(size % 2 ** len(self.widths) for size in self.image_shape[:2]):
            raise ValueError(
                f"image_shape={self.image_shape} must be height, width and colours, the first two multiples "
                f"of {2 ** len(self.widths)} for {len(self.widths)} doublings; pad the images, or take fewer "
                "widths."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, h: Float[Array, "batch latent"]) -> Float[Array, "batch height width colours"]:
        """`[B, latent] -> [B, *image_shape]`."""
        height, width = (size // 2 ** len(self.widths) for size in self.image_shape[:2])
        start = (height, width, self.widths[0])
        x = dense(h, math.prod(start)).reshape(h.shape[0], *start)
        for channels in (*self.widths[1:], self.image_shape[2]):
            # A transposed convolution of 3 x 3 with stride 2 overlaps unevenly and draws checkerboards (Odena
            # et al., Distill 2016).
            x = jax.nn.leaky_relu(x, 0.2).repeat(2, axis=1).repeat(2, axis=2)
            x = Conv(channels)(x)
        return jax.nn.sigmoid(x)
