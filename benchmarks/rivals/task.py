"""The iteration that everyone runs: model, parameters, batch and noise as NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bism_jax import DSM, KL, MDSM, Fisher
from bism_jax.models import GRBM, BernoulliPosterior, ConvGaussianPosterior, ResidualEnergy

LEARNING_RATE = 1e-3
BETAS = (0.9, 0.95)


class StepNoise(NamedTuple):
    """Of one loss.

    Attributes:
        visible: standard normal, `[B, *visible]`.
        latent: logistic or normal, `[B, latent]`.
    """

    visible: np.ndarray
    latent: np.ndarray


class IterationNoise(NamedTuple):
    """Of one iteration: K + N lower-level losses and the higher-level one."""

    lower: tuple[StepNoise, ...]
    higher: StepNoise


class Contender(Protocol):
    """An implementation of the iteration."""

    name: str

    def hypergradient(self, noise: IterationNoise) -> np.ndarray:
        """The gradient in theta of the first iteration from the task's parameters, flat, in Flax's order."""
        ...

    def run(self, num_iterations: int) -> None:
        """Training iterations with noise of their own, to the end."""
        ...


@dataclass(frozen=True, eq=False)
class Task:
    """K lower-level steps, N differentiated ones that are thrown away, one step of the energy; all by Adam.

    Attributes:
        name: checkerboard, frey_face or image.
        energy: the Flax module.
        posterior: likewise.
        theta: initial parameters, the Flax tree.
        phi: likewise.
        v: the batch.
        noise_std: of each row, `[B]`.
        lower_steps: K.
        num_steps: N.
    """

    name: str
    energy: Any
    posterior: Any
    theta: Any
    phi: Any
    v: np.ndarray
    noise_std: np.ndarray
    lower_steps: int
    num_steps: int

    @property
    def is_image(self) -> bool:
        """Whether the losses are MDSM and Fisher instead of DSM and KL."""
        return self.name == "image"

    @property
    def num_hidden(self) -> int:
        """Latents."""
        return self.energy.num_hidden

    @property
    def objective(self) -> Any:
        """Of the higher level."""
        return MDSM() if self.is_image else DSM(float(self.noise_std[0]))

    @property
    def divergence(self) -> Any:
        """Of the lower level."""
        return Fisher() if self.is_image else KL()

    def draw_noise(self, seed: int) -> IterationNoise:
        """Noise for a comparison of gradients."""
        rng = np.random.default_rng(seed)
        draw = rng.normal if self.is_image else rng.logistic

        def one() -> StepNoise:
            latent = draw(size=(len(self.v), self.num_hidden))
            return StepNoise(_float32(rng.normal(size=self.v.shape)), _float32(latent))

        lower = tuple(one() for _ in range(self.lower_steps + self.num_steps))
        return IterationNoise(lower, one())


def make_task(name: str, num_steps: int, lower_steps: int, channels: int, batch: int) -> Task:
    """The paper's setting on a batch of uniform noise."""
    if name == "image":
        energy: Any = ResidualEnergy(50, channels)
        posterior: Any = ConvGaussianPosterior(50, (channels, 2 * channels, 4 * channels))
        shape: tuple[int, ...] = (batch, 32, 32, 1)
        noise_std = np.geomspace(0.1, 3.0, batch)
    else:
        num_visible, num_hidden, std = {"checkerboard": (2, 4, 0.05), "frey_face": (560, 400, 0.3)}[name]
        energy, posterior = GRBM(num_hidden), BernoulliPosterior(num_hidden)
        shape, noise_std = (100, num_visible), np.full(100, std)
    v = _float32(np.random.default_rng(0).uniform(size=shape))
    h = jnp.zeros((len(v), energy.num_hidden))
    theta = jax.jit(energy.init)(jax.random.key(1), v, h)
    phi = jax.jit(posterior.init)(jax.random.key(2), v)
    return Task(name, energy, posterior, theta, phi, v, _float32(noise_std), lower_steps, num_steps)


def _float32(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)
