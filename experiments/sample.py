"""Samples of a run of experiments.images as an array, and pictures of them and of what its latents tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from tqdm import tqdm

from bism_jax import checks
from bism_jax.data import load_image_split
from experiments.imaging import pictures
from experiments.imaging.trained import TrainedModel, read_trained
from experiments.launch.experiment import run_experiment
from experiments.run_folder import make_folder


@dataclass(frozen=True)
class Config:
    """Draw samples.

    Attributes:
        run: the run folder.
        num_samples: images drawn from noise, written as an array to samples.npz.
        batch_size: chains at a time.
        seed: of the chains.
        data_dir: the data directory; the environment's BISM_JAX_DATA where it is not given.
        output: the folder to write to; None is RUN/samples-SEED.
        progress: show a bar even where there is no terminal.
    """

    run: Path
    num_samples: int = 100
    batch_size: int = 100
    seed: int = 0
    data_dir: Path | None = None
    output: Path | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        checks.positive_int("num_samples", self.num_samples)
        checks.positive_int("batch_size", self.batch_size)
        checks.seed("seed", self.seed)


def run(config: Config) -> Path:
    """Draws, writes and returns the folder.

    Raises:
        FileExistsError: where samples are there already.
    """
    model = read_trained(config.run)
    folder = config.output or config.run / f"samples-{config.seed}"
    file = folder / "samples.npz"
    if file.exists():
        raise FileExistsError(f"{file} exists; choose another --seed or --output.")
    make_folder(folder)
    samples = many_samples(model, config.seed, config.num_samples, config.batch_size, config.progress)
    np.savez_compressed(file, images=samples)
    test = load_image_split(model.config.data, "test", config.data_dir).images
    pictures.draw_all(model, test[:10], folder, num_chains=min(100, config.num_samples))
    print(f"samples and pictures: {folder}")
    return folder


def many_samples(
    model: TrainedModel, seed: int, num_samples: int, batch_size: int, progress: bool = False
) -> np.ndarray:
    """Samples from noise, in [0, 1], some chains at a time."""
    starts = range(0, num_samples, batch_size)
    blocks = []
    for start in tqdm(starts, desc="sampling", disable=None if not progress else False):
        key = jax.random.fold_in(jax.random.key(seed), start)
        blocks.append(pictures.clip(pictures.draw_samples(model, key, batch_size).x))
    return np.concatenate(blocks)[:num_samples]


if __name__ == "__main__":
    run_experiment(run, lambda: tyro.cli(Config, description=__doc__))
