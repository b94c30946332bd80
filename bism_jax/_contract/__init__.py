"""What a model must offer, and what is asked of it: the only view that methods have of a user's model.

It stands below `models`, since a method and `fit` need the contract but none of the models.
"""

from bism_jax._contract.adapters import Model, as_model
from bism_jax._contract.factored import FactoredEnergy, factor, is_factored, without_features
from bism_jax._contract.latents import (
    LatentSample,
    draw_latent_noise,
    draw_latents,
    latent_log_prob,
    map_particles,
    sample_latents,
)

__all__ = [
    "FactoredEnergy",
    "LatentSample",
    "Model",
    "as_model",
    "draw_latent_noise",
    "draw_latents",
    "factor",
    "is_factored",
    "latent_log_prob",
    "map_particles",
    "sample_latents",
    "without_features",
]
