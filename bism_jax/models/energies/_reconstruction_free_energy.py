"""The reconstruction error as an energy of an image alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.energies._reconstruction_energy import code_and_error
from bism_jax.models.networks._residual_block import check_network
from bism_jax.models.networks._unet import UNet


class ReconstructionFreeEnergy(nn.Module):
    """`ReconstructionEnergy` without latents, to compare it with:

        F(v) = |v - U(v)|^2 / (2 noise_std^2)

    Attributes:
        num_code: entries of the code that U's coarsest scale passes through.
        channels: of U's finest scale.
        noise_std: the unit of the reconstruction error, in units of v.
        activation: of U, an elementwise function.
        spectral_norm: whether the convolutions of U are divided by their spectral norm.
        dtype: what they compute in; None for that of v.

    Raises:
        ValueError: as `ReconstructionEnergy`.
    """

    num_code: int = 50
    channels: int = 16
    noise_std: float = 0.1
    activation: Callable[[Array], Array] = jax.nn.silu
    spectral_norm: bool = False
    dtype: Any = None

    def __post_init__(self) -> None:
        checks.positive_int("num_code", self.num_code)
        checks.positive("noise_std", self.noise_std)
        check_network(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, v: Float[Array, "batch height width colours"]) -> Float[Array, " batch"]:
        """F(v), `[B]`."""
        unet = UNet(self.num_code, self.channels, self.activation, self.spectral_norm, self.dtype)
        return code_and_error(unet, v, self.noise_std)[1]

    def free_energy(self, v: Float[Array, "batch height width colours"]) -> Float[Array, " batch"]:
        """F(v), by the name under which methods ask for it."""
        return self(v)
