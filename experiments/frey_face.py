"""A GRBM with 400 hidden units on the Frey face images, in the paper's setting (sec. 5.1)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from jaxtyping import Array

import bism_jax
from bism_jax import plotting
from bism_jax.data import load_frey_face
from bism_jax.evaluation import score_matching_objective
from bism_jax.models import GRBM, BernoulliPosterior
from bism_jax.samplers import gibbs
from bism_jax.training import CSVLog, Evaluate, Snapshot
from experiments.launch.distributed import initialize_from_environment
from experiments.methods import MethodConfig
from experiments.run_folder import RunFolder, print_table

_HEIGHT, _WIDTH = 28, 20


@dataclass(frozen=True)
class Config:
    """Train on Frey face and write a run folder.

    Attributes:
        method: what to train by.
        num_hidden: hidden units of the GRBM.
        num_steps: iterations.
        batch_size: rows of a minibatch.
        seed: of parameters, noise and data order.
        ema_decay: of the moving average of theta.
        evaluate_every: iterations between score-matching objectives on the validation set.
        checkpoint_every: iterations between checkpoints.
        data_dir: the data directory; the environment's BISM_JAX_DATA where it is not given.
        parallel: how to use several devices.
        output: the run folder; the same folder and options continue a run.
        progress: show a bar even where there is no terminal.
    """

    method: MethodConfig = field(default_factory=lambda: MethodConfig(noise_std=0.3, learning_rate=2e-4))
    num_hidden: int = 400
    num_steps: int = 20_000
    batch_size: int = 100
    seed: int = 0
    ema_decay: float = 0.999
    evaluate_every: int = 1_000
    checkpoint_every: int = 2_000
    data_dir: Path | None = None
    parallel: Literal["jit", "pmap"] | None = None
    output: Path | None = None
    progress: bool = False


def run(config: Config) -> dict[str, float]:
    """Trains, writes the run folder and returns the final metrics."""
    splits = load_frey_face(config.data_dir)
    folder = RunFolder("frey_face", config, config.output)
    model = GRBM(config.num_hidden)

    def evaluate(snapshot: Snapshot) -> dict[str, float]:
        return {
            "validation_sm": float(score_matching_objective(model, snapshot.theta, splits.validation)),
            "validation_reconstruction_error": _reconstruction_error(
                model, snapshot.theta, splits.validation
            ),
        }

    start = time.perf_counter()
    result = bism_jax.fit(
        model,
        BernoulliPosterior(config.num_hidden) if config.method.is_bilevel else None,
        splits.train,
        method=config.method.make(),
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        rng_key=config.seed,
        ema_decay=config.ema_decay,
        callbacks=[
            Evaluate(evaluate, config.evaluate_every),
            CSVLog(folder.path / "history.csv", every=max(1, config.num_steps // 200)),
        ],
        checkpoint_dir=folder.path / "checkpoints",
        checkpoint_every=config.checkpoint_every,
        parallel=config.parallel,
        progress=config.progress or None,
    )
    metrics = {
        "test score-matching objective": float(score_matching_objective(model, result.theta, splits.test)),
        "test score-matching objective (EMA)": float(
            score_matching_objective(model, result.theta_ema, splits.test)
        ),
        "test reconstruction error": _reconstruction_error(model, result.theta, splits.test),
        "seconds": time.perf_counter() - start,
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


def _samples(model: GRBM, theta: Any, start: np.ndarray, num_steps: int) -> np.ndarray:
    def method(name: str) -> Any:
        return lambda theta, *args: model.apply(theta, *args, method=name)

    def sample(theta: Any, v: Array) -> Any:
        _, h = gibbs(method("sample_h"), method("sample_v"), theta, jax.random.key(2), v, num_steps)
        return model.apply(theta, h, method="mean_v")

    return np.asarray(jax.jit(sample)(theta, start))


def _draw(path: Path, model: GRBM, result: bism_jax.FitResult, test: np.ndarray) -> None:
    def images(v: Any) -> np.ndarray:
        return np.clip(np.asarray(v).reshape(-1, _HEIGHT, _WIDTH), 0, 1)

    noise = 0.5 + np.random.default_rng(1).normal(size=(100, test.shape[1])).astype(test.dtype)
    samples = images(_samples(model, result.theta, noise, 5000))
    grid = plotting.plot_image_grid(samples, columns=20, title="E[v | h] of samples, 5,000 Gibbs sweeps")
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


def main() -> None:
    """Entry point of `python -m experiments.frey_face`."""
    initialize_from_environment()
    run(tyro.cli(Config, description=__doc__))


if __name__ == "__main__":
    main()
