"""One program, measured: an iteration of a model with a strategy and N."""

from __future__ import annotations

import gc
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.depth.settings import SETTINGS, STRATEGIES, Setting
from benchmarks.hypergradients import bilevel_problem, theta_gradient
from benchmarks.resident_memory import peak_of
from bism_jax import BiSM, Optimizers, StopGradient, Unrolled
from bism_jax.hypergradient import Strategy
from bism_jax.methods import paper_adam

_WARM_UP_ITERATIONS = 10
_MIB = 2**20
_ADAM = Optimizers(paper_adam(), paper_adam())


class Measurement(NamedTuple):
    """Of one program; times in milliseconds, memory in MiB.

    Attributes:
        model: its name.
        strategy: its name.
        num_steps: N.
        median_ms: of an iteration.
        low_ms: its first quartile.
        high_ms: its third quartile.
        compile_s: seconds of compilation.
        temporary_mib: temporaries that the compiler plans.
        peak_mib: what the resident memory of the process rose by, in one iteration; of another device
            than a CPU, the most it has held in this process.
        error: |gradient - exact| / |exact|, against plain reverse mode in float64.
    """

    model: str
    strategy: str
    num_steps: int
    median_ms: float
    low_ms: float
    high_ms: float
    compile_s: float
    temporary_mib: float
    peak_mib: float
    error: float


class Bench:
    """A model after a few iterations, on which strategies are measured.

    Args:
        name: of the model.
        seconds: to spend on the timing of each program.
        errors: whether to measure them.
    """

    def __init__(self, name: str, seconds: float, errors: bool = True) -> None:
        self._name, self._seconds, self._errors = name, seconds, errors
        self._setting: Setting = SETTINGS[name]()
        self._v = jnp.asarray(self._setting.batch())
        method = self._method(Unrolled(1))
        algorithm = method.bind(self._setting.energy, self._setting.posterior)
        self._state = algorithm.init(jax.random.key(0), self._v)
        step = jax.jit(algorithm.step)
        for index in range(_WARM_UP_ITERATIONS):  # Adam's first moments are no place to differentiate at
            self._state, _ = step(jax.random.key(index), self._state, self._v)
        self._exact: dict[int, np.ndarray] = {}
        self._noise: dict[int, Any] = {}

    def measure(self, strategy_name: str, num_steps: int) -> Measurement:
        """Compiles and runs an iteration; N = 0 is one step that is not differentiated."""
        strategy = STRATEGIES[strategy_name](num_steps) if num_steps else StopGradient(1)
        algorithm = self._method(strategy).bind(self._setting.energy, self._setting.posterior)
        key = jax.random.key(0)
        start = time.perf_counter()
        step = jax.jit(algorithm.step).lower(key, self._state, self._v).compile()
        compile_s = time.perf_counter() - start
        memory: Any = step.memory_analysis()
        peak = peak_of(lambda: jax.block_until_ready(step(key, self._state, self._v)))
        times = self._times(step)
        low, median, high = (round(1e3 * float(t), 4) for t in np.percentile(times, [25, 50, 75]))
        error = self._error(strategy, num_steps)
        del step
        gc.collect()
        return Measurement(
            self._name,
            strategy_name if num_steps else "N = 0",
            num_steps,
            median,
            low,
            high,
            round(compile_s, 2),
            round(memory.temp_size_in_bytes / _MIB, 3),
            round(peak, 1),
            error,
        )

    def _times(self, step: Any) -> list[float]:
        key = jax.random.key(0)
        times: list[float] = []
        end = time.perf_counter() + self._seconds
        while len(times) < 5 or (time.perf_counter() < end and len(times) < 1000):
            start = time.perf_counter()
            jax.block_until_ready(step(key, self._state, self._v))
            times.append(time.perf_counter() - start)
        return times

    def _error(self, strategy: Strategy, num_steps: int) -> float:
        if num_steps == 0 or not self._errors:  # with no step there is nothing to react
            return float("nan")
        if num_steps not in self._exact:
            plain = Unrolled(num_steps, mixed_mode=False)
            with jax.enable_x64(True):
                self._exact[num_steps] = self.gradient(plain, np.float64)
        exact = self._exact[num_steps]
        found = self.gradient(strategy, np.float32)
        return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))

    def gradient(self, strategy: Strategy, dtype: Any) -> np.ndarray:
        """The hypergradient in theta, with the same noise for every strategy, dtype and device.

        It is computed on JAX's default device; float64 needs `jax.enable_x64(True)`.
        """
        method = self._method(strategy)
        losses = bilevel_problem(method, self._setting.energy, self._setting.posterior)
        if strategy.num_steps not in self._noise:
            with jax.enable_x64(False):
                noise = method.draw_noise(losses, jax.random.key(1), self._state.phi, self._v)
            self._noise[strategy.num_steps] = jax.tree.map(np.asarray, noise)
        given = (self._state, self._v, self._noise[strategy.num_steps])
        arguments = jax.tree.map(lambda leaf: _cast(leaf, dtype), given)
        return theta_gradient(method, losses, *arguments)

    def _method(self, strategy: Strategy) -> BiSM:
        return BiSM(self._setting.objective, self._setting.divergence, 0, strategy, _ADAM)


def describe_machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    device = jax.devices()[0]
    return {"device": device.device_kind, "backend": device.platform, "jax": jax.__version__}


def _cast(leaf: Any, dtype: Any) -> Any:
    leaf = np.asarray(leaf)
    return jnp.asarray(leaf, dtype) if np.issubdtype(leaf.dtype, np.floating) else jnp.asarray(leaf)
