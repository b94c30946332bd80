"""Latent samples as a deterministic function of explicit noise."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from bism_jax import checks
from bism_jax.typing import Noise, NoisePosterior, Posterior


class LatentSample(NamedTuple):
    """A draw h ~ q(h|v), with what its posterior wants back for an accurate log-probability.

    Attributes:
        h: `[B, *latent]`.
        intermediates: None, or a function of h alone, such as its logit.
    """

    h: Array
    intermediates: PyTree = None


def draw_latent_noise(rng_key: Key[Array, ""], posterior: Posterior, sample_shape: tuple[int, ...]) -> Noise:
    """Noise for `sample_shape` draws; for a posterior that cannot take noise, its keys are the noise."""
    _check_posterior(posterior)
    checks.shape("sample_shape", sample_shape)
    rng_key = checks.rng_key("rng_key", rng_key)
    if isinstance(posterior, NoisePosterior):
        return posterior.draw_noise(rng_key, sample_shape)
    return jax.random.split(rng_key, sample_shape)


def sample_latents(posterior: Posterior, noise: Noise) -> LatentSample:
    """One draw, `h = transform(noise)`, reparameterised in the posterior's parameters."""
    _check_posterior(posterior)
    if isinstance(posterior, NoisePosterior):
        transformed = posterior.transform(noise)
        # An array of two rows would unpack as a pair as well.
        if not isinstance(transformed, tuple) or len(transformed) != 2:
            raise TypeError(
                "transform(noise) must return the pair (sample, intermediates); None for the latter."
            )
        return LatentSample(*transformed)
    return LatentSample(draw_latents(posterior, checks.rng_key("noise", noise)))


def draw_latents(posterior: Posterior, rng_key: Key[Array, ""]) -> Array:
    """One draw h, in the dtype of the posterior's parameters.

    Left to itself numpyro draws in float64 wherever JAX is set to it.
    """
    _check_posterior(posterior)
    h = posterior.sample(checks.rng_key("rng_key", rng_key))
    arrays = [leaf for leaf in jax.tree.leaves(posterior) if hasattr(leaf, "dtype")]
    floating = [leaf for leaf in arrays if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return h.astype(jnp.result_type(*floating)) if floating and jnp.issubdtype(h.dtype, jnp.floating) else h


def latent_log_prob(posterior: Any, sample: LatentSample) -> Float[Array, " batch"]:
    """The log-probability log q(h|v), `[B]`."""
    if not callable(getattr(posterior, "log_prob", None)) or isinstance(posterior, type):
        raise TypeError(
            f"posterior must have a method log_prob(h), as posterior_fn(phi, v), not {posterior!r}."
        )
    if not isinstance(sample, LatentSample):
        raise TypeError(f"sample must be a LatentSample, such as LatentSample(h), not {sample!r:.200}.")
    if sample.intermediates is None:
        return posterior.log_prob(sample.h)
    # By h alone the density of a relaxed bit is lost: at temperature 0.1 and logit 3, 79 % of them round to
    # 0 or 1 in float32.
    return posterior.log_prob(sample.h, sample.intermediates)


def map_particles(fn: Any, noise: Noise) -> Any:
    """`fn` of each particle's noise, results stacked along a leading axis P.

    Raises:
        TypeError: where `fn` is not a function.
        ValueError: for noise without a leading axis of at least one particle.
    """
    checks.function("fn", fn, "of one particle's noise")
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(noise)]
    counts = {shape[0] if shape else 0 for shape in shapes}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"noise must have one leading axis of particles, but its shapes are {shapes}.")
    num_particles = counts.pop()
    if num_particles == 1:  # a batched product of one is slower than the product
        result = checks.called("fn", fn, jax.tree.map(lambda leaf: leaf[0], noise))
        return jax.tree.map(lambda leaf: leaf[None], result)
    return jax.vmap(functools.partial(checks.called, "fn", fn))(noise)


def _check_posterior(posterior: Any) -> None:
    checks.instance("posterior", posterior, Posterior, "posterior_fn(phi, v) with sample and log_prob")
