"""The price of unrolling: time, memory and error by strategy and depth N, to choose from.

    python -m benchmarks.unroll_depth --quick
    python -m benchmarks.unroll_depth --models mlp image-8 --depths 0 5 50

Measures one training iteration with N lower-level steps (shared noise, all kept), each model in a process of
its own. Writes measurements.csv as it goes on, a Markdown table and figures; the same command continues an
interrupted run.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import platform
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from benchmarks.depth import report
from benchmarks.depth.measure import Bench, Measurement, describe_machine
from benchmarks.depth.settings import SETTINGS, STRATEGIES
from bism_jax import checks
from experiments.command_line import run_command
from experiments.run_folder import make_folder

_QUICK_SECONDS = 0.1


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        models: checkerboard, frey_face, mlp, or image-CHANNELS with 2, 4, 8, 16 or 64.
        strategies: which; by default all.
        depths: N.
        seconds: of timing for each program, at least 5 iterations.
        errors: whether to measure the error of the hypergradient, which compiles as much again, and plain
            reverse mode in float64 for each depth.
        quick: three minutes on two cores: two models, three strategies, three depths.
        output: the folder to write to.
    """

    models: tuple[str, ...] = ("checkerboard", "frey_face", "mlp", "image-4", "image-8")
    strategies: tuple[str, ...] = tuple(STRATEGIES)
    depths: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50, 100)
    seconds: float = 1.0
    errors: bool = True
    quick: bool = False
    output: Path = Path("runs/unroll_depth")

    def __post_init__(self) -> None:
        checks.positive("seconds", self.seconds)


def main(options: Options) -> None:
    """Measures, writes and prints."""
    if options.quick:
        options = replace(
            options,
            models=("checkerboard", "mlp"),
            strategies=("plain scan", "mixed", "mixed, segments"),
            depths=(0, 5, 20),
            seconds=_QUICK_SECONDS,
        )
    _check(options)
    make_folder(options.output)
    file = options.output / "measurements.csv"
    rows = report.read_csv(file) if file.exists() else []
    done = {(row.model, row.strategy, row.num_steps) for row in rows}
    context = multiprocessing.get_context("spawn")
    for model in options.models:
        cases = [case for case in _cases(options) if (model, *case) not in done]
        if not cases:
            continue
        start = functools.partial(_start, model, options.seconds, options.errors)
        with ProcessPoolExecutor(1, context, initializer=start) as pool:
            for strategy, num_steps in tqdm(cases, desc=model, disable=None):
                row = pool.submit(_measure, strategy, num_steps).result()
                report.append_csv(file, row)
                rows.append(row)
            machine = pool.submit(describe_machine).result()
        machine |= {"machine": platform.machine(), "python": platform.python_version()}
        (options.output / "machine.json").write_text(json.dumps(machine, indent=2) + "\n")
    table = report.markdown(rows)
    (options.output / "table.md").write_text(table)
    report.draw(rows, options.output)
    print(table)
    print(f"table and figures: {options.output}")


def _check(options: Options) -> None:
    for name, given, known in (
        ("models", options.models, SETTINGS),
        ("strategies", options.strategies, STRATEGIES),
    ):
        unknown = [entry for entry in given if entry not in known]
        if unknown:
            raise SystemExit(f"--{name} {unknown[0]!r} is unknown; choose from: {', '.join(known)}.")
    if min(options.depths, default=-1) < 0:
        raise SystemExit(f"--depths must be numbers of steps from 0, not {options.depths}.")


def _cases(options: Options) -> list[tuple[str, int]]:
    cases = [("N = 0", 0)] if 0 in options.depths else []
    return cases + [(strategy, n) for n in options.depths if n > 0 for strategy in options.strategies]


_bench: list[Any] = []  # of the process


def _start(model: str, seconds: float, errors: bool) -> None:
    _bench[:] = [Bench(model, seconds, errors)]


def _measure(strategy: str, num_steps: int) -> Measurement:
    return _bench[0].measure(strategy, num_steps)


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options, description=__doc__)))
