"""Draws from the toy densities, and their log densities where these have a closed form."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

# Geometry in units of the plane; `_toy` says of each density what it looks like.
# Those of Gaussians, pinwheel and spirals are FFJORD's (Grathwohl et al., ICLR 2019), whose spirals have
# a uniform noise besides.
_GAUSSIANS_RADIUS = 4 / math.sqrt(2)
_GAUSSIANS_STD = 0.5 / math.sqrt(2)
_RING_RADII = (0.75, 1.5, 2.25, 3.0)
_RING_STD = 0.08
_MOONS_STD = 0.2
_PINWHEEL_ARMS = 5
_PINWHEEL_STD = (0.3, 0.1)
_PINWHEEL_RATE = 0.25
_SPIRAL_MAX_ANGLE = 3 * math.pi
_SPIRAL_STD = 0.1


def sample_checkerboard(
    rng_key: PRNGKeyArray, num_samples: int, dtype: DTypeLike = float
) -> Float[Array, "n 2"]:
    square_key, point_key = jax.random.split(rng_key)
    # The dtype of the integers decides which random bits are drawn, so it must not follow the 64-bit mode.
    square = jax.random.randint(square_key, (num_samples, 1), 0, 2, dtype=jnp.int32)
    within = jax.random.uniform(point_key, (num_samples, 2), dtype=dtype)
    return (within + square.astype(within.dtype)) / 2


def checkerboard_log_prob(points: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
    on_board = jnp.all((points >= 0) & (points <= 1), axis=-1)
    same_half = (points[..., 0] >= 0.5) == (points[..., 1] >= 0.5)
    log_prob = jnp.where(on_board & same_half, math.log(2), -jnp.inf)
    # NaN compares as false, so that it would be a point off the board.
    return jnp.where(jnp.isnan(points).any(axis=-1), jnp.nan, log_prob).astype(points.dtype)


def _gaussian_centres(dtype: DTypeLike = float) -> Float[Array, "8 2"]:
    return _GAUSSIANS_RADIUS * _unit_circle(jnp.arange(8, dtype=dtype) * (math.pi / 4))


def sample_eight_gaussians(rng_key: PRNGKeyArray, num_samples: int) -> Float[Array, "n 2"]:
    component_key, noise_key = jax.random.split(rng_key)
    component = jax.random.randint(component_key, (num_samples,), 0, 8)
    return _gaussian_centres()[component] + _GAUSSIANS_STD * jax.random.normal(noise_key, (num_samples, 2))


def eight_gaussians_log_prob(points: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
    differences = points[..., None, :] - _gaussian_centres(points.dtype)
    squared = jnp.sum(differences**2, axis=-1) / _GAUSSIANS_STD**2
    log_normaliser = math.log(8 * 2 * math.pi * _GAUSSIANS_STD**2)
    return jax.nn.logsumexp(-squared / 2, axis=-1) - log_normaliser


def sample_rings(rng_key: PRNGKeyArray, num_samples: int) -> Float[Array, "n 2"]:
    ring_key, angle_key, noise_key = jax.random.split(rng_key, 3)
    radius = jnp.asarray(_RING_RADII, float)[jax.random.randint(ring_key, (num_samples,), 0, 4)]
    angle = 2 * math.pi * jax.random.uniform(angle_key, (num_samples,))
    noise = _RING_STD * jax.random.normal(noise_key, (num_samples, 2))
    return radius[:, None] * _unit_circle(angle) + noise


def rings_log_prob(points: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
    """A circle of radius a blurred by N(0, s^2 I): exp(-(r^2 + a^2) / 2 s^2) I_0(r a / s^2) / (2 pi s^2)."""
    # In the dtype of the points, which a float64 of the 64-bit mode would widen.
    radii = jnp.asarray(_RING_RADII, points.dtype)
    radius = jnp.hypot(points[..., 0], points[..., 1])[..., None]
    # i0e(x) = exp(-x) I_0(x): I_0 itself overflows here.
    bessel = jax.scipy.special.i0e(radius * radii / _RING_STD**2)
    # -(r^2 + a^2) / 2 s^2 + r a / s^2 = -(r - a)^2 / 2 s^2, the exponential that `i0e` has taken off.
    log_rings = jnp.log(bessel) - ((radius - radii) / _RING_STD) ** 2 / 2
    return jax.nn.logsumexp(log_rings, axis=-1) - math.log(len(_RING_RADII) * 2 * math.pi * _RING_STD**2)


def sample_two_moons(rng_key: PRNGKeyArray, num_samples: int) -> Float[Array, "n 2"]:
    moon_key, angle_key, noise_key = jax.random.split(rng_key, 3)
    upper = jax.random.bernoulli(moon_key, shape=(num_samples, 1))
    arc = 2 * _unit_circle(math.pi * jax.random.uniform(angle_key, (num_samples,)))
    centre = jnp.asarray([1.0, 0.5], float)
    # The lower moon is the upper one through the origin.
    moons = jnp.where(upper, arc - centre, centre - arc)
    return moons + _MOONS_STD * jax.random.normal(noise_key, (num_samples, 2))


def sample_pinwheel(rng_key: PRNGKeyArray, num_samples: int) -> Float[Array, "n 2"]:
    arm_key, noise_key = jax.random.split(rng_key)
    arm = jax.random.randint(arm_key, (num_samples,), 0, _PINWHEEL_ARMS)
    noise = jax.random.normal(noise_key, (num_samples, 2)) * jnp.asarray(_PINWHEEL_STD, float)
    along, across = 1 + noise[:, 0], noise[:, 1]
    angle = 2 * math.pi * arm / _PINWHEEL_ARMS + _PINWHEEL_RATE * jnp.exp(along)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return 2 * jnp.stack([cos * along - sin * across, sin * along + cos * across], axis=-1)


def sample_two_spirals(rng_key: PRNGKeyArray, num_samples: int) -> Float[Array, "n 2"]:
    arm_key, angle_key, noise_key = jax.random.split(rng_key, 3)
    sign = jax.random.rademacher(arm_key, (num_samples, 1)).astype(float)
    # The square root keeps the mass an angle in proportion to the length of the arm there.
    angle = _SPIRAL_MAX_ANGLE * jnp.sqrt(jax.random.uniform(angle_key, (num_samples,)))
    arm = sign * (angle / 3)[:, None] * _unit_circle(angle)
    return arm + _SPIRAL_STD * jax.random.normal(noise_key, (num_samples, 2))


def _unit_circle(angle: Float[Array, "n"]) -> Float[Array, "n 2"]:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
