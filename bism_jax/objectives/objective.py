"""What a score-matching objective is: noise, and a deterministic loss of it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bism_jax.typing import Noise, ScoreFn


class Objective(Protocol):
    """F(s(v), noise, v): a per-sample loss whose minimum in s over the data is the data's score."""

    def draw_noise(self, rng_key: Key[Array, ""], v: Any, sample_shape: tuple[int, ...] = ()) -> Noise:
        """Noise for a batch like `v` (only its shape and dtype are read), `[*sample_shape, B, ...]`."""
        ...

    def perturb(self, v: Float[Array, "batch *visible"], noise: Noise) -> Float[Array, "batch *visible"]:
        """The points at which the score is matched; `noise` may have leading axes."""
        ...

    def loss(
        self, score_fn: ScoreFn, v: Float[Array, "batch *visible"], noise: Noise
    ) -> Float[Array, " batch"]:
        """The loss of each data point."""
        ...

    def lower_weight(self, noise: Noise) -> Float[Array, "..."] | float:
        """The weight of each data point in the lower-level loss."""
        ...


@runtime_checkable
class PointwiseObjective(Objective, Protocol):
    """An objective that needs the score's values at the perturbed points only, not its derivatives."""

    def pointwise_loss(
        self, score: Float[Array, "batch *visible"], v: Float[Array, "batch *visible"], noise: Noise
    ) -> Float[Array, " batch"]:
        """The loss of each data point, from the score at `perturb(v, noise)`."""
        ...


def sum_events(x: Float[Array, "batch *visible"]) -> Float[Array, " batch"]:
    """The sum over all axes but the batch."""
    return jnp.sum(x.reshape(x.shape[0], -1), axis=1)


def expand_like(x: Array, like: Array) -> Array:
    """`x` with trailing axes of length one, to broadcast against `like`."""
    return x.reshape(*x.shape, *(1,) * (like.ndim - x.ndim))
