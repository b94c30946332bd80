"""The linear-Gaussian model against the multivariate normal density of its joint and of its marginal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from bism_jax.evaluation import log_likelihood
from bism_jax.models import LinearGaussian, maximum_likelihood
from tests.small_models import conditional_moments, joint_moments, linear_theta, normal

NUM_SAMPLES = 20_000


def call(method, theta, *args, num_latent=2):
    return jax.jit(functools.partial(LinearGaussian(num_latent).apply, method=method))(theta, *args)


def test_energy_minus_log_partition_is_the_joint_normal_density(x64):
    theta, v, h = linear_theta(), normal(5, 4, seed=2), normal(5, 2, seed=3)
    mean, covariance = joint_moments(theta)
    expected = scipy.stats.multivariate_normal(mean, covariance).logpdf(np.concatenate([h, v], axis=1))
    found = -call("__call__", theta, v, h) - call("log_partition", theta)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("num_latent", [1, 2, 5])
def test_free_energy_minus_log_partition_is_the_marginal_normal_density(x64, num_latent):
    theta, v = linear_theta(num_latent=num_latent), normal(5, 4, seed=2)
    mean, covariance = joint_moments(theta)
    marginal = scipy.stats.multivariate_normal(mean[num_latent:], covariance[num_latent:, num_latent:])
    found = log_likelihood(LinearGaussian(num_latent), theta, v)
    np.testing.assert_allclose(found, marginal.logpdf(v), rtol=1e-10)
    found = call("covariance", theta, num_latent=num_latent)
    np.testing.assert_allclose(found, marginal.cov, rtol=1e-12, atol=1e-14)


def test_posterior_is_the_normal_conditional(x64):
    theta, v = linear_theta(), normal(5, 4, seed=2)
    posterior = call("posterior", theta, v)
    means, covariance = conditional_moments(*joint_moments(theta), [2, 3, 4, 5], v)
    assert (posterior.batch_shape, posterior.event_shape) == ((5,), (2,))
    np.testing.assert_allclose(posterior.mean, means, rtol=1e-10)
    for row in posterior.covariance_matrix:
        np.testing.assert_allclose(row, covariance, rtol=1e-10)


def test_samples_have_the_moments_of_the_conditionals():
    theta, h, v = linear_theta(), normal(1, 2, seed=3), normal(1, 4, seed=2)
    mean, covariance = joint_moments(theta)
    for name, start, given, value in (
        ("sample_h", v, [2, 3, 4, 5], v[0]),
        ("sample_v", h, [0, 1], h[0]),
    ):
        rows = jnp.asarray(np.broadcast_to(start, (NUM_SAMPLES, start.shape[1])), jnp.float32)
        samples = np.asarray(call(name, theta, jax.random.key(0), rows))
        expected_mean, expected = conditional_moments(mean, covariance, given, value)
        largest = np.max(np.diag(expected))
        np.testing.assert_allclose(
            samples.mean(axis=0), expected_mean, atol=4 * np.sqrt(largest / NUM_SAMPLES)
        )
        np.testing.assert_allclose(np.cov(samples.T), expected, atol=6 * largest / np.sqrt(NUM_SAMPLES))


def test_initialisation():
    v, h = np.zeros((2, 30), np.float32), np.zeros((2, 16), np.float32)
    params = LinearGaussian(16).init(jax.random.key(0), v, h)["params"]
    assert {name: leaf.shape for name, leaf in params.items()} == {"W": (30, 16), "b": (30,), "log_std": ()}
    assert not np.any(params["b"]) and params["log_std"] == 0
    assert 0.2 < np.abs(params["W"]).max() <= 0.25
    assert params["W"].std() == pytest.approx(0.25 / np.sqrt(3), rel=0.1)


def correlated_rows(num_rows=50, num_visible=5):
    return normal(num_rows, num_visible) @ normal(num_visible, num_visible, seed=1) + normal(num_visible)


@pytest.mark.parametrize("num_latent", [1, 2, 4])
def test_maximum_likelihood_is_the_maximum(x64, num_latent):
    """No gradient there, and less likelihood at points around it."""
    v = correlated_rows()
    theta = maximum_likelihood(v, num_latent)

    def mean_log_likelihood(theta):
        def method(name, *args):
            return LinearGaussian(num_latent).apply(theta, *args, method=name)

        return jnp.mean(-method("free_energy", v)) - method("log_partition")

    value, gradient = jax.jit(jax.value_and_grad(mean_log_likelihood))(theta)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0, atol=1e-10)
    evaluate = jax.jit(mean_log_likelihood)
    for seed in range(5):
        moved = jax.tree.map(lambda x, seed=seed: x + 0.1 * normal(*x.shape, seed=seed), theta)
        assert evaluate(moved) < value


def test_maximum_likelihood_with_all_but_one_direction_has_the_sample_covariance(x64):
    v = correlated_rows()
    found = call("covariance", maximum_likelihood(v, 4), num_latent=4)
    np.testing.assert_allclose(found, np.cov(v.T, bias=True), rtol=1e-9)


@pytest.mark.parametrize(
    ("v", "num_latent", "message"),
    [
        (np.zeros(5), 1, r"takes v of shape \[batch, visible\], not \(5,\); flatten it"),
        (normal(9, 3), 0, "num_latent must be an integer of at least 1, not 0"),
        (normal(9, 3), 3, "num_latent=3 leaves no direction.*take num_latent=2 or less"),
        (normal(2, 3), 1, "no variance beyond num_latent=1 directions.*more rows"),
        (np.ones((9, 3)), 1, "no variance beyond num_latent=1 directions.*more rows"),
    ],
)
def test_maximum_likelihood_refuses_what_has_none(v, num_latent, message):
    with pytest.raises(ValueError, match=message):
        maximum_likelihood(v, num_latent)


def test_v_must_have_two_axes():
    with pytest.raises(ValueError, match=r"takes v of shape \[batch, visible\], not \(2, 2, 2\)"):
        LinearGaussian(3).init(jax.random.key(0), np.zeros((2, 2, 2)), np.zeros((2, 3)))
