"""Measures of a trained model."""

from bism_jax.evaluation.gradients._gradient_bias import GradientBias, gradient_bias
from bism_jax.evaluation.likelihood._annealed_importance import (
    AnnealedImportance,
    annealed_importance_sampling,
)
from bism_jax.evaluation.likelihood._critic_fisher import CriticFisher, critic_fisher_divergence
from bism_jax.evaluation.likelihood._exact_objective import (
    score_matching_objective,
    sliced_score_matching_objective,
)
from bism_jax.evaluation.likelihood._fisher_divergence import fisher_divergence
from bism_jax.evaluation.likelihood._log_likelihood import log_likelihood
from bism_jax.evaluation.posterior._latent_probe import LatentProbe, latent_probe
from bism_jax.evaluation.posterior._out_of_distribution import auroc, ood_scores
from bism_jax.evaluation.posterior._posterior_gap import PosteriorGap, posterior_gap
from bism_jax.evaluation.samples._classification import (
    ClassCoverage,
    class_coverage,
    class_probabilities,
    train_image_classifier,
)
from bism_jax.evaluation.samples._feature_statistics import FeatureStatistics, feature_statistics
from bism_jax.evaluation.samples._features import FeatureFn, distance_label, extract_features
from bism_jax.evaluation.samples._frechet import frechet_distance
from bism_jax.evaluation.samples._kernel_distance import KernelDistance, kernel_distance
from bism_jax.evaluation.samples._precision_recall import PrecisionRecall, precision_recall
from bism_jax.evaluation.samples._two_sample import energy_distance, maximum_mean_discrepancy

__all__ = [
    "AnnealedImportance",
    "ClassCoverage",
    "CriticFisher",
    "FeatureFn",
    "FeatureStatistics",
    "GradientBias",
    "KernelDistance",
    "LatentProbe",
    "PosteriorGap",
    "PrecisionRecall",
    "annealed_importance_sampling",
    "auroc",
    "class_coverage",
    "class_probabilities",
    "critic_fisher_divergence",
    "distance_label",
    "energy_distance",
    "extract_features",
    "feature_statistics",
    "fisher_divergence",
    "frechet_distance",
    "gradient_bias",
    "kernel_distance",
    "latent_probe",
    "log_likelihood",
    "maximum_mean_discrepancy",
    "ood_scores",
    "posterior_gap",
    "precision_recall",
    "score_matching_objective",
    "sliced_score_matching_objective",
    "train_image_classifier",
]
