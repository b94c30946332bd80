"""One training iteration of bi-level score matching, by this library and by what else there is.

    pip install "bism-jax[peers]"
    python -m benchmarks.peers --task checkerboard
    python -m benchmarks.peers --task image --channels 64 --batch 100 --rounds 3

Every implementation runs in a process of its own and starts from the same parameters; before timing, its
hypergradient under the same noise is compared with the first one's. The timed rounds alternate between the
implementations, so ratios hold on a busy machine. The image task takes XLA's schedule that saves memory.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro
from tqdm import tqdm

from benchmarks.image_step import save_memory
from benchmarks.resident_memory import peak_of
from benchmarks.rivals.ours import BismJax
from benchmarks.rivals.plain_jax import PlainJax
from benchmarks.rivals.task import Contender, IterationNoise, Task, make_task
from bism_jax import checks
from experiments.command_line import run_command
from experiments.run_folder import make_folder

_REFERENCE = "PyTorch + higher"
_LIBRARIES = ("torch", "higher", "torchopt")


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        task: checkerboard (GRBM 2/4), frey_face (GRBM 560/400), or image (the paper's MNIST network).
        num_steps: N.
        lower_steps: K.
        rounds: over the implementations; medians and quartiles over them are printed.
        seconds: of a round for each implementation, at least one iteration.
        channels: of the image energy; the paper's is 64.
        batch: images; the other tasks have 100 rows.
        threads: of every implementation, on a CPU.
        implementations: which; the first is the one that gradients are compared with.
        output: a folder for the table, or None.
    """

    task: Literal["checkerboard", "frey_face", "image"] = "checkerboard"
    num_steps: int = 5
    lower_steps: int = 5
    rounds: int = 7
    seconds: float = 0.5
    channels: int = 16
    batch: int = 50
    threads: int = 1
    implementations: tuple[str, ...] = (
        "plain JAX",
        "bism_jax, fresh noise",
        "bism_jax, shared noise",
        _REFERENCE,
        "PyTorch + TorchOpt",
    )
    output: Path | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "channels", "batch", "threads"):
            checks.positive_int(name, getattr(self, name))
        checks.positive_int("num_steps", self.num_steps)
        checks.non_negative_int("lower_steps", self.lower_steps)
        checks.positive("seconds", self.seconds)


class Result(NamedTuple):
    """Of one implementation.

    Attributes:
        times: seconds of an iteration, one a round.
        peak_mib: what an iteration adds to the resident memory at its peak; on a GPU, the most it has held.
        difference: |gradient - first one's| / |first one's|; None where it has other noise.
    """

    times: list[float]
    peak_mib: float
    difference: float | None


def main(options: Options) -> None:
    """Prints a Markdown table."""
    _check(options)
    if options.output is not None:
        make_folder(options.output)
    os.environ["PJRT_NPROC"] = str(options.threads)  # of the processes that are about to start
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if options.task == "image":
        save_memory()
    with ExitStack() as stack:
        workers = {name: stack.enter_context(_worker(options, name)) for name in options.implementations}
        results, device = _measure(workers, options)
    table = _table(options, results, device)
    print(table)
    if options.output is not None:
        model = f"image-{options.channels}" if options.task == "image" else options.task
        (options.output / f"{model}-N{options.num_steps}.md").write_text(table + "\n")
        versions = {library: version(library) for library in ("jax", *_LIBRARIES)}
        machine = {"device": device, "machine": platform.machine(), "python": platform.python_version()}
        (options.output / "machine.json").write_text(json.dumps(machine | versions, indent=2) + "\n")


def _check(options: Options) -> None:
    missing = [library for library in _LIBRARIES if importlib.util.find_spec(library) is None]
    if missing:
        raise ImportError(
            "benchmarks.peers compares with PyTorch, higher and TorchOpt: pip install 'bism-jax[peers]'."
        )
    unknown = [name for name in options.implementations if name not in Options.implementations]
    if unknown:
        known = ", ".join(map(repr, Options.implementations))
        raise SystemExit(f"--implementations {unknown[0]!r} is unknown; choose from: {known}.")
    if _REFERENCE not in options.implementations:
        raise SystemExit(f"--implementations must name {_REFERENCE!r}, which the others are divided by.")


