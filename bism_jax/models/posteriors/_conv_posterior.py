"""A convolutional Gaussian posterior for images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.networks._image_layers import Conv, dense
from bism_jax.models.posteriors._gaussian_posterior import DiagonalGaussian


class ConvEncoder(nn.Module):
    """Convolutions of stride 2 with leaky ReLUs of slope 0.2, flattened.

    Attributes:
        widths: the channels of each.
    """

    widths: tuple[int, ...] = (64, 128, 256)

    def __post_init__(self) -> None:
        checks.widths("widths", self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(self, v: Float[Array, "batch height width colours"]) -> Float[Array, "batch outputs"]:
        """`[B, height, width, colours] -> [B, outputs]`."""
        if v.ndim != 4:
            raise ValueError(f"v has shape {v.shape}; it must be [batch, height, width, colours].")
        for width in self.widths:
            v = jax.nn.leaky_relu(Conv(width, reduce="stride")(v), 0.2)
        return v.reshape(v.shape[0], -1)


class ConvGaussianPosterior(nn.Module):
    """q(h | v) = N(mu(v), diag(sigma(v)^2)) of an image: convolutions, and a linear map for each.

    With its default widths it is the posterior of Bao et al., NeurIPS 2020 (arXiv 2010.07856, app. E).

    Attributes:
        num_hidden: the number of latents.
        widths: the channels of each convolution.
    """

    num_hidden: int = 50
    widths: tuple[int, ...] = (64, 128, 256)

    def __post_init__(self) -> None:
        checks.positive_int("num_hidden", self.num_hidden)
        checks.widths("widths", self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(self, v: Float[Array, "batch height width colours"]) -> DiagonalGaussian:
        """The posterior of each image, with batch shape `(B,)` and event shape `(num_hidden,)`."""
        x = ConvEncoder(self.widths)(v)
        mean, log_std = (dense(x, self.num_hidden, name) for name in ("mean", "log_std"))
        # The logarithm is learnt, so that every value of it is a scale.
        return DiagonalGaussian(mean, jnp.exp(log_std))
