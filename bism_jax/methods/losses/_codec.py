"""The losses of a marginal energy with an encoder and a decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bism_jax._contract import Model, draw_latent_noise, sample_latents
from bism_jax.methods._common.shards import BatchShard
from bism_jax.objectives import sum_events
from bism_jax.typing import Noise, Params


class CodecParams(NamedTuple):
    """The parameters phi of the lower level.

    Attributes:
        encoder: of q(h | v).
        decoder: of g(h).
    """

    encoder: Params
    decoder: Params


class CodecNoise(NamedTuple):
    """The noise of one loss, or of several with a leading axis.

    Attributes:
        h: draws of N(0, I), `[B, *latent]`.
        encoder: the encoder's noise at the data, `[B, ...]`.
    """

    h: Float[Array, "batch *latent"]
    encoder: Noise


@dataclass(frozen=True)
class CodecLosses:
    """The losses of both levels as functions of explicit noise.

    Attributes:
        marginal: the energy E(theta, v).
        encoder: q(h | v).
        decoder: g(h).
        reconstruction_weight: lambda.
        shard: the part of the batch that this device holds.
    """

    marginal: Model
    encoder: Model
    decoder: Model
    reconstruction_weight: float
    shard: BatchShard

    def draw_noise(self, rng_key: Key[Array, ""], phi: CodecParams, v: Array, num_losses: int) -> CodecNoise:
        """Noise with a leading axis of `num_losses`."""
        prior_key, encoder_key = jax.random.split(rng_key)
        posterior = self.encoder.apply(phi.encoder, self.shard.global_batch(v))
        shape = (num_losses, *posterior.batch_shape, *posterior.event_shape)
        h = jax.random.normal(prior_key, shape, v.dtype)
        noise = CodecNoise(h, draw_latent_noise(encoder_key, posterior, (num_losses,)))
        return self.shard.rows(noise, 1, v.shape[0])

    def lower_loss(self, phi: CodecParams, theta: Params, v: Array, noise: CodecNoise) -> Float[Array, ""]:
        """The loss of the lower level."""
        generated = self.decoder.apply(phi.decoder, noise.h)
        # This term trains the decoder alone; the encoder is fitted to data, by the other.
        held_encoder = jax.lax.stop_gradient(phi.encoder)
        recovered = self.encoder.apply(held_encoder, generated).mean
        distance = sum_events((recovered - noise.h) ** 2) / noise.h[0].size
        on_prior = self.marginal.apply(theta, generated) + distance

        posterior = self.encoder.apply(phi.encoder, v)
        reconstruction = self.decoder.apply(phi.decoder, sample_latents(posterior, noise.encoder).h)
        on_data = sum_events((reconstruction - v) ** 2) + _kl_to_standard_normal(posterior)
        return jnp.mean(on_prior + self.reconstruction_weight * on_data)

    def higher_loss(
        self, theta: Params, phi: CodecParams, v: Array, h: Float[Array, "batch *latent"]
    ) -> Float[Array, ""]:
        """The loss of the higher level."""
        generated = self.decoder.apply(phi.decoder, h)
        return jnp.mean(self.marginal.apply(theta, v) - self.marginal.apply(theta, generated))

    def check(self, phi: CodecParams, batch: Float[Array, "batch *visible"]) -> None:
        """Raises ValueError where encoder and decoder do not fit each other or the data."""
        posterior = self.encoder.apply(phi.encoder, batch)
        name = f"posterior_fn={self.encoder.name}"
        if getattr(posterior, "batch_shape", None) != batch.shape[:1]:
            raise ValueError(
                f"{name} must return a numpyro distribution of batch shape {batch.shape[:1]}; make the "
                "latent axes event axes with .to_event(k)."
            )
        try:
            # numpyro looks a divergence up by the two types, which a trace tells.
            jax.eval_shape(lambda: _kl_to_standard_normal(posterior))
        except NotImplementedError as error:
            raise ValueError(
                f"{name} returns {type(posterior).__name__}, whose divergence to N(0, I) numpyro does not "
                "know; use GaussianPosterior, or numpyro's Normal(...).to_event(k)."
            ) from error
        shape = jax.eval_shape(self.decoder.apply, phi.decoder, posterior.mean).shape
        # Another shape may broadcast against the data in the squared difference, and train without an error.
        if shape != batch.shape:
            raise ValueError(
                f"decoder={self.decoder.name} returns shape {shape} for a batch of shape {batch.shape}; it "
                "must return the data's shape."
            )


def _kl_to_standard_normal(posterior: Any) -> Float[Array, " batch"]:
    import numpyro.distributions as dist

    shape = posterior.event_shape
    # With the event axes of the posterior, over which numpyro then sums: one number a row.
    return dist.kl_divergence(posterior, dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape)))
