"""Ways between two latents."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.jax_internals import is_traced
from bism_jax.checks import as_numbers, finite_rows, not_empty

_SMALLEST_ANGLE = 1e-4  # in radians; below it the two ways are one in float32


@with_transfers
def interpolate(
    start: Float[Array, "*batch latent"],
    stop: Float[Array, "*batch latent"],
    num: int,
    *,
    spherical: bool = False,
) -> Float[Array, "*batch num latent"]:
    """Points from `start` to `stop`, both included, at equal steps of t in [0, 1].

        linear:     (1 - t) start + t stop
        spherical:  sin((1 - t) a) / sin(a) start + sin(t a) / sin(a) stop,   a the angle between the two

    Latents of a high-dimensional Gaussian prior lie near a sphere, which the linear way leaves and the
    spherical one follows. (Shoemake, SIGGRAPH 1985.)

    Args:
        start: latents, `[latent]` or a batch of them.
        stop: of the same shape.
        num: points, at least 2.
        spherical: which way.

    Raises:
        TypeError: a latent is no array of numbers.
        ValueError: the shapes differ, a latent is empty or not finite, `num` is below 2, or the spherical
            way is not defined because a latent is zero or the two are opposite.
    """
    start, stop = (
        jnp.asarray(as_numbers(name, end, "[latent] or [..., latent]"), float)
        for name, end in (("start", start), ("stop", stop))
    )
    if start.shape != stop.shape or start.ndim == 0:
        raise ValueError(
            f"start has shape {start.shape} and stop {stop.shape}; give two latents of one shape."
        )
    checks.loop_count("num", num)
    if num < 2:
        raise ValueError("num must be at least 2, since both ends are included.")
    for name, end in (("start", start), ("stop", stop)):
        not_empty(name, end, "[latent] or [..., latent]")
        finite_rows(name, end)
    checks.boolean("spherical", spherical)
    t = jnp.linspace(0, 1, num)[:, None]
    start_weight, stop_weight = _spherical_weights(start, stop, t) if spherical else (1 - t, t)
    return start_weight * start[..., None, :] + stop_weight * stop[..., None, :]


def _spherical_weights(start: Array, stop: Array, t: Array) -> tuple[Array, Array]:
    norms = [jnp.linalg.norm(end, axis=-1, keepdims=True) for end in (start, stop)]
    first, second = start / norms[0], stop / norms[1]
    # Exact for small angles and for those near pi, where the arc cosine is not.
    angle = 2 * jnp.arctan2(
        jnp.linalg.norm(first - second, axis=-1), jnp.linalg.norm(first + second, axis=-1)
    )
    if not is_traced(angle):
        _check_way(norms, angle)
    # At an angle of 0 both weights are 0 / 0; at the smallest they are those of the linear way.
    angle = jnp.maximum(angle, _SMALLEST_ANGLE)[..., None, None]
    return jnp.sin((1 - t) * angle) / jnp.sin(angle), jnp.sin(t * angle) / jnp.sin(angle)


def _check_way(norms: list[Array], angle: Array) -> None:
    if not all(bool((norm > 0).all()) for norm in norms):
        raise ValueError(
            "start or stop holds a latent that is zero, which has no direction; use spherical=False."
        )
    if bool((math.pi - angle < _SMALLEST_ANGLE).any()):
        raise ValueError("start and stop are opposite, so no way is the shortest; use spherical=False.")
