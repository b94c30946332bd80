"""Samplers: functions of an energy or of conditional samplers."""

from bism_jax.samplers.gibbs import gibbs

__all__ = ["gibbs"]
