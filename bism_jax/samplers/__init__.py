"""Samplers: functions of an energy or of conditional samplers."""

from bism_jax.samplers.gibbs import gibbs
from bism_jax.samplers.hamiltonian import nuts
from bism_jax.samplers.langevin import langevin

__all__ = ["gibbs", "langevin", "nuts"]
