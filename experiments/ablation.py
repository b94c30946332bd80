"""How many lower-level steps to take and how many to differentiate: K and N in {0, 1, 2, 5, 10, 20}.

Trains by bi-level DSM for each K and N in the paper's setting, and measures the bias of the hypergradient
against the exact gradient on a model on its way. With K = 0 the N steps are kept, since phi would never
move otherwise. On Frey face, training covers the cross through K = N = 5, in 4,000 iterations at two and a
half times the paper's learning rate. A setting that is finished is not repeated.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

if "frey_face" not in " ".join(sys.argv):  # as in experiments.checkerboard; read when JAX starts
    os.environ.setdefault("PJRT_NPROC", "1")

import jax
import numpy as np
import optax
import tyro

import bism_jax
from bism_jax import DSM, KL, checks, plotting
from bism_jax.evaluation import annealed_importance_sampling, gradient_bias, log_likelihood
from bism_jax.models import GRBM, BernoulliPosterior
from experiments.comparison.record import LearningCurve
from experiments.comparison.setting import Setting, checkerboard_setting, frey_face_setting
from experiments.launch.experiment import run_experiment
from experiments.methods import MethodConfig
from experiments.run_folder import RunFolder, read_json

COUNTS = (0, 1, 2, 5, 10, 20)


@dataclass(frozen=True)
class Config:
    """Vary the numbers of lower-level steps.

    Attributes:
        data: checkerboard or frey_face.
        num_steps: iterations a run; None is 100,000 on the checkerboard and 4,000 on Frey face.
        num_draws: of all noise, for the gradient bias; None is 2,000 and 20.
        seed: of every run.
        data_dir: the data directory; the environment's BISM_JAX_DATA where it is not given.
        output: the run folder; None is runs/ablation-DATA.
    """

    data: Literal["checkerboard", "frey_face"] = "checkerboard"
    num_steps: int | None = None
    num_draws: int | None = None
    seed: int = 0
    data_dir: Path | None = None
    output: Path | None = None

    def __post_init__(self) -> None:
        for name in ("num_steps", "num_draws"):
            if getattr(self, name) is not None:
                checks.positive_int(name, getattr(self, name))
        checks.seed("seed", self.seed)


class Ablation(NamedTuple):
    """What a data set decides.

    Attributes:
        setting: model, data and measures.
        noise_std: sigma.
        learning_rate: of both levels' Adam.
        lower_rate: of the gradient descent on which the bias is measured.
        ema_decay: of the moving average that is measured.
        pairs: the (K, N) to train by.
    """

    setting: Setting
    noise_std: float
    learning_rate: float
    lower_rate: float
    ema_decay: float
    pairs: Sequence[tuple[int, int]]


def run(config: Config) -> Path:
    """Runs what is missing, writes tables and figures and returns the folder."""
    on_toy = config.data == "checkerboard"
    num_steps = config.num_steps or (100_000 if on_toy else 4_000)
    num_draws = config.num_draws or (2_000 if on_toy else 20)
    ablation = checkerboard_ablation() if on_toy else frey_face_ablation(config.data_dir)
    identity = Identity(config.data, num_steps, num_draws, config.seed)
    path = config.output or Path("runs") / f"ablation-{config.data}"
    folder = RunFolder("ablation", identity, path).path
    _cached(folder / "gradient-bias.json", lambda: _measure_bias(ablation, num_steps, num_draws, config.seed))
    for lower_steps, unrolled in ablation.pairs:
        name = f"K-{lower_steps}-N-{unrolled}.json"
        row = _cached(
            folder / name, lambda k=lower_steps, n=unrolled: _train(ablation, k, n, num_steps, config.seed)
        )
        print(", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    write_report(folder, ablation)
    print(f"\ntables and figures: {folder}")
    return folder


@dataclass(frozen=True)
class Identity:
    """What makes a folder's results comparable; see `Config`."""

    data: str
    num_steps: int
    num_draws: int
    seed: int


def checkerboard_ablation() -> Ablation:
    """Every K and N on the checkerboard."""
    pairs = [(k, n) for k in COUNTS for n in COUNTS if k + n > 0]
    return Ablation(checkerboard_setting(), 0.05, 1e-3, 3.0, 0.999, pairs)


def frey_face_ablation(data_dir: Path | None) -> Ablation:
    """The cross through K = N = 5 on Frey face."""
    pairs = sorted({(5, n) for n in COUNTS} | {(k, 5) for k in COUNTS})
    return Ablation(frey_face_setting(data_dir), 0.3, 5e-4, 0.02, 0.99, pairs)


def _method(ablation: Ablation, lower_steps: int, num_steps: int) -> Any:
    return MethodConfig(
        num_steps=num_steps,
        lower_steps=lower_steps,
        keep_unrolled=lower_steps == 0,
        noise_std=ablation.noise_std,
        learning_rate=ablation.learning_rate,
    ).make()


