"""Score matching by the trace of the score's Jacobian: sliced and exact.

In bi-level score matching s(v, h) stands in for the score, with h = h(v, eta) drawn from q(h | v). The trace
is then of d/dv s(v, h(v, eta)), in which h moves with v. For u(v) = E_eta s(v, h(v, eta)), any field:

    E_eta [1/2 |s|^2 + tr d/dv s] >= 1/2 |u|^2 + tr grad_v u,   and in the mean over data
    E_v [1/2 |u|^2 + tr grad_v u] >= E_v [1/2 |s_data|^2 + tr grad_v s_data]

with equality where s is the data's score at every h. So the loss is a bound for every theta and phi. With h
held fixed in the trace the term E_q [s grad_v log q^T] is lost, nothing bounds the loss from below, and
training can lower it by making q wrong: probabilistic PCA then drifts nats below maximum likelihood.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax.objectives._objective import (
    EqualWeights,
    WithoutNoise,
    check_draw,
    check_noise,
    score_at,
    sum_events,
)
from bism_jax.typing import ScoreFn


@dataclass(frozen=True)
class SSM(EqualWeights):
    """Sliced score matching, in its variance-reduced form.

        F = 1/2 |s(v)|^2 + u^T grad_v (u^T s(v)),  E[u u^T] = I

    (Song, Garg, Shi and Ermon, UAI 2019, arXiv 1905.07088.) With latents, `grad_v` is the derivative of
    v -> s(v, h(v)), in which h moves with v; the loss is then an upper bound of that of the mean field for
    every theta and phi (derived in this module's docstring).

    Attributes:
        projection: the distribution of u, `"rademacher"` or `"gaussian"`.
        latents: of a latent-variable model: `"moving"`, or `"fixed"` for the form of Bao et al., NeurIPS
            2020, which holds h in grad_v. That is no bound: training can lower it by making q wrong, and
            probabilistic PCA ends nats below maximum likelihood; take it to reproduce the paper alone. A free
            energy has no latents, and there it changes nothing.

    Raises:
        ValueError: on an unknown projection or form.
    """

    # As u_i^2 = 1, Rademacher directions get the Jacobian's diagonal without noise; Gaussian ones do not.
    projection: Literal["rademacher", "gaussian"] = "rademacher"
    latents: Literal["moving", "fixed"] = "moving"

    def __post_init__(self) -> None:
        checks.one_of("projection", self.projection, ("rademacher", "gaussian"))
        checks.one_of("latents", self.latents, ("moving", "fixed"))

    def draw_noise(
        self, rng_key: Key[Array, ""], v: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample batch *visible"]:
        """Draws u of the shape of v."""
        rng_key = check_draw(rng_key, v, sample_shape)
        draw = _rademacher if self.projection == "rademacher" else jax.random.normal
        return draw(rng_key, (*sample_shape, *v.shape), v.dtype)

    def perturb(self, v: Array, noise: Array) -> Array:
        """The batch v itself, with the leading axes of the noise."""
        check_noise(noise, v)
        return jnp.broadcast_to(v, noise.shape)

    def loss(self, score_fn: ScoreFn, v: Array, noise: Array) -> Float[Array, " batch"]:
        """1/2 |s(v)|^2 + u^T grad_v (u^T s(v)), `[B]`."""
        checks.array("v", v, "[batch, *visible]")
        checks.same_shape("noise", noise, "v", v.shape)
        # Forward mode: the score and its derivative along u in one pass, and reverse mode is left to theta.
        score, jacobian_vector = jax.jvp(functools.partial(score_at, score_fn), (v,), (noise,))
        return sum_events(0.5 * score**2 + noise * jacobian_vector)


@dataclass(frozen=True)
class SM(WithoutNoise):
    """Exact score matching; costs one Jacobian-vector product a visible dimension.

        F = 1/2 |s(v)|^2 + tr grad_v s(v)

    (Hyvarinen, JMLR 2005.)

    Attributes:
        latents: as in `SSM`.

    Raises:
        ValueError: on an unknown form.
    """

    latents: Literal["moving", "fixed"] = "moving"

    def __post_init__(self) -> None:
        checks.one_of("latents", self.latents, ("moving", "fixed"))

    def loss(self, score_fn: ScoreFn, v: Array, noise: tuple[()]) -> Float[Array, " batch"]:
        """1/2 |s(v)|^2 + tr grad_v s(v), `[B]`."""
        score = score_at(score_fn, v)
        size = v[0].size
        basis = jnp.eye(size, dtype=v.dtype).reshape(size, *v.shape[1:])

        def diagonal_entry(direction: Array) -> Float[Array, " batch"]:
            tangent = jnp.broadcast_to(direction, v.shape)
            return sum_events(jax.jvp(score_fn, (v,), (tangent,))[1] * tangent)

        # Rows do not interact, so one direction serves all of them at once.
        # The d directions are mapped, so memory grows with d as time does; `SSM` takes one.
        trace = jax.vmap(diagonal_entry)(basis).sum(axis=0)
        return 0.5 * sum_events(score**2) + trace


def _rademacher(rng_key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> Array:
    """Signs; those of `jax.random.rademacher` are others with `jax_enable_x64`, whatever the dtype."""
    # The draws take the dtype of the probability, so it is the data's.
    is_positive = jax.random.bernoulli(rng_key, jnp.asarray(0.5, dtype), shape)
    return jnp.where(is_positive, 1, -1).astype(dtype)
