"""The losses of methods as functions of explicit noise."""

from bism_jax.methods.losses._bilevel import BilevelProblem, LevelNoise, LowerInput
from bism_jax.methods.losses._codec import CodecLosses, CodecNoise, CodecParams
from bism_jax.methods.losses._free_energy import UniformBinary
from bism_jax.methods.losses._weight_priors import Fadeout, GaussianPrior, Prior, ScaledParameters

__all__ = [
    "BilevelProblem",
    "CodecLosses",
    "CodecNoise",
    "CodecParams",
    "Fadeout",
    "GaussianPrior",
    "LevelNoise",
    "LowerInput",
    "Prior",
    "ScaledParameters",
    "UniformBinary",
]
