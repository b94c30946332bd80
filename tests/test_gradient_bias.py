"""The bias of the hypergradient where q can be the exact posterior, so that its limits are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from bism_jax import DSM, KL, SM, Fisher
from bism_jax.evaluation import gradient_bias
from bism_jax.models import GRBM, BernoulliPosterior, GaussianPosterior, LinearGaussian, MLPEnergy


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def rng_key():
    return jax.random.key(0, impl="rbg")  # compiles faster than the default


def dense(kernel, bias):
    return {"params": {"MLP_0": {"Dense_0": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}}}


def linear_theta():
    params = {"W": 0.7 * normal(3, 1), "b": 0.2 * normal(3, seed=1), "log_std": 0.1}
    return {"params": jax.tree.map(jnp.asarray, params)}


def linear_arrays(theta):
    """w, b and the variance."""
    weights, b, log_std = (np.asarray(theta["params"][name]) for name in ("W", "b", "log_std"))
    return weights[:, 0], b, np.exp(2 * log_std)


def posterior_moments(theta):
    """The gain and the variance of p(h | v) = N(gain (v - b), variance)."""
    weights, _, variance = linear_arrays(theta)
    precision = 1 + weights @ weights / variance
    return weights / variance / precision, 1 / precision


def exact_gaussian(theta):
    """The phi of the exact posterior: mean and log standard deviation are linear in v."""
    gain, variance = posterior_moments(theta)
    kernel = np.stack([gain, np.zeros(3)], axis=1)
    return dense(kernel, np.array([-linear_arrays(theta)[1] @ gain, 0.5 * np.log(variance)]))


def grbm_theta():
    params = {"W": normal(3, 2), "b": 0.3 * normal(3, seed=1), "c": 0.5 * normal(2, seed=2)}
    return {"params": jax.tree.map(jnp.asarray, {**params, "log_std": 0.1 * normal(3, seed=3)})}


def exact_bernoulli(theta):
    return dense(theta["params"]["W"], theta["params"]["c"])


def finite_differences(fn, params, step=1e-5):
    flat, unravel = ravel_pytree(params)
    offsets = step * np.eye(flat.size)
    return np.array([fn(unravel(flat + e)) - fn(unravel(flat - e)) for e in offsets]) / (2 * step)


def exact_objective(theta, v):
    """1/2 tr(K S K) - tr K of a normal density with precision K, where S is the mean square about b."""
    weights, b, variance = linear_arrays(theta)
    precision = np.linalg.inv(np.outer(weights, weights) + variance * np.eye(3))
    return 0.5 * ((v - b) @ precision @ precision @ (v - b).T).trace() / len(v) - precision.trace()


measure_linear = functools.partial(
    gradient_bias, LinearGaussian(1), GaussianPosterior(1), divergence=Fisher(), optimizer=optax.sgd(0.05)
)


def test_exact_gradient_against_finite_differences_of_the_closed_form(x64):
    theta, v = linear_theta(), normal(6, 3, seed=4)
    options = {"objective": SM(), "num_steps": (0,), "lower_steps": (0,), "num_draws": 2}
    found = measure_linear(theta, exact_gaussian(theta), v, rng_key(), **options).exact_gradient
    assert jax.tree.structure(found) == jax.tree.structure(theta)
    expected = finite_differences(lambda theta: exact_objective(theta, v), theta)
    np.testing.assert_allclose(ravel_pytree(found)[0], expected, rtol=1e-7)


@pytest.mark.parametrize("latents", ["moving", "fixed"])
def test_bias_without_unrolling_and_its_standard_error_against_closed_forms(x64, latents):
    """At the exact posterior the N = 0 gradient is that of the same score with the posterior held.

    There the score is s_0 + D (h - mu(v)) with s_0 = -(v - b - W mu) / sigma^2 and D = 0, whose derivative
    in theta is not 0 and brings the noise. With h moving the trace has the term W^T gain / sigma^2 too.
    """
    theta, v, num_draws = linear_theta(), normal(6, 3, seed=4), 8000
    phi = exact_gaussian(theta)
    gain, posterior_variance = posterior_moments(theta)
    mean = (v - linear_arrays(theta)[1]) @ gain

    def residual(theta):
        weights, b, variance = linear_arrays(theta)
        return -(v - b - np.outer(mean, weights)) / variance

    def held(theta):
        weights, _, variance = linear_arrays(theta)
        trace = (weights @ gain if latents == "moving" else 0) - 3
        return 0.5 * (residual(theta) ** 2).sum() / len(v) + trace / variance

    exact = finite_differences(lambda theta: exact_objective(theta, v), theta)
    direct = finite_differences(held, theta)
    (weights, _, variance), score = linear_arrays(theta), residual(theta)
    of_weights = (score**2).sum() * posterior_variance / variance**2
    of_log_std = 4 * ((score @ weights) ** 2).sum() * posterior_variance / variance**2
    standard_error = np.sqrt((of_weights + of_log_std) / len(v) ** 2 / num_draws)

    objective = SM(latents=latents)
    options = {"objective": objective, "num_steps": (0,), "lower_steps": (0,), "num_draws": num_draws}
    found = measure_linear(theta, phi, v, rng_key(), **options)
    np.testing.assert_allclose(found.standard_error, [[standard_error]], rtol=0.05)
    norm = np.linalg.norm(direct - exact)
    assert norm > 20 * standard_error
    np.testing.assert_allclose(found.norm, [[norm]], atol=4 * standard_error)
    np.testing.assert_allclose(found.relative_norm, found.norm / np.linalg.norm(exact), rtol=1e-6)
    cosine = direct @ exact / np.linalg.norm(direct) / np.linalg.norm(exact)
    allowed = np.degrees(4 * standard_error / np.linalg.norm(direct))
    np.testing.assert_allclose(found.angle, [[np.degrees(np.arccos(cosine))]], atol=allowed)


def test_the_exact_posterior_is_a_fixed_point_and_unrolling_from_it_removes_the_bias(x64):
    """The Fisher divergence and its gradient are 0 there for every draw, so K changes nothing; and the
    error of d phi^N / d theta shrinks by the same factors for every draw, so the noise goes too."""
    theta, v = linear_theta(), normal(20, 3, seed=4)
    options = {"objective": DSM(0.5), "num_steps": (0, 20, 500), "lower_steps": (0, 5), "num_draws": 5}
    found = measure_linear(theta, exact_gaussian(theta), v, rng_key(), **options)
    np.testing.assert_allclose(found.norm[0], found.norm[1], rtol=1e-8, atol=1e-12)
    assert np.all(np.diff(found.relative_norm) < 0)
    assert found.relative_norm[0, 0] > 0.3 and found.angle[0, 0] > 5
    assert found.relative_norm[0, 2] < 1e-8 and found.angle[0, 2] < 1e-6
    assert found.standard_error[0, 2] < 1e-8 * found.standard_error[0, 0]


measure_grbm = functools.partial(
    gradient_bias, GRBM(2), BernoulliPosterior(2, temperature=0.5), optimizer=optax.sgd(0.5)
)


def test_bias_shrinks_with_both_numbers_of_steps(x64):
    """The paper's log q at a relaxed h makes the GRBM's score exact at the exact logits whatever h is, and
    the Fisher divergence 1/2 |logits - field|^2, which is convex, so that the bias goes to 0."""
    theta, v = grbm_theta(), normal(6, 3, seed=4)
    phi = dense(normal(3, 2, seed=5), normal(2, seed=6))
    options = {"num_steps": (0, 2, 10, 300), "lower_steps": (0, 5, 300), "num_draws": 200}
    options |= {"objective": DSM(0.3), "divergence": Fisher()}
    found = measure_grbm(theta, phi, v, rng_key(), **options)
    assert found.norm.shape == (3, 4)
    assert np.all(np.diff(found.norm, axis=1) < 0)
    assert np.all(np.diff(found.norm[:, :3], axis=0) < 0)
    assert np.all(found.relative_norm[:, 3] < 1e-8)
    # Without differentiated steps even the exact posterior leaves a bias.
    assert found.norm[2, 0] > 4 * found.standard_error[2, 0]


@pytest.mark.slow
def test_relaxation_biases_the_kl_divergence(x64):
    """The relaxed samples have another mean than sigmoid(logits), so that the minimum of the relaxed KL is
    not at the exact posterior, and no number of steps removes the bias."""
    theta, v = grbm_theta(), np.tile(normal(6, 3, seed=4), (20, 1))
    options = {"objective": DSM(0.3), "num_steps": (150,), "lower_steps": (0,), "num_draws": 40}
    found = measure_grbm(theta, exact_bernoulli(theta), v, rng_key(), divergence=KL(), **options)
    assert found.norm[0, 0] > 4 * found.standard_error[0, 0]


def test_the_k_steps_are_steps_of_the_optimiser(x64):
    """K = 3 is K = 0 after three steps by hand, of gradient descent on 1/2 mean |logits - field|^2."""
    theta, v = grbm_theta(), normal(6, 3, seed=4)
    weights, bias = normal(3, 2, seed=5), normal(2, seed=6)
    options = {"objective": SM(), "divergence": Fisher(), "num_steps": (0,), "num_draws": 3}
    measure = functools.partial(measure_grbm, theta, v=v, rng_key=rng_key(), **options)
    after = measure(phi=dense(weights, bias), lower_steps=(3,))
    for _ in range(3):
        error = v @ (weights - theta["params"]["W"]) + bias - theta["params"]["c"]
        weights, bias = weights - 0.5 * v.T @ error / len(v), bias - 0.5 * error.mean(axis=0)
    by_hand = measure(phi=dense(weights, bias), lower_steps=(0,))
    np.testing.assert_allclose(after.norm, by_hand.norm, rtol=1e-10)
    np.testing.assert_allclose(after.angle, by_hand.angle, rtol=1e-10)


@pytest.mark.parametrize("model", ["linear", "grbm"])
def test_posterior_serves_where_there_is_no_free_energy(x64, model):
    if model == "linear":
        module, posterior, theta = LinearGaussian(1), GaussianPosterior(1), linear_theta()
        phi = exact_gaussian(theta)
    else:
        module, posterior, theta = GRBM(2), BernoulliPosterior(2), grbm_theta()
        phi = exact_bernoulli(theta)

    def plain(theta, v, h):
        return module.apply(theta, v, h)

    plain.posterior = lambda theta, v: module.apply(theta, v, method="posterior")
    options = {"objective": DSM(0.3), "divergence": Fisher(), "optimizer": optax.sgd(0.1)}
    options |= {"num_steps": (0,), "lower_steps": (0,), "num_draws": 2}
    v = normal(6, 3, seed=4)
    found, expected = (
        gradient_bias(energy, posterior, theta, phi, v, rng_key(), **options) for energy in (plain, module)
    )
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-8)


def test_a_model_without_an_exact_marginal_is_refused():
    with pytest.raises(ValueError, match="free_energy or posterior, which energy_fn=MLPEnergy lacks; add"):
        measure_linear_with(energy=MLPEnergy((4,)))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_steps": ()}, r"num_steps must be a tuple of increasing counts, such as \(0, 1, 5\), not \(\)"),
        ({"num_steps": (5, 1)}, r"num_steps must be a tuple of increasing counts.*not \(5, 1\)"),
        ({"lower_steps": 3}, "lower_steps must be a tuple of increasing counts.*not 3"),
        ({"lower_steps": (-1, 2)}, "each of lower_steps must be an integer of at least 0, not -1"),
        ({"num_draws": 0}, "num_draws must be an integer of at least 1, not 0"),
        ({"num_draws": 1}, "num_draws=1 has no standard error; take num_draws=2 or more"),
    ],
)
def test_counts_out_of_range_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        measure_linear_with(**option)


def measure_linear_with(energy=None, **options):
    theta = linear_theta()
    energy = LinearGaussian(1) if energy is None else energy
    given = (energy, GaussianPosterior(1), theta, exact_gaussian(theta), normal(6, 3), rng_key())
    return gradient_bias(
        *given, **{"objective": SM(), "divergence": KL(), "optimizer": optax.sgd(0.1), **options}
    )
