"""The iteration by bism_jax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.hypergradients import bilevel_problem, theta_gradient
from benchmarks.rivals.task import LEARNING_RATE, IterationNoise, StepNoise, Task
from bism_jax import BiSM, Optimizers, Unrolled
from bism_jax.methods import BiSMNoise, LevelNoise, paper_adam
from bism_jax.objectives import MultiscaleNoise


class BismJax:
    """With `noise="fresh"` as in the paper, or `"shared"`, the library's default."""

    def __init__(self, task: Task, noise: Any) -> None:
        self.name = f"bism_jax, {noise} noise"
        self._task = task
        adam = paper_adam(LEARNING_RATE)
        self._method = BiSM(
            task.objective,
            task.divergence,
            task.lower_steps,
            Unrolled(task.num_steps),
            Optimizers(adam, adam),
            noise,
            keep_unrolled=False,
        )
        algorithm = self._method.bind(task.energy, task.posterior, init_params=(task.theta, task.phi))
        self._v = jnp.asarray(task.v)
        # A copy, since the step takes the memory of its state, in which are the task's parameters.
        self._state = jax.tree.map(jnp.copy, algorithm.init(jax.random.key(0), self._v))
        self._key = jax.random.key(3)

        def run(num_iterations: Any, key: Any, state: Any, v: Any) -> Any:
            def iterate(index: Any, state: Any) -> Any:
                return algorithm.step(jax.random.fold_in(key, index), state, v)[0]

            return jax.lax.fori_loop(0, num_iterations, iterate, state)

        self._run = jax.jit(run, donate_argnums=2)

    def hypergradient(self, noise: IterationNoise) -> np.ndarray:
        """The gradient of the first iteration; with shared noise it is another one."""
        task = self._task
        bound = self._method.bind(task.energy, task.posterior, init_params=(task.theta, task.phi))
        state = bound.init(jax.random.key(0), self._v)
        losses = bilevel_problem(self._method, task.energy, task.posterior)
        return theta_gradient(self._method, losses, state, self._v, self._noise(noise))

    def run(self, num_iterations: int) -> None:
        """Iterations in one compiled loop, as `fit` runs them."""
        self._key, key = jax.random.split(self._key)
        self._state = jax.block_until_ready(self._run(num_iterations, key, self._state, self._v))

    def _noise(self, noise: IterationNoise) -> BiSMNoise:
        lower = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(self._level, noise.lower))
        if self._method.noise == "shared":
            lower = lower._replace(visible=None)
        return BiSMNoise(lower, self._level(noise.higher))

    def _level(self, noise: StepNoise) -> LevelNoise:
        eps, std = jnp.asarray(noise.visible), jnp.asarray(self._task.noise_std)
        visible = MultiscaleNoise(std, eps) if self._task.is_image else eps
        return LevelNoise(visible, noise.latent[None])
