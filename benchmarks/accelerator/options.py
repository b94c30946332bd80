"""What the command is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What to measure, and for how long.

    Attributes:
        minutes: after which everything is stopped.
        output: the folder of the rows and the pictures.
        work: the folder of compiled programs, checkpoints and weights.
        arrays: a file of images by `benchmarks.accelerator.arrays`, or None.
        stages: names of stages, in whatever order.
        quick: tiny sizes.
    """

    minutes: float
    output: Path
    work: Path
    arrays: Path | None
    stages: tuple[str, ...]
    quick: bool
