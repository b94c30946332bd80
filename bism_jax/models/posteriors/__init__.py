"""Posteriors of the latents given the visible variables."""

from bism_jax.models.posteriors._bernoulli_posterior import BernoulliPosterior, RelaxedBernoulli
from bism_jax.models.posteriors._conv_posterior import ConvEncoder, ConvGaussianPosterior
from bism_jax.models.posteriors._flow_posterior import ConditionalFlow, FlowPosterior
from bism_jax.models.posteriors._gaussian_posterior import DiagonalGaussian, GaussianPosterior

__all__ = [
    "BernoulliPosterior",
    "ConditionalFlow",
    "ConvEncoder",
    "ConvGaussianPosterior",
    "DiagonalGaussian",
    "FlowPosterior",
    "GaussianPosterior",
    "RelaxedBernoulli",
]
