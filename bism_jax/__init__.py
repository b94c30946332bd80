"""Energy-based latent-variable models by bi-level score matching, and hypergradients, in JAX."""

from bism_jax.hypergradient import Implicit, LowerProblem, StopGradient, Truncated, Unrolled
from bism_jax.methods import (
    NCE,
    VNCE,
    BiDVL,
    BiSM,
    ContrastiveDivergence,
    Optimizers,
    PersistentContrastiveDivergence,
    PersistentVI,
    ScoreMatching,
    VaGES,
)
from bism_jax.objectives import DSM, KL, KSD, MDSM, SM, SSM, Fisher
from bism_jax.training import FitResult, fit, plan

__version__ = "0.1.0"

__all__ = [
    "DSM",
    "KL",
    "KSD",
    "MDSM",
    "NCE",
    "SM",
    "SSM",
    "VNCE",
    "BiDVL",
    "BiSM",
    "ContrastiveDivergence",
    "Fisher",
    "FitResult",
    "Implicit",
    "LowerProblem",
    "Optimizers",
    "PersistentContrastiveDivergence",
    "PersistentVI",
    "ScoreMatching",
    "StopGradient",
    "Truncated",
    "Unrolled",
    "VaGES",
    "fit",
    "plan",
]
