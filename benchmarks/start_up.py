"""How long a user waits before the first step: the import, the first `fit`, the next ones, and `plan`.

    python -m benchmarks.start_up --output docs/results/start_up

Everything is measured in a new process, on the checkerboard with a GRBM of four hidden units; a program
counts where XLA compiles it. Writes table.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import tyro

from bism_jax import checks
from experiments.command_line import run_command
from experiments.run_folder import make_folder

# Before and aim: the first was measured before programs were kept and imports were lazy, on two cores.
FIGURES = {
    "import, over `import jax, flax, optax` (CPU)": ("2.1", "1.3"),
    "`fit`, 5 steps, nothing cached": ("12.5 to 15 s, 49 programs", "7 s, 8 programs"),
    "the same, with a warm persistent cache": ("4.1 to 4.5 s", "2 s"),
    "the same call again in one process": ("9.8 to 11.4 s, 9 programs", "0.3 s, 0 programs"),
    "ten seeds of 200 steps in one process": ("about 100 s", "8 s"),
    "`plan` with a budget (CPU)": ("72 s", "20 s"),
}
_COMPILED = "/jax/core/compile/backend_compile_duration"
_FROM_CACHE = "/jax/compilation_cache/cache_hits"


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        repeats: processes for each import, of which the median counts.
        output: the folder to write to.
    """

    repeats: int = 5
    output: Path = Path("runs/start_up")

    def __post_init__(self) -> None:
        checks.positive_int("repeats", self.repeats)


@dataclass
class Cost:
    """Of some calls.

    Attributes:
        seconds: by the clock.
        cpu_seconds: of all threads.
        num_programs: that were compiled.
    """

    seconds: float
    cpu_seconds: float
    num_programs: int = 0

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s ({self.cpu_seconds:.2f} CPU s), {self.num_programs} programs"


def main(options: Options) -> None:
    """Measures, writes and prints."""
    make_folder(options.output)
    table = _table(_measure_all(options.repeats))
    (options.output / "table.md").write_text(table)
    print(table)


def _measure_all(repeats: int) -> dict[str, str]:
    imports = {
        code: median(_in_new_process("-c", code)[1] for _ in range(repeats))
        for code in ("import jax, flax, optax", "import bism_jax")
    }
    ratio = imports["import bism_jax"] / imports["import jax, flax, optax"]
    first, second, seeds = _costs("fit")
    with tempfile.TemporaryDirectory() as cache:
        _costs("fit", cache)
        warm = _costs("fit", cache)[0]
    (plan,) = _costs("plan")
    found = [
        f"{ratio:.2f} ({imports['import bism_jax']:.2f} CPU s)",
        *map(str, (first, warm, second, seeds, plan)),
    ]
    return dict(zip(FIGURES, found, strict=True))


def _table(found: dict[str, str]) -> str:
    lines = ["| figure | before | now | aim |", "|---|---|---|---|"]
    lines += [f"| {name} | {before} | {found[name]} | {aim} |" for name, (before, aim) in FIGURES.items()]
    return "\n".join(lines) + "\n"


def _costs(task: str, cache: str | None = None) -> list[Cost]:
    return [Cost(**cost) for cost in json.loads(_in_new_process("-m", __spec__.name, task, cache=cache)[0])]


def _in_new_process(*arguments: str, cache: str | None = None) -> tuple[str, float]:
    """What it prints, and its CPU seconds."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    if cache is not None:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
    before = os.times()
    process = subprocess.run(
        [sys.executable, *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return process.stdout, cpu


class _Meter:
    """Counts the programs that XLA compiles in this process."""

    def __init__(self) -> None:
        import jax

        self._num_programs = 0
        jax.monitoring.register_event_duration_secs_listener(self._compiled)
        jax.monitoring.register_event_listener(self._read)

    def _compiled(self, event: str, duration_secs: float, **_: Any) -> None:
        self._num_programs += event == _COMPILED

    def _read(self, event: str, **_: Any) -> None:
        self._num_programs -= event == _FROM_CACHE  # for which JAX reports a compilation too

    def cost(self, call: Any) -> Cost:
        self._num_programs = 0
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        return Cost(time.perf_counter() - wall, time.process_time() - cpu, self._num_programs)


def _work(task: str) -> list[Cost]:
    """One task, in a process of its own."""
    import jax
    import numpy as np

    import bism_jax
    from bism_jax.data import checkerboard_splits
    from bism_jax.models import GRBM, BernoulliPosterior

    data = np.asarray(checkerboard_splits(jax.random.key(0)).train)
    meter = _Meter()

    def fit(num_steps: int, num_seeds: int = 1) -> None:
        for seed in range(num_seeds):
            models = GRBM(num_hidden=4), BernoulliPosterior(num_hidden=4)
            bism_jax.fit(*models, data, num_steps=num_steps, rng_key=seed, progress=False)

    def plan() -> None:
        models = GRBM(num_hidden=4), BernoulliPosterior(num_hidden=4)
        bism_jax.plan(*models, jax.device_put(data[:100]), memory_budget=2**30, progress=False)

    calls = [lambda: fit(5), lambda: fit(5), lambda: fit(200, num_seeds=10)] if task == "fit" else [plan]
    return [meter.cost(call) for call in calls]


if __name__ == "__main__":
    if sys.argv[1:] in (["fit"], ["plan"]):
        print(json.dumps([vars(cost) for cost in _work(sys.argv[1])]))
    else:
        run_command(lambda: main(tyro.cli(Options, description=__doc__)))
