"""An energy on images that is an autoencoder's reconstruction error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.networks._image_layers import dense
from bism_jax.models.networks._residual_block import check_latents, check_network
from bism_jax.models.networks._unet import UNet

_TERMS_A_LATENT = 16  # rows of A: the head stays small beside U, whatever the image's size


class ReconstructionEnergy(nn.Module):
    """How far an image is from its reconstruction, with a latent vector tied to the reconstruction's code.

        E(v, h) = |v - U(v)|^2 / (2 noise_std^2) + |h|^2 / 2 + sum_j a(A [f(v); h] + b)_j^2

    U is a U-Net and f(v) in R^num_hidden the code that its coarsest scale passes through; A has
    16 num_hidden rows. With U in place of a scalar network a score -grad_v E has the form of a denoiser's,
    (U(v) - v) / noise_std^2 and a term in U's Jacobian, which score matching learns in far fewer iterations
    (Salimans & Ho, "Should EBMs model the energy or the score?", 2021); |h|^2 / 2 keeps the latents where
    samplers start them. The factored form is `features` and `head`.

    Attributes:
        num_hidden: the number of latents, and of entries of the code.
        channels: of U's finest scale.
        noise_std: the unit of the reconstruction error, sigma_0 of the objective, in units of v.
        activation: a, an elementwise function, also U's.
        spectral_norm: whether the convolutions of U are divided by their spectral norm.
        dtype: what they compute in, such as `jnp.bfloat16`; the code, the head and the sums are computed in
            the dtype of the parameters. None for that of v.

    Raises:
        ValueError: for counts or a noise_std out of range, or images whose height and width are no multiples
            of 8.
    """

    num_hidden: int = 50
    channels: int = 16
    noise_std: float = 0.1
    activation: Callable[[Array], Array] = jax.nn.silu
    spectral_norm: bool = False
    dtype: Any = None

    def __post_init__(self) -> None:
        checks.positive_int("num_hidden", self.num_hidden)
        checks.positive("noise_std", self.noise_std)
        check_network(self)
        super().__post_init__()

    def setup(self) -> None:
        """The U-Net U."""
        self.unet = UNet(self.num_hidden, self.channels, self.activation, self.spectral_norm, self.dtype)

    def features(
        self, v: Float[Array, "batch height width colours"]
    ) -> tuple[Float[Array, "batch latent"], Float[Array, " batch"]]:
        """f(v), `[B, num_hidden]`, and the reconstruction error in units of energy, `[B]`."""
        return code_and_error(self.unet, v, self.noise_std)

    # Linen allows one compact method, so what `features` uses is in `setup`.
    @nn.compact
    def head(
        self,
        v: Float[Array, "batch height width colours"],
        features: tuple[Float[Array, "batch latent"], Float[Array, " batch"]],
        h: Float[Array, "batch latent"],
    ) -> Float[Array, " batch"]:
        """E(v, h) given the features, `[B]`."""
        # At initialisation a dense layer takes any width, so that a wrong one would only fail later.
        check_latents(h, (v.shape[0], self.num_hidden))
        code, error = features
        joint = jnp.concatenate([code, h], axis=-1)
        terms = dense(joint, _TERMS_A_LATENT * self.num_hidden, name="joint")
        return error + (h**2).sum(axis=-1) / 2 + (self.activation(terms) ** 2).sum(axis=-1)

    def __call__(
        self, v: Float[Array, "batch height width colours"], h: Float[Array, "batch latent"]
    ) -> Float[Array, " batch"]:
        """E(v, h), `[B]`."""
        return self.head(v, self.features(v), h)


def code_and_error(
    unet: UNet, v: Float[Array, "batch height width colours"], noise_std: float
) -> tuple[Float[Array, "batch code"], Float[Array, " batch"]]:
    """The code of each image, and |v - U(v)|^2 / (2 noise_std^2)."""
    image, code = unet(v)
    return code, ((v - image) ** 2).sum(axis=(1, 2, 3)) / (2 * noise_std**2)
