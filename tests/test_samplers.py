"""Langevin dynamics and NUTS against stationary laws in closed form; Gibbs sampling is in test_models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bism_jax.models import GRBM
from bism_jax.samplers import langevin, nuts

NUM_CHAINS = 20_000


def rng_key(seed=0):
    return jax.random.key(seed, impl="rbg")  # compiles faster than the default


def sample_langevin(energy_fn, x, num_steps, step_size, seed=0):
    run = functools.partial(langevin, energy_fn, num_steps=num_steps, step_size=step_size)
    return jax.jit(run)(rng_key(seed), x)


CURVATURES = np.array([0.5, 1.0, 3.0])


@pytest.mark.parametrize("step_size", [0.3, 1.0])
def test_langevin_has_the_stationary_variance_of_its_discretisation(x64, step_size):
    """On a/2 x^2 a step is x <- (1 - s^2 a / 2) x + s xi, whose variance settles at s^2 / (1 - (...)^2)."""

    def energy(x):
        return 0.5 * (x**2 * CURVATURES).sum(axis=-1)

    factor = 1 - 0.5 * step_size**2 * CURVATURES
    num_steps = int(np.ceil(np.log(1e-4) / np.log(np.abs(factor).max())))
    samples = np.asarray(sample_langevin(energy, jnp.full((NUM_CHAINS, 3), 2.0), num_steps, step_size))
    variance = step_size**2 / (1 - factor**2)
    assert samples.shape == (NUM_CHAINS, 3)
    # Four standard errors of a mean and of a variance of normal samples.
    atol = 4 * np.sqrt(variance.max() / NUM_CHAINS)
    np.testing.assert_allclose(samples.mean(axis=0), 0, atol=atol)
    np.testing.assert_allclose(samples.var(axis=0), variance, rtol=4 * np.sqrt(2 / NUM_CHAINS))
    if step_size == 1.0:  # where it is far from the variance 1 / a of the energy itself
        assert np.all(np.abs(variance * CURVATURES - 1) > 0.1)


def test_langevin_moves_every_leaf_by_its_own_gradient_and_noise(x64):
    """Two equal leaves and one of another shape, each with another curvature."""
    shapes = {"a": (), "b": (), "c": (2, 3)}
    curvature = {"a": 1.0, "b": 1.0, "c": 4.0}

    def energy(x):
        return sum(0.5 * curvature[name] * (x[name] ** 2).reshape(NUM_CHAINS, -1).sum(1) for name in shapes)

    start = {name: jnp.ones((NUM_CHAINS, *shape)) for name, shape in shapes.items()}
    end = jax.tree.map(np.asarray, sample_langevin(energy, start, num_steps=1, step_size=0.6))
    noise = {}
    for name, shape in shapes.items():
        assert end[name].shape == (NUM_CHAINS, *shape)
        noise[name] = (end[name] - (1 - 0.18 * curvature[name])) / 0.6
    flat = np.concatenate([leaf.reshape(NUM_CHAINS, -1) for leaf in noise.values()], axis=1)
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=4 / np.sqrt(NUM_CHAINS))
    np.testing.assert_allclose(np.cov(flat.T), np.eye(8), atol=6 / np.sqrt(NUM_CHAINS))


def test_langevin_is_a_function_of_its_key():
    def energy(x):
        return 0.5 * (x**2).sum(axis=-1)

    start = jnp.zeros((4, 2))
    first, again, other = (sample_langevin(energy, start, 3, 0.5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.concatenate([first, other]))) == 16  # no two chains or keys share noise
    np.testing.assert_array_equal(sample_langevin(energy, start, 0, 0.5), start)


COVARIANCE = np.array([[1.0, 0.9], [0.9, 1.5]])
MEAN = np.array([1.0, -2.0])


def test_nuts_has_the_moments_of_a_correlated_normal_density(x64):
    """Over a tree of two leaves."""
    precision = np.linalg.inv(COVARIANCE)

    def energy(x):
        centred = jnp.stack([x["a"], x["b"][:, 0]], axis=1) - MEAN
        return 0.5 * jnp.einsum("ci,ij,cj->c", centred, precision, centred)

    start = {"a": jnp.full(10, 5.0), "b": jnp.full((10, 1), 5.0)}
    found = jax.tree.map(np.asarray, nuts(energy, rng_key(), start, 500, num_warmup=200))
    assert found["a"].shape == (10, 500) and found["b"].shape == (10, 500, 1)
    assert_moments(np.stack([found["a"], found["b"][..., 0]], axis=-1), MEAN, COVARIANCE)


@pytest.mark.slow
def test_nuts_has_the_moments_of_a_grbm(x64):
    """Its marginal is a mixture of 2^m normal densities, N(b + e^{2s} W h, e^{2s}), with known weights."""
    weights, b, c, log_std = (
        np.array([[1.0, -0.5], [0.5, 1.0]]),
        np.array([0.3, -0.2]),
        np.array([0.5, 0.2]),
        0.1,
    )
    theta = {"params": {"W": weights, "b": b, "c": c, "log_std": np.full(2, log_std)}}
    theta = jax.tree.map(jnp.asarray, theta)
    states, variance = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.exp(2 * log_std)
    centres = b + variance * states @ weights.T
    log_weights = states @ (c + b @ weights) + 0.5 * variance * ((states @ weights.T) ** 2).sum(axis=1)
    mixture = np.exp(log_weights) / np.exp(log_weights).sum()
    mean = mixture @ centres
    covariance = variance * np.eye(2) + (centres - mean).T @ (mixture[:, None] * (centres - mean))

    def energy(v):
        return GRBM(2).apply(theta, v, method="free_energy")

    found = np.asarray(nuts(energy, rng_key(), jnp.zeros((10, 2)), 500, num_warmup=200))
    assert_moments(found, mean, covariance)


def assert_moments(samples, mean, covariance):
    """Within four standard errors, by the spread of the chains' own means and second moments."""
    centred = samples - mean
    statistics = np.concatenate(
        [centred, (centred[..., :, None] * centred[..., None, :]).reshape(*samples.shape[:2], 4)], axis=-1
    ).mean(axis=1)
    error = statistics.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert np.all(error < 0.1)
    expected = np.concatenate([np.zeros(2), covariance.ravel()])
    # Student's t of 9 degrees of freedom, six numbers: one chance in 1000.
    assert np.all(np.abs(statistics.mean(axis=0) - expected) < 5.5 * error)


