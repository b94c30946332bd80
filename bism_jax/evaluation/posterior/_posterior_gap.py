"""How far a variational posterior is from the exact one."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions.kl import kl_divergence

from bism_jax._contract import as_model
from bism_jax._contract.guarded_calls import check_parameters
from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.compilation import compiled
from bism_jax.evaluation._model_functions import capability_of, checked_rows, posterior_of
from bism_jax.evaluation.posterior._posterior_mean import posterior_mean
from bism_jax.models import RelaxedBernoulli
from bism_jax.typing import Params

_BERNOULLI = (dist.BernoulliLogits, dist.BernoulliProbs)


class PosteriorGap(NamedTuple):
    """Means over the rows.

    Attributes:
        kl: KL(q(h | v; phi) || p(h | v; theta)), in nats.
        mean_absolute_difference: |E_q[h] - E_p[h]|, averaged over the latents, in units of h.
    """

    kl: Float[Array, ""]
    mean_absolute_difference: Float[Array, ""]


@with_transfers
def posterior_gap(
    energy_fn: Any,
    posterior_fn: Any,
    theta: Params,
    phi: Params,
    v: Float[Array | np.ndarray, "rows *visible"],
) -> PosteriorGap:
    """Compares q(h | v; phi) with the exact p(h | v; theta), row by row and in closed form.

    A `RelaxedBernoulli` is compared as the Bernoulli with its logits. Besides Bernoullis, diagonal and full
    Gaussians, it takes every pair that numpyro's `kl_divergence` knows.

    Args:
        energy_fn: a model with `posterior(theta, v)`, its exact posterior, such as `GRBM`.
        posterior_fn: `(phi, v) -> distribution`.
        theta: energy parameters.
        phi: posterior parameters.
        v: the points.

    Raises:
        TypeError: where an argument has the wrong type.
        ValueError: where the model has no exact posterior, either cannot be evaluated with its parameters on
            v, v holds NaN or no rows, the two differ in shape, or no closed form of their divergence is
            known.
    """
    capability_of("posterior_gap", energy_fn, "posterior")
    as_model("posterior_fn", posterior_fn)
    v = checked_rows(energy_fn, theta, v)
    check_parameters("phi", phi, "posterior_fn", posterior_fn)
    return compiled(functools.partial(_gap, energy_fn, posterior_fn))(theta, phi, v)


def _gap(energy_fn: Any, posterior_fn: Any, theta: Params, phi: Params, v: Array) -> PosteriorGap:
    exact = capability_of("posterior_gap", energy_fn, "posterior")(theta, v)
    approximate = posterior_of(posterior_fn)(phi, v)
    shapes = [posterior.batch_shape + posterior.event_shape for posterior in (approximate, exact)]
    # Shapes that differ may broadcast, to a number without a meaning.
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"posterior_fn gives latents of shape {shapes[0]}, but the exact posterior of energy_fn has "
            f"shape {shapes[1]}; posterior_gap compares the same latents."
        )
    means = [posterior_mean("posterior_gap", posterior) for posterior in (approximate, exact)]
    return PosteriorGap(_kl(approximate, exact).mean(), jnp.abs(means[0] - means[1]).mean())


def _kl(q: Any, p: Any) -> Float[Array, " rows"]:
    q_logits, p_logits = _bernoulli_logits(q), _bernoulli_logits(p)
    if q_logits is not None and p_logits is not None:
        return _bernoulli_kl(q_logits, p_logits)
    # numpyro has no divergence of a diagonal Gaussian from a full one, nor the other way round.
    if _is_diagonal_gaussian(q) != _is_diagonal_gaussian(p):
        q, p = _full_gaussian(q), _full_gaussian(p)
    try:
        return kl_divergence(q, p)
    except NotImplementedError as error:
        raise ValueError(
            f"posterior_gap knows no closed form of the divergence of posterior_fn's {_name(q)} from "
            f"energy_fn's {_name(p)}; use two Bernoullis or two Gaussians, or register the pair with "
            "numpyro's kl_divergence."
        ) from error


def _bernoulli_logits(posterior: Any) -> Array | None:
    # The relaxation is continuous and the exact posterior is not, so their divergence is infinite.
    if isinstance(posterior, RelaxedBernoulli):
        return posterior.logits
    base = getattr(posterior, "base_dist", None)
    return base.logits if isinstance(base, _BERNOULLI) else None


def _bernoulli_kl(q_logits: Array, p_logits: Array) -> Float[Array, " rows"]:
    # From logits: probabilities round to 0 and 1, whose logarithms are infinite.
    log_ratio = jax.nn.sigmoid(q_logits) * (q_logits - p_logits)
    terms = log_ratio - jax.nn.softplus(q_logits) + jax.nn.softplus(p_logits)
    return terms.reshape(len(terms), -1).sum(axis=1)


def _is_diagonal_gaussian(posterior: Any) -> bool:
    return isinstance(posterior, dist.Independent) and isinstance(posterior.base_dist, dist.Normal)


def _full_gaussian(posterior: Any) -> Any:
    """A diagonal Gaussian as one with a covariance matrix, and anything else as it is."""
    if not _is_diagonal_gaussian(posterior) or len(posterior.event_shape) != 1:
        return posterior
    scale = posterior.base_dist.scale
    scale_tril = scale[..., None] * jnp.eye(scale.shape[-1], dtype=scale.dtype)
    return dist.MultivariateNormal(posterior.base_dist.loc, scale_tril=scale_tril)


def _name(posterior: Any) -> str:
    base = getattr(posterior, "base_dist", None)
    return type(posterior).__name__ if base is None else f"{type(posterior).__name__}({_name(base)})"
