"""Samplers: functions of an energy or of conditional samplers."""

from bism_jax.samplers.annealed_langevin import AnnealedSamples, annealed_langevin, initial_noise
from bism_jax.samplers.annealing_schedule import AnnealedLangevin
from bism_jax.samplers.gibbs import gibbs
from bism_jax.samplers.hamiltonian import nuts
from bism_jax.samplers.interpolation import interpolate
from bism_jax.samplers.langevin import langevin
from bism_jax.samplers.latent_variable import inpaint, sample_joint, sample_latent, sample_visible

__all__ = [
    "AnnealedLangevin",
    "AnnealedSamples",
    "annealed_langevin",
    "gibbs",
    "initial_noise",
    "inpaint",
    "interpolate",
    "langevin",
    "nuts",
    "sample_joint",
    "sample_latent",
    "sample_visible",
]
