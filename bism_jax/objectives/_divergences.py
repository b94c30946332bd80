"""Lower-level divergences D(q(h|v; phi) || p(h|v; theta)), up to what does not depend on phi."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import jax
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax._contract.latents import LatentSample, latent_log_prob, map_particles, sample_latents
from bism_jax.objectives._objective import sum_events
from bism_jax.typing import EnergyFn, Noise, Params, Posterior


class Divergence(Protocol):
    """A per-sample loss of the posterior against an energy."""

    def loss(
        self,
        energy_fn: EnergyFn,
        theta: Params,
        posterior: Any,
        v: Float[Array, "batch *visible"],
        noise: Noise,
    ) -> Float[Array, " batch"]:
        """The loss of each data point, with P particles given by their noise, `[P, ...]`."""
        ...


@dataclass(frozen=True)
class KL:
    """The Kullback-Leibler divergence, or its importance-weighted form, up to log p(v).

        D = mean_k [E(v, h_k) + log q(h_k | v)],                 h_k ~ q(h | v)
        D = -log mean_k exp[-E(v, h_k) - log q(h_k | v)]         (importance_weighted)

    The second is at most the first and tightens with the number of particles. (Burda, Grosse and
    Salakhutdinov, ICLR 2016, arXiv 1509.00519.)

    Attributes:
        importance_weighted: whether to use the second form.

    Raises:
        TypeError: where the option is neither True nor False.
    """

    importance_weighted: bool = False

    def __post_init__(self) -> None:
        checks.boolean("importance_weighted", self.importance_weighted)

    def loss(
        self, energy_fn: EnergyFn, theta: Params, posterior: Any, v: Array, noise: Noise
    ) -> Float[Array, " batch"]:
        """The divergence D of each data point, `[B]`."""
        _check_arguments(energy_fn, posterior, v)

        def log_weight(noise: Noise) -> Float[Array, " batch"]:
            sample = sample_latents(posterior, noise)
            # With its intermediates: 79 % of relaxed binary draws at a temperature of 0.1 and a logit of 3
            # round to 0 or 1 in float32, where the Concrete log-density of h alone is useless.
            return _log_ratio(energy_fn, theta, posterior, v, sample)

        log_weights = map_particles(log_weight, noise)
        if not self.importance_weighted:
            return -log_weights.mean(axis=0)
        # In logarithms: float32 has no exp(-E) where E is below -88.
        return math.log(log_weights.shape[0]) - jax.nn.logsumexp(log_weights, axis=0)


@dataclass(frozen=True)
class Fisher:
    """The Fisher divergence between posteriors, which needs no normaliser.

        D = mean_k 1/2 |grad_h [-E(v, h_k) - log q(h_k | v)]|^2,   h_k ~ q(h | v)

    grad_h is partial (the parameters of q held); phi is differentiated through h_k and those
    parameters. (Bao et al., NeurIPS 2020, arXiv 2010.07856, sec. 3.)

    It is for densities whose |grad_h log q|^2 has a finite mean. Most densities on the real line have one;
    those relaxed towards an edge, such as the Concrete one, do not. Methods refuse the others.
    """

    def loss(
        self, energy_fn: EnergyFn, theta: Params, posterior: Any, v: Array, noise: Noise
    ) -> Float[Array, " batch"]:
        """The divergence D of each data point, `[B]`."""
        _check_arguments(energy_fn, posterior, v)

        def log_ratio(h: Array) -> Array:
            # Without the sample's intermediates: log q from those would not depend on h.
            return _log_ratio(energy_fn, theta, posterior, v, LatentSample(h)).sum()

        def squared_norm(noise: Noise) -> Float[Array, " batch"]:
            # Drawn outside the gradient, which is therefore partial; phi moves the point it is taken at.
            return 0.5 * sum_events(jax.grad(log_ratio)(sample_latents(posterior, noise).h) ** 2)

        return map_particles(squared_norm, noise).mean(axis=0)


def _check_arguments(energy_fn: EnergyFn, posterior: Any, v: Array) -> None:
    """Raises TypeError or ValueError where an argument has the wrong type or shape."""
    checks.function("energy_fn", energy_fn, "(theta, v, h) -> [B]")
    checks.instance("posterior", posterior, Posterior, "posterior_fn(phi, v)")
    checks.array("v", v, "[batch, *visible]")


def _log_ratio(
    energy_fn: EnergyFn, theta: Params, posterior: Any, v: Array, sample: LatentSample
) -> Float[Array, " batch"]:
    """-E(v, h) - log q(h | v); raises ValueError unless both have one number a row."""
    if sample.h.shape[:1] != v.shape[:1]:
        raise ValueError(
            f"posterior draws h of shape {sample.h.shape}, but v has shape {v.shape}: one h a row is needed. "
            "Pass posterior_fn(phi, v) of the same v."
        )
    energies = checks.called("energy_fn(theta, v, h)", energy_fn, theta, v, sample.h)
    log_probs = latent_log_prob(posterior, sample)
    # Both before the difference: [B] and [B, 1] would broadcast to [B, B], of which the mean is a number too.
    checks.same_shape("energy_fn(theta, v, h)", energies, "one energy a row of v", v.shape[:1])
    checks.same_shape("posterior.log_prob(h)", log_probs, "one log_prob a row of v", v.shape[:1])
    return -energies - log_probs
