"""BiSM against maximum likelihood in closed form, on a linear-Gaussian model."""

import csv
import dataclasses
import json

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

from bism_jax import SM, StopGradient, Unrolled, plotting
from bism_jax.models import maximum_likelihood
from bism_jax.training import DivergenceError
from experiments import consistency

CONFIG = consistency.Config(num_visible=3, num_latent=1, num_steps=400, learning_rate=0.02)


@pytest.mark.slow
def test_bism_lands_at_maximum_likelihood(x64):
    """With h moving even by the direct gradient, since q can be the posterior; not with h fixed."""
    truth = consistency.make_truth(CONFIG)
    v = consistency.draw_sample(truth, 100, jax.random.key(0))
    likeliest = maximum_likelihood(v, 1)
    assert consistency.distance(likeliest, truth) > 0.05  # so the truth is not what it lands at

    def distance(hypergradient, latents):
        method = consistency.make_method(CONFIG)
        method = dataclasses.replace(method, hypergradient=hypergradient, objective=SM(latents=latents))
        try:
            return consistency.distance(consistency.fit(CONFIG, v, jax.random.key(1), method), likeliest)
        except DivergenceError:  # the direct gradient alone lets the noise variance go to 0
            return np.inf

    unrolled, direct = Unrolled(CONFIG.unrolled_steps), StopGradient(CONFIG.unrolled_steps)
    assert distance(unrolled, "moving") < 0.01
    assert distance(direct, "moving") < 0.01
    assert distance(direct, "fixed") > 0.3


def test_the_truth_is_what_samples_have(x64):
    truth = consistency.make_truth(CONFIG)
    v = consistency.draw_sample(truth, 100_000, jax.random.key(0))
    weights = np.asarray(truth["params"]["W"])
    expected = weights @ weights.T + np.eye(3)
    np.testing.assert_allclose(np.cov(v.T), expected, atol=6 * expected.max() / np.sqrt(len(v)))


def test_posterior_is_a_normal_density(x64):
    rng = np.random.default_rng(0)
    phi = {"weights": rng.normal(size=(3, 2)), "bias": rng.normal(size=2), "factor": rng.normal(size=(2, 2))}
    v, noise = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    found = consistency.posterior(phi, v)
    factor = np.array([[np.exp(phi["factor"][0, 0]), 0], [phi["factor"][1, 0], np.exp(phi["factor"][1, 1])]])
    expected = dist.MultivariateNormal(v @ phi["weights"] + phi["bias"], covariance_matrix=factor @ factor.T)
    h, _ = found.transform(noise)
    np.testing.assert_allclose(h, expected.mean + noise @ factor.T, rtol=1e-10)
    np.testing.assert_allclose(found.log_prob(h), expected.log_prob(h), rtol=1e-10)


def test_distances_are_drawn_on_logarithmic_axes():
    curves = {"a": (np.array([1.0, 100.0]), np.array([1.0, 0.1]))}
    for log_axes, scale in ((True, "log"), (False, "linear")):
        axes = plotting.plot_curves(curves, "x", "y", log_axes=log_axes).axes[0]
        assert (axes.get_xscale(), axes.get_yscale()) == (scale, scale)


@pytest.mark.slow
def test_the_experiment_writes_its_tables_and_its_picture(tmp_path):
    config = dataclasses.replace(CONFIG, sizes=(50, 200), num_seeds=2, num_steps=10, output=tmp_path / "run")
    rows = consistency.run(config)
    with (tmp_path / "run" / "consistency.csv").open() as file:
        found = [consistency.Distances(**row) for row in csv.DictReader(file)]
    np.testing.assert_allclose(np.array(found, float), np.array(rows))
    assert [row[:2] for row in rows] == [(50, 0), (50, 1), (200, 0), (200, 1)]
    table = (tmp_path / "run" / "consistency.md").read_text().splitlines()
    mean = np.mean([row.ml_to_truth for row in rows[:2]])
    assert len(table) == 4 and table[2].startswith("| 50 | 2 |") and f"{mean:.4f}" in table[2]
    assert (tmp_path / "run" / "consistency.png").stat().st_size > 5000
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    means = [np.mean([row.ml_to_truth for row in rows[start : start + 2]]) for start in (0, 2)]
    exponent = np.log(means[1] / means[0]) / np.log(4)
    assert metrics["exponent of ml_to_truth"] == pytest.approx(exponent)
