"""Energies of visible variables and latents, and free energies of visible variables alone."""

from bism_jax.models.energies._grbm import GRBM
from bism_jax.models.energies._linear_gaussian import LinearGaussian, maximum_likelihood
from bism_jax.models.energies._mlp_energy import MLPEnergy
from bism_jax.models.energies._reconstruction_energy import ReconstructionEnergy
from bism_jax.models.energies._reconstruction_free_energy import ReconstructionFreeEnergy
from bism_jax.models.energies._residual_energy import ResidualEnergy
from bism_jax.models.energies._residual_free_energy import ResidualFreeEnergy

__all__ = [
    "GRBM",
    "LinearGaussian",
    "MLPEnergy",
    "ReconstructionEnergy",
    "ReconstructionFreeEnergy",
    "ResidualEnergy",
    "ResidualFreeEnergy",
    "maximum_likelihood",
]
