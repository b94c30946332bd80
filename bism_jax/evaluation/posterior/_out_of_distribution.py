"""How well a model tells its data from other data."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._contract import (
    LatentSample,
    as_model,
    draw_latent_noise,
    latent_log_prob,
    map_particles,
    sample_latents,
)
from bism_jax._contract.guarded_calls import check_parameters
from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.compilation import compiled
from bism_jax.checks import as_numbers
from bism_jax.evaluation._batches import padded_batches
from bism_jax.evaluation._model_functions import checked_rows, energy_of, posterior_of
from bism_jax.evaluation.posterior._posterior_mean import posterior_mean
from bism_jax.objectives import latent_score, sum_events
from bism_jax.typing import Params

Scores = Float[Array | np.ndarray, " rows"]


@with_transfers
def ood_scores(
    energy_fn: Any,
    posterior_fn: Any,
    theta: Params,
    phi: Params,
    v: Float[Array | np.ndarray, "rows *visible"],
    rng_key: Key[Array, ""] | None = None,
    *,
    score: Literal["energy", "bound", "score_norm"] = "energy",
    num_particles: int = 1,
    batch_size: int = 100,
) -> Float[np.ndarray, " rows"]:
    """A score for each row, higher for what the model takes for its own data.

        "energy":      -E(v, h),   h = E_q[h | v]
        "bound":       E_q[-E(v, h) - log q(h | v)] <= log p(v) + log Z, with equality at the true posterior
        "score_norm":  -|s(v)|,    s(v) = E_q grad_v [-E(v, h) - log q(h | v)]

    E_q in the last two is the mean over `num_particles` draws of h ~ q(h | v; phi). log Z is the same for
    every row, so it does not change an order. The bound holds where log q is a density: not for a
    `RelaxedBernoulli` with `density="bernoulli"`.

    Args:
        energy_fn: `(theta, v, h) -> [B]`.
        posterior_fn: `(phi, v) -> distribution`, with a `mean` for "energy".
        theta: energy parameters.
        phi: posterior parameters.
        v: the points.
        rng_key: key of the draws; not needed for "energy".
        score: which.
        num_particles: draws of h a row; "energy" has none.
        batch_size: points at a time.

    Raises:
        TypeError: where an argument has the wrong type.
        ValueError: for an unknown score, a missing key or mean, energies that are not one a row, a model that
            cannot be evaluated with its parameters on v, or v with NaN or no rows.
    """
    checks.one_of("score", score, tuple(_SCORES))
    checks.loop_count("num_particles", num_particles)
    as_model("energy_fn", energy_fn)
    as_model("posterior_fn", posterior_fn)
    if rng_key is None:
        if score != "energy":
            raise ValueError(f"ood_scores draws latents for score={score!r}; pass rng_key=jax.random.key(0).")
        rng_key = jax.random.key(0)  # not drawn from
    rng_key = checks.rng_key("rng_key", rng_key)
    v = checked_rows(energy_fn, theta, v)
    check_parameters("phi", phi, "posterior_fn", posterior_fn)
    checks.positive_int("batch_size", batch_size)
    scores_fn = compiled(functools.partial(_SCORES[score], _Models(energy_fn, posterior_fn, num_particles)))
    scores = []
    for index, (batch, count) in enumerate(padded_batches("v", v, batch_size)):
        # A key a batch, so scores with draws depend on `batch_size`.
        values = np.asarray(scores_fn(theta, phi, batch, jax.random.fold_in(rng_key, index)))
        scores.append(values[:count])
    return np.concatenate(scores)


def auroc(in_scores: Scores, out_scores: Scores) -> float:
    """The area under the ROC curve, P(in > out) + 1/2 P(in = out): 1 where the scores separate the sets.

    It is the rank statistic of Mann and Whitney, exact and with ties.

    Args:
        in_scores: scores of rows of the data.
        out_scores: scores of other rows, which should be lower.

    Raises:
        TypeError: where one of them is no array of numbers.
        ValueError: where one of them is no vector, is empty, or holds NaN.
    """
    in_scores, out_scores = (
        np.asarray(as_numbers(name, scores, "[rows]"))
        for name, scores in (("in_scores", in_scores), ("out_scores", out_scores))
    )
    for name, scores in (("in_scores", in_scores), ("out_scores", out_scores)):
        # Infinite scores have an order, NaN have none.
        if scores.ndim != 1 or not len(scores) or np.isnan(scores).any():
            raise ValueError(f"{name} must be a vector of numbers without NaN, not of shape {scores.shape}.")
    # Counted in integers: SciPy sums ranks in the dtype of the scores, off by 2e-8 for thousands of float32
    # scores, and overflows in float16.
    ordered = np.sort(out_scores)
    below, up_to = (np.searchsorted(ordered, in_scores, side) for side in ("left", "right"))
    return float((below + up_to).sum() / (2 * len(in_scores) * len(out_scores)))


class _Models(NamedTuple):
    energy_fn: Any
    posterior_fn: Any
    num_particles: int


def _negative_energy(
    models: _Models, theta: Params, phi: Params, v: Array, key: Array
) -> Float[Array, " batch"]:
    h = posterior_mean("ood_scores", posterior_of(models.posterior_fn)(phi, v))
    return -energy_of(models.energy_fn)(theta, v, h)


def _bound(models: _Models, theta: Params, phi: Params, v: Array, key: Array) -> Float[Array, " batch"]:
    energy, posterior = energy_of(models.energy_fn), posterior_of(models.posterior_fn)(phi, v)

    def log_ratio(noise: Any) -> Float[Array, " batch"]:
        sample = sample_latents(posterior, noise)
        return -energy(theta, v, sample.h) - latent_log_prob(posterior, sample)

    noise = draw_latent_noise(key, posterior, (models.num_particles,))
    return map_particles(log_ratio, noise).mean(axis=0)


def _negative_score_norm(
    models: _Models, theta: Params, phi: Params, v: Array, key: Array
) -> Float[Array, " batch"]:
    energy, posterior = energy_of(models.energy_fn), posterior_of(models.posterior_fn)
    q = posterior(phi, v)

    def particle_score(noise: Any) -> Float[Array, "batch *visible"]:
        sample: LatentSample = sample_latents(q, noise)
        return latent_score(energy, posterior, theta, phi, sample)(v)

    scores = map_particles(particle_score, draw_latent_noise(key, q, (models.num_particles,)))
    # The norm of the mean: a mean of norms is larger by the noise of the draws.
    return -jnp.sqrt(sum_events(scores.mean(axis=0) ** 2))


_SCORES = {"energy": _negative_energy, "bound": _bound, "score_norm": _negative_score_norm}
