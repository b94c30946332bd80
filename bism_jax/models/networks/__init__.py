"""Networks that energies, posteriors, critics and image features are made of."""

from bism_jax.models.networks._cifar_resnet import CifarResNet, load_cifar_resnet
from bism_jax.models.networks._conv_decoder import ConvDecoder
from bism_jax.models.networks._image_classifier import ImageClassifier
from bism_jax.models.networks._image_features import ImageFeatures, image_features
from bism_jax.models.networks._inception import InceptionV3, load_inception_v3
from bism_jax.models.networks._mlp_critic import MLPCritic
from bism_jax.models.networks._mlp_decoder import MLPDecoder

__all__ = [
    "CifarResNet",
    "ConvDecoder",
    "ImageClassifier",
    "ImageFeatures",
    "InceptionV3",
    "MLPCritic",
    "MLPDecoder",
    "image_features",
    "load_cifar_resnet",
    "load_inception_v3",
]
