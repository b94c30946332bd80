"""How well a model fits data: likelihoods, Fisher divergences and score-matching objectives."""

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

__all__ = [
    "AnnealedImportance",
    "CriticFisher",
    "annealed_importance_sampling",
    "critic_fisher_divergence",
    "fisher_divergence",
    "log_likelihood",
    "score_matching_objective",
    "sliced_score_matching_objective",
]
