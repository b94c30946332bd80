"""Milliseconds an iteration of the paper's GRBM settings, the variants in turn so that ratios hold.

Run it for one model at a time; the checkerboard's kernels are best left to one thread:

    PJRT_NPROC=1 python -m benchmarks.throughput --model checkerboard
    python -m benchmarks.throughput --model frey_face
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from bism_jax import checks
from bism_jax.models import GRBM, BernoulliPosterior
from experiments.command_line import run_command
from experiments.comparison.contenders import Contender, checkerboard_contenders
from experiments.methods import MethodConfig

VARIANTS = {
    "N = 5, K = 5": MethodConfig(),
    "N = 5, K = 5, shared noise": MethodConfig(noise="shared"),
    "N = 5 kept, K = 0": MethodConfig(keep_unrolled=True, lower_steps=0),
    "N = 5 kept, K = 0, shared noise": MethodConfig(keep_unrolled=True, lower_steps=0, noise="shared"),
    "N = 0, K = 5": MethodConfig(num_steps=0),
    "DSM": MethodConfig(name="dsm"),
}
# (visible, hidden, iterations in one call)
SIZES = {"checkerboard": (2, 4, 2000), "frey_face": (560, 400, 20)}


@dataclass(frozen=True)
class Options:
    """What to time.

    Attributes:
        model: which setting; the data is uniform noise of the same shape, which costs the same.
        repeats: rounds over the variants; the minimum and the median over them are printed.
        batch_size: rows of a minibatch.
    """

    model: Literal["checkerboard", "frey_face"] = "checkerboard"
    repeats: int = 7
    batch_size: int = 100

    def __post_init__(self) -> None:
        for name in ("repeats", "batch_size"):
            checks.positive_int(name, getattr(self, name))


def contenders(options: Options) -> dict[str, Contender]:
    """The variants of bi-level score matching and, on the checkerboard, every other method."""
    posterior = BernoulliPosterior(SIZES[options.model][1])
    variants = {
        name: Contender(config.make(), posterior if config.is_bilevel else None)
        for name, config in VARIANTS.items()
    }
    if options.model == "frey_face":
        return variants
    others = checkerboard_contenders(num_data=20 * options.batch_size)
    return variants | {name: other for name, other in others.items() if not name.startswith("BiDSM")}


def compiled_loop(contender: Contender, options: Options) -> Callable[[], Any]:
    """A call that runs the setting's number of iterations."""
    num_visible, num_hidden, num_steps = SIZES[options.model]
    data = jax.random.uniform(jax.random.key(0), (20 * options.batch_size, num_visible))
    algorithm = contender.method.bind(GRBM(num_hidden), contender.posterior_fn)
    state = algorithm.init(jax.random.key(1), data[: options.batch_size])

    def iterate(state: Any, key: jax.Array) -> tuple[Any, None]:
        rows_key, step_key = jax.random.split(key)
        rows = jax.random.randint(rows_key, (options.batch_size,), 0, len(data))
        return algorithm.step(step_key, state, jnp.take(data, rows, axis=0))[0], None

    def loop(state: Any) -> Any:
        return jax.lax.scan(iterate, state, jax.random.split(jax.random.key(2), num_steps))[0]

    compiled = jax.jit(loop).lower(state).compile()
    return lambda: jax.block_until_ready(compiled(state))


def main(options: Options) -> None:
    """Prints a Markdown table."""
    num_steps = SIZES[options.model][2]
    calls = {name: compiled_loop(contender, options) for name, contender in contenders(options).items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start) / num_steps)
    print(f"{options.model}, batch {options.batch_size}, {jax.default_backend()}, jax {jax.__version__}\n")
    print("| variant | best ms | median ms | against the first |\n|---|---|---|---|")
    first = np.array(times[next(iter(times))])
    for name, values in times.items():
        ratio = np.median(np.array(values) / first)
        print(f"| {name} | {min(values):.3f} | {np.median(values):.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options, description=__doc__)))
