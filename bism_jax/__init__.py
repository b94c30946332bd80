"""Energy-based latent-variable models by bi-level score matching, and hypergradients, in JAX."""

from bism_jax.hypergradient import Implicit, LowerProblem, StopGradient, Truncated, Unrolled
from bism_jax.methods import BiSM, Optimizers, ScoreMatching
from bism_jax.objectives import DSM, KL, MDSM, SM, SSM, Fisher
from bism_jax.training import FitResult, fit

__version__ = "0.1.0"

__all__ = [
    "DSM",
    "KL",
    "MDSM",
    "SM",
    "SSM",
    "BiSM",
    "Fisher",
    "FitResult",
    "Implicit",
    "LowerProblem",
    "Optimizers",
    "ScoreMatching",
    "StopGradient",
    "Truncated",
    "Unrolled",
    "fit",
]
