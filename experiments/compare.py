"""Trains by every method on one data set, over seeds, and compares them in tables and figures.

A run that is finished is not repeated: call again with more seeds, or in several processes with some of
the methods each, and the report is made from all that is there.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if "frey_face" not in " ".join(sys.argv):  # as in experiments.checkerboard; read when JAX starts
    os.environ.setdefault("PJRT_NPROC", "1")


import tyro

from bism_jax import checks
from experiments.comparison.record import run_contender
from experiments.comparison.report import write_report
from experiments.comparison.setting import Setting, checkerboard_setting, frey_face_setting
from experiments.launch.experiment import run_experiment
from experiments.run_folder import RunFolder


@dataclass(frozen=True)
class Config:
    """Compare training methods.

    Attributes:
        data: checkerboard (every method) or frey_face (DSM against bi-level DSM).
        methods: which ones, by the names in the table; all where none is given.
        num_seeds: runs a method, with seeds 0, 1, ...; None is 10 on the checkerboard and 2 on Frey face.
        num_steps: iterations a run; None is the paper's, 100,000 and 20,000.
        evaluate_every: iterations between the points of a learning curve; None is a twentieth of a run.
        data_dir: the data directory; the environment's BISM_JAX_DATA where it is not given.
        output: the folder of the comparison; None is runs/compare-DATA.
    """

    data: Literal["checkerboard", "frey_face"] = "checkerboard"
    methods: tuple[str, ...] = ()
    num_seeds: int | None = None
    num_steps: int | None = None
    evaluate_every: int | None = None
    data_dir: Path | None = None
    output: Path | None = None

    def __post_init__(self) -> None:
        for name in ("num_seeds", "num_steps", "evaluate_every"):
            if getattr(self, name) is not None:
                checks.positive_int(name, getattr(self, name))


@dataclass(frozen=True)
class Identity:
    """What the runs in one folder have in common.

    Attributes:
        data: the data set.
        num_steps: iterations a run.
        evaluate_every: iterations between the points of a learning curve.
    """

    data: str
    num_steps: int
    evaluate_every: int


def run(config: Config) -> Path:
    """Runs what is missing, writes the report and returns the folder.

    Raises:
        ValueError: for a method that is not among the contenders.
        FileExistsError: for a folder of a comparison with other options.
    """
    setting = _setting(config)
    names = config.methods or tuple(setting.contenders)
    unknown = [name for name in names if name not in setting.contenders]
    if unknown:
        raise ValueError(f"methods {unknown} are unknown; choose among {list(setting.contenders)}.")
    num_steps = config.num_steps or setting.num_steps
    every = config.evaluate_every or max(1, num_steps // 20)
    path = config.output or Path("runs") / f"compare-{config.data}"
    folder = RunFolder("compare", Identity(config.data, num_steps, every), path).path
    for seed in range(config.num_seeds or setting.num_seeds):
        for name in names:
            run_contender(setting, name, seed, num_steps, every, folder)
    write_report(setting, folder)
    print(f"\ntables and figures: {folder}")
    return folder


def _setting(config: Config) -> Setting:
    if config.data == "checkerboard":
        return checkerboard_setting()
    return frey_face_setting(config.data_dir)


if __name__ == "__main__":
    run_experiment(run, lambda: tyro.cli(Config, description=__doc__))
