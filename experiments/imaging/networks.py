"""The networks and the method that a configuration names."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from bism_jax import (
    KL,
    MDSM,
    BiDVL,
    BiSM,
    Fisher,
    Optimizers,
    ScoreMatching,
    StopGradient,
    Unrolled,
    VaGES,
    models,
)
from bism_jax.methods import paper_adam
from bism_jax.models import (
    ConvDecoder,
    ConvEncoder,
    ConvGaussianPosterior,
    ReconstructionEnergy,
    ReconstructionFreeEnergy,
    ResidualEnergy,
    ResidualFreeEnergy,
)
from experiments.imaging.config import ImageConfig

WITH_LATENTS = ("bimdsm", "vages")


def make_energy(config: ImageConfig) -> Any:
    """The energy; one without latents for the methods that have none in it."""
    network, with_latents = config.network, config.training.name in WITH_LATENTS
    options: dict[str, Any] = {
        "spectral_norm": network.spectral_norm,
        "dtype": jnp.bfloat16 if network.bfloat16 else None,
    }
    if network.energy == "reconstruction":
        reconstruction = ReconstructionEnergy if with_latents else ReconstructionFreeEnergy
        return reconstruction(network.num_hidden, network.channels, **options)
    residual = ResidualEnergy if with_latents else ResidualFreeEnergy
    options["activation"] = nn.elu if network.energy == "paper" else jax.nn.silu
    return residual(network.num_hidden, network.channels, network.num_blocks, **options)


def make_posterior(config: ImageConfig) -> Any:
    """The posterior, or None for an energy that is trained without latents."""
    network = config.network
    if config.training.name == "mdsm":
        return None
    if network.posterior == "flow":
        return models.FlowPosterior(network.num_hidden, encoder=ConvEncoder(network.widths))
    return ConvGaussianPosterior(network.num_hidden, network.widths)


def make_method(config: ImageConfig) -> Any:
    """The method, with cosine schedules over the run."""
    training = config.training
    objective = MDSM(training.min_std, training.max_std, spacing=training.spacing)
    divergence = Fisher() if training.divergence == "fisher" else KL()
    unrolled = Unrolled(training.num_steps)
    optimizers = Optimizers(_optimizer(config), _optimizer(config))
    if training.name == "mdsm":
        return ScoreMatching(objective, optimizers.theta)
    if training.name == "vages":
        particles = max(2, training.num_particles)
        return VaGES(objective, divergence, training.lower_steps, particles, optimizers=optimizers)
    if training.name == "bidvl":
        decoder = ConvDecoder(config.image_shape, config.network.widths[::-1])
        return BiDVL(decoder, hypergradient=unrolled if training.num_steps else StopGradient(1))
    return BiSM(
        objective,
        divergence,
        training.lower_steps,
        unrolled,
        optimizers,
        training.noise,
        training.keep_unrolled,
        training.num_particles,
    )


def _optimizer(config: ImageConfig) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(config.training.learning_rate, config.iterations)
    adam = paper_adam(schedule)
    if config.training.max_grad_norm is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(config.training.max_grad_norm), adam)
