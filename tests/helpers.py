"""A training method of which every number is known, for tests of what surrounds a method."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bism_jax.typing import Algorithm


class DriftState(NamedTuple):
    theta: Any
    phi: Any
    iteration: Any


class DriftInfo(NamedTuple):
    loss: Any
    noise: Any


@dataclass(frozen=True)
class Drift:
    """Adds the batch's mean to theta; iteration k has loss k, or what a function on the host says."""

    host_loss_fn: Callable[[int], float] | None = None

    def bind(self, energy_fn, posterior_fn=None, *, init_params=None, axis_name=None):
        def init(rng_key, batch):
            return DriftState({"w": jnp.ones(batch.shape[1:])}, None, jnp.zeros((), jnp.int32))

        def step(rng_key, state, batch):
            theta = {"w": state.theta["w"] + batch.mean(axis=0)}
            info = DriftInfo(self._loss(state.iteration), jax.random.uniform(rng_key))
            return DriftState(theta, None, state.iteration + 1), info

        return Algorithm(init, step)

    def _loss(self, iteration):
        if self.host_loss_fn is None:
            return iteration.astype(jnp.float32)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(lambda k: np.float32(self.host_loss_fn(int(k))), shape, iteration)


def rows(num_rows=40, shape=(2,), dtype=np.float32):
    """Distinct rows of standard normal numbers."""
    return np.random.default_rng(0).normal(size=(num_rows, *shape)).astype(dtype)
