"""Measures the library on a machine with an accelerator, within a budget of minutes.

    python -m benchmarks.accelerator --minutes 9 --output runs/accelerator
    python -m benchmarks.accelerator --quick --output runs/accelerator-quick

The most telling stages come first; each measurement is a row of rows.csv, rows.json and rows.md as soon as
it exists. It can be cut off anywhere, and the same command goes on where it stopped. See README.md here.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accelerator.options import Options
from benchmarks.accelerator.stages import STAGES
from benchmarks.accelerator.supervise import supervise
from experiments.command_line import run_command


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options of a command line; by argparse, since such a machine may lack what the experiments need."""
    parser = argparse.ArgumentParser(
        "benchmarks.accelerator", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="after which everything is stopped (9)")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the rows and the pictures")
    parser.add_argument("--work", type=Path, help="of compiled programs and checkpoints (OUTPUT/work)")
    parser.add_argument("--arrays", type=Path, help="images, by benchmarks.accelerator.arrays")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES), help="only these")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    given = parser.parse_args(arguments)
    if not given.minutes > 0:
        parser.error(f"--minutes must be positive, not {given.minutes}.")
    if given.output.exists() and not given.output.is_dir():
        parser.error(f"--output {given.output} is a file; choose a folder.")
    if given.arrays is not None and not given.arrays.is_file():
        parser.error(
            f"--arrays {given.arrays} is no file; make one by python -m benchmarks.accelerator.arrays."
        )
    work = given.work or given.output / "work"
    return Options(given.minutes, given.output, work, given.arrays, tuple(given.stages), given.quick)


def _exit(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _exit)  # so that the process of the stage is ended too
    run_command(lambda: sys.exit(supervise(parse())))
