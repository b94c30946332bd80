"""Scores: the gradient of a log density with respect to the visible variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from bism_jax import checks
from bism_jax._contract.latents import LatentSample, latent_log_prob, sample_latents
from bism_jax.typing import EnergyFn, FreeEnergyFn, Noise, Params, PosteriorFn, ScoreFn


def latent_score(
    energy_fn: EnergyFn, posterior_fn: PosteriorFn, theta: Params, phi: Params, sample: LatentSample
) -> ScoreFn:
    """The score estimate of a latent model, with h held fixed:

        s(v) = grad_v [-E(v, h; theta) - log q(h | v; phi)]

    It is the marginal score grad_v log p(v; theta) for every h where q is the true posterior. log q
    depends on v through its own parameters; h does not, though it depends on phi, which the
    hypergradient sees. (Bao et al., NeurIPS 2020, arXiv 2010.07856, eq. 5.)

    Args:
        energy_fn: `(theta, v, h) -> [B]`.
        posterior_fn: `(phi, v) -> distribution`.
        theta: energy parameters.
        phi: posterior parameters.
        sample: the latents, one a data point.

    Returns:
        A function `[B, *visible] -> [B, *visible]`.
    """
    _check_functions(energy_fn, posterior_fn)

    def log_ratio(v: Array) -> Array:
        log_prob = _one_a_row("posterior.log_prob(h)", latent_log_prob(posterior_fn(phi, v), sample), v)
        energies = checks.called("energy_fn(theta, v, h)", energy_fn, theta, v, sample.h)
        return -_one_a_row("energy_fn(theta, v, h)", energies, v) - log_prob

    return _gradient(log_ratio)


def moving_latent_score(
    energy_fn: EnergyFn, posterior_fn: PosteriorFn, theta: Params, phi: Params, noise: Noise
) -> ScoreFn:
    """The score estimate as a field of v alone, in which the latent moves with v:

        u(v) = s(v, h(v)),   s(v, h) = grad_v [-E(v, h; theta) - log q(h | v; phi)] with h held
        h(v) = transform(noise) of q(h | v; phi)

    Its values are those of `latent_score` at h(v); its Jacobian is that of the field, with the term through h
    that `latent_score` leaves out. Score matching by a Jacobian bounds the loss of the mean field with this
    one only: see `SSM`.

    Args:
        energy_fn: `(theta, v, h) -> [B]`.
        posterior_fn: `(phi, v) -> distribution`.
        theta: energy parameters.
        phi: posterior parameters.
        noise: of one draw a data point.

    Returns:
        A function `[B, *visible] -> [B, *visible]`.
    """
    _check_functions(energy_fn, posterior_fn)

    def score(v: Array) -> Array:
        sample = sample_latents(posterior_fn(phi, v), noise)
        # The gradient within holds h; a Jacobian of this function moves it.
        return latent_score(energy_fn, posterior_fn, theta, phi, sample)(v)

    return score


def factored_score(
    head_fn: Callable[[Params, Array, PyTree, Array], Float[Array, " batch"]],
    posterior_fn: PosteriorFn,
    theta: Params,
    phi: Params,
    sample: LatentSample,
    points: Float[Array, "batch *visible"],
    features: PyTree,
    pullback: Callable[[PyTree], tuple[Array]],
) -> Float[Array, "batch *visible"]:
    """The values of `latent_score` at given points, for an energy E(v, h) = head(v, features(v), h):

        s = d/dv log r + pullback(d/df log r),   log r = -head(v, f, h) - log q(h | v)

    Args:
        head_fn: `(theta, v, f, h) -> [B]`.
        posterior_fn: `(phi, v) -> distribution`.
        theta: energy parameters.
        phi: posterior parameters.
        sample: the latents, one a data point.
        points: v.
        features: f at the points.
        pullback: the vector-Jacobian product of the features there.
    """

    def log_ratio(points: Array, features: PyTree) -> Array:
        # The posterior once more, at the points of the gradient: log q depends on v by its parameters.
        log_prob = latent_log_prob(posterior_fn(phi, points), sample)
        return (-head_fn(theta, points, features, sample.h) - log_prob).sum()

    direct, through_features = jax.grad(log_ratio, argnums=(0, 1))(points, features)
    # By a pull-back that all particles share; a gradient through the features would run them again.
    return direct + pullback(through_features)[0]


def marginal_score(free_energy_fn: FreeEnergyFn, theta: Params) -> ScoreFn:
    """The score of a marginal energy, s(v) = -grad_v F(v; theta), as a function on `[B, *visible]`."""
    checks.function("free_energy_fn", free_energy_fn, "(theta, v) -> [B]")
    name = "free_energy_fn(theta, v)"
    return _gradient(lambda v: -_one_a_row(name, checks.called(name, free_energy_fn, theta, v), v))


def _gradient(fn: Callable[[Array], Float[Array, " batch"]]) -> ScoreFn:
    """The gradient by v of a sum over the rows."""

    def score(v: Array) -> Array:
        checks.array("v", v, "[batch, *visible]")
        return jax.grad(lambda v: fn(v).sum())(v)  # of the sum: a row's value depends on that row alone

    return score


def _one_a_row(name: str, values: Any, v: Array) -> Any:
    """The values; raises ValueError unless there is one a row, which a sum would hide."""
    checks.same_shape(name, values, "one value a row of v", v.shape[:1])
    return values


def _check_functions(energy_fn: Any, posterior_fn: Any) -> None:
    checks.function("energy_fn", energy_fn, "(theta, v, h) -> [B]")
    checks.function("posterior_fn", posterior_fn, "(phi, v) -> distribution")
