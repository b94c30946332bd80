"""Time and memory of one iteration on the paper's MNIST network, each N in a process of its own.

    taskset -c 0 python -m benchmarks.image_step

The peak counts the interpreter, the initialisation and the compilation; with a warm compilation cache
(`JAX_COMPILATION_CACHE_DIR`) the last is small. XLA's schedule is the one that saves memory.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.resident_memory import peak_mib
from bism_jax import MDSM, BiSM, Fisher, Optimizers, Unrolled, checks
from bism_jax.methods import paper_adam
from bism_jax.models import ConvGaussianPosterior, ResidualEnergy
from bism_jax.training import count_flops, release_freed_memory
from bism_jax.typing import Algorithm
from experiments.command_line import run_command

NUM_STEPS = (0, 5)
MATRIX_SIZE = 1024
# XLA's default schedule on a CPU favours concurrency, and holds a third more memory.
_SAVE_MEMORY = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        channels: of the energy's first convolution.
        batch: rows of a minibatch of 32 x 32 images.
        steps: iterations, after one that is not counted.
        noise: of the lower level.
        quick: 4 channels, 8 rows and 2 iterations, to see that it runs.
    """

    channels: int = 64
    batch: int = 100
    steps: int = 3
    noise: Literal["fresh", "shared"] = "shared"
    quick: bool = False

    def __post_init__(self) -> None:
        for name in ("channels", "batch", "steps"):
            checks.positive_int(name, getattr(self, name))


class Measurement(NamedTuple):
    """Seconds of each iteration, and the rest for one of them.

    Attributes:
        cpu: of the process, over all its threads.
        wall: by the clock.
        temporary_mib: what the compiler plans.
        peak_mib: the largest resident memory of the process.
        gflop: of the program.
        matrix_gflops: the rate of a float32 matrix product, in GFLOP a CPU second.
    """

    cpu: list[float]
    wall: list[float]
    temporary_mib: float
    peak_mib: float
    gflop: float
    matrix_gflops: float


def bound_algorithm(num_steps: int, options: Options) -> Algorithm:
    """The paper's setting with N differentiated steps."""
    method = BiSM(
        MDSM(),
        Fisher(),
        lower_steps=5,
        hypergradient=Unrolled(num_steps),
        noise=options.noise,
        keep_unrolled=False,
        optimizers=Optimizers(paper_adam(1e-4), paper_adam(1e-4)),
    )
    return method.bind(ResidualEnergy(50, options.channels), ConvGaussianPosterior(50))


def measure(num_steps: int, options: Options) -> Measurement:
    """Compiles and runs the iterations in this process."""
    algorithm = bound_algorithm(num_steps, options)
    rng = np.random.default_rng(0)
    v = jnp.asarray(rng.uniform(size=(options.batch, 32, 32, 1)), jnp.float32)
    key = jax.random.key(0)
    state = algorithm.init(key, v)
    release_freed_memory()
    step: Any = jax.jit(algorithm.step, donate_argnums=1).lower(key, state, v).compile()
    release_freed_memory()
    cpu, wall = [], []
    for index in range(options.steps + 1):
        start = time.process_time(), time.perf_counter()
        state, info = step(jax.random.fold_in(key, index), state, v)
        jax.block_until_ready((state, info))
        cpu.append(time.process_time() - start[0])
        wall.append(time.perf_counter() - start[1])
    peak = peak_mib()
    gflop = count_flops(algorithm.step, key, state, v) / 1e9
    temporary = step.memory_analysis().temp_size_in_bytes / 2**20
    return Measurement(cpu[1:], wall[1:], temporary, peak, gflop, matrix_gflops())


def matrix_gflops() -> float:
    """The best of 5 products, in GFLOP a CPU second."""
    matrix = jax.random.normal(jax.random.key(0), (MATRIX_SIZE, MATRIX_SIZE))
    product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
    times = []
    for _ in range(5):
        start = time.process_time()
        jax.block_until_ready(product(matrix, matrix))
        times.append(time.process_time() - start)
    return 2e-9 * MATRIX_SIZE**3 / min(times)


def save_memory() -> None:
    """Has the processes that start from now on take XLA's schedule that saves memory."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_SAVE_MEMORY}".strip()


def main(options: Options) -> None:
    """Prints a Markdown table."""
    if options.quick:
        options = replace(options, channels=4, batch=8, steps=2)
    save_memory()
    context = multiprocessing.get_context("spawn")
    print("| N | CPU s, median (min) | wall s | temporaries MiB | peak MiB | GFLOP | GFLOP/s | product |")
    print("|---|---|---|---|---|---|---|---|")
    medians = []
    for num_steps in NUM_STEPS:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            result = pool.submit(measure, num_steps, options).result()
        median, best = float(np.median(result.cpu)), min(result.cpu)
        medians.append(median)
        wall = f"{np.median(result.wall):.2f} ({min(result.wall):.2f})"
        print(
            f"| {num_steps} | {median:.2f} ({best:.2f}) | {wall} "
            f"| {result.temporary_mib:.0f} | {result.peak_mib:.0f} | {result.gflop:.0f} "
            f"| {result.gflop / best:.0f} | {result.matrix_gflops:.0f} |",
            flush=True,
        )
    print(f"\nCPU time of N = {NUM_STEPS[1]} over N = {NUM_STEPS[0]}: {medians[1] / medians[0]:.2f}")


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options, description=__doc__)))
