"""Two-dimensional toy densities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from bism_jax import checks
from bism_jax.data import _toy_draws as draws
from bism_jax.data._splits import Splits

Bounds: TypeAlias = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class ToyDensity:
    """A density on the plane.

    Attributes:
        name: what `toy` calls it.
        bounds: `((x_low, x_high), (y_low, y_high))`, a box to draw it in; holds all but a negligible mass.
        sample_fn: `(rng_key, num_samples) -> [num_samples, 2]`, a pure function.
        log_prob_fn: `[..., 2] -> [...]`, normalised, in nats; None where there is no closed form.
    """

    name: str
    bounds: Bounds
    sample_fn: Callable[[PRNGKeyArray, int], Float[Array, "n 2"]]
    log_prob_fn: Callable[[Float[Array, "*batch 2"]], Float[Array, "*batch"]] | None = None

    def sample(self, rng_key: PRNGKeyArray, num_samples: int) -> Float[Array, "n 2"]:
        """Independent draws; under `jax.jit`, `num_samples` is static.

        Raises:
            TypeError: for anything but a key.
            ValueError: for an array of keys, or a count that is not an integer of at least 1.
        """
        checks.positive_int("num_samples", num_samples)
        return self.sample_fn(checks.rng_key("rng_key", rng_key), num_samples)

    def log_prob(self, points: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
        """The normalised log density in nats, minus infinity off the support.

        Raises:
            NotImplementedError: this density has no closed form.
            ValueError: for points that are not on the plane, `[..., 2]`.
            TypeError: for anything but an array of real numbers.
        """
        if self.log_prob_fn is None:
            known = ", ".join(name for name, density in TOYS.items() if density.log_prob_fn is not None)
            raise NotImplementedError(
                f"The log density of {self.name!r} has no closed form; use its samples, or one of {known}."
            )
        return self.log_prob_fn(_on_the_plane(points))


checkerboard = ToyDensity(
    name="checkerboard",
    bounds=((0.0, 1.0), (0.0, 1.0)),
    sample_fn=draws.sample_checkerboard,
    log_prob_fn=draws.checkerboard_log_prob,
)
"""Uniform on [0, 1/2]^2 and [1/2, 1]^2: two columns, two rows, log density log 2 on the support."""

eight_gaussians = ToyDensity(
    name="eight_gaussians",
    bounds=((-5.0, 5.0), (-5.0, 5.0)),
    sample_fn=draws.sample_eight_gaussians,
    log_prob_fn=draws.eight_gaussians_log_prob,
)
"""Eight Gaussians of standard deviation 0.354, equally spaced on a circle of radius 2.828."""

rings = ToyDensity(
    name="rings",
    bounds=((-3.6, 3.6), (-3.6, 3.6)),
    sample_fn=draws.sample_rings,
    log_prob_fn=draws.rings_log_prob,
)
"""Four circles of radius 0.75, 1.5, 2.25 and 3 and of equal mass, blurred by a Gaussian of deviation 0.08."""

two_moons = ToyDensity(name="two_moons", bounds=((-4.0, 4.0), (-3.0, 3.0)), sample_fn=draws.sample_two_moons)
"""Two interleaved half circles of radius 2 about (-1, -1/2) and (1, 1/2), blurred by a deviation of 0.2."""

pinwheel = ToyDensity(name="pinwheel", bounds=((-4.5, 4.5), (-4.5, 4.5)), sample_fn=draws.sample_pinwheel)
"""Five Gaussian arms (along N(1, 0.3^2), across N(0, 0.1^2)), each turned by 0.25 exp(along), times two."""

two_spirals = ToyDensity(
    name="two_spirals", bounds=((-4.0, 4.0), (-4.0, 4.0)), sample_fn=draws.sample_two_spirals
)
"""Two opposite arms of the spiral r = angle / 3, one and a half turns long, blurred by a deviation of 0.1."""


TOYS: dict[str, ToyDensity] = {
    density.name: density
    for density in (checkerboard, eight_gaussians, rings, two_moons, pinwheel, two_spirals)
}


def toy(name: str) -> ToyDensity:
    """The toy density of that name.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    if not isinstance(name, str) or name not in TOYS:
        raise ValueError(f"name: there is no toy density {name!r}; choose one of {', '.join(TOYS)}.")
    return TOYS[name]


def checkerboard_splits(rng_key: PRNGKeyArray) -> Splits:
    """50,000 points of the checkerboard to train on, 10,000 to validate and 10,000 to test, float32.

    The sizes of Bao et al., NeurIPS 2020 (arXiv 2010.07856). No model can exceed a mean log-likelihood
    of log 2 = 0.693 nats. The points are the same whether JAX is in 64-bit mode or not.

    Raises:
        TypeError: for anything but a key.
        ValueError: for an array of keys.
    """
    rng_key = checks.rng_key("rng_key", rng_key)
    sample = jax.jit(draws.sample_checkerboard, static_argnums=(1, 2))
    # In one draw, so that the splits share no point; float32 by name, as the default follows the 64-bit mode.
    points = np.asarray(sample(rng_key, 70_000, jnp.float32))
    return Splits(points[:50_000], points[50_000:60_000], points[60_000:])


def _on_the_plane(points: Any) -> Float[Array, "*batch 2"]:
    """The points as floating numbers."""
    try:
        points = jnp.asarray(points)
    except (TypeError, ValueError) as error:
        raise TypeError(f"points must be an array of real numbers, [..., 2]: {error}") from error
    if not jnp.issubdtype(points.dtype, jnp.floating) and not jnp.issubdtype(points.dtype, jnp.integer):
        raise TypeError(f"points must be real numbers, [..., 2], not of dtype {points.dtype}.")
    if points.shape[-1:] != (2,):
        raise ValueError(f"points has shape {points.shape}, but the density is on the plane: pass [..., 2].")
    # Integers would round a log density: the functions answer in the dtype of the points.
    return points if jnp.issubdtype(points.dtype, jnp.floating) else points.astype(float)
