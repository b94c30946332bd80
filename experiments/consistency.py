"""BiSM on a linear-Gaussian model, where maximum likelihood is known in closed form (PPCA)."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# The kernels of this model take microseconds, less than handing them to a second thread costs; read when
# JAX starts its CPU backend. (benchmarks/NOTES.md)
os.environ.setdefault("PJRT_NPROC", "1")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jaxtyping import Array, Float, Key

import bism_jax
from bism_jax import SM, BiSM, Fisher, Optimizers, Unrolled, checks, plotting
from bism_jax.models import LinearGaussian, maximum_likelihood
from experiments.launch.experiment import run_experiment
from experiments.run_folder import RunFolder, print_table


@dataclass(frozen=True)
class Config:
    """Fit samples of several sizes and compare each fit with maximum likelihood and with the truth.

    Attributes:
        sizes: rows of a sample.
        num_seeds: samples of each size.
        num_visible: d.
        num_latent: m.
        num_steps: iterations of a fit.
        batch_size: rows of a minibatch, at most the sample.
        unrolled_steps: N, the differentiated lower-level steps, which are kept.
        learning_rate: of theta's Adam; it decays to 0 along a cosine.
        lower_learning_rate: of phi's gradient descent; constant, since it sets how far N steps unroll.
        seed: of the truth, the samples and the fits.
        output: the run folder.
    """

    sizes: tuple[int, ...] = (100, 300, 1000, 3000, 10_000)
    num_seeds: int = 3
    num_visible: int = 5
    num_latent: int = 2
    num_steps: int = 1000
    batch_size: int = 100
    unrolled_steps: int = 20
    learning_rate: float = 1e-2
    lower_learning_rate: float = 0.07
    seed: int = 0
    output: Path | None = None

    def __post_init__(self) -> None:
        checks.widths("sizes", self.sizes)
        for name in ("num_seeds", "num_visible", "num_latent", "num_steps", "batch_size", "unrolled_steps"):
            checks.positive_int(name, getattr(self, name))
        if not self.sizes or self.num_latent >= self.num_visible:
            raise ValueError(
                f"sizes={self.sizes} must hold a size, and num_latent={self.num_latent} be below "
                f"num_visible={self.num_visible}."
            )
        checks.positive("learning_rate", self.learning_rate)
        checks.positive("lower_learning_rate", self.lower_learning_rate)
        checks.seed("seed", self.seed)


class Distances(NamedTuple):
    """Relative Frobenius distances |C - C'| / |C'| of marginal covariances, from one sample.

    Attributes:
        size: rows of the sample.
        seed: which sample.
        bism_to_ml: from BiSM to maximum likelihood on the same sample.
        bism_to_truth: from BiSM to what the sample was drawn from.
        ml_to_truth: from maximum likelihood to that.
    """

    size: int
    seed: int
    bism_to_ml: float
    bism_to_truth: float
    ml_to_truth: float


@dataclass(frozen=True)
class CorrelatedGaussian:
    """N(loc, L L^T) with one factor for all rows, so that one triangular solve serves the batch.

    numpyro's MultivariateNormal solves for each row, which took most of the time.

    Attributes:
        loc: `[B, m]`.
        factor: L, lower triangular `[m, m]`.
    """

    loc: Float[Array, "batch latent"]
    factor: Float[Array, "latent latent"]

    def draw_noise(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Standard normal noise, `[*sample_shape, B, m]`."""
        return jax.random.normal(key, (*sample_shape, *self.loc.shape), self.loc.dtype)

    def transform(self, noise: Array) -> tuple[Array, None]:
        """The sample loc + L noise; no intermediates."""
        return self.loc + noise @ self.factor.T, None

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples, `[*sample_shape, B, m]`."""
        return self.transform(self.draw_noise(key, sample_shape))[0]

    def log_prob(self, value: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """The log density, in nats."""
        white = jax.scipy.linalg.solve_triangular(self.factor, (value - self.loc).T, lower=True)
        log_det = jnp.log(jnp.diag(self.factor)).sum()
        return -0.5 * (white**2).sum(axis=0) - log_det - 0.5 * len(white) * math.log(2 * math.pi)


def posterior(phi: Any, v: Float[Array, "batch visible"]) -> CorrelatedGaussian:
    """q(h | v) with a linear mean and one full covariance, which can be the exact posterior."""
    factor = jnp.tril(phi["factor"], -1) + jnp.diag(jnp.exp(jnp.diag(phi["factor"])))
    return CorrelatedGaussian(v @ phi["weights"] + phi["bias"], factor)


def make_method(config: Config) -> BiSM:
    """BiSM with exact score matching, so that only the sample is between the fit and the truth.

    The Fisher divergence and its gradient vanish at the exact posterior for every draw of h, so phi comes
    to rest there at a constant rate.
    """
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    return BiSM(
        SM(),
        Fisher(),
        hypergradient=Unrolled(config.unrolled_steps),
        optimizers=Optimizers(optax.adam(schedule), optax.sgd(config.lower_learning_rate)),
    )


def make_truth(config: Config) -> Any:
    """A theta whose posterior precision is between 1.5 and 2, so that the lower level is well conditioned."""
    rng = np.random.default_rng(config.seed)
    directions, _ = np.linalg.qr(rng.normal(size=(config.num_visible, config.num_latent)))
    weights = directions * np.linspace(1.0, 0.7, config.num_latent)
    params = {"W": weights, "b": 0.3 * rng.normal(size=config.num_visible), "log_std": 0.0}
    return {"params": {name: jnp.asarray(value, float) for name, value in params.items()}}


def draw_sample(truth: Any, size: int, rng_key: Array) -> Float[np.ndarray, "rows visible"]:
    """Rows of v ~ p(v; truth)."""
    num_latent = truth["params"]["W"].shape[1]
    h_key, v_key = jax.random.split(rng_key)
    h = jax.random.normal(h_key, (size, num_latent))
    return np.asarray(LinearGaussian(num_latent).apply(truth, v_key, h, method="sample_v"))


def fit(config: Config, v: Float[np.ndarray, "rows visible"], rng_key: Array, method: BiSM) -> Any:
    """Theta fitted by BiSM."""
    model = LinearGaussian(config.num_latent)
    theta = model.init(rng_key, v[:1], np.zeros((1, config.num_latent), v.dtype))
    phi = {
        "weights": jnp.zeros((config.num_visible, config.num_latent)),
        "bias": jnp.zeros(config.num_latent),
        "factor": jnp.zeros((config.num_latent, config.num_latent)),
    }
    result = bism_jax.fit(
        model,
        posterior,
        v,
        method=method,
        init_params=(theta, phi),
        num_steps=config.num_steps,
        batch_size=min(config.batch_size, len(v)),
        rng_key=rng_key,
        progress=False,
    )
    return result.theta


def distance(theta: Any, reference: Any) -> float:
    """The relative Frobenius distance of the marginal covariances."""

    def covariance(theta: Any) -> np.ndarray:
        num_latent = theta["params"]["W"].shape[1]
        return np.asarray(LinearGaussian(num_latent).apply(theta, method="covariance"))

    expected = covariance(reference)
    return float(np.linalg.norm(covariance(theta) - expected) / np.linalg.norm(expected))


def measure(config: Config, truth: Any, size: int, seed: int, method: BiSM) -> Distances:
    """One sample, its two fits, and how far they are apart."""
    sample_key, fit_key = jax.random.split(
        jax.random.fold_in(jax.random.key(config.seed), seed * 1009 + size)
    )
    v = draw_sample(truth, size, sample_key)
    likeliest = maximum_likelihood(v, config.num_latent)
    fitted = fit(config, v, fit_key, method)
    return Distances(
        size, seed, distance(fitted, likeliest), distance(fitted, truth), distance(likeliest, truth)
    )


def run(config: Config) -> list[Distances]:
    """Measures every size and seed, and writes the run folder."""
    folder = RunFolder("consistency", config, config.output)
    start, truth, method = time.perf_counter(), make_truth(config), make_method(config)
    rows = []
    for size in config.sizes:
        for seed in range(config.num_seeds):
            rows.append(measure(config, truth, size, seed, method))
            print(_markdown_row(rows[-1]), flush=True)
    _write_tables(folder.path, rows)
    _draw(folder.path, rows)
    means = _means(rows)
    metrics = {
        f"exponent of {name}": _exponent(config.sizes, [getattr(row, name) for row in means])
        for name in Distances._fields[2:]
    }
    metrics["seconds"] = time.perf_counter() - start
    folder.write_metrics(metrics)
    print_table("distances as a power of the sample's size", metrics)
    print(f"\ntables and picture: {folder.path}")
    return rows


def _means(rows: Sequence[Distances]) -> list[Distances]:
    """The mean over the samples of each size; the seed becomes their number."""
    means = []
    for size in dict.fromkeys(row.size for row in rows):
        of_size = np.array([row[2:] for row in rows if row.size == size])
        means.append(Distances(size, len(of_size), *of_size.mean(axis=0).tolist()))
    return means


def _exponent(sizes: Sequence[int], distances: Sequence[float]) -> float:
    """The slope of log distance over log size by least squares; -1/2 is the rate of the sample itself."""
    return float(np.polyfit(np.log(sizes), np.log(distances), 1)[0]) if len(sizes) > 1 else float("nan")


def _write_tables(path: Path, rows: Sequence[Distances]) -> None:
    with (path / "consistency.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Distances._fields)
        writer.writerows(rows)
    header = "| size | samples | BiSM to ML | BiSM to truth | ML to truth |\n|---:|---:|---:|---:|---:|\n"
    table = header + "\n".join(_markdown_row(row) for row in _means(rows)) + "\n"
    (path / "consistency.md").write_text(table)
    print(f"\n{table}")


def _markdown_row(row: Distances) -> str:
    return f"| {row.size} | {row.seed} | " + " | ".join(f"{value:.4f}" for value in row[2:]) + " |"


def _draw(path: Path, rows: Sequence[Distances]) -> None:
    means = _means(rows)
    sizes = np.array([row.size for row in means])
    labels = {"bism_to_truth": "BiSM to truth", "ml_to_truth": "ML to truth", "bism_to_ml": "BiSM to ML"}
    figure = plotting.plot_curves(
        {label: (sizes, np.array([getattr(row, name) for row in means])) for name, label in labels.items()},
        "rows of the sample",
        "relative distance of covariances",
        log_axes=True,
    )
    plotting.save(figure, path / "consistency.png")


if __name__ == "__main__":
    run_experiment(run, lambda: tyro.cli(Config, description=__doc__))
