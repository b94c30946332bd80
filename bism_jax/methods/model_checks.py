"""The contract of an energy and a posterior, checked before anything is compiled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bism_jax.jaxprs import has_gradient
from bism_jax.models import Model
from bism_jax.objectives import draw_latent_noise, sample_latents
from bism_jax.typing import Params

_PROBE_ROWS = 4


def check_latent_model(
    energy: Model, posterior: Model, theta: Params, phi: Params, batch: Float[Array, "batch *visible"]
) -> None:
    """Checks an energy E(theta, v, h) and a posterior q(phi, v) on a batch.

    Raises:
        ValueError: for a posterior whose batch shape is not `(B,)` or whose samples are not
            reparameterised; an energy of the wrong shape, without a gradient in theta, v or h, or of
            which one row depends on the others.
    """
    h = _check_posterior(posterior, phi, batch)
    _check_shape(energy, theta, batch, h)
    for argument, argnum, reason in (
        ("theta", 0, "its parameters are closed over, not taken from its first argument"),
        ("h", 2, "the posterior would have nothing to fit; train it by ScoreMatching instead"),
    ):
        if not has_gradient(energy.apply, argnum, theta, batch, h):
            raise ValueError(f"energy_fn={energy.name} has no gradient with respect to {argument}: {reason}.")
    _check_visible_gradient(energy, theta, batch, h)
    _check_rows(energy, theta, batch, h)


def check_free_energy(energy: Model, theta: Params, batch: Float[Array, "batch *visible"]) -> None:
    """Checks a free energy F(theta, v) on a batch; raises as `check_latent_model`."""
    _check_shape(energy, theta, batch)
    if not has_gradient(energy.apply, 0, theta, batch):
        raise ValueError(
            f"energy_fn={energy.name} has no gradient with respect to theta: its parameters are closed "
            "over, not taken from its first argument."
        )
    _check_visible_gradient(energy, theta, batch)
    _check_rows(energy, theta, batch)


def _check_posterior(posterior: Model, phi: Params, batch: Array) -> Array:
    batch_size = batch.shape[0]
    name = f"posterior_fn={posterior.name}"
    distribution = posterior.apply(phi, batch)
    for attribute in ("sample", "log_prob"):
        if not hasattr(distribution, attribute):
            raise ValueError(
                f"{name} returns {type(distribution).__name__}, which lacks {attribute}(); return a numpyro "
                "distribution, or anything with sample(key, sample_shape) and log_prob(h)."
            )
    batch_shape = getattr(distribution, "batch_shape", (batch_size,))
    if batch_shape != (batch_size,):
        raise ValueError(
            f"{name} has batch shape {batch_shape} on a batch of {batch_size} rows; it must be "
            f"({batch_size},): call it on the whole batch rather than by vmap, and make the latent axes "
            "event axes with .to_event(k)."
        )

    def sample(phi: Params) -> Array:
        distribution = posterior.apply(phi, batch)
        noise = draw_latent_noise(jax.random.key(0), distribution, (1,))
        return sample_latents(distribution, jax.tree.map(lambda leaf: leaf[0], noise)).h

    shape = jax.eval_shape(sample, phi)
    if shape.shape[:1] != (batch_size,):
        raise ValueError(
            f"{name} draws samples of shape {shape.shape} for a batch of {batch_size} rows; their first "
            f"axis must be {batch_size}."
        )
    if not jnp.issubdtype(shape.dtype, jnp.floating) or not has_gradient(sample, 0, phi):
        raise ValueError(
            f"{name} draws samples that are not reparameterised: they have no gradient with respect to "
            "phi, so the lower level could not be differentiated through. Use a relaxation "
            "(BernoulliPosterior) or a distribution with pathwise samples, such as Normal."
        )
    return sample(phi)


def _check_shape(energy: Model, theta: Params, *args: Array) -> None:
    batch_size = args[0].shape[0]
    result = jax.eval_shape(energy.apply, theta, *args)
    shape = getattr(result, "shape", None)
    if shape != (batch_size,):
        raise ValueError(
            f"energy_fn={energy.name} returns {_describe(result)} on a batch of {batch_size} rows; it must "
            f"return one energy a row, shape ({batch_size},). Sum over all axes but the first."
        )


def _describe(result: Any) -> str:
    return f"shape {result.shape}" if hasattr(result, "shape") else type(result).__name__


def _check_visible_gradient(energy: Model, theta: Params, *args: Array) -> None:
    if not has_gradient(energy.apply, 1, theta, *args):
        raise ValueError(
            f"energy_fn={energy.name} has no gradient with respect to v, so it has no score to match."
        )


def _check_rows(energy: Model, theta: Params, *args: Array) -> None:
    """One row's energy must not change with the order of the rows, nor with the other rows."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((theta, args))):
        return  # under a transformation there are no values to look at
    rows = tuple(jnp.resize(arg[:_PROBE_ROWS], (_PROBE_ROWS, *arg.shape[1:])) for arg in args)
    # Rows that happen to be equal would hide a dependence.
    offsets = jnp.linspace(0.0, 0.1, _PROBE_ROWS)
    rows = tuple(row + offsets.reshape(-1, *(1,) * (row.ndim - 1)).astype(row.dtype) for row in rows)
    apply = jax.jit(energy.apply)
    energies = apply(theta, *rows)
    reversed_energies = apply(theta, *(row[::-1] for row in rows))[::-1]
    first_alone = apply(theta, *(jnp.broadcast_to(row[:1], row.shape) for row in rows))[:1]
    tolerance = 1e3 * float(jnp.finfo(energies.dtype).eps)
    same_order = np.allclose(energies, reversed_energies, tolerance, tolerance, equal_nan=True)
    if not same_order or not np.allclose(energies[:1], first_alone, tolerance, tolerance, equal_nan=True):
        raise ValueError(
            f"energy_fn={energy.name} gives a row an energy that depends on the other rows of the batch or "
            "on their order, so the gradient of their sum would not be a score. Remove what mixes rows "
            "(batch normalisation, a mean over the batch, an index by position)."
        )
