"""The iteration as one would write it in JAX without the library: reverse mode through `scan`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.hypergradients import flatten
from benchmarks.rivals.task import BETAS, LEARNING_RATE, IterationNoise, StepNoise, Task


class PlainJax:
    """Jitted as a whole, with fresh noise."""

    name = "plain JAX"

    def __init__(self, task: Task) -> None:
        self._task = task
        self._adam = optax.adam(LEARNING_RATE, *BETAS, eps_root=1e-16)
        self._params = (task.theta, task.phi)
        self._states = jax.tree.map(jnp.asarray, tuple(map(self._adam.init, self._params)))
        self._v, self._std = jnp.asarray(task.v), jnp.asarray(task.noise_std)
        self._key = jax.random.key(3)
        self._iterate = jax.jit(self._random_iteration)

    def hypergradient(self, noise: IterationNoise) -> np.ndarray:
        """The gradient of the first iteration."""
        lower = jax.tree.map(lambda *leaves: jnp.stack(leaves), *noise.lower)
        arguments = (self._params, self._states[1], lower, noise.higher)
        return flatten(jax.jit(self._gradient)(*arguments)[0])

    def run(self, num_iterations: int) -> None:
        """Iterations in a loop of Python."""
        for _ in range(num_iterations):
            self._key, self._params, self._states = self._iterate(self._key, self._params, self._states)
        jax.block_until_ready(self._params)

    def _random_iteration(self, key: Any, params: Any, states: Any) -> tuple[Any, Any, Any]:
        task = self._task
        num_losses = task.lower_steps + task.num_steps + 1
        key, visible_key, latent_key = jax.random.split(key, 3)
        draw = jax.random.normal if task.is_image else jax.random.logistic
        draws = StepNoise(
            jax.random.normal(visible_key, (num_losses, *task.v.shape)),  # type: ignore[arg-type]
            draw(latent_key, (num_losses, len(task.v), task.num_hidden)),  # type: ignore[arg-type]
        )
        lower = jax.tree.map(lambda leaf: leaf[:-1], draws)
        higher = jax.tree.map(lambda leaf: leaf[-1], draws)
        grads, phi, phi_state = self._gradient(params, states[1], lower, higher)
        updates, theta_state = self._adam.update(grads, states[0])
        return key, (optax.apply_updates(params[0], updates), phi), (theta_state, phi_state)

    def _gradient(self, params: Any, phi_state: Any, lower: Any, higher: Any) -> tuple[Any, Any, Any]:
        theta, phi = params
        split = self._task.lower_steps
        first, unrolled = (
            jax.tree.map(lambda leaf, s=s: leaf[s], lower) for s in (slice(split), slice(split, None))
        )
        phi, phi_state = self._descend(theta, phi, phi_state, first)

        def loss(theta: Any) -> Any:
            return self._higher(theta, self._descend(theta, phi, phi_state, unrolled)[0], higher)

        return jax.grad(loss)(theta), phi, phi_state

    def _descend(self, theta: Any, phi: Any, state: Any, noise: Any) -> tuple[Any, Any]:
        def step(carry: Any, noise: Any) -> tuple[Any, None]:
            phi, state = carry
            updates, state = self._adam.update(jax.grad(self._lower)(phi, theta, noise), state)
            return (optax.apply_updates(phi, updates), state), None

        return jax.lax.scan(step, (phi, state), noise)[0]

    def _noised(self, noise: Any) -> Any:
        return self._v + self._std.reshape(-1, *[1] * (self._v.ndim - 1)) * noise.visible

    def _lower(self, phi: Any, theta: Any, noise: Any) -> Any:
        v = self._noised(noise)
        q = self._task.posterior.apply(phi, v)
        h = q.transform(noise.latent)[0]

        def log_ratio(h: Any) -> Any:
            return -self._task.energy.apply(theta, v, h) - q.log_prob(h)

        if not self._task.is_image:
            return -log_ratio(h).mean()
        score = jax.grad(lambda h: log_ratio(h).sum())(h)
        return (0.5 * (score**2).sum(axis=-1) / self._std).mean()

    def _higher(self, theta: Any, phi: Any, noise: Any) -> Any:
        v = self._noised(noise)
        h = self._task.posterior.apply(phi, v).transform(noise.latent)[0]

        def log_ratio(v: Any) -> Any:
            q = self._task.posterior.apply(phi, v)
            return (-self._task.energy.apply(theta, v, h) - q.log_prob(h)).sum()

        score = jax.grad(log_ratio)(v)
        std = self._std.reshape(-1, *[1] * (v.ndim - 1))
        scale, base = (std, 0.1**2) if self._task.is_image else (1.0, std)
        residual = score / scale + noise.visible / base
        return 0.5 * (residual**2).sum() / len(v)
