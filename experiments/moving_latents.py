"""Why latents must move with v: probabilistic PCA by sliced score matching against maximum likelihood.

The energy and the mean-field posterior are plain functions, as a user would write them. With h held fixed in
the Jacobian the objective is no bound, and training leaves maximum likelihood; with h moving it is one. A
second model, whose posterior is not in the family, shows what several particles buy.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("PJRT_NPROC", "1")  # as in experiments.consistency; read when JAX starts

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.optimize
import tyro
from jaxtyping import Array, Float

import bism_jax
from bism_jax import SSM, BiSM, StopGradient, checks, plotting
from bism_jax.training import Evaluate, Snapshot
from experiments.launch.experiment import run_experiment
from experiments.run_folder import RunFolder, print_table

_NUM_VISIBLE, _NUM_LATENT, _NOISE_STD = 6, 2, 0.5
_CORRELATION = 0.8  # of the columns of the second model: its posterior is correlated, q is not


@dataclass(frozen=True)
class Config:
    """Train with latents fixed and moving, N = 0 and 5, and with several particles.

    Attributes:
        num_steps: iterations of a run.
        num_rows: of the data.
        batch_size: rows of a minibatch.
        particles: P of the second model.
        seed: of data, initial parameters and noise.
        output: the run folder.
    """

    num_steps: int = 20_000
    num_rows: int = 20_000
    batch_size: int = 200
    particles: tuple[int, ...] = (1, 4, 16)
    seed: int = 0
    output: Path | None = None

    def __post_init__(self) -> None:
        for name in ("num_steps", "num_rows", "batch_size"):
            checks.positive_int(name, getattr(self, name))
        checks.batch_fits(self.batch_size, self.num_rows)
        checks.widths("particles", self.particles)
        checks.seed("seed", self.seed)


def energy(theta: Any, v: Array, h: Array) -> Float[Array, " batch"]:
    """E = |v - b - W h|^2 / (2 s^2) + |h|^2 / 2."""
    residual = v - theta["b"] - h @ theta["W"].T
    return 0.5 * (residual**2).sum(-1) * jnp.exp(-2 * theta["log_std"]) + 0.5 * (h**2).sum(-1)


def scaled_energy(directions: Float[np.ndarray, "visible latent"]) -> Callable[..., Array]:
    """The same with W = scale * directions, so that the columns stay correlated."""

    def fn(theta: Any, v: Array, h: Array) -> Float[Array, " batch"]:
        weights = theta["scale"] * jnp.asarray(directions)
        return energy({"W": weights, "b": 0.0, "log_std": theta["log_std"]}, v, h)

    return fn


def posterior(phi: Any, v: Array) -> dist.Distribution:
    """q(h | v) with a linear mean and a diagonal covariance."""
    return dist.Normal(v @ phi["A"] + phi["c"], jnp.exp(phi["log_std"])).to_event(1)


def log_likelihood(covariance: Float[np.ndarray, "visible visible"], moments: np.ndarray) -> float:
    """Nats a row of N(0, covariance) on data of these second moments, up to the constant."""
    return -0.5 * float(np.linalg.slogdet(covariance)[1] + np.trace(np.linalg.solve(covariance, moments)))


def marginal_covariance(weights: np.ndarray, log_std: float) -> np.ndarray:
    """W W^T + s^2 I."""
    return weights @ weights.T + np.exp(2 * log_std) * np.eye(len(weights))


def pca_gap(theta: Any, v: np.ndarray) -> float:
    """Nats a row below maximum likelihood, of probabilistic PCA."""
    weights, b, log_std = (np.asarray(theta[name], float) for name in ("W", "b", "log_std"))
    mean, scatter = v.mean(axis=0), np.cov(v.T, bias=True)
    found = log_likelihood(
        marginal_covariance(weights, float(log_std)), scatter + np.outer(mean - b, mean - b)
    )
    values = np.linalg.eigvalsh(scatter)
    noise = values[:-_NUM_LATENT]
    best = np.log(values[-_NUM_LATENT:]).sum() + len(noise) * np.log(noise.mean()) + len(values)
    return -0.5 * float(best) - found


def train(
    fn: Any, theta: Any, v: np.ndarray, method: BiSM, config: Config, gap_fn: Callable[[Any], float]
) -> Any:
    """The gaps along a run, `(steps, gaps)`."""
    zeros = jnp.zeros((_NUM_VISIBLE, _NUM_LATENT)), jnp.zeros(_NUM_LATENT), jnp.zeros(_NUM_LATENT)
    phi = dict(zip(("A", "c", "log_std"), zeros, strict=True))

    def measure(snapshot: Snapshot) -> Mapping[str, float]:
        return {"gap": gap_fn(snapshot.theta)}

    result = bism_jax.fit(
        fn,
        posterior,
        v.astype(np.float32),
        method=method,
        init_params=(theta, phi),
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        rng_key=config.seed,
        callbacks=[Evaluate(measure, every=max(1, config.num_steps // 40))],
    )
    rows = result.evaluations
    return np.array([row["step"] for row in rows]), np.array([row["gap"] for row in rows])


def compare_forms(config: Config) -> dict[str, Any]:
    """The gap of probabilistic PCA along training, with latents fixed and moving."""
    rng = np.random.default_rng(config.seed)
    weights = rng.normal(size=(_NUM_VISIBLE, _NUM_LATENT))
    v = draw(rng, weights, config.num_rows)
    theta = {
        "W": jnp.asarray(0.3 * rng.normal(size=weights.shape), jnp.float32),
        "b": jnp.zeros(_NUM_VISIBLE),
        "log_std": jnp.zeros(()),
    }
    curves = {}
    settings: dict[int, dict[str, Any]] = {5: {}, 0: {"lower_steps": 5, "hypergradient": StopGradient(0)}}
    for latents in ("fixed", "moving"):
        for num_steps, options in settings.items():
            method = BiSM(SSM(latents=latents), **options)
            curve = train(energy, theta, v, method, config, lambda theta: pca_gap(theta, v))
            curves[f"h {latents}, N = {num_steps}"] = curve
    return curves


def compare_particles(config: Config) -> list[tuple[int, str, float]]:
    """The final gap where q cannot be the posterior, by particles and by what is averaged."""
    rng = np.random.default_rng(config.seed + 1)
    columns, _ = np.linalg.qr(rng.normal(size=(_NUM_VISIBLE, _NUM_LATENT)))
    mixing = np.linalg.cholesky(np.array([[1.0, _CORRELATION], [_CORRELATION, 1.0]]))
    directions = columns @ mixing.T
    v = draw(rng, 1.5 * directions, config.num_rows)
    moments = v.T @ v / len(v)

    def loss(theta: Any) -> float:
        scale, log_std = (float(value) for value in theta)
        return -log_likelihood(marginal_covariance(scale * directions, log_std), moments)

    best = scipy.optimize.minimize(loss, [1.0, 0.0]).fun
    theta = {"scale": jnp.ones(()), "log_std": jnp.zeros(())}
    rows = []
    for num_particles in config.particles:
        for average in ("losses", "scores"):
            method = BiSM(SSM(), num_particles=num_particles, particle_average=average)
            gap_fn = lambda theta: loss((theta["scale"], theta["log_std"])) - best  # noqa: E731
            _, gaps = train(scaled_energy(directions), theta, v, method, config, gap_fn)
            rows.append((num_particles, average, float(gaps[-5:].mean())))
    return rows


def draw(rng: np.random.Generator, weights: np.ndarray, num_rows: int) -> np.ndarray:
    """Rows of W h + noise."""
    noise = _NOISE_STD * rng.normal(size=(num_rows, _NUM_VISIBLE))
    return rng.normal(size=(num_rows, _NUM_LATENT)) @ weights.T + noise


def run(config: Config) -> dict[str, float]:
    """Trains all, and writes the run folder."""
    folder = RunFolder("moving_latents", config, config.output)
    curves, particles = compare_forms(config), compare_particles(config)
    _write(folder.path / "forms.csv", ["form", "step", "gap"], _curve_rows(curves))
    _write(folder.path / "particles.csv", ["particles", "average", "gap"], particles)
    shown = {name: (steps, np.maximum(gaps, 1e-4)) for name, (steps, gaps) in curves.items()}
    figure = plotting.plot_curves(shown, "iterations", "nats below maximum likelihood", log_axes=True)
    plotting.save(figure, folder.path / "why_latents_move.png")
    metrics = {f"{name}: gap": float(gaps[-1]) for name, (_, gaps) in curves.items()}
    metrics |= {f"P = {count}, mean of {average}: gap": gap for count, average, gap in particles}
    folder.write_metrics(metrics)
    print_table("nats below maximum likelihood", metrics)
    return metrics


def _curve_rows(curves: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    return [
        (name, int(step), float(gap))
        for name, (steps, gaps) in curves.items()
        for step, gap in zip(steps, gaps, strict=True)
    ]


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(
            [[f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows]
        )


if __name__ == "__main__":
    run_experiment(run, lambda: tyro.cli(Config, description=__doc__))
