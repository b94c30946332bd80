"""The measurements behind the defaults of `BiSM`: variants on the checkerboard, over seeds.

Writes one line of JSON a run to `--output` and prints a Markdown table; a run that stands in the file is
not repeated.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from bism_jax import checks
from experiments.checkerboard import Config, run
from experiments.command_line import run_command
from experiments.methods import MethodConfig
from experiments.run_folder import make_folder

VARIANTS = {
    "N = 5, K = 5 (paper)": MethodConfig(),
    "N = 5 kept, K = 0": MethodConfig(keep_unrolled=True, lower_steps=0),
    "N = 5, K = 5, shared noise": MethodConfig(noise="shared"),
    "N = 5 kept, K = 0, shared noise": MethodConfig(keep_unrolled=True, lower_steps=0, noise="shared"),
    "N = 0, K = 5": MethodConfig(num_steps=0),
    "DSM on the exact free energy": MethodConfig(name="dsm"),
}


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        num_seeds: runs a variant, with seeds 0, 1, ...
        num_steps: iterations a run.
        output: the file of results.
    """

    num_seeds: int = 5
    num_steps: int = 100_000
    output: Path = Path("runs/defaults.jsonl")

    def __post_init__(self) -> None:
        for name in ("num_seeds", "num_steps"):
            checks.positive_int(name, getattr(self, name))


def _finished(path: Path) -> list[dict[str, Any]]:
    """The rows of earlier calls."""
    if path.is_dir():
        raise IsADirectoryError(f"--output {path} is a folder; name the file of results.")
    lines = path.read_text().splitlines() if path.exists() else []
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise ValueError(
            f"{path} holds a line that is cut off or edited ({error}); delete the line."
        ) from error


def main(options: Options) -> None:
    """Runs what is missing and prints the table."""
    make_folder(options.output.parent)
    results = {(row["variant"], row["seed"]): row for row in _finished(options.output)}
    for seed in range(options.num_seeds):
        for variant, method in VARIANTS.items():
            if (variant, seed) in results:
                continue
            with tempfile.TemporaryDirectory() as folder:
                config = Config(
                    method=method,
                    seed=seed,
                    num_steps=options.num_steps,
                    checkpoint_every=options.num_steps,
                    output=Path(folder) / "run",
                )
                row = {"variant": variant, "seed": seed, **run(config)}
            results[variant, seed] = row
            with options.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print("| variant | mean log-likelihood | seeds | mean of the EMA | mean SM objective |")
    print("|---|---|---|---|---|")
    for variant in VARIANTS:
        rows = [row for (name, _), row in sorted(results.items()) if name == variant]
        values = [row["test log-likelihood"] for row in rows]
        listed = ", ".join(f"{value:.3f}" for value in values)
        ema = np.mean([row["test log-likelihood (EMA)"] for row in rows])
        objective = np.mean([row["test score-matching objective"] for row in rows])
        print(f"| {variant} | {np.mean(values):.4f} | {listed} | {ema:.4f} | {objective:.2f} |")


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options, description=__doc__)))
