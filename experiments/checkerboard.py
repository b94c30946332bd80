"""A GRBM with 4 hidden units on the checkerboard, in the paper's setting (sec. 5.1)."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The kernels of this model take microseconds, less than handing them to a second thread costs; read when
# JAX starts its CPU backend. (benchmarks/NOTES.md)
os.environ.setdefault("PJRT_NPROC", "1")

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array

import bism_jax
from bism_jax import plotting
from bism_jax.data import checkerboard_splits
from bism_jax.evaluation import log_likelihood, score_matching_objective
from bism_jax.models import GRBM
from bism_jax.training import Snapshot
from experiments.grbm import GRBMConfig, sample, train
from experiments.launch.experiment import run_experiment
from experiments.run_folder import RunFolder, print_table


@dataclass(frozen=True)
class Config(GRBMConfig):
    """Train on the checkerboard and write a run folder; the data is the same for all seeds."""


def run(config: Config) -> dict[str, float]:
    """Trains, writes the run folder and returns the final metrics."""
    folder = RunFolder("checkerboard", config, config.output, may_grow=("num_steps",))
    splits = checkerboard_splits(jax.random.key(0))
    model = GRBM(config.num_hidden)

    def evaluate(snapshot: Snapshot) -> dict[str, float]:
        return {"validation_log_likelihood": _mean_log_likelihood(model, snapshot.theta, splits.validation)}

    result, seconds = train(config, folder, splits.train, evaluate)
    metrics = {
        "test log-likelihood": _mean_log_likelihood(model, result.theta, splits.test),
        "test log-likelihood (EMA)": _mean_log_likelihood(model, result.theta_ema, splits.test),
        "log-likelihood of the truth": math.log(2),
        "test score-matching objective": float(score_matching_objective(model, result.theta, splits.test)),
        "seconds": seconds,
    }
    folder.write_metrics(metrics)
    _draw(folder.path, model, result, splits.test)
    if jax.process_index() == 0:
        print_table(f"checkerboard, {config.method.name}, seed {config.seed}", metrics)
        print(f"\npictures, history, metrics and checkpoints: {folder.path}")
    return metrics


def _mean_log_likelihood(model: GRBM, theta: Any, v: np.ndarray) -> float:
    return float(log_likelihood(model, theta, v).mean())


def _draw(path: Path, model: GRBM, result: bism_jax.FitResult, test: np.ndarray) -> None:
    start = jax.random.uniform(jax.random.key(1), (2000, test.shape[1]))
    samples, _ = sample(model, result.theta, start, num_sweeps=1000)

    def log_density(points: Array) -> Array:
        return log_likelihood(model, result.theta, jnp.asarray(points))

    plotting.save(plotting.plot_density(test[:2000], samples, log_density), path / "density.png")
    plotting.save(plotting.plot_history(result.history), path / "history.png")
    rows = [row for row in result.evaluations if "validation_log_likelihood" in row]
    curve = ([row["step"] for row in rows], [row["validation_log_likelihood"] for row in rows])
    figure = plotting.plot_curves(
        {"validation": (np.array(curve[0]), np.array(curve[1]))},
        "iteration",
        "log-likelihood [nats]",
        {"truth": math.log(2)},
    )
    plotting.save(figure, path / "log_likelihood.png")


if __name__ == "__main__":
    run_experiment(run, lambda: tyro.cli(Config, description=__doc__), on_hosts=True)
