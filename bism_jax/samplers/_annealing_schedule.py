"""The temperatures of annealed Langevin dynamics."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from bism_jax import checks


@dataclass(frozen=True)
class AnnealingSchedule:
    """A schedule of Langevin steps at falling temperatures, and one denoising step after them:

        x <- x - step_size^2 / 2 grad E(x) + sqrt(T) step_size xi,   xi ~ N(0, I)
        x <- x - denoising_std^2 grad E(x)

    T scales the noise only, not the drift. It stays at `max_temperature` for `num_hot` steps; step k of
    the `num_cooling` next ones has `max_temperature^(1 - k / num_cooling)`, and step k of the `num_freezing`
    last ones 1 - k / num_freezing, k from 1. So the last step of the cooling has T = 1 exactly, and the last
    step of all has no noise. The defaults are those of Bao et al., NeurIPS 2020 (arXiv 2010.07856).
    A constant temperature of 1 is `AnnealingSchedule(max_temperature=1, num_hot=n, num_cooling=0,
    num_freezing=0)`.

    Attributes:
        step_size: the standard deviation of a step's noise at T = 1, in units of x.
        max_temperature: of the hot steps.
        num_hot: steps at the highest temperature.
        num_cooling: steps in which T falls to 1 exponentially.
        num_freezing: steps in which T falls from 1 to 0 linearly.
        denoising_std: the noise that the model was trained with, which the denoising step takes off by
            Tweedie's formula, in units of x; 0 leaves the step out.

    Raises:
        ValueError: for numbers out of range.
    """

    step_size: float = 0.02
    max_temperature: float = 100.0
    num_hot: int = 500
    num_cooling: int = 2000
    num_freezing: int = 200
    denoising_std: float = 0.1

    def __post_init__(self) -> None:
        checks.positive("step_size", self.step_size)
        checks.positive("max_temperature", self.max_temperature)
        for name in ("num_hot", "num_cooling", "num_freezing"):
            checks.loop_count(name, getattr(self, name), at_least=0)
        checks.non_negative("denoising_std", self.denoising_std)

    @property
    def num_steps(self) -> int:
        """Langevin steps, without the denoising step."""
        return self.num_hot + self.num_cooling + self.num_freezing

    def temperatures(self) -> Float[np.ndarray, " num_steps"]:
        """T of every step, `[num_steps]` in float64."""
        cooled = np.arange(1, self.num_cooling + 1) / max(1, self.num_cooling)
        frozen = np.arange(1, self.num_freezing + 1) / max(1, self.num_freezing)
        hot = np.full(self.num_hot, float(self.max_temperature))
        return np.concatenate([hot, float(self.max_temperature) ** (1 - cooled), 1 - frozen])

    def coefficients(self) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
        """What the gradient and the noise of each step are multiplied by, the denoising step included."""
        rates = np.full(self.num_steps, 0.5 * self.step_size**2)
        noise_stds = self.step_size * np.sqrt(self.temperatures())
        if self.denoising_std == 0:
            return rates, noise_stds
        return np.append(rates, self.denoising_std**2), np.append(noise_stds, 0.0)

    def scaled(self, num_steps: int) -> AnnealingSchedule:
        """The same schedule in `num_steps` steps of the same size, its three parts in proportion.

        Raises:
            ValueError: where `num_steps` is not positive, or there is no step to scale.
        """
        checks.loop_count("num_steps", num_steps)
        if self.num_steps == 0:
            raise ValueError("this schedule has no steps to scale; set num_hot, num_cooling or num_freezing.")
        # The ends of the parts are rounded, not their lengths, so that these add up to `num_steps`.
        hot, cooled = (
            round(num_steps * part / self.num_steps)
            for part in (self.num_hot, self.num_hot + self.num_cooling)
        )
        return replace(self, num_hot=hot, num_cooling=cooled - hot, num_freezing=num_steps - cooled)

    def snapshot_steps(self, num_snapshots: int) -> Int[np.ndarray, " num_snapshots"]:
        """After how many steps the snapshots are taken, evenly spaced; the last after all of them.

        Raises:
            ValueError: where `num_snapshots` is negative or no integer.
        """
        checks.loop_count("num_snapshots", num_snapshots, at_least=0)
        return np.arange(1, num_snapshots + 1) * self.num_steps // max(1, num_snapshots)


PAPER_SCHEDULE = AnnealingSchedule()
