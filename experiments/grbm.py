"""What the experiments with a GRBM share: options, training and sampling."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import bism_jax
from bism_jax import checks
from bism_jax.models import GRBM, BernoulliPosterior
from bism_jax.samplers import gibbs
from bism_jax.training import CSVLog, Evaluate, Snapshot
from experiments.methods import MethodConfig
from experiments.run_folder import RunFolder


@dataclass(frozen=True)
class GRBMConfig:
    """Options of a run.

    Attributes:
        method: what to train by.
        num_hidden: hidden units of the GRBM.
        num_steps: iterations.
        batch_size: rows of a minibatch.
        seed: of parameters, noise and data order.
        ema_decay: of the moving average of theta.
        evaluate_every: iterations between evaluations on the validation set.
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

    def __post_init__(self) -> None:
        checks.non_negative_int("num_steps", self.num_steps)
        for name in ("num_hidden", "batch_size", "evaluate_every", "checkpoint_every"):
            checks.positive_int(name, getattr(self, name))
        checks.fraction("ema_decay", self.ema_decay)
        checks.seed("seed", self.seed)
        self.method.make()


def train(
    config: GRBMConfig,
    folder: RunFolder,
    data: np.ndarray,
    evaluate: Callable[[Snapshot], Mapping[str, float]],
) -> tuple[bism_jax.FitResult, float]:
    """Fits with logs and checkpoints in the run folder; returns the result and the seconds it took."""
    start = time.perf_counter()
    result = bism_jax.fit(
        GRBM(config.num_hidden),
        BernoulliPosterior(config.num_hidden) if config.method.is_bilevel else None,
        data,
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
    return result, time.perf_counter() - start


def sample(model: GRBM, theta: Any, start: Any, num_sweeps: int) -> tuple[np.ndarray, np.ndarray]:
    """The visible units after `num_sweeps` of Gibbs sampling, and E[v | h] for the h they come from."""

    def method(name: str) -> Any:
        return lambda theta, *args: model.apply(theta, *args, method=name)

    @jax.jit
    def run(theta: Any, v: jax.Array) -> Any:
        key = jax.random.key(2)
        v, h = gibbs(method("sample_h"), method("sample_v"), theta, key, v, num_sweeps)
        return v, method("mean_v")(theta, h)

    v, mean = run(theta, start)
    return np.asarray(v), np.asarray(mean)