def test_nuts_keeps_the_chain_axis_of_a_single_chain():
    found = nuts(lambda x: 0.5 * (x**2).sum(axis=(1, 2)), rng_key(), jnp.zeros((1, 2, 2)), 4, num_warmup=3)
    assert found.shape == (1, 4, 2, 2)
    assert len(np.unique(found)) > 8


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, not 0"),
        ({"num_warmup": -1}, "num_warmup must be an integer of at least 0, not -1"),
    ],
)
def test_nuts_refuses_counts_out_of_range(counts, message):
    with pytest.raises(ValueError, match=message):
        nuts(lambda x: x[:, 0] ** 2, rng_key(), jnp.zeros((2, 1)), **{"num_samples": 3, **counts})


@pytest.mark.parametrize(
    "run",
    [
        lambda energy, x: langevin(energy, jax.random.key(0), x, 2, 0.1),
        lambda energy, x: nuts(energy, jax.random.key(0), x, 2),
    ],
)
def test_an_energy_that_mixes_chains_is_refused(run):
    def mixed(x):
        return 0.5 * (x**2).sum(axis=-1) + 0.5 * (x**2).sum()

    with pytest.raises(
        ValueError, match=r"energy_fn gives a chain an energy that depends on the other chains"
    ):
        run(mixed, jnp.ones((3, 2)))
    offsets = jnp.arange(3.0)
    run(lambda x: 0.5 * (x**2).sum(axis=-1) + offsets, jnp.ones((3, 2)))  # an energy of each chain's own