def _train(
    ablation: Ablation, lower_steps: int, unrolled: int, num_steps: int, seed: int
) -> dict[str, float]:
    setting = ablation.setting
    method = _method(ablation, lower_steps, unrolled)
    clock = LearningCurve(lambda theta: {}, max(1, num_steps // 10))
    posterior = BernoulliPosterior(setting.model.num_hidden)
    result = bism_jax.fit(
        setting.model,
        posterior,
        setting.splits.train,
        method=method,
        num_steps=num_steps,
        rng_key=seed,
        ema_decay=ablation.ema_decay,
        callbacks=[clock],
    )
    return {
        "K": lower_steps,
        "N": unrolled,
        "log_likelihood": _log_likelihood(setting, result.theta_ema),
        "sm_objective": setting.measure_curve(result.theta_ema)["sm_objective"],
        "ms_per_iteration": clock.milliseconds(),
        "temporary_mib": _temporary_mib(method, setting.model, posterior, setting.splits.train[:100]),
    }


def _log_likelihood(setting: Setting, theta: Any) -> float:
    log_partition = None
    if setting.name == "frey_face":
        ais = annealed_importance_sampling(
            setting.model, theta, jax.random.key(0), num_particles=100, num_temperatures=5_000
        )
        log_partition = ais.log_partition
    values = log_likelihood(setting.model, theta, setting.splits.test, log_partition=log_partition)
    return float(values.mean())


def _temporary_mib(method: Any, model: GRBM, posterior: Any, batch: np.ndarray) -> float:
    """What the compiler plans for one iteration beside its arguments and results."""
    algorithm = method.bind(model, posterior)
    state = algorithm.init(jax.random.key(0), jax.numpy.asarray(batch))
    compiled = jax.jit(algorithm.step).lower(jax.random.key(0), state, batch).compile()
    analysis: Any = compiled.memory_analysis()
    return analysis.temp_size_in_bytes / 2**20


def _measure_bias(ablation: Ablation, num_steps: int, num_draws: int, seed: int) -> dict[str, Any]:
    """The bias on a model on its way, after three fifths of a run with K = N = 5."""
    setting = ablation.setting
    posterior = BernoulliPosterior(setting.model.num_hidden)
    result = bism_jax.fit(
        setting.model,
        posterior,
        setting.splits.train,
        method=_method(ablation, 5, 5),
        num_steps=3 * num_steps // 5,
        rng_key=seed,
    )
    bias = gradient_bias(
        setting.model,
        posterior,
        result.theta,
        result.phi,
        setting.splits.validation[:300],
        jax.random.key(seed),
        objective=DSM(ablation.noise_std),
        divergence=KL(),
        optimizer=optax.sgd(ablation.lower_rate),
        num_steps=COUNTS,
        lower_steps=COUNTS,
        num_draws=num_draws,
    )
    names = ("relative_norm", "angle", "norm", "standard_error")
    return {name: np.asarray(getattr(bias, name)).tolist() for name in names}


def _cached(path: Path, make: Any) -> dict[str, Any]:
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(make(), indent=1) + "\n")
        os.replace(temporary, path)
    return read_json(path)


def write_report(folder: Path, ablation: Ablation) -> None:
    """Tables and figures of the settings that are finished."""
    paths = [folder / f"K-{k}-N-{n}.json" for k, n in ablation.pairs]
    rows = [read_json(path) for path in paths if path.exists()]
    with (folder / "training.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    bias = {name: np.array(v) for name, v in read_json(folder / "gradient-bias.json").items()}
    _write_bias(folder / "gradient_bias.csv", bias)
    titles = {
        "relative_norm": "|bias| / |exact gradient|",
        "angle": "angle [degrees]",
        "standard_error": "standard error / |exact gradient|",
    }
    exact = bias["norm"] / bias["relative_norm"]
    tables = {title: bias[name] for name, title in titles.items()}
    tables[titles["standard_error"]] = bias["standard_error"] / exact
    _draw(folder / "gradient_bias.png", tables, log_colour=list(tables))
    titles = {
        "log_likelihood": "test log-likelihood [nats]",
        "sm_objective": "test SM objective",
        "ms_per_iteration": "ms an iteration",
        "temporary_mib": "temporaries [MiB]",
    }
    tables = {title: _table(rows, name) for name, title in titles.items()}
    _draw(folder / "training.png", tables, log_colour=["ms an iteration", "temporaries [MiB]"], columns=2)


def _write_bias(path: Path, bias: Mapping[str, np.ndarray]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["K", "N", *bias])
        for (i, k), (j, n) in ((x, y) for x in enumerate(COUNTS) for y in enumerate(COUNTS)):
            writer.writerow([k, n, *(f"{values[i, j]:.6g}" for values in bias.values())])


def _table(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    table = np.full((len(COUNTS), len(COUNTS)), np.nan)
    for row in rows:
        table[COUNTS.index(int(row["K"])), COUNTS.index(int(row["N"]))] = row[name]
    return table


def _draw(path: Path, tables: Mapping[str, np.ndarray], **options: Any) -> None:
    labels = ("K, steps that are not differentiated", "N, differentiated steps")
    plotting.save(plotting.plot_tables(tables, COUNTS, COUNTS, *labels, **options), path)


if __name__ == "__main__":
    run_experiment(run, lambda: tyro.cli(Config, description=__doc__))
