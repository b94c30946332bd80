"""Training methods: frozen dataclasses of choices that bind to a model as `Algorithm(init, step)`."""

from bism_jax.methods.bidvl import BiDVL
from bism_jax.methods.bilevel import BilevelProblem, LevelNoise, LowerInput
from bism_jax.methods.bism import BiSM, BiSMNoise
from bism_jax.methods.capabilities import supported_methods
from bism_jax.methods.chains import Chain, ChainState, Gibbs, Langevin
from bism_jax.methods.codec import CodecLosses, CodecNoise, CodecParams
from bism_jax.methods.contrastive_divergence import (
    ContrastiveDivergence,
    PersistentContrastiveDivergence,
    PersistentState,
)
from bism_jax.methods.free_energy import UniformBinary
from bism_jax.methods.iteration_counts import counts_updates
from bism_jax.methods.nce import NCE, NCEInfo, NCEState
from bism_jax.methods.optimizers import Optimizers, paper_adam
from bism_jax.methods.persistent_vi import PersistentVI, PersistentVIState, Variational
from bism_jax.methods.pickling import picklable
from bism_jax.methods.score_matching import ScoreMatching
from bism_jax.methods.states import EnergyInfo, EnergyState, LatentInfo, LatentState
from bism_jax.methods.vages import LangevinRefinement, VaGES, VaGESNoise
from bism_jax.methods.vnce import VNCE, VNCEInfo, VNCENoise, VNCEState
from bism_jax.methods.weight_priors import Fadeout, GaussianPrior, Prior, ScaledParameters

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
