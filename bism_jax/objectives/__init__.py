"""Score-matching objectives, lower-level divergences and scores.

Drawing noise is separate from the loss, which is a deterministic function of it.
"""

from bism_jax._contract import (
    LatentSample,
    draw_latent_noise,
    draw_latents,
    latent_log_prob,
    map_particles,
    sample_latents,
)
from bism_jax.objectives._denoising import DSM, MDSM, MultiscaleNoise
from bism_jax.objectives._divergences import KL, Divergence, Fisher
from bism_jax.objectives._implicit_score_matching import SM, SSM
from bism_jax.objectives._kernel_stein import KSD
from bism_jax.objectives._objective import Objective, PointwiseObjective, sum_events
from bism_jax.objectives._scores import (
    factored_score,
    latent_score,
    marginal_score,
    moving_latent_score,
)

__all__ = [
    "DSM",
    "KL",
    "KSD",
    "MDSM",
    "SM",
    "SSM",
    "Divergence",
    "Fisher",
    "LatentSample",
    "MultiscaleNoise",
    "Objective",
    "PointwiseObjective",
    "draw_latent_noise",
    "draw_latents",
    "factored_score",
    "latent_log_prob",
    "latent_score",
    "map_particles",
    "marginal_score",
    "moving_latent_score",
    "sample_latents",
    "sum_events",
]
