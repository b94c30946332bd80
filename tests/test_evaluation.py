"""Measures of a model against enumeration, closed forms, quadrature and brute force."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
from flax import linen, nnx
from sklearn.linear_model import LogisticRegression

from bism_jax._tracing import compilation
from bism_jax._tracing.compilation import clear_programs, compiled
from bism_jax.evaluation import (
    annealed_importance_sampling,
    critic_fisher_divergence,
    energy_distance,
    fisher_divergence,
    latent_probe,
    log_likelihood,
    maximum_mean_discrepancy,
    posterior_gap,
    score_matching_objective,
    sliced_score_matching_objective,
)
from bism_jax.evaluation.likelihood import _importance_weights as importance_weights
from bism_jax.evaluation.samples import _squared_distances
from bism_jax.evaluation.samples import _two_sample as two_sample
from bism_jax.models import GRBM, DiagonalGaussian, MLPCritic, MLPEnergy, RelaxedBernoulli
from tests.small_models import (
    grbm,
    grbm_arrays,
    grbm_energies,
    grbm_log_partition,
    grbm_theta,
    hidden_states,
    normal,
    rng_key,
    run,
)

pytestmark = pytest.mark.usefixtures("x64")
close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
SCALE = 1.0  # of an energy, which a test changes


def says(*parts):
    return ".*".join(parts)


def log_mean_exp(x):
    return scipy.special.logsumexp(x) - np.log(len(x))


def jackknife_error(weights):
    """Of log mean w, with one weight left out after the other."""
    without = np.log([np.delete(weights, index).mean() for index in range(len(weights))])
    return np.sqrt((len(weights) - 1) * without.var())


def enumerated_log_partition(theta):
    """log of the sum over h of the Gaussian integrals over v, state by state."""
    weights, b, c, log_std = grbm_arrays(theta)
    states = hidden_states(len(c))
    fields = states @ weights.T
    exponents = states @ c + fields @ b + 0.5 * (fields * np.exp(log_std)) ** 2 @ np.ones(len(b))
    return log_std.sum() + len(b) / 2 * np.log(2 * np.pi) + scipy.special.logsumexp(exponents)


POINTS = {"base": np.array([-1.0, 0.3, 2.0]), "sweep": np.array([0.1, -0.7, 1.5])}
PRECISION, BASE = 3.0, 0.25


def scripted_model():
    """A normal density on a path of precisions, whose sweeps give known points: every weight is known."""

    def energy(theta, v, h):
        raise AssertionError("only the marginal is needed")

    energy.free_energy = lambda theta, v: theta * v**2 / 2
    energy.annealed = lambda theta, beta: 1 + beta**2 * (theta - 1)
    energy.base_log_partition = lambda theta: jnp.asarray(BASE)
    energy.sample_base = lambda theta, key, num_samples: jnp.asarray(POINTS["base"])
    energy.sample_h = lambda theta, key, v: v
    energy.sample_v = lambda theta, key, h: theta * POINTS["sweep"]
    return energy


def scripted_run(num_temperatures):
    return annealed_importance_sampling(
        scripted_model(), PRECISION, rng_key(), num_particles=3, num_temperatures=num_temperatures
    )


class TestAnnealedImportanceSampling:
    @pytest.mark.parametrize("num_temperatures", [1, 2, 3])
    def test_weights_and_errors_of_a_scripted_path(self, num_temperatures):
        precisions = 1 + np.linspace(0, 1, num_temperatures + 1) ** 2 * (PRECISION - 1)
        moved = precisions[:, None] * POINTS["sweep"]  # by a sweep at each precision
        steps = np.diff(precisions)[:, None]
        forward = (-steps * np.concatenate([POINTS["base"][None], moved[1:-1]]) ** 2 / 2).sum(axis=0)
        reverse = (steps * moved[1:] ** 2 / 2).sum(axis=0)
        result = scripted_run(num_temperatures)
        close(result.log_partition, BASE + log_mean_exp(forward))
        close(result.reverse_log_partition, BASE - log_mean_exp(reverse))
        for weights, error, size in (
            (np.exp(forward), result.standard_error, result.effective_sample_size),
            (np.exp(reverse), result.reverse_standard_error, result.reverse_effective_sample_size),
        ):
            close(error, jackknife_error(weights))
            close(size, weights.sum() ** 2 / (weights**2).sum())
        close(result.lower, result.log_partition - 3 * result.standard_error)
        close(result.upper, result.reverse_log_partition + 3 * result.reverse_standard_error)

    def test_path_of_the_grbm(self):
        theta = grbm_theta(2, 3)
        base, middle, end = (
            run(functools.partial(GRBM(3).apply, method="annealed"), theta, x) for x in (0.0, 0.5, 1.0)
        )
        close(grbm(3, "base_log_partition")(theta), grbm_log_partition(base))
        for name, factor in (("W", 0.5), ("c", 0.5), ("b", 1), ("log_std", 1)):
            close(middle["params"][name], factor * theta["params"][name])
            close(end["params"][name], theta["params"][name])

    def test_base_samples_of_the_grbm(self):
        theta = grbm_theta(2, 3)
        v = jax.jit(lambda theta, key: GRBM(3).apply(theta, key, 20_000, method="sample_base"))(
            theta, rng_key()
        )
        _, b, _, log_std = grbm_arrays(theta)
        std = np.exp(log_std)
        np.testing.assert_allclose(v.mean(axis=0), b, atol=4 * std.max() / np.sqrt(20_000))
        np.testing.assert_allclose(np.cov(v.T), np.diag(std**2), atol=6 * std.max() ** 2 / np.sqrt(20_000))

    @pytest.mark.parametrize(("num_visible", "num_hidden"), [(2, 4), (5, 10)])
    def test_log_partition_of_the_grbm(self, num_visible, num_hidden):
        theta = grbm_theta(num_visible, num_hidden)
        exact = enumerated_log_partition(theta)
        result = annealed_importance_sampling(
            GRBM(num_hidden), theta, rng_key(), num_particles=1000, num_temperatures=300
        )
        assert abs(result.log_partition - exact) < 0.02
        assert result.lower < exact < result.upper
        # Informative: the weights of a path from the wrong base or with missing sweeps spread far more.
        assert result.upper - result.lower < 0.15

    @pytest.mark.slow
    @pytest.mark.parametrize("num_visible", [2, 10])
    def test_log_partition_of_twenty_hidden_units(self, num_visible):
        theta = grbm_theta(num_visible, 20, scale=1.0)
        exact = enumerated_log_partition(theta)
        result = annealed_importance_sampling(GRBM(20), theta, jax.random.key(0))
        assert abs(result.log_partition - exact) < 0.02
        assert result.lower < exact < result.upper

    @pytest.mark.parametrize(("scale", "num_particles"), [(1.0, 100), (2.0, 50)])
    def test_standard_errors_are_the_spread_over_keys(self, scale, num_particles):
        """The second path is short: the spread of the weights alone is a fifth too low there."""
        # The outer jit also shows that the function can be traced.
        estimate = functools.partial(
            annealed_importance_sampling, GRBM(4), num_particles=num_particles, num_temperatures=20
        )
        theta, keys = grbm_theta(3, 4, scale=scale), jax.random.split(rng_key(), 400)
        results = run(jax.vmap(estimate, in_axes=(None, 0)), theta, keys)
        exact = enumerated_log_partition(theta)
        for estimates, errors in (
            (results.log_partition, results.standard_error),
            (results.reverse_log_partition, results.reverse_standard_error),
        ):
            spread = float(np.std(estimates))
            assert spread == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.12)
            assert np.mean(estimates) == pytest.approx(exact, abs=4 * spread / np.sqrt(400) + spread**2)

    @pytest.mark.parametrize("num_particles", [20, 50, 200, 2000])
    def test_standard_error_of_heavy_weights(self, num_particles):
        """Of log-normal weights that vary by 2.1 times their mean; c / sqrt(P) is low where they are few."""
        log_weights = 1.3 * normal(2_000_000 // num_particles, num_particles)
        found = run(jax.vmap(importance_weights.log_mean), log_weights)
        spread = float(found.value.std())
        sample_spread = np.exp(log_weights).std(axis=1, ddof=1) / np.exp(log_weights).mean(axis=1)
        assert np.sqrt((found.standard_error**2).mean()) == pytest.approx(spread, rel=0.08)
        assert found.standard_error.mean() > 0.9 * spread
        if num_particles <= 50:
            assert (sample_spread / np.sqrt(num_particles)).mean() < 0.9 * spread

    @pytest.mark.parametrize("shift", [-3000.0, 0.0, 3000.0])
    def test_standard_errors_in_float32(self, shift):
        """However large log Z is, and where one weight is nearly all of the sum."""
        log_weights = np.array([0.0, -0.5, 0.25, -1.0, 0.5]) + shift
        found = importance_weights.log_mean(jnp.asarray(log_weights, jnp.float32))
        close(found.standard_error, jackknife_error(np.exp(log_weights - shift)), rtol=1e-3)
        found = importance_weights.log_mean(jnp.asarray([shift, shift - 30, shift - 31], jnp.float32))
        close(found.standard_error, jackknife_error(np.exp([0.0, -30.0, -31.0])), rtol=1e-3)
        found = importance_weights.log_mean(jnp.full(7, shift, jnp.float32))
        close(found.standard_error, 0, atol=1e-6)

    def test_resampling_is_in_proportion_to_the_weights(self):
        weights = np.array([0.5, 0.0, 0.25, 0.25])
        chosen = importance_weights.resample(rng_key(), jnp.log(weights))
        np.testing.assert_array_equal(np.bincount(chosen, minlength=4), 4 * weights)

    def test_few_effective_samples_give_a_warning(self):
        theta = grbm_theta(10, 8, scale=3.0)
        run_of = r"effective sample size of the {} run is .* of num_particles=50.*raise num_temperatures=1\."
        with (
            pytest.warns(UserWarning, match=run_of.format("forward")),
            pytest.warns(UserWarning, match=run_of.format("reverse")),
        ):
            annealed_importance_sampling(GRBM(8), theta, rng_key(), num_particles=50, num_temperatures=1)

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"num_particles": 0}, "num_particles must be an integer of at least 1"),
            ({"num_particles": 1}, says("num_particles=1 has no spread", "at least 2")),
            ({"num_temperatures": 0}, "num_temperatures must be an integer of at least 1"),
        ],
    )
    def test_bad_numbers(self, options, match):
        with pytest.raises(ValueError, match=match):
            annealed_importance_sampling(GRBM(3), grbm_theta(2, 3), rng_key(), **options)

    def test_a_missing_path_is_named(self):
        match = "annealed_importance_sampling needs annealed, which energy_fn=MLPEnergy lacks"
        with pytest.raises(ValueError, match=match):
            annealed_importance_sampling(MLPEnergy(), None, rng_key())


class TestLogLikelihood:
    def test_a_given_log_partition_takes_the_place_of_the_exact_one(self):
        theta, v = grbm_theta(2, 21), normal(5, 2)
        found = log_likelihood(GRBM(21), theta, v, log_partition=1.5)
        close(found, -np.asarray(grbm(21, "free_energy")(theta, v)) - 1.5)


class TestSlicedScoreMatching:
    def test_one_dimension_needs_one_projection(self):
        theta, v = grbm_theta(1, 3), normal(7, 1)
        found = sliced_score_matching_objective(GRBM(3), theta, v, rng_key(), batch_size=2)
        close(found, score_matching_objective(GRBM(3), theta, v))

    def test_projections_average_to_the_exact_objective(self):
        theta, v = grbm_theta(3, 4), normal(6, 3)
        exact = score_matching_objective(GRBM(4), theta, v)
        few, many = (
            float(sliced_score_matching_objective(GRBM(4), theta, v, rng_key(), num_projections=n) - exact)
            for n in (1, 10_000)
        )
        assert abs(few) > 1e-3
        assert abs(many) < 2e-2

    def test_zero_projections_are_refused(self):
        with pytest.raises(ValueError, match="num_projections must be an integer of at least 1"):
            sliced_score_matching_objective(GRBM(3), grbm_theta(1, 3), normal(7, 1), None, num_projections=0)


def independent_grbm(num_visible):
    """A GRBM without weights, whose marginal is N(b, e^{2s})."""
    theta = grbm_theta(num_visible, 2)
    theta["params"]["W"] = 0 * theta["params"]["W"]
    return theta


class TestFisherDivergence:
    def test_between_gaussians(self):
        theta, v = independent_grbm(3), normal(7, 3)
        _, b, _, log_std = grbm_arrays(theta)
        mean, std = np.array([1.0, -0.5, 0.0]), np.array([0.5, 1.0, 2.0])
        data = dist.Normal(mean, std).to_event(1)
        expected = 0.5 * (((b - v) / np.exp(2 * log_std) - (mean - v) / std**2) ** 2).sum(axis=1).mean()
        close(fisher_divergence(GRBM(2), theta, v, data.log_prob, batch_size=3), expected)

    def test_score_matching_is_the_fisher_divergence_up_to_a_constant_of_the_data(self):
        theta = grbm_theta(1, 3)
        v = scipy.stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]

        def log_prob(v):
            return -0.5 * (v**2).sum(axis=1)

        found = fisher_divergence(GRBM(3), theta, v, log_prob, batch_size=2000)
        constant = 0.5 * (v**2).mean()
        assert found > 0.1
        expected = score_matching_objective(GRBM(3), theta, v, batch_size=2000) + constant
        np.testing.assert_allclose(found, expected, atol=2e-3)

    def test_bad_input(self):
        theta, v = grbm_theta(2, 3), normal(4, 2)
        with pytest.raises(TypeError, match=r"data_log_prob_fn must be a function of v.*not 3"):
            fisher_divergence(GRBM(3), theta, v, 3)
        with pytest.raises(ValueError, match="fisher_divergence needs free_energy"):
            fisher_divergence(MLPEnergy(), None, v, lambda v: v.sum(axis=1))
        with pytest.raises(ValueError, match="batch_size must be an integer"):
            fisher_divergence(GRBM(3), theta, v, lambda v: v.sum(axis=1), batch_size=0)


def grbm_posterior(theta, v):
    return GRBM(2).apply(theta, v, method="posterior")


AFFINE = {"critic": MLPCritic(()), "learning_rate": 0.02, "num_steps": 800, "num_projections": 2}


class TestCriticFisher:
    def test_between_gaussians(self):
        """The best critic is affine: grad log p_data - s has the closed form of two Gaussians."""
        theta = independent_grbm(2)
        _, b, _, log_std = grbm_arrays(theta)
        mean, std = b + np.array([0.8, -0.5]), np.exp(log_std) * np.array([1.3, 0.9])
        v = mean + std * normal(6000, 2)
        # E((v - mean) / std^2 - (v - b) / e^{2s})^2, a variance and a squared mean.
        slope, offset = 1 / std**2 - np.exp(-2 * log_std), (mean - b) * np.exp(-2 * log_std)
        expected = 0.5 * (slope**2 * std**2 + offset**2).sum()
        result = critic_fisher_divergence(GRBM(2), theta, v, rng_key(), **AFFINE)
        assert result.value == pytest.approx(expected, abs=4 * float(result.standard_error))
        assert result.standard_error < 0.1 * expected
        assert result.train_values[-50:].mean() == pytest.approx(expected, rel=0.2)

    def test_value_of_a_critic_that_is_not_trained(self):
        """A critic f = w v, that cannot move, has the value s w v + w d - (w v)^2 / 2."""

        class Scale(linen.Module):
            @linen.compact
            def __call__(self, v):
                return v * self.param("w", linen.initializers.constant(0.5), ())

        theta, v = independent_grbm(2), normal(1, 2) * np.ones((10, 2))
        _, b, _, log_std = grbm_arrays(theta)
        options = {"critic": Scale(), "learning_rate": 1e-12, "num_steps": 3}
        result = critic_fisher_divergence(GRBM(2), theta, v, rng_key(), **options)
        f, score = 0.5 * v[0], (b - v[0]) / np.exp(2 * log_std)
        expected = (score * f - 0.5 * f**2).sum() + 2 * 0.5
        np.testing.assert_allclose(result.value, expected, rtol=1e-9)
        np.testing.assert_allclose(result.train_values, 3 * [expected], rtol=1e-9)
        assert result.standard_error == pytest.approx(0, abs=1e-9)

    def test_the_true_posterior_gives_the_exact_score(self):
        """With log q the estimate is exact for each h; without it, on average."""
        theta, v = grbm_theta(2, 2), normal(1000, 2)
        measure = functools.partial(
            critic_fisher_divergence, GRBM(2), theta, v, rng_key(), **AFFINE | {"num_steps": 100}
        )
        exact = measure()
        posterior = {"posterior_fn": grbm_posterior, "phi": theta}
        reduced = measure(**posterior, num_particles=1, variance_reduced=True)
        np.testing.assert_allclose(reduced.value, exact.value, rtol=1e-6)
        np.testing.assert_allclose(reduced.train_values, exact.train_values, rtol=1e-6)
        plain = measure(**posterior, num_particles=20)
        assert abs(plain.value - exact.value) > 1e-6
        assert plain.value == pytest.approx(float(exact.value), abs=2 * float(plain.standard_error))

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"held_out": 1.0}, ValueError, "held_out must be at least 0 and below 1"),
            ({"held_out": 0.0}, ValueError, "held_out=0.0 leaves 0 of the 20 rows"),
            ({"num_steps": 0}, ValueError, "num_steps must be an integer of at least 1"),
            ({"learning_rate": -1}, ValueError, "learning_rate must be a finite number above 0"),
            ({"variance_reduced": 1}, TypeError, "variance_reduced must be True or False"),
            ({"posterior_fn": grbm_posterior}, ValueError, "needs phi, the parameters of posterior_fn"),
            ({"critic": lambda p, v: v}, ValueError, "no initial parameters; pass a Flax module"),
            ({"critic": linen.Dense(3)}, ValueError, r"critic=Dense takes \(1, 2\) to \(1, 3\)"),
        ],
    )
    def test_bad_input(self, options, error, match):
        with pytest.raises(error, match=match):
            critic_fisher_divergence(GRBM(2), grbm_theta(2, 2), normal(20, 2), rng_key(), **options)

    def test_a_model_without_a_free_energy_needs_a_posterior(self):
        with pytest.raises(ValueError, match="critic_fisher_divergence needs free_energy"):
            critic_fisher_divergence(MLPEnergy(), None, normal(20, 2), rng_key())

    def test_the_critic_keeps_the_shape_of_images(self):
        v = np.ones((3, 4, 5))
        critic = MLPCritic((8,))
        assert run(critic.init_with_output, rng_key(), v)[0].shape == v.shape


def relaxed_posterior(phi, v):
    return RelaxedBernoulli(v @ phi["A"] + phi["a"], 0.1)


def with_posterior(posterior):
    def energy(theta, v, h):
        raise AssertionError("only the posterior is needed")

    energy.posterior = posterior
    return energy


def diagonal(params, v):
    return DiagonalGaussian(v @ params["A"] + params["a"], jnp.exp(0.1 * v @ params["A"]))


def full(params, v):
    root = jnp.eye(3) + 0.3 * jnp.tril(jnp.outer(params["a"], params["a"]))
    return dist.MultivariateNormal(v @ params["A"], scale_tril=jnp.broadcast_to(root, (len(v), 3, 3)))


def gaussian_params(seed):
    return {"A": normal(2, 3, seed=seed), "a": normal(3, seed=seed + 1)}


def moments(posterior):
    if isinstance(posterior, dist.MultivariateNormal):
        return np.asarray(posterior.mean), np.asarray(posterior.covariance_matrix)
    return np.asarray(posterior.mean), np.stack([np.diag(row) for row in np.asarray(posterior.variance)])


def gaussian_kl(q, p):
    """KL of each row, by inverses and determinants."""
    (q_mean, q_covariance), (p_mean, p_covariance) = moments(q), moments(p)
    precision, difference = np.linalg.inv(p_covariance), p_mean - q_mean
    trace = np.einsum("bij,bji->b", precision, q_covariance)
    quadratic = np.einsum("bi,bij,bj->b", difference, precision, difference)
    log_ratio = np.linalg.slogdet(p_covariance)[1] - np.linalg.slogdet(q_covariance)[1]
    return 0.5 * (trace + quadratic - q_mean.shape[1] + log_ratio)


class TestPosteriorGap:
    def test_relaxed_bernoulli_against_enumeration(self):
        theta, v, states = grbm_theta(2, 3), normal(5, 2), hidden_states(3)
        phi = {"A": normal(2, 3, seed=2), "a": normal(3, seed=3)}
        log_p = -grbm_energies(theta, v)
        log_p -= scipy.special.logsumexp(log_p, axis=1, keepdims=True)
        probability = scipy.special.expit(v @ phi["A"] + phi["a"])[:, None]
        log_q = np.log(np.where(states == 1, probability, 1 - probability)).sum(axis=-1)
        gap = posterior_gap(GRBM(3), relaxed_posterior, theta, phi, v)
        close(gap.kl, (np.exp(log_q) * (log_q - log_p)).sum(axis=1).mean())
        close(gap.mean_absolute_difference, np.abs((np.exp(log_q) - np.exp(log_p)) @ states).mean())

    def test_the_exact_posterior_has_no_gap(self):
        theta, v = grbm_theta(2, 3), normal(5, 2)
        phi = {"A": theta["params"]["W"], "a": theta["params"]["c"]}
        gap = posterior_gap(GRBM(3), relaxed_posterior, theta, phi, v)
        np.testing.assert_allclose(gap, 0, atol=1e-14)

    @pytest.mark.parametrize("exact", [diagonal, full])
    @pytest.mark.parametrize("approximate", [diagonal, full])
    def test_gaussians(self, approximate, exact):
        phi, theta, v = gaussian_params(0), gaussian_params(5), normal(4, 2)
        gap = posterior_gap(with_posterior(exact), approximate, theta, phi, v)
        q, p = approximate(phi, v), exact(theta, v)
        close(gap.kl, gaussian_kl(q, p).mean())
        close(gap.mean_absolute_difference, np.abs(np.asarray(q.mean) - np.asarray(p.mean)).mean())

    def test_bad_input(self):
        theta, v = gaussian_params(0), normal(4, 2)

        def laplace(params, v):
            return dist.Laplace(v @ params["A"], 1.0).to_event(1)

        match = says("no closed form", r"posterior_fn's Independent\(Laplace\)", "use two Bernoullis")
        with pytest.raises(ValueError, match=match):
            posterior_gap(with_posterior(full), laplace, theta, theta, v)
        with pytest.raises(ValueError, match=r"shape \(4, 3\), but the exact .*shape \(4, 2\)"):
            posterior_gap(GRBM(2), relaxed_posterior, grbm_theta(2, 2), gaussian_params(0), v)
        with pytest.raises(
            ValueError, match="posterior_gap needs posterior, which energy_fn=MLPEnergy lacks"
        ):
            posterior_gap(MLPEnergy(), laplace, theta, theta, v)
        with pytest.raises(TypeError, match="posterior_fn must be a Flax module or a function"):
            posterior_gap(GRBM(2), None, theta, theta, v)


def pair_distances(x, y):
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(axis=-1))


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


def brute_force_mmd(x, y, bandwidth):
    def kernel(a, b):
        return np.exp(-(pair_distances(a, b) ** 2) / (2 * bandwidth**2))

    within = off_diagonal(kernel(x, x)).mean() + off_diagonal(kernel(y, y)).mean()
    return within - 2 * kernel(x, y).mean()


class TestTwoSample:
    # Blocks of two rows divide neither sample; one shape each, so that each is traced with its blocks.
    @pytest.mark.parametrize(("shape", "pairs"), [((2,), 2**22), ((2, 3), 10), ((1,), 1)])
    def test_against_brute_force(self, monkeypatch, shape, pairs):
        monkeypatch.setattr(_squared_distances, "_PAIRS_AT_A_TIME", pairs)
        x, y = 3 + normal(7, *shape), 3.5 + 2 * normal(5, *shape, seed=1)
        median = np.median(
            pair_distances(np.concatenate([x, y]), np.concatenate([x, y]))[np.triu_indices(12, 1)]
        )
        close(maximum_mean_discrepancy(x, y, bandwidth=0.7), brute_force_mmd(x, y, 0.7))
        close(maximum_mean_discrepancy(x, y), brute_force_mmd(x, y, median))
        within = off_diagonal(pair_distances(x, x)).mean() + off_diagonal(pair_distances(y, y)).mean()
        close(energy_distance(x, y), 2 * pair_distances(x, y).mean() - within, atol=1e-7)

    def test_between_gaussians(self):
        """E k of N(m, 2) is sqrt(w / (w + 2)) exp(-m^2 / (2 (w + 2))), w the squared bandwidth."""
        x, y = normal(3000, 1), 1.5 + normal(3000, 1, seed=1)

        def mean_kernel(shift, w=0.8**2):
            return np.sqrt(w / (w + 2)) * np.exp(-(shift**2) / (2 * (w + 2)))

        expected = 2 * mean_kernel(0) - 2 * mean_kernel(1.5)
        np.testing.assert_allclose(maximum_mean_discrepancy(x, y, bandwidth=0.8), expected, rtol=0.08)
        cross = scipy.stats.foldnorm.mean(1.5 / np.sqrt(2), scale=np.sqrt(2))
        expected = 2 * cross - 2 * scipy.stats.foldnorm.mean(0, scale=np.sqrt(2))
        np.testing.assert_allclose(energy_distance(x, y), expected, rtol=0.08)

    def test_estimates_are_unbiased_where_the_distributions_agree(self):
        x, y = normal(500, 20, 2), normal(500, 20, 2, seed=1)
        for distance in (maximum_mean_discrepancy, energy_distance):
            estimates = run(jax.vmap(distance), x, y)
            assert abs(estimates.mean()) < 4 * estimates.std() / np.sqrt(500)
            assert estimates.min() < 0

    def test_median_of_many_rows_is_that_of_a_part(self, monkeypatch):
        monkeypatch.setattr(two_sample, "_MEDIAN_ROWS", 10)
        x, y = normal(21, 1), normal(9, 1, seed=1)
        parts = np.concatenate([x[::3], y])
        median = np.median(pair_distances(parts, parts)[np.triu_indices(len(parts), 1)])
        close(maximum_mean_discrepancy(x, y), brute_force_mmd(x, y, median))

    @pytest.mark.parametrize("distance", [maximum_mean_discrepancy, energy_distance])
    def test_bad_input(self, distance):
        name = distance.__name__
        with pytest.raises(
            ValueError, match=rf"{name} needs at least two rows of y, whose shape is \(1, 2\)"
        ):
            distance(normal(3, 2), normal(1, 2))
        with pytest.raises(ValueError, match=rf"{name} needs rows of one shape.*\(3, 2\).*\(3, 4\)"):
            distance(normal(3, 2), normal(3, 4))

    @pytest.mark.parametrize("distance", [energy_distance, maximum_mean_discrepancy])
    def test_values_whose_squares_vanish_are_refused(self, distance):
        x, y = normal(10, 2), normal(10, 2, seed=1) + 1
        close(distance(1e-10 * x, 1e-10 * y) / distance(x, y), 1e-10 if distance is energy_distance else 1)
        x, y, tiny = x.astype(np.float32), y.astype(np.float32), np.float32(1e-20)
        with pytest.raises(
            ValueError, match=r"x holds values that differ by at most .* rounded to 0; multiply"
        ):
            distance(tiny * x, tiny * y)

    @pytest.mark.parametrize("distance", [energy_distance, maximum_mean_discrepancy])
    def test_values_whose_squares_overflow_are_refused(self, distance):
        far = 1e20 * np.ones((10, 3), np.float32)
        with pytest.raises(
            ValueError, match="x holds values of 1e\\+20, whose squared distances would overflow"
        ):
            distance(far, -far)

    @pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
    def test_collapsed_samples(self, dtype):
        """All rows at one point each: k = 1 within a sample, and exp(-1/2) across at the median distance."""
        x = np.repeat(np.array([[0.1, -0.7, 3.3]], dtype), 5, axis=0)
        y = np.repeat(np.array([[0.1, -0.2, 2.1]], dtype), 4, axis=0)
        for far in (0, 100):
            apart = np.linalg.norm(np.float64(x[0]) - np.float64(y[0] + dtype(far)))
            tolerance = 40 * float(np.finfo(np.promote_types(dtype, np.float32)).eps)
            mmd, energy = maximum_mean_discrepancy(x, y + dtype(far)), energy_distance(x, y + dtype(far))
            close(mmd, 2 - 2 * np.exp(-0.5), rtol=tolerance)
            close(energy, 2 * apart, rtol=tolerance)
        for other in (x, x[:3]):
            assert energy_distance(x, other) == 0
            close(maximum_mean_discrepancy(x, other), 0, atol=tolerance)
            close(maximum_mean_discrepancy(x, other, bandwidth=0.3), 0, atol=tolerance)

    def test_one_collapsed_sample_has_the_other_one_s_scale(self):
        x, y = np.full((200, 3), 0.3, np.float32), normal(150, 3, seed=1).astype(np.float32)
        distances = pair_distances(*[np.concatenate([x, y]).astype(np.float64)] * 2)[np.triu_indices(350, 1)]
        median = np.median(distances[distances > 0])
        close(maximum_mean_discrepancy(x, y), brute_force_mmd(x, y, median), rtol=1e-5)
        expected = 2 * pair_distances(x, y).mean() - off_diagonal(pair_distances(y, y)).mean()
        close(energy_distance(x, y), expected, rtol=1e-5)

    def test_the_spread_of_samples_far_apart(self):
        x, y = normal(50, 2).astype(np.float32), normal(60, 2, seed=1).astype(np.float32)
        far = y + np.float32(4096)  # 3,000 spreads: around the common mean, float32 holds none of either
        within = off_diagonal(pair_distances(x, x)).mean() + off_diagonal(pair_distances(far, far)).mean()
        expected = 2 * pair_distances(np.float64(x), np.float64(far)).mean() - within
        close(energy_distance(x, far), expected, rtol=1e-6)
        # Kernels reach no row of the other sample.
        close(maximum_mean_discrepancy(x, far, bandwidth=1.0), brute_force_mmd(x, far, 1.0), rtol=1e-5)

    @pytest.mark.parametrize("distance", [maximum_mean_discrepancy, energy_distance])
    def test_half_precision_is_computed_in_float32(self, distance):
        x, y = (256 * normal(20, 50, seed=seed) for seed in (0, 1))  # squares beyond 65,504
        for dtype in (np.float16, jnp.bfloat16):
            expected = distance(*(np.float64(sample.astype(dtype)) for sample in (x, y)))
            close(distance(x.astype(dtype), y.astype(dtype)), expected, rtol=1e-3, atol=1e-5)
        integers = [np.clip(sample, 0, 255).astype(np.uint8) for sample in (x, y)]
        close(distance(*integers), distance(*map(np.float64, integers)), rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("distance", [maximum_mean_discrepancy, energy_distance])
    def test_rows_that_are_not_finite_are_refused(self, distance):
        y = normal(4, 2)
        y[2, 1], y[3] = np.inf, np.nan
        with pytest.raises(ValueError, match=says("y: 2 rows hold NaN or inf", "row 2", "leave them out")):
            distance(normal(3, 2), y)

    def test_bandwidth_must_be_positive(self):
        with pytest.raises(ValueError, match="bandwidth must be a finite number above 0"):
            maximum_mean_discrepancy(normal(3, 2), normal(3, 2), bandwidth=0)


def shifted_posterior(phi, v):
    return dist.Normal(v * phi, 1.0).to_event(1)


class TestLatentProbe:
    def test_against_a_classifier_on_latents_standardised_by_hand(self):
        train, test = 5 + normal(60, 2), 2 * normal(41, 2, seed=1)
        labels = (normal(60, seed=2) + train[:, 0] > 5).astype(int)
        test_labels = (test[:, 0] > 0.5).astype(int)
        scale = np.array([1.0, 100.0])
        found = latent_probe(shifted_posterior, scale, train, labels, test, test_labels, batch_size=7)
        mean, std = (train * scale).mean(axis=0), (train * scale).std(axis=0)
        classifier = LogisticRegression().fit((train * scale - mean) / std, labels)
        assert found.train_accuracy == classifier.score((train * scale - mean) / std, labels)
        assert found.test_accuracy == classifier.score((test * scale - mean) / std, test_labels)
        assert 0.5 < found.test_accuracy < found.train_accuracy + 0.5

    def test_labels_of_objects_are_what_they_are(self):
        v = normal(60, 2)
        labels = (v[:, 0] > 0).astype(int)
        found = latent_probe(
            shifted_posterior, np.ones(2), v, labels.astype(object), v, labels.astype(object)
        )
        assert found == latent_probe(shifted_posterior, np.ones(2), v, labels, v, labels)

    def test_labels_by_name_and_a_relaxed_posterior(self):
        v = normal(80, 2)
        phi = {"A": np.eye(2), "a": np.zeros(2)}
        labels = np.where(v[:, 0] > 0, "right", "left")
        crossed = np.where(v[:, 0] * v[:, 1] > 0, "right", "left")
        assert latent_probe(relaxed_posterior, phi, v, labels, v, labels).test_accuracy > 0.95
        assert latent_probe(relaxed_posterior, phi, v, crossed, v, crossed).test_accuracy < 0.75

    def test_mean_of_a_relaxed_bernoulli(self):
        logits = normal(4, 3)
        close(RelaxedBernoulli(logits, 0.5).mean, scipy.special.expit(logits))

    def test_bad_input(self, monkeypatch):
        v, labels = normal(6, 2), np.array([0, 1] * 3)
        probe = functools.partial(latent_probe, shifted_posterior, np.ones(2), v)
        with pytest.raises(
            ValueError, match=r"train_labels must hold one label for each of the 6 rows.*\(5,\)"
        ):
            probe(labels[:5], v, labels)
        with pytest.raises(
            ValueError, match=r"test_labels must hold one label for each of the 4 rows.*\(6,\)"
        ):
            probe(labels, v[:4], labels)
        with pytest.raises(ValueError, match="train_labels are all of one class"):
            probe(0 * labels, v, labels)

        def no_mean(phi, v):
            return dist.Distribution(batch_shape=(len(v),), event_shape=(2,))

        with pytest.raises(
            ValueError, match="latent_probe needs the mean of the posterior, which Distribution"
        ):
            latent_probe(no_mean, None, v, labels, v, labels)
        monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
        with pytest.raises(ImportError, match=r"latent_probe needs scikit-learn; .*bism-jax\[experiments\]"):
            probe(labels, v, labels)


class TestCompilation:
    def test_an_equal_model_is_compiled_once(self):
        clear_programs()

        def count(model, scale, x):
            return scale * x

        for _ in range(3):
            assert compiled(functools.partial(count, GRBM(3), 2))(1.5) == 3
        assert len(compilation._programs) == 1
        assert compiled(functools.partial(count, GRBM(3), 4))(1.5) == 6
        assert len(compilation._programs) == 2

    def test_a_global_that_changes_is_seen(self, monkeypatch):
        def energy(theta, v):
            return SCALE * ((v - theta) ** 2).sum(axis=-1)

        v = normal(6, 2)
        found = []
        for scale in (1.0, 3.0, 1.0):
            monkeypatch.setitem(globals(), "SCALE", scale)
            found.append(np.asarray(log_likelihood(energy, np.ones(2), v, log_partition=0.0)))
        np.testing.assert_allclose(found[1], 3 * found[0])
        np.testing.assert_array_equal(found[2], found[0])

    def test_what_can_change_is_traced_anew(self):
        class Scale(nnx.Module):
            factor = 2.0

            def free_energy(self, v):
                return self.factor * v.sum(axis=1)

            def __call__(self, v, h):
                return h

        module, v = Scale(), np.ones((1, 1))
        first = log_likelihood(module, {}, v, log_partition=0.0)
        module.factor = 3.0
        assert (first, log_likelihood(module, {}, v, log_partition=0.0)) == (-2, -3)

        def energy(theta, v, h):
            return h

        for factor in (2.0, 3.0):
            energy.free_energy = lambda theta, v, factor=factor: factor * v.sum(axis=1)
            assert log_likelihood(energy, None, v, log_partition=0.0) == -factor

    def test_what_has_no_hash_works(self):
        theta, v = grbm_theta(2, 3), normal(4, 2)

        class Listed(GRBM):
            sizes: list | None = None

        close(
            log_likelihood(Listed(3, sizes=[1]), theta, v, log_partition=0.0),
            log_likelihood(GRBM(3), theta, v, log_partition=0.0),
        )
