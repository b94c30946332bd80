"""Samplers: functions of an energy or of conditional samplers."""

from bism_jax.samplers._annealed_langevin import AnnealedSamples, annealed_langevin, initial_noise
from bism_jax.samplers._annealing_schedule import AnnealingSchedule
from bism_jax.samplers._gibbs import gibbs
from bism_jax.samplers._hamiltonian import nuts
from bism_jax.samplers._interpolation import interpolate
from bism_jax.samplers._langevin import langevin
from bism_jax.samplers._latent_variable import inpaint, sample_joint, sample_latent, sample_visible

__all__ = [
    "AnnealedSamples",
    "AnnealingSchedule",
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
