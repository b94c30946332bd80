"""Energies, posteriors and adapters against enumeration, numerical integration and closed forms."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
from flax import linen, nnx

from bism_jax.models import (
    GRBM,
    BernoulliPosterior,
    DiagonalGaussian,
    GaussianPosterior,
    MLPEnergy,
    RelaxedBernoulli,
    as_model,
)
from bism_jax.samplers import gibbs
from tests.small_models import (
    assert_gradient,
    concrete_log_prob,
    grbm,
    grbm_energies,
    grbm_log_partition,
    grbm_theta,
    hidden_states,
    normal,
    random_params,
    rng_key,
    run,
    visible_grid,
)

NUM_SAMPLES = 20_000


class TestGRBM:
    def test_energy_and_free_energy_against_enumeration(self, x64):
        theta, v, states = grbm_theta(3, 4), normal(5, 3), hidden_states(4)
        expected, energy_fn = grbm_energies(theta, v), grbm(4)
        for index in (0, 5, 15):
            h = np.broadcast_to(states[index], (5, 4))
            np.testing.assert_allclose(energy_fn(theta, v, h), expected[:, index], rtol=1e-12)
        free_energy = grbm(4, "free_energy")(theta, v)
        np.testing.assert_allclose(free_energy, -scipy.special.logsumexp(-expected, axis=1), rtol=1e-12)

    # Thirteen hidden units have two blocks of states.
    @pytest.mark.parametrize(("num_visible", "num_hidden"), [(2, 3), (1, 1), (1, 13)])
    def test_log_partition_is_the_integral_of_the_summed_density(self, x64, num_visible, num_hidden):
        theta = grbm_theta(num_visible, num_hidden, scale=0.7 / np.sqrt(num_hidden))
        found = grbm(num_hidden, "log_partition")(theta)
        np.testing.assert_allclose(found, grbm_log_partition(theta), rtol=1e-10)

    def test_log_partition_enumerates_no_more_than_20_hidden_units(self):
        def log_partition(num_hidden):
            theta = grbm_theta(1, num_hidden)
            return jax.eval_shape(grbm(num_hidden, "log_partition"), theta)

        assert log_partition(20).shape == ()
        with pytest.raises(ValueError, match=r"num_hidden=21 exceeds 20.*annealed importance sampling"):
            log_partition(21)

    def test_posterior_is_bayes_rule(self, x64):
        theta, v = grbm_theta(3, 4), normal(5, 3)
        posterior = grbm(4, "posterior")(theta, v)
        found = run(jax.vmap(lambda h: posterior.log_prob(jnp.broadcast_to(h, (5, 4)))), hidden_states(4))
        energies = grbm_energies(theta, v)
        expected = -energies - scipy.special.logsumexp(-energies, axis=1, keepdims=True)
        np.testing.assert_allclose(found.T, expected, rtol=1e-10)

    def test_sample_h_has_the_posterior_mean_and_independent_units(self):
        theta, v = grbm_theta(2, 3), normal(1, 2).astype(np.float32)
        h = grbm(3, "sample_h")(theta, rng_key(), np.broadcast_to(v, (NUM_SAMPLES, 2)))
        assert h.dtype == jnp.float32
        assert set(np.unique(h)) == {0.0, 1.0}
        probabilities = np.exp(-grbm_energies(theta, v)[0])
        mean = probabilities @ hidden_states(3) / probabilities.sum()
        # Four standard errors, of which one is at most 1/2 and 1/4 of 1/sqrt(n).
        np.testing.assert_allclose(np.mean(h, axis=0), mean, atol=4 * 0.5 / np.sqrt(NUM_SAMPLES))
        covariance = np.diag(mean * (1 - mean))
        np.testing.assert_allclose(np.cov(h.T), covariance, atol=4 * 0.25 / np.sqrt(NUM_SAMPLES))

    def test_sample_v_has_the_moments_of_the_conditional(self):
        theta, h = grbm_theta(2, 3), np.array([[1.0, 0.0, 1.0]], np.float32)
        v = grbm(3, "sample_v")(theta, rng_key(), np.broadcast_to(h, (NUM_SAMPLES, 3)))
        # The moments of exp(-E(v, h)) over a grid of v.
        points, _ = visible_grid(2, 12.0, 150)
        density = np.exp(-grbm_energies(theta, points)[:, 5])
        np.testing.assert_array_equal(hidden_states(3)[5], h[0])
        density /= density.sum()
        mean = density @ points
        covariance = (points - mean).T @ (density[:, None] * (points - mean))
        largest = covariance.max()
        np.testing.assert_allclose(grbm(3, "mean_v")(theta, h)[0], mean, rtol=1e-5)
        np.testing.assert_allclose(np.mean(v, axis=0), mean, atol=4 * np.sqrt(largest / NUM_SAMPLES))
        np.testing.assert_allclose(np.cov(v.T), covariance, atol=6 * largest / np.sqrt(NUM_SAMPLES))

    @pytest.mark.parametrize("shape", [(3,), (2, 2, 2)])
    def test_v_must_have_two_axes(self, shape):
        v, h = np.zeros(shape), np.zeros((2, 3))
        with pytest.raises(ValueError, match=r"GRBM takes v of shape \[batch, visible\], not .*flatten it"):
            GRBM(3).init(rng_key(), v, h)

    def test_initialisation_is_uniform_within_one_over_sqrt_m(self):
        v, h = np.zeros((2, 30), np.float32), np.zeros((2, 16), np.float32)
        params = jax.tree.map(np.asarray, run(GRBM(16).init, rng_key(), v, h)["params"])
        shapes = {name: leaf.shape for name, leaf in params.items()}
        assert shapes == {"W": (30, 16), "b": (30,), "c": (16,), "log_std": (30,)}
        assert not params["log_std"].any()
        for name in ("W", "b", "c"):
            assert 0.15 < np.abs(params[name]).max() <= 0.25
            assert params[name].min() < 0 < params[name].max()
        assert params["W"].std() == pytest.approx(0.25 / np.sqrt(3), rel=0.1)


def grbm_conditionals(num_hidden):
    model = as_model("energy_fn", GRBM(num_hidden))
    return model.method("sample_h"), model.method("sample_v")


class TestGibbs:
    def test_stationary_moments_against_the_joint_density(self):
        theta, states = grbm_theta(2, 3), hidden_states(3)
        points, _ = visible_grid(2, 12.0, 150)
        joint = np.exp(-grbm_energies(theta, points))
        joint /= joint.sum()
        chains = np.zeros((NUM_SAMPLES, 2), np.float32)
        sample = functools.partial(gibbs, *grbm_conditionals(3), num_steps=40)
        v, h = run(sample, theta, rng_key(), chains)
        samples, moments = np.concatenate([v, h], axis=1), {}
        visible, hidden = joint.sum(axis=1), joint.sum(axis=0)
        moments["mean"] = np.concatenate([visible @ points, hidden @ states])
        moments["v v"] = points.T @ (visible[:, None] * points)
        moments["v h"] = points.T @ joint @ states
        moments["h h"] = states.T @ (hidden[:, None] * states)
        found = {"mean": samples.mean(axis=0)}
        second = samples.T @ samples / NUM_SAMPLES
        found |= {"v v": second[:2, :2], "v h": second[:2, 2:], "h h": second[2:, 2:]}
        for name, expected in moments.items():
            scale = max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(
                found[name], expected, atol=6 * scale / np.sqrt(NUM_SAMPLES), err_msg=name
            )

    @pytest.mark.parametrize("num_steps", [1, 3])
    def test_each_sweep_draws_h_and_then_v_with_its_own_key(self, num_steps):
        """Counts sweeps in one column, and gathers a uniform number a draw in the others."""

        def append(key, x):
            return jnp.concatenate([x[:, :1], x[:, 2:], jax.random.uniform(key, (1, 1))], axis=1)

        def sample_h(theta, key, v):
            return append(key, v).at[:, 0].add(theta)

        def sample_v(theta, key, h):
            return append(key, h)

        sample = functools.partial(gibbs, sample_h, sample_v, 1.0, num_steps=num_steps)
        v, h = map(np.asarray, run(sample, rng_key(), np.zeros((1, 7), np.float32)))
        assert v[0, 0] == h[0, 0] == num_steps
        draws = v[0, 1:][-2 * num_steps :]
        assert len(set(draws.tolist())) == 2 * num_steps
        assert h[0, -1] == draws[-2]  # the h that v was drawn from


def logistic_noise(*shape):
    return np.random.default_rng(0).logistic(size=shape)


class TestRelaxedBernoulli:
    def test_concrete_density_is_that_of_numpyro(self, x64):
        logits, h = normal(4, 3), np.random.default_rng(1).uniform(0.01, 0.99, (4, 3))

        def log_probs(temperature, logits):
            expected = dist.RelaxedBernoulliLogits(temperature, logits).to_event(1)
            return RelaxedBernoulli(logits, temperature, "concrete").log_prob(h), expected.log_prob(h)

        for temperature in (0.1, 0.7, 2.0):
            found, expected = jax.jit(log_probs)(temperature, logits)
            np.testing.assert_allclose(found, expected, rtol=1e-10)

    @pytest.mark.parametrize("temperature", [0.7, 2.0])
    def test_concrete_density_integrates_to_one(self, x64, temperature):
        x, step = np.linspace(-35, 35, 20_001, retstep=True)
        h = scipy.special.expit(x)
        posterior = RelaxedBernoulli(np.array([[-1.0], [0.0], [2.0]]), temperature, "concrete")
        log_density = run(jax.vmap(posterior.log_prob), np.broadcast_to(h[:, None, None], (len(x), 3, 1)))
        jacobian = (h * scipy.special.expit(-x))[:, None]
        np.testing.assert_allclose((np.exp(log_density) * jacobian).sum(axis=0) * step, 1.0, rtol=1e-6)

    @pytest.mark.parametrize("with_intermediates", [False, True])
    def test_bernoulli_density_is_the_log_probability_at_the_relaxed_h(self, x64, with_intermediates):
        logits, noise = normal(4, 3), logistic_noise(4, 3)

        def sample_and_log_prob(logits, noise):
            posterior = RelaxedBernoulli(logits, 0.5)
            h, x = posterior.transform(noise)
            return h, posterior.log_prob(h, x) if with_intermediates else posterior.log_prob(h)

        h, found = run(sample_and_log_prob, logits, noise)
        h = np.asarray(h)
        np.testing.assert_allclose(h, 1 / (1 + np.exp(-2 * (logits + noise))), rtol=1e-12)
        probability = 1 / (1 + np.exp(-logits))
        expected = h * np.log(probability) + (1 - h) * np.log(1 - probability)
        np.testing.assert_allclose(found, expected.sum(axis=1), rtol=1e-12)

    def test_concrete_density_is_accurate_in_float32_where_h_rounds(self):
        logits = np.array([[3.0, -3.0, 3.0, -3.0]])
        noise = np.array([[6.0, -6.0, 0.5, -1.0]])
        x = (logits + noise) / 0.1

        def log_prob(logits, given=None):
            posterior = RelaxedBernoulli(logits, 0.1, "concrete")
            h, x = posterior.transform(noise.astype(np.float32)) if given is None else given
            return posterior.log_prob(h, x).sum(), (h, x)

        value_and_grad = jax.jit(jax.value_and_grad(log_prob, has_aux=True))
        (value, sample), gradient = value_and_grad(logits.astype(np.float32))
        assert sample[0].dtype == jnp.float32
        assert sample[0][0, 0] == 1
        np.testing.assert_allclose(value, concrete_log_prob(logits, 0.1, x)[0], rtol=1e-5)
        # Along a sample, logits - temperature x is minus the noise, and d x / d logits = 1 / temperature.
        np.testing.assert_allclose(gradient, np.tanh(x / 2) / 0.1, rtol=1e-5)
        # With x held, the gradient is that of the logistic density.
        _, gradient = value_and_grad(logits.astype(np.float32), sample)
        np.testing.assert_allclose(gradient, np.tanh(noise / 2), rtol=1e-5)

    def test_bernoulli_density_is_finite_in_float32_where_h_rounds(self):
        logits = np.array([[3.0, -3.0, 200.0, -200.0]], np.float32)
        noise = np.array([[6.0, -8.0, 0.0, 0.0]], np.float32)

        def log_prob(logits):
            posterior = RelaxedBernoulli(logits, 0.1)
            return posterior.log_prob(*posterior.transform(noise)).sum()

        value, gradient = run(jax.value_and_grad(log_prob), logits)
        np.testing.assert_allclose(value, 2 * np.log(scipy.special.expit(3.0)), rtol=1e-5)
        expected = [[scipy.special.expit(-3.0), -scipy.special.expit(-3.0), 0.0, 0.0]]
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)

    def test_samples_have_the_distribution_function_of_the_relaxation(self):
        """P(h < sigmoid(t)) = sigmoid(temperature t - logit)."""
        logits, temperature = np.array([[-1.0, 0.5], [2.0, 0.0]], np.float32), 0.4
        posterior = RelaxedBernoulli(logits, temperature)
        samples = np.asarray(run(lambda key: posterior.sample(key, (NUM_SAMPLES,)), rng_key()))
        for t in (-2.0, 0.0, 1.5):
            expected = scipy.special.expit(temperature * t - logits)
            found = (samples < scipy.special.expit(t)).mean(axis=0)
            np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(NUM_SAMPLES))


POSTERIORS = {
    "bernoulli": lambda logits: RelaxedBernoulli(logits, 0.5),
    "concrete": lambda logits: RelaxedBernoulli(logits, 0.5, "concrete"),
    "gaussian": lambda loc: DiagonalGaussian(loc, 0.5 + loc**2),
}


@pytest.fixture(params=POSTERIORS)
def posterior_of(request):
    """A posterior as a function of its location."""
    return POSTERIORS[request.param]


class TestPosteriorsWithNoise:
    @pytest.mark.parametrize("sample_shape", [(), (2, 3)])
    def test_sample_is_the_transform_of_the_noise(self, posterior_of, sample_shape):
        location = normal(4, 2)
        posterior = posterior_of(location)
        assert (posterior.batch_shape, posterior.event_shape) == ((4,), (2,))

        def draw(key, location):
            posterior = posterior_of(location)
            noise = posterior.draw_noise(key, sample_shape)
            h, intermediates = posterior.transform(noise)
            arguments = (h,) if intermediates is None else (h, intermediates)
            return noise, h, posterior.sample(key, sample_shape), posterior.log_prob(*arguments)

        noise, h, sample, log_prob = run(draw, rng_key(), location)
        assert noise.shape == sample.shape == (*sample_shape, 4, 2)
        assert len(np.unique(noise)) == noise.size
        np.testing.assert_allclose(sample, h, rtol=1e-6)
        assert log_prob.shape == (*sample_shape, 4)

    def test_passes_through_jit_and_vmap_as_a_pytree(self, posterior_of):
        locations, h = normal(3, 4, 2), scipy.special.expit(normal(3, 4, 2, seed=1))
        log_prob = jax.jit(lambda posterior, h: posterior.log_prob(h))
        expected = [
            run(lambda location, h: posterior_of(location).log_prob(h), *pair)
            for pair in zip(locations, h, strict=True)
        ]
        jitted = jax.jit(posterior_of)(locations[0])
        assert isinstance(jitted, type(posterior_of(locations[0])))
        assert (jitted.batch_shape, jitted.event_shape) == ((4,), (2,))
        np.testing.assert_allclose(log_prob(jitted, h[0]), expected[0], rtol=1e-5)
        mapped = run(jax.vmap(posterior_of), locations)
        np.testing.assert_allclose(run(jax.vmap(log_prob), mapped, h), expected, rtol=1e-5, atol=1e-5)


class TestDiagonalGaussian:
    def test_log_prob_and_moments_against_scipy(self, x64):
        loc, scale, h = normal(4, 3), np.exp(normal(4, 3, seed=1)), normal(4, 3, seed=2)
        posterior = DiagonalGaussian(loc, scale)
        expected = scipy.stats.norm.logpdf(h, loc, scale).sum(axis=1)
        np.testing.assert_allclose(run(posterior.log_prob, h), expected, rtol=1e-12)
        np.testing.assert_array_equal(posterior.mean, loc)
        np.testing.assert_allclose(posterior.variance, scale**2)

    def test_samples_have_the_moments(self):
        loc, scale = np.array([[1.0, -2.0]], np.float32), np.array([[0.5, 2.0]], np.float32)
        posterior = DiagonalGaussian(loc, scale)
        samples = run(lambda key: posterior.sample(key, (NUM_SAMPLES,)), rng_key())
        standard = (np.asarray(samples)[:, 0] - loc) / scale
        np.testing.assert_allclose(standard.mean(axis=0), 0, atol=4 / np.sqrt(NUM_SAMPLES))
        np.testing.assert_allclose(np.cov(standard.T), np.eye(2), atol=6 / np.sqrt(NUM_SAMPLES))


def dense_of(params, layer):
    dense = params["params"]["MLP_0"][f"Dense_{layer}"]
    return np.asarray(dense["kernel"]), np.asarray(dense["bias"])


def perceptron(params, x, activation):
    """Two dense layers in numpy."""
    (first, first_bias), (second, second_bias) = dense_of(params, 0), dense_of(params, 1)
    return activation(x @ first + first_bias) @ second + second_bias


class TestPosteriorModules:
    def test_logits_are_linear_in_the_flattened_v(self, x64):
        v, module = normal(4, 2, 3), BernoulliPosterior(5, temperature=0.3, density="concrete")
        phi = random_params(module, v)
        posterior = run(module.apply, phi, v)
        kernel, bias = dense_of(phi, 0)
        np.testing.assert_allclose(posterior.logits, v.reshape(4, 6) @ kernel + bias, rtol=1e-12)
        assert (posterior.temperature, posterior.density) == (0.3, "concrete")
        assert BernoulliPosterior(5).temperature == 0.1

    def test_the_perceptron_is_silu(self, x64):
        v = normal(4, 2, 3)
        silu = lambda x: x / (1 + np.exp(-x))
        bernoulli, gaussian = BernoulliPosterior(5, widths=(7,)), GaussianPosterior(5, widths=(7,))
        phi = random_params(bernoulli, v)
        expected = perceptron(phi, v.reshape(4, 6), silu)
        np.testing.assert_allclose(run(bernoulli.apply, phi, v).logits, expected, rtol=1e-10)
        phi = random_params(gaussian, v)
        posterior, expected = run(gaussian.apply, phi, v), perceptron(phi, v.reshape(4, 6), silu)
        np.testing.assert_allclose(posterior.mean, expected[:, :5], rtol=1e-10)
        np.testing.assert_allclose(posterior.variance, np.exp(expected[:, 5:]) ** 2, rtol=1e-10)

    @pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
    def test_the_temperature_must_be_positive(self, temperature):
        with pytest.raises(ValueError, match="temperature must be a finite number above 0, not"):
            BernoulliPosterior(2, temperature=temperature)

    def test_the_density_must_be_known(self):
        with pytest.raises(ValueError, match="density='relaxed' is unknown; choose one of 'bernoulli'"):
            BernoulliPosterior(2, density="relaxed")


class TestMLPEnergy:
    @pytest.fixture
    def setup(self, x64):
        module, v, h = MLPEnergy(widths=(5,)), jnp.asarray(normal(4, 2, 3)), jnp.asarray(normal(4, 2, seed=1))
        return module, random_params(module, v, h), v, h

    def test_energy_against_numpy_on_the_flattened_v(self, setup):
        module, theta, v, h = setup
        flat = np.asarray(v).reshape(4, 6)
        b, log_std = np.asarray(theta["params"]["b"]), np.asarray(theta["params"]["log_std"])
        joint = np.concatenate([flat, h], axis=1)
        expected = perceptron(theta, joint, lambda x: np.logaddexp(0, x))[:, 0]
        expected += ((flat - b) ** 2 / np.exp(log_std) ** 2 / 2).sum(axis=1) + (h**2).sum(axis=1) / 2
        found = run(module.apply, theta, v, h)
        assert found.shape == (4,)
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        np.testing.assert_array_equal(run(module.apply, theta, flat, h), found)

    def test_gradients_against_finite_differences(self, setup):
        module, theta, v, h = setup
        assert_gradient(lambda args: module.apply(*args).sum(), (theta, v, h))


class LinenEnergy(linen.Module):
    def setup(self):
        self.dense = linen.Dense(2)

    def __call__(self, v, h):
        return ((self.dense(v) - h) ** 2).sum(axis=-1)

    def free_energy(self, v):
        return jnp.exp(self.dense(v)).sum(axis=-1)


class NnxEnergy(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def __call__(self, v, h):
        return ((self.dense(v) - h) ** 2).sum(axis=-1)

    def free_energy(self, v):
        return jnp.exp(self.dense(v)).sum(axis=-1)


def plain_energy(params, v, h):
    return ((v @ params["kernel"] + params["bias"] - h) ** 2).sum(axis=-1)


plain_energy.free_energy = lambda params, v: jnp.exp(v @ params["kernel"] + params["bias"]).sum(axis=-1)

ADAPTED = {
    "linen": (LinenEnergy, lambda dense: {"params": {"dense": dense}}),
    "nnx": (NnxEnergy, lambda dense: {"dense": dense}),
    "function": (lambda: plain_energy, lambda dense: dense),
}


@pytest.fixture(params=ADAPTED)
def adapted(request, x64):
    """An adapted model, its tree of given weights, and the weights."""
    make, tree_of = ADAPTED[request.param]
    dense = {"kernel": jnp.asarray(normal(3, 2)), "bias": jnp.asarray(normal(2, seed=1))}
    return as_model("energy_fn", make()), tree_of, dense


class LinenBatchNorm(linen.Module):
    @linen.compact
    def __call__(self, v, h):
        return linen.BatchNorm(use_running_average=False)(v).sum(axis=-1)


class LinenDropout(linen.Module):
    @linen.compact
    def __call__(self, v, h):
        return linen.Dropout(0.5, deterministic=False)(v).sum(axis=-1)


class NnxLayer(nnx.Module):
    def __init__(self, layer):
        self.layer = layer

    def __call__(self, v, h):
        return self.layer(v).sum(axis=-1)


class TestAdapters:
    def test_energy_and_gradients_are_those_of_the_formula(self, adapted):
        model, tree_of, dense = adapted
        v, h = normal(4, 3), normal(4, 2, seed=1)
        residual = v @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"]) - h
        params = tree_of(dense)
        np.testing.assert_allclose(run(model.apply, params, v, h), (residual**2).sum(axis=1), rtol=1e-12)
        gradient = jax.jit(jax.grad(lambda *args: model.apply(*args).sum(), argnums=(0, 1, 2)))
        by_params, by_v, by_h = gradient(params, v, h)
        expected = tree_of({"kernel": 2 * v.T @ residual, "bias": 2 * residual.sum(axis=0)})
        assert jax.tree.structure(by_params) == jax.tree.structure(expected)
        chex.assert_trees_all_close(by_params, expected, rtol=1e-10)
        np.testing.assert_allclose(by_v, 2 * residual @ np.asarray(dense["kernel"]).T, rtol=1e-10)
        np.testing.assert_allclose(by_h, -2 * residual, rtol=1e-10)

    def test_an_extra_method_is_found_by_name(self, adapted):
        model, tree_of, dense = adapted
        v = normal(4, 3)
        expected = np.exp(v @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])).sum(axis=1)
        found = run(model.method("free_energy"), tree_of(dense), v)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert model.method("log_partition") is None

    def test_initial_parameters_fit_the_model(self, adapted):
        model, tree_of, dense = adapted
        if model.init is None:
            assert model.name == "plain_energy"
            return
        v, h = normal(4, 3), normal(4, 2)
        params = run(model.init, rng_key(), v, h)
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, tree_of(dense))
        assert np.isfinite(run(model.apply, params, v, h)).all()

    def test_an_nnx_module_is_left_as_it_was(self):
        module = NnxEnergy()
        before = np.asarray(module.dense.kernel[...])
        model = as_model("energy_fn", module)
        v, h = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
        params = model.init(rng_key())
        np.testing.assert_array_equal(params["dense"]["kernel"], before)
        doubled = jax.tree.map(lambda leaf: 2 * np.asarray(leaf), params)
        apply = jax.jit(model.apply)
        assert not np.allclose(apply(doubled, v, h), apply(params, v, h))
        np.testing.assert_array_equal(module.dense.kernel[...], before)

    @pytest.mark.parametrize("module_class", [GRBM, LinenEnergy, NnxEnergy])
    def test_a_class_is_refused(self, module_class):
        name = module_class.__name__
        with pytest.raises(TypeError, match=rf"energy_fn is the class {name}; pass an instance, {name}\("):
            as_model("energy_fn", module_class)

    @pytest.mark.parametrize(("value", "name"), [(3.0, "float"), ("grbm", "str"), (None, "NoneType")])
    def test_what_cannot_be_called_is_refused(self, value, name):
        with pytest.raises(TypeError, match=rf"posterior_fn must be a Flax module or a function.*not {name}"):
            as_model("posterior_fn", value)

    def test_linen_batch_norm_is_refused(self):
        model = as_model("energy_fn", LinenBatchNorm())
        with pytest.raises(
            ValueError, match=r"energy_fn=LinenBatchNorm uses mutable collections \['batch_stats'\]"
        ):
            run(model.init, rng_key(), np.ones((4, 3)), np.ones((4, 2)))

    def test_linen_dropout_is_refused(self):
        model = as_model("energy_fn", LinenDropout())
        v, h = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
        with pytest.raises(ValueError, match=r"energy_fn=LinenDropout uses dropout.*deterministic=True"):
            run(model.apply, run(model.init, rng_key(), v, h), v, h)

    @pytest.mark.parametrize(
        ("layer", "state"),
        [
            (lambda rngs: nnx.BatchNorm(3, rngs=rngs), "BatchStat"),
            (lambda rngs: nnx.Dropout(0.5, rngs=rngs), "RngCount"),
        ],
        ids=["batch_norm", "dropout"],
    )
    def test_nnx_state_beside_the_parameters_is_refused(self, layer, state):
        module = NnxLayer(layer(nnx.Rngs(0)))
        with pytest.raises(ValueError, match=rf"energy_fn=NnxLayer uses the state .*'{state}'"):
            as_model("energy_fn", module)
