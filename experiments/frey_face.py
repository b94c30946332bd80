"""A GRBM with 400 hidden units on the Frey face images, in the paper's setting (sec. 5.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import bism_jax
from bism_jax import plotting
from bism_jax.data import load_frey_face
from bism_jax.evaluation import score_matching_objective
from bism_jax.models import GRBM
from bism_jax.training import Snapshot
from experiments.grbm import GRBMConfig, sample, train
from experiments.launch.experiment import run_experiment
from experiments.methods import MethodConfig
from experiments.run_folder import RunFolder, print_table

_HEIGHT, _WIDTH = 28, 20


@dataclass(frozen=True)
class Config(GRBMConfig):
    """Train on Frey face and write a run folder.

    Attributes:
        data_dir: the data directory; the environment's BISM_JAX_DATA where it is not given.
    """

    method: MethodConfig = field(default_factory=lambda: MethodConfig(noise_std=0.3, learning_rate=2e-4))
    num_hidden: int = 400
    num_steps: int = 20_000
    evaluate_every: int = 1_000
    checkpoint_every: int = 2_000
    data_dir: Path | None = None


def run(config: Config) -> dict[str, float]:
    """Trains, writes the run folder and returns the final metrics."""
    splits = load_frey_face(config.data_dir)
    folder = RunFolder("frey_face", config, config.output, may_grow=("num_steps",))
    model = GRBM(config.num_hidden)

    def evaluate(snapshot: Snapshot) -> dict[str, float]:
        return {
            "validation_sm": float(score_matching_objective(model, snapshot.theta, splits.validation)),
            "validation_reconstruction_error": _reconstruction_error(
                model, snapshot.theta, splits.validation
            ),
        }

    result, seconds = train(config, folder, splits.train, evaluate)
    metrics = {
        "test score-matching objective": float(score_matching_objective(model, result.theta, splits.test)),
        "test score-matching objective (EMA)": float(
            score_matching_objective(model, result.theta_ema, splits.test)
        ),
        "test reconstruction error": _reconstruction_error(model, result.theta, splits.test),
        "seconds": seconds,
    }
    folder.write_metrics(metrics)
    _draw(folder.path, model, result, splits.test)
    if jax.process_index() == 0:
        print_table(f"Frey face, {config.method.name}, seed {config.seed}", metrics)
        print(f"\npictures, history, metrics and checkpoints: {folder.path}")
    return metrics


def _reconstruct(model: GRBM, theta: Any, v: np.ndarray) -> Any:
    """E[v | h] at the posterior mean of h."""
    mean = model.apply(theta, v, method=lambda module, v: module.posterior(v).mean)
    return model.apply(theta, mean, method="mean_v")


def _reconstruction_error(model: GRBM, theta: Any, v: np.ndarray) -> float:
    """The root mean squared error a pixel, of a range of [0, 1]."""
    return float(np.sqrt(np.mean((np.asarray(_reconstruct(model, theta, v)) - v) ** 2)))


def _draw(path: Path, model: GRBM, result: bism_jax.FitResult, test: np.ndarray) -> None:
    def images(v: Any) -> np.ndarray:
        return np.clip(np.asarray(v).reshape(-1, _HEIGHT, _WIDTH), 0, 1)

    noise = 0.5 + np.random.default_rng(1).normal(size=(100, test.shape[1])).astype(test.dtype)
    _, means = sample(model, result.theta, noise, num_sweeps=5000)
    grid = plotting.plot_image_grid(
        images(means), columns=20, title="E[v | h] of samples, 5,000 Gibbs sweeps"
    )
    plotting.save(grid, path / "samples.png")
    rows = images(test[:: max(1, len(test) // 16)][:16])
    reconstructed = images(_reconstruct(model, result.theta, rows.reshape(len(rows), -1)))
    plotting.save(plotting.plot_reconstructions(rows, reconstructed), path / "reconstructions.png")
    plotting.save(plotting.plot_history(result.history), path / "history.png")
    evaluations = {
        name: np.array([row[name] for row in result.evaluations])
        for name in ("validation_sm", "validation_reconstruction_error")
    }
    steps = np.array([row["step"] for row in result.evaluations])
    plotting.save(plotting.plot_history(evaluations, steps, window=1), path / "evaluations.png")


if __name__ == "__main__":
    run_experiment(run, lambda: tyro.cli(Config, description=__doc__), on_hosts=True)
