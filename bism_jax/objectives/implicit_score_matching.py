"""Score matching by the trace of the score's Jacobian: sliced and exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax.objectives.objective import sum_events
from bism_jax.typing import ScoreFn


@dataclass(frozen=True)
class SSM:
    """Sliced score matching, in its variance-reduced form.

        F = 1/2 |s(v)|^2 + u^T grad_v (u^T s(v)),  E[u u^T] = I

    (Song, Garg, Shi and Ermon, UAI 2019, arXiv 1905.07088.)

    Attributes:
        projection: the distribution of u, `"rademacher"` or `"gaussian"`.

    Raises:
        ValueError: on an unknown projection.
    """

    projection: Literal["rademacher", "gaussian"] = "rademacher"

    def __post_init__(self) -> None:
        checks.one_of("projection", self.projection, ("rademacher", "gaussian"))

    def draw_noise(
        self, rng_key: Key[Array, ""], v: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample batch *visible"]:
        """Draws u of the shape of v."""
        draw = _rademacher if self.projection == "rademacher" else jax.random.normal
        return draw(rng_key, (*sample_shape, *v.shape), v.dtype)

    def perturb(self, v: Array, noise: Array) -> Array:
        """The batch v itself, with the leading axes of the noise."""
        return jnp.broadcast_to(v, noise.shape)

    def loss(self, score_fn: ScoreFn, v: Array, noise: Array) -> Float[Array, " batch"]:
        """1/2 |s(v)|^2 + u^T grad_v (u^T s(v)), `[B]`."""
        score, jacobian_vector = jax.jvp(score_fn, (v,), (noise,))
        return sum_events(0.5 * score**2 + noise * jacobian_vector)

    def lower_weight(self, noise: Array) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class SM:
    """Exact score matching; costs one Jacobian-vector product a visible dimension.

        F = 1/2 |s(v)|^2 + tr grad_v s(v)

    (Hyvarinen, JMLR 2005.)
    """

    def draw_noise(self, rng_key: Key[Array, ""], v: Any, sample_shape: tuple[int, ...] = ()) -> tuple[()]:
        """None is needed."""
        return ()

    def perturb(self, v: Array, noise: tuple[()]) -> Array:
        """The batch v itself."""
        return v

    def loss(self, score_fn: ScoreFn, v: Array, noise: tuple[()]) -> Float[Array, " batch"]:
        """1/2 |s(v)|^2 + tr grad_v s(v), `[B]`."""
        size = v[0].size
        basis = jnp.eye(size, dtype=v.dtype).reshape(size, *v.shape[1:])

        def diagonal_entry(direction: Array) -> Float[Array, " batch"]:
            tangent = jnp.broadcast_to(direction, v.shape)
            return sum_events(jax.jvp(score_fn, (v,), (tangent,))[1] * tangent)

        trace = jax.vmap(diagonal_entry)(basis).sum(axis=0)
        return 0.5 * sum_events(score_fn(v) ** 2) + trace

    def lower_weight(self, noise: tuple[()]) -> float:
        """1."""
        return 1.0


def _rademacher(rng_key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> Array:
    """Signs; those of `jax.random.rademacher` are others with `jax_enable_x64`, whatever the dtype."""
    is_positive = jax.random.bernoulli(rng_key, jnp.asarray(0.5, dtype), shape)
    return jnp.where(is_positive, 1, -1).astype(dtype)
