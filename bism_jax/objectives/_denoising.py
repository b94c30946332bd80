"""Denoising score matching, at one noise level and at many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax.objectives._objective import (
    EqualWeights,
    check_draw,
    check_noise,
    check_score,
    expand_like,
    score_at,
    sum_events,
)
from bism_jax.typing import ScoreFn


@dataclass(frozen=True)
class DSM(EqualWeights):
    """Denoising score matching.

        v~ = v + sigma eps,  eps ~ N(0, I)
        F = 1/2 |s(v~) + eps / sigma|^2

    Fits the score of the data smoothed by N(0, sigma^2 I). (Vincent, Neural Computation 2011.) With latents,
    s = s(v~, h) and the mean over h ~ q is an upper bound of the loss of the field u = E_q s, whatever q is:
    E_q |s + eps / sigma|^2 = |u + eps / sigma|^2 + E_q |s - u|^2.

    Attributes:
        noise_std: sigma, in units of the data.

    Raises:
        ValueError: where sigma is not above 0.
    """

    # The paper's sigma_0 on images; it has 0.05 on the checkerboard and 0.3 on Frey face.
    noise_std: float = 0.1

    def __post_init__(self) -> None:
        checks.positive("noise_std", self.noise_std)

    def draw_noise(
        self, rng_key: Key[Array, ""], v: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample batch *visible"]:
        """Draws eps of the shape of v."""
        rng_key = check_draw(rng_key, v, sample_shape)
        return jax.random.normal(rng_key, (*sample_shape, *v.shape), v.dtype)

    def perturb(self, v: Array, noise: Array) -> Array:
        """The points v + sigma eps."""
        check_noise(noise, v)
        return v + self.noise_std * noise

    def loss(self, score_fn: ScoreFn, v: Array, noise: Array) -> Float[Array, " batch"]:
        """1/2 |s(v~) + eps / sigma|^2, `[B]`."""
        return self.pointwise_loss(score_at(score_fn, self.perturb(v, noise)), v, noise)

    def pointwise_loss(self, score: Array, v: Array, noise: Array) -> Float[Array, " batch"]:
        """The loss of the score's values at v~."""
        check_score(score, v)
        check_noise(noise, v)
        # From eps itself: (v~ - v) / sigma^2 cancels leading digits, the more the smaller sigma.
        return 0.5 * sum_events((score + noise / self.noise_std) ** 2)


class MultiscaleNoise(NamedTuple):
    """Noise at a level of its own for each data point.

    Attributes:
        std: sigma_i, `[*sample, B]`, in units of the data.
        eps: standard normal, `[*sample, B, *visible]`.
    """

    std: Float[Array, "*sample batch"]
    eps: Float[Array, "*sample batch *visible"]


@dataclass(frozen=True)
class MDSM:
    """Multiscale denoising score matching.

        v~_i = v_i + sigma_i eps_i,  eps ~ N(0, I)
        F = 1/2 |s(v~_i) / sigma_i + eps_i / sigma_0^2|^2

    With latents it is a bound as `DSM` is. sigma_1 .. sigma_B is a fixed grid over the batch. The lower-level
    loss of sample i is divided by sigma_i. (Li, Chen and Sommer, arXiv 1910.07762; Bao et al., arXiv
    2010.07856, sec. 5.2.)

    Attributes:
        min_std: the smallest level, in units of the data.
        max_std: the largest.
        base_std: sigma_0, the level at which the density is learnt.
        spacing: `"geometric"` (the paper's MNIST) or `"linear"` (its CIFAR-10 and CelebA).

    Raises:
        ValueError: where a level is not above 0, min_std exceeds max_std, or the spacing is unknown.
    """

    # The paper's for MNIST; for CIFAR-10 and CelebA they are 0.05 to 1.2, linear, also with sigma_0 = 0.1.
    min_std: float = 0.1
    max_std: float = 3.0
    base_std: float = 0.1
    spacing: Literal["geometric", "linear"] = "geometric"

    def __post_init__(self) -> None:
        for name in ("min_std", "max_std", "base_std"):
            checks.positive(name, getattr(self, name))
        checks.one_of("spacing", self.spacing, ("geometric", "linear"))
        if self.min_std > self.max_std:
            raise ValueError(f"min_std={self.min_std} exceeds max_std={self.max_std}; swap them.")

    def noise_levels(self, batch_size: int) -> np.ndarray:
        """sigma_1 .. sigma_B."""
        checks.positive_int("batch_size", batch_size)
        # By NumPy, which meets both ends exactly, in float64 at any setting of JAX.
        space = np.geomspace if self.spacing == "geometric" else np.linspace
        return space(self.min_std, self.max_std, batch_size)

    def draw_noise(
        self, rng_key: Key[Array, ""], v: Any, sample_shape: tuple[int, ...] = ()
    ) -> MultiscaleNoise:
        """The grid over the batch, and eps of the shape of v."""
        rng_key = check_draw(rng_key, v, sample_shape)
        # The shape is the global batch's, so each device takes its part of one grid.
        std = jnp.asarray(self.noise_levels(v.shape[0]), v.dtype)
        eps = jax.random.normal(rng_key, (*sample_shape, *v.shape), v.dtype)
        return MultiscaleNoise(jnp.broadcast_to(std, (*sample_shape, v.shape[0])), eps)

    def perturb(self, v: Array, noise: MultiscaleNoise) -> Array:
        """v_i + sigma_i eps_i."""
        _check_multiscale(noise, v)
        return v + expand_like(noise.std, noise.eps) * noise.eps

    def loss(self, score_fn: ScoreFn, v: Array, noise: MultiscaleNoise) -> Float[Array, " batch"]:
        """1/2 |s(v~_i) / sigma_i + eps_i / sigma_0^2|^2, `[B]`."""
        return self.pointwise_loss(score_at(score_fn, self.perturb(v, noise)), v, noise)

    def pointwise_loss(self, score: Array, v: Array, noise: MultiscaleNoise) -> Float[Array, " batch"]:
        """The loss of the score's values at v~."""
        check_score(score, v)
        _check_multiscale(noise, v)
        residual = score / expand_like(noise.std, score) + noise.eps / self.base_std**2
        return 0.5 * sum_events(residual**2)

    def lower_weight(self, noise: MultiscaleNoise) -> Float[Array, "*sample batch"]:
        """1 / sigma_i."""
        _check_kind(noise)
        return 1.0 / noise.std


def _check_multiscale(noise: Any, v: Array) -> None:
    _check_kind(noise)
    check_noise(noise.eps, v)
    # A std of another shape may broadcast, and give rows the levels of others.
    if jnp.shape(noise.std) != noise.eps.shape[: noise.eps.ndim - v.ndim + 1]:
        raise ValueError(
            f"noise.std has shape {jnp.shape(noise.std)}, but noise.eps has {noise.eps.shape}: one a row; "
            "pass what draw_noise(rng_key, v) returns."
        )


def _check_kind(noise: Any) -> None:
    if not isinstance(noise, MultiscaleNoise):
        raise TypeError(
            f"noise must be the MultiscaleNoise(std, eps) that draw_noise(rng_key, v) returns, not a "
            f"{type(noise).__name__}."
        )
