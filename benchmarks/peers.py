"""One training iteration of bi-level score matching, by this library and by what else there is.

    pip install "bism-jax[peers]"
    python -m benchmarks.peers --task checkerboard

Every implementation starts from the same parameters; before timing, its hypergradient under the same noise is
compared with that of plain JAX. The timed rounds alternate between the implementations, so ratios hold on a
busy machine.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro

from benchmarks.rivals.ours import BismJax
from benchmarks.rivals.plain_jax import PlainJax
from benchmarks.rivals.task import Contender, Task, make_task

_REFERENCE = "PyTorch + higher"


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
        threads: of PyTorch; JAX takes the cores that the process is given.
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
    output: Path | None = None


def contenders(task: Task, threads: int) -> list[Contender]:
    """Those that can be imported; PyTorch on the accelerator where JAX has one.

    Raises:
        ImportError: where PyTorch, higher or TorchOpt is missing.
    """
    try:
        import torch

        from benchmarks.rivals.torch_rivals import Higher, TorchOpt
    except ImportError as error:
        raise ImportError(
            "benchmarks.peers compares with PyTorch, higher and TorchOpt: pip install 'bism-jax[peers]'."
        ) from error
    torch.set_num_threads(threads)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    ours = [BismJax(task, "fresh"), BismJax(task, "shared")]
    return [PlainJax(task), *ours, Higher(task, device), TorchOpt(task, device)]


def main(options: Options) -> None:
    """Prints a Markdown table."""
    task = make_task(options.task, options.num_steps, options.lower_steps, options.channels, options.batch)
    rivals = contenders(task, options.threads)
    differences = _differences(task, rivals)
    counts = {rival.name: _count(rival, options.seconds) for rival in rivals}
    times: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    for _ in range(options.rounds):
        for rival in rivals:
            times[rival.name].append(_seconds(rival, counts[rival.name]))
    table = _table(options, times, differences)
    print(table)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"{options.task}-N{options.num_steps}.md").write_text(table + "\n")


def _differences(task: Task, rivals: list[Contender]) -> dict[str, float | None]:
    noise = task.draw_noise(0)
    expected = rivals[0].hypergradient(noise)
    scale = np.linalg.norm(expected)
    return {
        rival.name: None
        if "shared" in rival.name
        else float(np.linalg.norm(rival.hypergradient(noise) - expected) / scale)
        for rival in rivals
    }


def _count(rival: Contender, seconds: float) -> int:
    """Iterations that take about so long, after some that compile and warm up."""
    rival.run(1)
    once = _seconds(rival, 1)
    again = _seconds(rival, max(1, int(0.1 * seconds / once)))
    return max(1, int(seconds / again))


def _seconds(rival: Contender, num_iterations: int) -> float:
    """Of an iteration."""
    start = time.perf_counter()
    rival.run(num_iterations)
    return (time.perf_counter() - start) / num_iterations


def _table(options: Options, times: dict[str, list[float]], differences: dict[str, float | None]) -> str:
    title = f"{options.task}, N = {options.num_steps}, K = {options.lower_steps}"
    if options.task == "image":
        title += f", {options.channels} channels, batch {options.batch}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        f"{title}; {jax.devices()[0].device_kind}, {cores} cores, PyTorch threads: {options.threads}",
        "",
        f"| implementation | ms, median (best) | {_REFERENCE} over it (quartiles) | gradient differs by |",
        "|---|---|---|---|",
    ]
    reference = np.array(times[_REFERENCE])
    for name, values in times.items():
        low, median, high = np.percentile(reference / np.array(values), [25, 50, 75])
        difference = differences[name]
        shown = "other noise" if difference is None else f"{difference:.0e}"
        lines.append(
            f"| {name} | {1e3 * np.median(values):.3g} ({1e3 * min(values):.3g}) "
            f"| {median:.3g} ({low:.3g} to {high:.3g}) | {shown} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
