"""Training methods: frozen dataclasses of choices that bind to a model as `Algorithm(init, step)`.

A model that lacks what a method needs is a `MissingCapability`, one that breaks its contract a `ModelError`.
"""

from bism_jax.errors import MissingCapability, ModelError
from bism_jax.methods._bidvl import BiDVL
from bism_jax.methods._bism import BiSM, BiSMNoise
from bism_jax.methods._common.chains import Chain, ChainState, Gibbs, Langevin
from bism_jax.methods._common.iteration_counts import counts_updates
from bism_jax.methods._common.method import supported_methods
from bism_jax.methods._common.optimizers import Optimizers, paper_adam
from bism_jax.methods._common.pickling import picklable
from bism_jax.methods._common.states import EnergyInfo, EnergyState, LatentInfo, LatentState
from bism_jax.methods._contrastive_divergence import (
    ContrastiveDivergence,
    PersistentContrastiveDivergence,
    PersistentState,
)
from bism_jax.methods._nce import NCE, NCEInfo, NCEState
from bism_jax.methods._persistent_vi import PersistentVI, PersistentVIState, Variational
from bism_jax.methods._score_matching import ScoreMatching
from bism_jax.methods._vages import LangevinRefinement, VaGES, VaGESNoise
from bism_jax.methods._vnce import VNCE, VNCEInfo, VNCENoise, VNCEState
from bism_jax.methods.losses._bilevel import BilevelProblem, LevelNoise, LowerInput
from bism_jax.methods.losses._codec import CodecLosses, CodecNoise, CodecParams
from bism_jax.methods.losses._free_energy import UniformBinary
from bism_jax.methods.losses._weight_priors import Fadeout, GaussianPrior, Prior, ScaledParameters

__all__ = [
    "NCE",
    "VNCE",
    "BiDVL",
    "BiSM",
    "BiSMNoise",
    "BilevelProblem",
    "Chain",
    "ChainState",
    "CodecLosses",
    "CodecNoise",
    "CodecParams",
    "ContrastiveDivergence",
    "EnergyInfo",
    "EnergyState",
    "Fadeout",
    "GaussianPrior",
    "Gibbs",
    "Langevin",
    "LangevinRefinement",
    "LatentInfo",
    "LatentState",
    "LevelNoise",
    "LowerInput",
    "MissingCapability",
    "ModelError",
    "NCEInfo",
    "NCEState",
    "Optimizers",
    "PersistentContrastiveDivergence",
    "PersistentState",
    "PersistentVI",
    "PersistentVIState",
    "Prior",
    "ScaledParameters",
    "ScoreMatching",
    "UniformBinary",
    "VNCEInfo",
    "VNCENoise",
    "VNCEState",
    "VaGES",
    "VaGESNoise",
    "Variational",
    "counts_updates",
    "paper_adam",
    "picklable",
    "supported_methods",
]