def _worker(options: Options, name: str) -> ProcessPoolExecutor:
    start = functools.partial(_start, options, name)
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=start)


def _measure(workers: dict[str, ProcessPoolExecutor], options: Options) -> tuple[dict[str, Result], str]:
    def call(name: str, fn: Callable[..., Any], *args: Any) -> Any:
        return workers[name].submit(fn, *args).result()

    gradients, counts, peaks = {}, {}, {}
    for name in tqdm(workers, desc="compiling, comparing", disable=None):
        gradients[name] = call(name, _gradient)
        counts[name] = call(name, _count, options.seconds)
        peaks[name] = call(name, _peak)
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in tqdm(range(options.rounds), desc="rounds", disable=None):
        for name in workers:
            times[name].append(call(name, _seconds, counts[name]))
    expected = gradients[options.implementations[0]]
    results = {
        name: Result(times[name], peaks[name], _difference(name, gradients[name], expected))
        for name in workers
    }
    return results, call(options.implementations[0], _device)


def _difference(name: str, found: np.ndarray, expected: np.ndarray) -> float | None:
    if "shared" in name:
        return None
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


_rival: list[Contender] = []  # of the process
_noise: list[IterationNoise] = []


def _start(options: Options, name: str) -> None:
    task = make_task(options.task, options.num_steps, options.lower_steps, options.channels, options.batch)
    _rival[:], _noise[:] = [_make(name, task, options.threads)], [task.draw_noise(0)]


def _make(name: str, task: Task, threads: int) -> Contender:
    """PyTorch on the accelerator where JAX has one."""
    if name.startswith("bism_jax"):
        return BismJax(task, "shared" if "shared" in name else "fresh")
    if name == PlainJax.name:
        return PlainJax(task)
    import torch

    from benchmarks.rivals.torch_rivals import Higher, TorchOpt

    torch.set_num_threads(threads)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    return Higher(task, device) if name == Higher.name else TorchOpt(task, device)


def _gradient() -> np.ndarray:
    return _rival[0].hypergradient(_noise[0])


def _count(seconds: float) -> int:
    """Iterations that take about so long, after some that compile and warm up."""
    _rival[0].run(1)
    once = _seconds(1)
    again = _seconds(max(1, int(0.1 * seconds / once)))
    return max(1, int(seconds / again))


def _peak() -> float:
    if jax.default_backend() == "cpu" or "PyTorch" not in _rival[0].name:
        return peak_of(lambda: _rival[0].run(1))
    import torch

    _rival[0].run(1)
    return torch.cuda.max_memory_allocated() / 2**20


def _seconds(num_iterations: int) -> float:
    """Of an iteration."""
    start = time.perf_counter()
    _rival[0].run(num_iterations)
    return (time.perf_counter() - start) / num_iterations


def _device() -> str:
    return jax.devices()[0].device_kind


def _table(options: Options, results: dict[str, Result], device: str) -> str:
    title = f"{options.task}, N = {options.num_steps}, K = {options.lower_steps}"
    if options.task == "image":
        title += f", {options.channels} channels, batch {options.batch}"
    lines = [
        f"{title}; {device}, {options.threads} threads",
        "",
        f"| implementation | ms, median (best) | {_REFERENCE} over it (quartiles) | MiB | gradient off by |",
        "|---|---|---|---|---|",
    ]
    reference = np.array(results[_REFERENCE].times)
    for name, result in results.items():
        times = np.array(result.times)
        low, median, high = np.percentile(reference / times, [25, 50, 75])
        shown = "other noise" if result.difference is None else f"{result.difference:.0e}"
        lines.append(
            f"| {name} | {1e3 * np.median(times):.3g} ({1e3 * times.min():.3g}) "
            f"| {median:.3g} ({low:.3g} to {high:.3g}) | {result.peak_mib:.0f} | {shown} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options, description=__doc__)))
