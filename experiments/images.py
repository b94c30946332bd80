"""A deep EBLVM on images, by bi-level multiscale denoising score matching (the paper's sec. 5.2), or a rival.

`--preset smoke` is a trial of a minute on two cores, most of it compilation, `small` takes
half an hour to an hour there, and `paper` is the published setting, for an accelerator. Every option can be
changed after the preset. The run folder holds the configuration, the history, checkpoints that the same
command continues from, the weights and pictures; `experiments.sample` and `experiments.evaluate` go on
from it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import bism_jax
from bism_jax import plotting
from bism_jax.data import MirroredImages, load_image_split
from bism_jax.training import CSVLog, Snapshot
from experiments.imaging import pictures
from experiments.imaging.config import MIRRORED, Data, ImageConfig, Preset, preset
from experiments.imaging.networks import make_energy, make_method, make_posterior
from experiments.imaging.trained import build, write_weights
from experiments.launch.experiment import run_experiment
from experiments.run_folder import RunFolder, print_table

_NUM_CHAINS = 100  # of every grid, so that they share a program


@dataclass(frozen=True)
class Start:
    """What the other options start from.

    Attributes:
        data: the data set.
        preset: the settings.
    """

    data: Data = "mnist"
    preset: Preset = "small"


def run(config: ImageConfig) -> Path:
    """Trains, draws pictures and returns the run folder."""
    train = load_image_split(config.data, "train", config.data_dir).images[: config.num_images]
    test = load_image_split(config.data, "test", config.data_dir).images
    folder = RunFolder("images", config, config.output or _default_folder(config)).path
    start = time.perf_counter()
    result = _fit(config, MirroredImages(train) if config.data in MIRRORED else train, folder)
    seconds = time.perf_counter() - start
    if jax.process_index() > 0:
        return folder
    write_weights(folder, result.theta_ema, result.phi)
    _plot_history(folder, result)
    model = build(config, result.theta_ema, result.phi)
    pictures.draw_all(model, test[:10], folder, num_chains=_NUM_CHAINS)
    last = {name: float(np.mean(values[-100:])) for name, values in result.history.items()}
    print_table(f"{config.data}, {config.training.name}, {config.preset}", {**last, "seconds": seconds})
    print(f"\npictures, history, weights and checkpoints: {folder}")
    return folder


def _fit(config: ImageConfig, train: Any, folder: Path) -> bism_jax.FitResult:
    return bism_jax.fit(
        make_energy(config),
        make_posterior(config),
        train,
        method=make_method(config),
        num_steps=config.iterations,
        batch_size=config.batch_size,
        rng_key=config.seed,
        ema_decay=config.ema_decay,
        callbacks=[
            CSVLog(folder / "history.csv", every=max(1, config.iterations // 500)),
            _Pictures(config, folder),
        ],
        checkpoint_dir=folder / "checkpoints",
        checkpoint_every=config.checkpoint_every,
        parallel=config.parallel,
        progress=config.progress or None,
    )


@dataclass(frozen=True)
class _Pictures:
    """Draws some samples on the way."""

    config: ImageConfig
    folder: Path

    @property
    def every(self) -> int:
        """Iterations between pictures."""
        return self.config.picture_every

    def __call__(self, snapshot: Snapshot) -> None:
        """Writes a grid of samples."""
        if jax.process_index() > 0 or snapshot.step == self.config.iterations:
            return
        model = build(self.config, snapshot.theta_ema, snapshot.phi)
        samples = pictures.draw_samples(model, jax.random.key(0), _NUM_CHAINS)
        path = self.folder / "samples" / f"iteration-{snapshot.step}.png"
        pictures.save_samples(pictures.clip(samples.x), path)


def _plot_history(folder: Path, result: bism_jax.FitResult) -> None:
    plotting.save(plotting.plot_history(result.history), folder / "history.png")


def _default_folder(config: ImageConfig) -> Path:
    return Path("runs") / f"images-{config.data}-{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}"


def parse(args: list[str]) -> ImageConfig:
    """The configuration of a command line: the preset, then what is given beside it."""
    start, _ = tyro.cli(Start, args=args, return_unknown_args=True, add_help=False)
    default: Any = preset(start.data, start.preset)
    return tyro.cli(ImageConfig, args=args, default=replace(default), description=__doc__)


if __name__ == "__main__":
    run_experiment(run, lambda: parse(sys.argv[1:]), on_hosts=True)
