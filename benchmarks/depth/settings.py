"""Models to unroll on, and strategies to unroll by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bism_jax import DSM, KL, MDSM, Fisher, Implicit, StopGradient, Truncated, Unrolled
from bism_jax.hypergradient import Strategy
from bism_jax.models import (
    GRBM,
    BernoulliPosterior,
    ConvGaussianPosterior,
    GaussianPosterior,
    MLPEnergy,
    ResidualEnergy,
)


@dataclass(frozen=True)
class Setting:
    """A model with its data and losses.

    Attributes:
        energy: the energy's module.
        posterior: the posterior's module.
        shape: of a minibatch, which is uniform noise; the cost does not depend on it.
        objective: of the higher level.
        divergence: of the lower level.
    """

    energy: Any
    posterior: Any
    shape: tuple[int, ...]
    objective: Any
    divergence: Any

    def batch(self) -> np.ndarray:
        """The minibatch."""
        return np.random.default_rng(0).uniform(size=self.shape).astype(np.float32)


def _image(channels: int, batch: int) -> Setting:
    posterior = ConvGaussianPosterior(50, (channels, 2 * channels, 4 * channels))
    energy = ResidualEnergy(50, channels, activation=jax.nn.silu)
    return Setting(energy, posterior, (batch, 32, 32, 1), MDSM(), Fisher())


SETTINGS: dict[str, Callable[[], Setting]] = {
    "checkerboard": lambda: Setting(GRBM(4), BernoulliPosterior(4), (100, 2), DSM(0.05), KL()),
    "frey_face": lambda: Setting(GRBM(400), BernoulliPosterior(400), (100, 560), DSM(0.3), KL()),
    "mlp": lambda: Setting(
        MLPEnergy((256, 256)), GaussianPosterior(32, (256, 256)), (256, 64), DSM(0.1), Fisher()
    ),
    "image-2": lambda: _image(2, 16),
    "image-4": lambda: _image(4, 16),
    "image-8": lambda: _image(8, 16),
    "image-16": lambda: _image(16, 16),
    "image-64": lambda: _image(64, 100),
}

STRATEGIES: dict[str, Callable[[int], Strategy]] = {
    "plain scan": lambda n: Unrolled(n, mixed_mode=False),
    "remat": lambda n: Unrolled(n, segment=1, mixed_mode=False),
    "segments": lambda n: Unrolled(n, segment="sqrt", mixed_mode=False),
    "mixed": Unrolled,
    "mixed, segments": lambda n: Unrolled(n, segment="sqrt"),
    "truncated": lambda n: Truncated(n, last=math.isqrt(n)),
    "implicit": lambda n: Implicit(n, damping=1e-3),
    "not differentiated": StopGradient,
}
