"""How samples compare with data."""

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
    "ClassCoverage",
    "FeatureFn",
    "FeatureStatistics",
    "KernelDistance",
    "PrecisionRecall",
    "class_coverage",
    "class_probabilities",
    "distance_label",
    "energy_distance",
    "extract_features",
    "feature_statistics",
    "frechet_distance",
    "kernel_distance",
    "maximum_mean_discrepancy",
    "precision_recall",
    "train_image_classifier",
]
