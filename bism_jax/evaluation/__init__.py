"""Measures of a trained model."""

from bism_jax.evaluation.annealed_importance import AnnealedImportance, annealed_importance_sampling
from bism_jax.evaluation.critic_fisher import CriticFisher, critic_fisher_divergence
from bism_jax.evaluation.fisher_divergence import fisher_divergence
from bism_jax.evaluation.gradient_bias import GradientBias, gradient_bias
from bism_jax.evaluation.latent_probe import LatentProbe, latent_probe
from bism_jax.evaluation.likelihood import log_likelihood
from bism_jax.evaluation.posterior_gap import PosteriorGap, posterior_gap
from bism_jax.evaluation.score_matching import score_matching_objective, sliced_score_matching_objective
from bism_jax.evaluation.two_sample import energy_distance, maximum_mean_discrepancy

__all__ = [
    "AnnealedImportance",
    "CriticFisher",
    "GradientBias",
    "LatentProbe",
    "PosteriorGap",
    "annealed_importance_sampling",
    "critic_fisher_divergence",
    "energy_distance",
    "fisher_divergence",
    "gradient_bias",
    "latent_probe",
    "log_likelihood",
    "maximum_mean_discrepancy",
    "posterior_gap",
    "score_matching_objective",
    "sliced_score_matching_objective",
]
