"""What a posterior is worth: its gap, its latents, and scores of data that are not the model's."""

from bism_jax.evaluation.posterior._latent_probe import LatentProbe, latent_probe
from bism_jax.evaluation.posterior._out_of_distribution import auroc, ood_scores
from bism_jax.evaluation.posterior._posterior_gap import PosteriorGap, posterior_gap

__all__ = [
    "LatentProbe",
    "PosteriorGap",
    "auroc",
    "latent_probe",
    "ood_scores",
    "posterior_gap",
]
