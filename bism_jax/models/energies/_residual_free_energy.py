"""The deep energy on images without latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.models.energies._residual_energy import ResidualTrunk, sum_of_squares
from bism_jax.models.networks._residual_block import check_network


class ResidualFreeEnergy(nn.Module):
    """The energy of an image alone, with the trunk of `ResidualEnergy`, to compare it with:

        F(v) = sum_j a(A f(v) + b)_j^2

    Attributes:
        num_features: the width of f.
        channels: of the first convolution.
        num_blocks: residual blocks, 6 or 9.
        activation: a, an elementwise function.
        spectral_norm: whether the convolutions of f are divided by their spectral norm.
        dtype: what the convolutions compute in; None for that of v.

    Raises:
        ValueError: as `ResidualEnergy`.
    """

    num_features: int = 50
    channels: int = 64
    num_blocks: int = 6
    activation: Callable[[Array], Array] = nn.elu
    spectral_norm: bool = False
    dtype: Any = None

    def __post_init__(self) -> None:
        checks.positive_int("num_features", self.num_features)
        checks.one_of("num_blocks", self.num_blocks, (6, 9))
        check_network(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, v: Float[Array, "batch height width colours"]) -> Float[Array, " batch"]:
        """F(v), `[B]`."""
        features = ResidualTrunk(
            self.num_features, self.channels, self.num_blocks, self.activation, self.spectral_norm, self.dtype
        )(v)
        return sum_of_squares(features, v, self.channels, self.activation)

    def free_energy(self, v: Float[Array, "batch height width colours"]) -> Float[Array, " batch"]:
        """F(v), by the name under which methods ask for it."""
        return self(v)
