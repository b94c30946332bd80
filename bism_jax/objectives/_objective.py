"""What a score-matching objective is: noise, and a deterministic loss of it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bism_jax import checks
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


class EqualWeights:
    """The part of an objective for which all data points count the same."""

    def lower_weight(self, noise: Noise) -> float:
        """One for every data point."""
        return 1.0


class WithoutNoise(EqualWeights):
    """The part of an objective that is evaluated at the data themselves."""

    def draw_noise(self, rng_key: Key[Array, ""], v: Any, sample_shape: tuple[int, ...] = ()) -> tuple[()]:
        """The empty tuple: no noise is needed."""
        return ()

    def perturb(self, v: Array, noise: tuple[()]) -> Array:
        """The batch v itself."""
        return v


# Methods ask by isinstance in which way an objective, a user's own too, can be evaluated.
@runtime_checkable
class PointwiseObjective(Objective, Protocol):
    """An objective that needs the score's values at the perturbed points only, not its derivatives."""

    def pointwise_loss(
        self, score: Float[Array, "batch *visible"], v: Float[Array, "batch *visible"], noise: Noise
    ) -> Float[Array, " batch"]:
        """The loss of each data point, from the score at `perturb(v, noise)`."""
        ...


def check_draw(rng_key: Key[Array, ""], v: Any, sample_shape: tuple[int, ...]) -> Key[Array, ""]:
    """The key of a draw for a batch like `v`, typed.

    Raises:
        TypeError: where an argument has the wrong type.
        ValueError: for an array of keys, or a v that is empty or not floating.
    """
    if not isinstance(v, jax.ShapeDtypeStruct):
        checks.array("v", v, "[batch, *visible]")
    checks.shape("sample_shape", sample_shape)
    return checks.rng_key("rng_key", rng_key)


def check_noise(noise: Any, v: Array) -> None:
    """Raises ValueError unless `noise` is of the shape of v, behind any leading axes.

    Broadcasting would give every row the noise of one.
    """
    checks.array("v", v, "[batch, *visible]")
    found = getattr(noise, "shape", None)
    if found is None or len(found) < v.ndim or found[len(found) - v.ndim :] != v.shape:
        shown = f"a {type(noise).__name__}" if found is None else f"shape {found}"
        raise ValueError(f"noise has {shown}, but v has {v.shape}; pass what draw_noise(rng_key, v) returns.")


def score_at(score_fn: ScoreFn, points: Array) -> Array:
    """The score at some points.

    Raises:
        TypeError: where `score_fn` is no function, or the points are no array.
        ValueError: where it cannot be evaluated there, or returns another shape.
    """
    checks.function("score_fn", score_fn, "[B, *visible] -> [B, *visible]")
    checks.array("v", points, "[batch, *visible]")
    score = checks.called("score_fn", score_fn, points)
    # A score of shape [B, 1] would broadcast against the noise and train.
    checks.same_shape("score_fn(v)", score, "v", points.shape)
    return score


def check_score(score: Any, v: Array) -> None:
    """Raises ValueError unless a score is of the shape of v."""
    checks.array("v", v, "[batch, *visible]")
    checks.same_shape("score", score, "v", v.shape)


def sum_events(x: Float[Array, "batch *visible"]) -> Float[Array, " batch"]:
    """The sum over all axes but the batch; raises ValueError for a number, which has none."""
    if jnp.ndim(x) == 0:
        raise ValueError("x is a number; pass [batch, *visible].")
    # A batch of numbers, [B], has no other axis; reshaped it has one.
    return jnp.sum(x.reshape(x.shape[0], -1), axis=1)


def expand_like(x: Array, like: Array) -> Array:
    """`x` with trailing axes of length one, to broadcast against `like`."""
    return x.reshape(*x.shape, *(1,) * (like.ndim - x.ndim))
