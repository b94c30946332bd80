"""Two-dimensional toy densities: samplers in pure JAX, and the log density where it has a closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from bism_jax import checks
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
            TypeError: for what is no key.
            ValueError: for an array of keys, or a count that is not an integer of at least 1.
        """
        checks.positive_int("num_samples", num_samples)
        return self.sample_fn(checks.rng_key("rng_key", rng_key), num_samples)

    def log_prob(self, points: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
        """The normalised log density in nats, minus infinity off the support.

        Raises:
            NotImplementedError: this density has no closed form.
            ValueError: for points that are not on the plane, `[..., 2]`.
            TypeError: for what is no array of real numbers.
        """
        if self.log_prob_fn is None:
            known = ", ".join(name for name, density in TOYS.items() if density.log_prob_fn is not None)
            raise NotImplementedError(
                f"The log density of {self.name!r} has no closed form; use its samples, or one of {known}."
            )
        return self.log_prob_fn(_on_the_plane(points))


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
        TypeError: for what is no key.
        ValueError: for an array of keys.
    """
    rng_key = checks.rng_key("rng_key", rng_key)
    sample = jax.jit(_sample_checkerboard, static_argnums=(1, 2))
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
    return points if jnp.issubdtype(points.dtype, jnp.floating) else points.astype(float)


def _sample_checkerboard(
    rng_key: PRNGKeyArray, num_samples: int, dtype: DTypeLike = float
) -> Float[Array, "n 2"]:
    square_key, point_key = jax.random.split(rng_key)
    # The dtype of the integers decides which random bits are drawn, so it must not follow the 64-bit mode.
    square = jax.random.randint(square_key, (num_samples, 1), 0, 2, dtype=jnp.int32)
    within = jax.random.uniform(point_key, (num_samples, 2), dtype=dtype)
    return (within + square.astype(within.dtype)) / 2


def _checkerboard_log_prob(points: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
    on_board = jnp.all((points >= 0) & (points <= 1), axis=-1)
    same_half = (points[..., 0] >= 0.5) == (points[..., 1] >= 0.5)
    log_prob = jnp.where(on_board & same_half, math.log(2), -jnp.inf)
    return jnp.where(jnp.isnan(points).any(axis=-1), jnp.nan, log_prob).astype(points.dtype)


checkerboard = ToyDensity(
    name="checkerboard",
    bounds=((0.0, 1.0), (0.0, 1.0)),
    sample_fn=_sample_checkerboard,
    log_prob_fn=_checkerboard_log_prob,
)
"""Uniform on [0, 1/2]^2 and [1/2, 1]^2: two columns, two rows, log density log 2 on the support."""


_GAUSSIANS_RADIUS = 4 / math.sqrt(2)
_GAUSSIANS_STD = 0.5 / math.sqrt(2)


def _gaussian_centres(dtype: DTypeLike = float) -> Float[Array, "8 2"]:
    return _GAUSSIANS_RADIUS * _unit_circle(jnp.arange(8, dtype=dtype) * (math.pi / 4))


def _sample_eight_gaussians(rng_key: PRNGKeyArray, num_samples: int) -> Float[Array, "n 2"]:
    component_key, noise_key = jax.random.split(rng_key)
    component = jax.random.randint(component_key, (num_samples,), 0, 8)
    return _gaussian_centres()[component] + _GAUSSIANS_STD * jax.random.normal(noise_key, (num_samples, 2))


def _eight_gaussians_log_prob(points: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
    differences = points[..., None, :] - _gaussian_centres(points.dtype)
    squared = jnp.sum(differences**2, axis=-1) / _GAUSSIANS_STD**2
    log_normaliser = math.log(8 * 2 * math.pi * _GAUSSIANS_STD**2)
    return jax.nn.logsumexp(-squared / 2, axis=-1) - log_normaliser


eight_gaussians = ToyDensity(
    name="eight_gaussians",
    bounds=((-5.0, 5.0), (-5.0, 5.0)),
    sample_fn=_sample_eight_gaussians,
    log_prob_fn=_eight_gaussians_log_prob,
)
"""Eight Gaussians of standard deviation 0.354, equally spaced on a circle of radius 2.828."""


_RING_RADII = (0.75, 1.5, 2.25, 3.0)
_RING_STD = 0.08


def _sample_rings(rng_key: PRNGKeyArray, num_samples: int) -> Float[Array, "n 2"]:
    ring_key, angle_key, noise_key = jax.random.split(rng_key, 3)
    radius = jnp.asarray(_RING_RADII, float)[jax.random.randint(ring_key, (num_samples,), 0, 4)]
    angle = 2 * math.pi * jax.random.uniform(angle_key, (num_samples,))
    noise = _RING_STD * jax.random.normal(noise_key, (num_samples, 2))
    return radius[:, None] * _unit_circle(angle) + noise


def _rings_log_prob(points: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
    """A circle of radius a blurred by N(0, s^2 I): exp(-(r^2 + a^2) / 2 s^2) I_0(r a / s^2) / (2 pi s^2)."""
    radii = jnp.asarray(_RING_RADII, points.dtype)
    radius = jnp.hypot(points[..., 0], points[..., 1])[..., None]
    # i0e(x) = exp(-x) I_0(x): I_0 itself overflows here.
    bessel = jax.scipy.special.i0e(radius * radii / _RING_STD**2)
    log_rings = jnp.log(bessel) - ((radius - radii) / _RING_STD) ** 2 / 2
    return jax.nn.logsumexp(log_rings, axis=-1) - math.log(len(_RING_RADII) * 2 * math.pi * _RING_STD**2)


rings = ToyDensity(
    name="rings",
    bounds=((-3.6, 3.6), (-3.6, 3.6)),
    sample_fn=_sample_rings,
    log_prob_fn=_rings_log_prob,
)
"""Four circles of radius 0.75, 1.5, 2.25 and 3 and of equal mass, blurred by a Gaussian of deviation 0.08."""


_MOONS_STD = 0.2


def _sample_two_moons(rng_key: PRNGKeyArray, num_samples: int) -> Float[Array, "n 2"]:
    moon_key, angle_key, noise_key = jax.random.split(rng_key, 3)
    upper = jax.random.bernoulli(moon_key, shape=(num_samples, 1))
    arc = 2 * _unit_circle(math.pi * jax.random.uniform(angle_key, (num_samples,)))
    centre = jnp.asarray([1.0, 0.5], float)
    moons = jnp.where(upper, arc - centre, centre - arc)
    return moons + _MOONS_STD * jax.random.normal(noise_key, (num_samples, 2))


two_moons = ToyDensity(name="two_moons", bounds=((-4.0, 4.0), (-3.0, 3.0)), sample_fn=_sample_two_moons)
"""Two interleaved half circles of radius 2 about (-1, -1/2) and (1, 1/2), blurred by a deviation of 0.2."""


_PINWHEEL_ARMS = 5
_PINWHEEL_STD = (0.3, 0.1)
_PINWHEEL_RATE = 0.25


def _sample_pinwheel(rng_key: PRNGKeyArray, num_samples: int) -> Float[Array, "n 2"]:
    arm_key, noise_key = jax.random.split(rng_key)
    arm = jax.random.randint(arm_key, (num_samples,), 0, _PINWHEEL_ARMS)
    noise = jax.random.normal(noise_key, (num_samples, 2)) * jnp.asarray(_PINWHEEL_STD, float)
    along, across = 1 + noise[:, 0], noise[:, 1]
    angle = 2 * math.pi * arm / _PINWHEEL_ARMS + _PINWHEEL_RATE * jnp.exp(along)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return 2 * jnp.stack([cos * along - sin * across, sin * along + cos * across], axis=-1)


pinwheel = ToyDensity(name="pinwheel", bounds=((-4.5, 4.5), (-4.5, 4.5)), sample_fn=_sample_pinwheel)
"""Five Gaussian arms (along N(1, 0.3^2), across N(0, 0.1^2)), each turned by 0.25 exp(along), times two."""


_SPIRAL_MAX_ANGLE = 3 * math.pi
_SPIRAL_STD = 0.1


def _sample_two_spirals(rng_key: PRNGKeyArray, num_samples: int) -> Float[Array, "n 2"]:
    arm_key, angle_key, noise_key = jax.random.split(rng_key, 3)
    sign = jax.random.rademacher(arm_key, (num_samples, 1)).astype(float)
    # The square root keeps the mass an angle in proportion to the length of the arm there.
    angle = _SPIRAL_MAX_ANGLE * jnp.sqrt(jax.random.uniform(angle_key, (num_samples,)))
    arm = sign * (angle / 3)[:, None] * _unit_circle(angle)
    return arm + _SPIRAL_STD * jax.random.normal(noise_key, (num_samples, 2))


two_spirals = ToyDensity(name="two_spirals", bounds=((-4.0, 4.0), (-4.0, 4.0)), sample_fn=_sample_two_spirals)
"""Two opposite arms of the spiral r = angle / 3, one and a half turns long, blurred by a deviation of 0.1."""


TOYS: dict[str, ToyDensity] = {
    density.name: density
    for density in (checkerboard, eight_gaussians, rings, two_moons, pinwheel, two_spirals)
}


def _unit_circle(angle: Float[Array, "n"]) -> Float[Array, "n 2"]:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
