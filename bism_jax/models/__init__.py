"""Energies and posteriors as Flax modules, and the adapters for modules and functions of a user."""

from bism_jax._contract import FactoredEnergy, Model, as_model, factor, is_factored, without_features
from bism_jax.models.energies._grbm import GRBM
from bism_jax.models.energies._linear_gaussian import LinearGaussian, maximum_likelihood
from bism_jax.models.energies._mlp_energy import MLPEnergy
from bism_jax.models.energies._reconstruction_energy import ReconstructionEnergy
from bism_jax.models.energies._reconstruction_free_energy import ReconstructionFreeEnergy
from bism_jax.models.energies._residual_energy import ResidualEnergy
from bism_jax.models.energies._residual_free_energy import ResidualFreeEnergy
from bism_jax.models.networks._cifar_resnet import CifarResNet, load_cifar_resnet
from bism_jax.models.networks._conv_decoder import ConvDecoder
from bism_jax.models.networks._image_classifier import ImageClassifier
from bism_jax.models.networks._image_features import ImageFeatures, image_features
from bism_jax.models.networks._inception import InceptionV3, load_inception_v3
from bism_jax.models.networks._mlp_critic import MLPCritic
from bism_jax.models.networks._mlp_decoder import MLPDecoder
from bism_jax.models.posteriors._bernoulli_posterior import BernoulliPosterior, RelaxedBernoulli
from bism_jax.models.posteriors._conv_posterior import ConvEncoder, ConvGaussianPosterior
from bism_jax.models.posteriors._flow_posterior import ConditionalFlow, FlowPosterior
from bism_jax.models.posteriors._gaussian_posterior import DiagonalGaussian, GaussianPosterior

__all__ = [
    "GRBM",
    "BernoulliPosterior",
    "CifarResNet",
    "ConditionalFlow",
    "ConvDecoder",
    "ConvEncoder",
    "ConvGaussianPosterior",
    "DiagonalGaussian",
    "FactoredEnergy",
    "FlowPosterior",
    "GaussianPosterior",
    "ImageClassifier",
    "ImageFeatures",
    "InceptionV3",
    "LinearGaussian",
    "MLPCritic",
    "MLPDecoder",
    "MLPEnergy",
    "Model",
    "ReconstructionEnergy",
    "ReconstructionFreeEnergy",
    "RelaxedBernoulli",
    "ResidualEnergy",
    "ResidualFreeEnergy",
    "as_model",
    "factor",
    "image_features",
    "is_factored",
    "load_cifar_resnet",
    "load_inception_v3",
    "maximum_likelihood",
    "without_features",
]
