"""Measures of a trained model."""

from bism_jax.evaluation.likelihood import log_likelihood
from bism_jax.evaluation.score_matching import score_matching_objective

__all__ = ["log_likelihood", "score_matching_objective"]
