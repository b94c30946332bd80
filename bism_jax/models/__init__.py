"""Energies and posteriors as Flax modules, and the adapters for modules and functions of a user."""

from bism_jax.models.adapters import Model, as_model
from bism_jax.models.bernoulli_posterior import BernoulliPosterior, RelaxedBernoulli
from bism_jax.models.gaussian_posterior import DiagonalGaussian, GaussianPosterior
from bism_jax.models.grbm import GRBM
from bism_jax.models.linear_gaussian import LinearGaussian, maximum_likelihood
from bism_jax.models.mlp_critic import MLPCritic
from bism_jax.models.mlp_decoder import MLPDecoder
from bism_jax.models.mlp_energy import MLPEnergy

__all__ = [
    "GRBM",
    "BernoulliPosterior",
    "DiagonalGaussian",
    "GaussianPosterior",
    "LinearGaussian",
    "MLPCritic",
    "MLPDecoder",
    "MLPEnergy",
    "Model",
    "RelaxedBernoulli",
    "as_model",
    "maximum_likelihood",
]
