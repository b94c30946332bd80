"""Training methods: frozen dataclasses of choices that bind to a model as `Algorithm(init, step)`."""

from bism_jax.methods.bilevel import BilevelProblem, LevelNoise, LowerInput
from bism_jax.methods.bism import BiSM, BiSMInfo, BiSMNoise, BiSMState
from bism_jax.methods.optimizers import Optimizers, paper_adam
from bism_jax.methods.score_matching import ScoreMatching, ScoreMatchingInfo, ScoreMatchingState

__all__ = [
    "BiSM",
    "BiSMInfo",
    "BiSMNoise",
    "BiSMState",
    "BilevelProblem",
    "LevelNoise",
    "LowerInput",
    "Optimizers",
    "ScoreMatching",
    "ScoreMatchingInfo",
    "ScoreMatchingState",
    "paper_adam",
]
