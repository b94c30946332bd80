"""A GRBM with 4 hidden units on the checkerboard, in the paper's setting (sec. 5.1)."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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
from bism_jax.models import GRBM, BernoulliPosterior
from bism_jax.samplers import gibbs
from bism_jax.training import CSVLog, Evaluate, Snapshot
from experiments.launch.distributed import initialize_from_environment
from experiments.methods import MethodConfig
from experiments.run_folder import RunFolder, print_table


@dataclass(frozen=True)
class Config:
    """Train on the checkerboard and write a run folder.

    Attributes:
        method: what to train by.
        num_hidden: hidden units of the GRBM.
        num_steps: iterations.
        batch_size: rows of a minibatch.
        seed: of parameters, noise and data order; the data itself is the same for all seeds.
        ema_decay: of the moving average of theta.
        evaluate_every: iterations between likelihoods on the validation set.
        checkpoint_every: iterations between checkpoints.
        parallel: how to use several devices.
        output: the run folder; the same folder and options continue a run.
        progress: show a bar even where there is no terminal.
    """

    method: MethodConfig = field(default_factory=MethodConfig)
    num_hidden: int = 4
    num_steps: int = 100_000
    batch_size: int = 100
    seed: int = 0
    ema_decay: float = 0.999
    evaluate_every: int = 5_000
    checkpoint_every: int = 20_000
    parallel: Literal["jit", "pmap"] | None = None
    output: Path | None = None
    progress: bool = False


def run(config: Config) -> dict[str, float]:
    """Trains, writes the run folder and returns the final metrics."""
    folder = RunFolder("checkerboard", config, config.output)
    splits = checkerboard_splits(jax.random.key(0))
    model = GRBM(config.num_hidden)

    def evaluate(snapshot: Snapshot) -> dict[str, float]:
        return {"validation_log_likelihood": _mean_log_likelihood(model, snapshot.theta, splits.validation)}

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
    seconds = time.perf_counter() - start
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


def _mean_log_likelihood(model: GRBM, theta: object, v: np.ndarray) -> float:
    return float(log_likelihood(model, theta, v).mean())


def _draw(path: Path, model: GRBM, result: bism_jax.FitResult, test: np.ndarray) -> None:
    def method(name: str) -> Any:
        return lambda theta, *args: model.apply(theta, *args, method=name)

    start = jax.random.uniform(jax.random.key(1), (2000, test.shape[1]))
    sampler = jax.jit(
        lambda theta, v: gibbs(method("sample_h"), method("sample_v"), theta, jax.random.key(2), v, 1000)[0]
    )

    def log_density(points: Array) -> Array:
        return log_likelihood(model, result.theta, jnp.asarray(points))

    samples = np.asarray(sampler(result.theta, start))
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


def main() -> None:
    """Entry point of `python -m experiments.checkerboard`."""
    initialize_from_environment()
    run(tyro.cli(Config, description=__doc__))


if __name__ == "__main__":
    main()
