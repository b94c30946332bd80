"""The tables and figures of a comparison, made from the runs in its folder."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bism_jax import plotting
from bism_jax.evaluation import log_likelihood
from bism_jax.models import GRBM
from bism_jax.samplers import gibbs
from experiments.comparison.record import Record, read_records, read_theta
from experiments.comparison.setting import Setting

_COLUMNS = {
    "log_likelihood": "log-likelihood [nats]",
    "log_likelihood_ema": "of the moving average",
    "sm_objective": "SM objective",
    "sm_objective_ema": "of the moving average",
    "reconstruction_error": "reconstruction RMSE",
    "ms_per_iteration": "ms an iteration",
    "seconds": "seconds in all",
}
_FACE = (28, 20)


def write_report(setting: Setting, folder: Path) -> None:
    """Writes `table.md`, `table.csv`, `curves.csv` and the figures of a data set."""
    records = read_records(setting, folder)
    by_method = {name: [record for record in records if record.method == name] for name in setting.contenders}
    by_method = {name: runs for name, runs in by_method.items() if runs}
    _write_table(by_method, folder)
    _write_curves(records, folder / "curves.csv")
    _draw_curves(by_method, setting, folder)
    first = {name: read_theta(setting, folder, runs[0]) for name, runs in by_method.items()}
    if setting.name == "checkerboard":
        _draw_densities(setting.model, first, folder / "densities.png")
    else:
        _draw_faces(setting, first, folder)


def _write_table(by_method: dict[str, list[Record]], folder: Path) -> None:
    present = next(iter(by_method.values()))[0].metrics
    columns = {key: title for key, title in _COLUMNS.items() if key in present}
    summaries = {
        name: {key: _mean_and_error([run.metrics[key] for run in runs]) for key in columns}
        for name, runs in by_method.items()
    }
    lines = [
        "| method | seeds | " + " | ".join(columns.values()) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, summary in summaries.items():
        cells = [_cell(key, *values) for key, values in summary.items()]
        lines.append(f"| {name} | {len(by_method[name])} | " + " | ".join(cells) + " |")
    lines += _averages(by_method)
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "seeds", *(f"{key}{part}" for key in columns for part in ("", "_se"))])
        for name, summary in summaries.items():
            numbers = [f"{value:.6g}" for values in summary.values() for value in values]
            writer.writerow([name, len(by_method[name]), *numbers])


def _averages(by_method: dict[str, list[Record]]) -> list[str]:
    """A line for each method that learns a distribution over theta."""
    key = "log_likelihood_averaged"
    return [
        f"\n{name}, log-likelihood averaged over draws from q(theta): "
        f"{_cell(key, *_mean_and_error([run.metrics[key] for run in runs]))}."
        for name, runs in by_method.items()
        if key in runs[0].metrics
    ]


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error, which one value does not have."""
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(np.mean(values)), float(error)


def _cell(key: str, mean: float, error: float) -> str:
    digits = 3 if abs(mean) < 10 else 1
    if key in ("ms_per_iteration", "seconds") or math.isnan(error):
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def _write_curves(records: Sequence[Record], path: Path) -> None:
    with path.open("w", newline="") as file:
        columns = ["method", "seed", *records[0].curve[0]]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for record in records:
            for row in record.curve:
                rounded = {name: f"{value:.6g}" for name, value in row.items()}
                writer.writerow({"method": record.method, "seed": record.seed, **rounded})


def _draw_curves(by_method: dict[str, list[Record]], setting: Setting, folder: Path) -> None:
    def draw(key: str, label: str, name: str, methods: Sequence[str], **options: Any) -> None:
        curves = {method: _curve(by_method[method], key) for method in methods if method in by_method}
        if curves:
            plotting.save(plotting.plot_learning_curves(curves, label, **options), folder / name)

    everything = list(by_method)
    unrolling = [name for name in everything if name.startswith("BiDSM") or name == "DSM"]
    if setting.name == "checkerboard":
        truth: dict[str, Any] = {"reference": {"truth, log 2": math.log(2)}, "ylim": (-0.6, 0.75)}
        draw("log_likelihood", "test log-likelihood [nats]", "learning_curves.png", everything, **truth)
        draw("log_likelihood", "test log-likelihood [nats]", "why_unroll.png", unrolling, **truth)
    else:
        draw("sm_objective", "test score-matching objective", "why_unroll.png", unrolling)
        draw("reconstruction_error", "test reconstruction RMSE", "reconstruction_curves.png", unrolling)


def _curve(records: Sequence[Record], key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    def column(name: str) -> np.ndarray:
        return np.array([[row[name] for row in record.curve] for record in records])

    return column("step")[0], column("seconds"), column(key)


def _draw_densities(model: GRBM, thetas: dict[str, Any], path: Path) -> None:
    def log_density(theta: Any) -> Callable[[Array], Array]:
        return lambda points: log_likelihood(model, theta, points)

    panels = {name: log_density(theta) for name, theta in thetas.items()}
    plotting.save(plotting.plot_density_grid(panels, max_density=2.5), path, dpi=80)


def _draw_faces(setting: Setting, thetas: dict[str, Any], folder: Path) -> None:
    names, model, test = list(thetas), setting.model, setting.splits.test
    sample = jax.jit(lambda theta, v: _sample_means(model, theta, v))
    start = 0.5 + np.random.default_rng(1).normal(size=(12, test.shape[1])).astype(test.dtype)
    means = np.concatenate([sample(theta, start) for theta in thetas.values()])
    grid = plotting.plot_image_grid(
        _images(means), 12, "E[v | h] of samples, 5,000 Gibbs sweeps from noise", names
    )
    plotting.save(grid, folder / "samples.png")
    rows = test[:: len(test) // 12][:12]
    reconstructions = [_reconstruct(model, theta, rows) for theta in thetas.values()]
    grid = plotting.plot_image_grid(
        _images(np.concatenate([rows, *reconstructions])), 12, "Reconstructions", ["test images", *names]
    )
    plotting.save(grid, folder / "reconstructions.png")


def _sample_means(model: GRBM, theta: Any, v: Array) -> Array:
    def method(name: str) -> Callable[..., Any]:
        return lambda theta, *args: model.apply(theta, *args, method=name)

    _, h = gibbs(method("sample_h"), method("sample_v"), theta, jax.random.key(2), v, 5000)
    return method("mean_v")(theta, h)


def _reconstruct(model: GRBM, theta: Any, v: np.ndarray) -> np.ndarray:
    mean = model.apply(theta, jnp.asarray(v), method=lambda module, v: module.posterior(v).mean)
    return np.asarray(model.apply(theta, mean, method="mean_v"))


def _images(v: np.ndarray) -> np.ndarray:
    return np.clip(v.reshape(-1, *_FACE), 0, 1)
