"""Objectives, scores and divergences against closed forms, mostly of Gaussians, in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats

from bism_jax.evaluation import log_likelihood, score_matching_objective
from bism_jax.models import GRBM, BernoulliPosterior, DiagonalGaussian, MLPEnergy, RelaxedBernoulli
from bism_jax.objectives import (
    DSM,
    KL,
    MDSM,
    SM,
    SSM,
    Fisher,
    LatentSample,
    MultiscaleNoise,
    draw_latent_noise,
    latent_score,
    map_particles,
    marginal_score,
    sample_latents,
)
from tests.small_models import (
    assert_gradient,
    concrete_log_prob,
    grbm,
    grbm_arrays,
    grbm_energies,
    grbm_log_partition,
    grbm_theta,
    hidden_states,
    normal,
    random_params,
    rng_key,
    run,
)

pytestmark = pytest.mark.usefixtures("x64")
close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)


def covariance(size, seed):
    root = normal(size, size, seed=seed)
    return root @ root.T + 0.3 * np.eye(size)


def gaussian_score(mean, precision):
    """The score of a Gaussian, for numpy and for JAX arrays."""
    return lambda v: -(v - mean) @ precision


def spherical_points(size):
    """Points of mean 0 and covariance I, of which the mean of a cubic polynomial is its expectation."""
    return np.sqrt(size) * np.concatenate([np.eye(size), -np.eye(size)])


V, EPS = normal(4, 3, seed=1), normal(4, 3, seed=2)
MEAN, PRECISION = normal(3, seed=3), np.linalg.inv(covariance(3, seed=4))
SCORE = gaussian_score(MEAN, PRECISION)
LEVELS = np.array([0.1, 0.3, 0.9, 2.7])


def wavy_score(v):
    """Neither linear nor the gradient of anything, so no symmetry hides a transposed Jacobian."""
    x, y, z = v[:, 0], v[:, 1], v[:, 2]
    return jnp.stack([jnp.sin(x) * y, x * z**2, jnp.exp(0.3 * z) + x], axis=1)


def wavy_score_matching(v):
    x, y, z = v.T
    norm = (np.sin(x) * y) ** 2 + (x * z**2) ** 2 + (np.exp(0.3 * z) + x) ** 2
    return norm / 2 + np.cos(x) * y + 0.3 * np.exp(0.3 * z)


class TestLosses:
    def test_denoising(self):
        noisy = V + 0.3 * EPS
        expected = ((SCORE(noisy) + EPS / 0.3) ** 2).sum(axis=1) / 2
        close(run(lambda: DSM(0.3).loss(SCORE, V, EPS)), expected)

    def test_multiscale_denoising(self):
        noise, levels = MultiscaleNoise(LEVELS, EPS), LEVELS[:, None]
        residual = SCORE(V + levels * EPS) / levels + EPS / 0.2**2
        close(run(lambda: MDSM(base_std=0.2).loss(SCORE, V, noise)), (residual**2).sum(axis=1) / 2)

    def test_multiscale_denoising_at_the_base_level_is_denoising_over_its_variance(self):
        noise = MultiscaleNoise(np.full(4, 0.3), EPS)
        found = run(lambda: MDSM(base_std=0.3).loss(wavy_score, V, noise))
        close(found, run(lambda: DSM(0.3).loss(wavy_score, V, EPS)) / 0.3**2)

    def test_sliced(self):
        jacobian_form = np.einsum("bi,ij,bj->b", EPS, -PRECISION, EPS)
        expected = (SCORE(V) ** 2).sum(axis=1) / 2 + jacobian_form
        close(run(lambda: SSM().loss(SCORE, V, EPS)), expected)

    def test_exact(self):
        linear, wavy = run(lambda: [SM().loss(score_fn, V, ()) for score_fn in (SCORE, wavy_score)])
        close(linear, (SCORE(V) ** 2).sum(axis=1) / 2 - np.trace(PRECISION))
        close(wavy, wavy_score_matching(V))

    def test_exact_takes_the_trace_of_the_jacobian(self):
        def jacobian_form(row):
            score_fn = lambda row: wavy_score(row[None])[0]
            return 0.5 * (score_fn(row) ** 2).sum() + jnp.trace(jax.jacfwd(score_fn)(row))

        close(*run(lambda: (SM().loss(wavy_score, V, ()), jax.vmap(jacobian_form)(V))))

    @pytest.mark.parametrize(
        "projections",
        [np.array(list(itertools.product((-1.0, 1.0), repeat=3))), spherical_points(3)],
        ids=["every_rademacher", "quadrature_of_the_gaussian"],
    )
    def test_sliced_is_exact_on_average(self, projections):
        loss = jax.vmap(lambda u: SSM().loss(wavy_score, V, jnp.broadcast_to(u, V.shape)))
        close(run(loss, projections).mean(axis=0), wavy_score_matching(V))

    @pytest.mark.parametrize("objective", [DSM(0.3), MDSM(), SSM(), SM()], ids=lambda o: type(o).__name__)
    def test_losses_sum_over_every_axis_of_an_image(self, objective):
        images, eps = normal(4, 2, 3), normal(4, 2, 3, seed=1)
        kernel = normal(6, 6, seed=2)

        def loss(shape):
            score_fn = lambda v: jnp.tanh(v.reshape(4, 6) @ kernel).reshape(v.shape)
            v, noise = images.reshape(shape), eps.reshape(shape)
            noise = {MDSM: MultiscaleNoise(LEVELS, noise), SM: ()}.get(type(objective), noise)
            return objective.loss(score_fn, v, noise)

        image_loss, flat_loss = run(lambda: (loss((4, 2, 3)), loss((4, 6))))
        assert image_loss.shape == (4,)
        close(image_loss, flat_loss)


class TestSmoothedDensity:
    """With Gaussian data and a linear score the expected loss is a mean over a few points."""

    @pytest.mark.parametrize(("objective", "level"), [(DSM(0.6), 0.6), (MDSM(base_std=0.6), 0.9)])
    def test_the_minimum_is_at_the_score_of_the_smoothed_density(self, objective, level):
        # MDSM asks of level sigma the smoothed score times (sigma / sigma_0)^2, and divides by sigma.
        cov, mean, points = covariance(2, seed=5), normal(2, seed=6), spherical_points(4)
        v, eps = mean + points[:, :2] @ np.linalg.cholesky(cov).T, points[:, 2:]
        multiscale = isinstance(objective, MDSM)
        noise = MultiscaleNoise(np.full(len(eps), level), eps) if multiscale else eps
        smoothed = cov + level**2 * np.eye(2)
        slope = -((level / 0.6) ** 2) * np.linalg.inv(smoothed)

        def expected_loss(slope, offset):
            return objective.loss(lambda v: (v - mean) @ slope + offset, v, noise).mean()

        loss = jax.jit(jax.value_and_grad(expected_loss, argnums=(0, 1)))
        minimum, (by_slope, by_offset) = loss(slope, np.zeros(2))
        close(by_slope, 0, atol=1e-10)
        close(by_offset, 0, atol=1e-10)
        change, shift = normal(2, 2, seed=7), normal(2, seed=8)
        excess = (np.trace(change.T @ smoothed @ change) + shift @ shift) / 2
        close(loss(slope + change, shift)[0] - minimum, excess / (level**2 if multiscale else 1))


class TestNoise:
    def test_levels_are_a_grid(self):
        close(MDSM(0.1, 2.7).noise_levels(4), LEVELS)
        close(MDSM(0.05, 1.2, spacing="linear").noise_levels(6), [0.05, 0.28, 0.51, 0.74, 0.97, 1.2])

    @pytest.mark.parametrize(
        "objective", [DSM(), MDSM(0.1, 2.7), SSM(), SSM("gaussian")], ids=["DSM", "MDSM", "SSM", "gaussian"]
    )
    def test_drawn_noise_is_standard_and_has_the_sample_axes_in_front(self, objective):
        like = jax.ShapeDtypeStruct((4, 3), np.float32)
        noise = run(lambda key: objective.draw_noise(key, like, (3, 500)), rng_key())
        if isinstance(noise, MultiscaleNoise):
            assert noise.std.dtype == np.float32
            close(noise.std, np.broadcast_to(LEVELS, (3, 500, 4)), rtol=1e-6)
            noise = noise.eps
        assert noise.shape == (3, 500, 4, 3)
        assert noise.dtype == np.float32
        noise = np.asarray(noise, np.float64)
        assert set(np.unique(noise)) == {-1, 1} if objective == SSM() else len(np.unique(noise)) > 9000
        assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
        assert abs((noise**2).mean() - 1) < 4 * np.sqrt(2 / noise.size)
        assert abs((noise[:, :250] * noise[:, 250:]).mean()) < 4 / np.sqrt(noise.size / 2)
        single = jax.eval_shape(lambda key: objective.draw_noise(key, like), rng_key())
        assert jax.tree.leaves(single)[-1].shape == (4, 3)

    def test_exact_score_matching_draws_none(self):
        assert SM().draw_noise(rng_key(), V, (3,)) == ()
        assert SM().perturb(V, ()) is V

    def test_perturb_adds_noise_to_each_sample(self):
        eps, levels = normal(2, 5, 4, 3), np.broadcast_to(LEVELS, (2, 5, 4))
        close(DSM(0.3).perturb(V, eps), V + 0.3 * eps)
        close(MDSM().perturb(V, MultiscaleNoise(levels, eps)), V + levels[..., None] * eps)
        np.testing.assert_array_equal(SSM().perturb(V, eps), np.broadcast_to(V, eps.shape))

    def test_only_multiscale_noise_weights_the_lower_level(self):
        close(MDSM().lower_weight(MultiscaleNoise(LEVELS, EPS)), [10, 10 / 3, 10 / 9, 10 / 27])
        weights = [DSM(0.3).lower_weight(EPS), SSM().lower_weight(EPS), SM().lower_weight(())]
        assert weights == [1, 1, 1]


class TestArguments:
    @pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, "0.1"])
    @pytest.mark.parametrize(
        ("objective", "name"),
        [(DSM, "noise_std"), (MDSM, "min_std"), (MDSM, "max_std"), (MDSM, "base_std")],
    )
    def test_levels_are_positive(self, objective, name, value):
        with pytest.raises(ValueError, match=f"{name} must be a finite number above 0, not {value!r}"):
            objective(**{name: value})

    def test_the_grid_ascends(self):
        with pytest.raises(ValueError, match=r"min_std=2.0 exceeds max_std=1.0; swap them"):
            MDSM(min_std=2.0, max_std=1.0)

    def test_choices_are_known(self):
        with pytest.raises(ValueError, match="spacing='log' is unknown; choose one of 'geometric', 'linear'"):
            MDSM(spacing="log")
        with pytest.raises(ValueError, match="projection='sphere' is unknown; choose one of 'rademacher'"):
            SSM(projection="sphere")


# A linear-Gaussian model, h ~ N(0, I) and v | h ~ N(A h + b, STD^2 I), with its posterior in closed form.
STD = 0.7
THETA = {"A": normal(3, 2, seed=10), "b": normal(3, seed=11)}
PHI = {"B": normal(2, 3, seed=12), "c": normal(2, seed=13), "log_std": np.array([-0.4, 0.2])}
POSTERIOR_PRECISION = np.eye(2) + THETA["A"].T @ THETA["A"] / STD**2
POSTERIOR_COVARIANCE = np.linalg.inv(POSTERIOR_PRECISION)
GAIN = POSTERIOR_COVARIANCE @ THETA["A"].T / STD**2
VISIBLE_COVARIANCE = THETA["A"] @ THETA["A"].T + STD**2 * np.eye(3)
LATENTS = normal(4, 2, seed=14)
MARGINAL_SCORE = gaussian_score(THETA["b"], np.linalg.inv(VISIBLE_COVARIANCE))
LOG_EVIDENCE = scipy.stats.multivariate_normal(THETA["b"], VISIBLE_COVARIANCE).logpdf(V)


def energy(theta, v, h):
    """-log p(v, h)."""
    residual = (v - h @ theta["A"].T - theta["b"]) / STD
    constant = 3 * np.log(STD) + 2.5 * np.log(2 * np.pi)
    return 0.5 * (residual**2).sum(axis=-1) + 0.5 * (h**2).sum(axis=-1) + constant


def exact_posterior(phi, v):
    mean = (v - THETA["b"]) @ GAIN.T
    return dist.MultivariateNormal(mean, scale_tril=np.linalg.cholesky(POSTERIOR_COVARIANCE))


def mean_of(phi, v):
    return v @ phi["B"].T + phi["c"]


def gaussian_posterior(phi, v):
    mean = mean_of(phi, v)
    return DiagonalGaussian(mean, jnp.broadcast_to(jnp.exp(phi["log_std"]), mean.shape))


def foreign_posterior(phi, v):
    """A numpyro distribution without noise of its own."""
    return dist.Normal(mean_of(phi, v), jnp.exp(phi["log_std"])).to_event(1)


class BernoulliStub:
    """The exact posterior of a GRBM, of which any real h has a log-probability."""

    def __init__(self, logits):
        self.logits = logits

    def log_prob(self, h):
        return (h * self.logits - jnp.logaddexp(0, self.logits)).sum(axis=-1)


def grbm_field(theta, v):
    weights, _, c, _ = grbm_arrays(theta)
    return c + v @ weights


def grbm_score(theta, v):
    weights, b, _, log_std = grbm_arrays(theta)
    return -(v - b) / np.exp(log_std) ** 2 + scipy.special.expit(grbm_field(theta, v)) @ weights.T


class TestScores:
    def test_marginal_score_is_that_of_the_free_energy(self):
        theta = grbm_theta(3, 2)
        close(run(marginal_score(grbm(2, "free_energy"), theta), V), grbm_score(theta, V))

    def test_the_exact_posterior_gives_the_marginal_score_for_every_h(self):
        score = lambda h: latent_score(energy, exact_posterior, THETA, None, LatentSample(h))(V)
        compiled = jax.jit(score)
        for h in (LATENTS, 0 * LATENTS, 5 * LATENTS[::-1]):
            close(compiled(h), MARGINAL_SCORE(V))

    def test_the_exact_posterior_of_a_grbm_gives_its_marginal_score_for_every_h(self):
        theta = grbm_theta(3, 2)
        weights, _, c, _ = grbm_arrays(theta)
        posterior_fn = lambda phi, v: BernoulliStub(c + v @ weights)
        score = lambda h: latent_score(grbm(2), posterior_fn, theta, None, LatentSample(h))(V)
        expected = run(marginal_score(grbm(2, "free_energy"), theta), V)
        compiled = jax.jit(score)
        for h in (hidden_states(2), LATENTS):
            close(compiled(h), expected)
            close(compiled(h), grbm_score(theta, V))

    def test_h_is_held_in_grad_v_but_depends_on_phi(self):
        """s = -(v - A h - b) / STD^2 + B^T (mean(v) - h) (-1) / std^2, with h = mean(v~) + std noise."""
        noise, std = normal(4, 2, seed=15), np.exp(PHI["log_std"])

        def score(phi):
            sample = sample_latents(gaussian_posterior(phi, V), noise)
            return latent_score(energy, gaussian_posterior, THETA, phi, sample)(V)

        h = mean_of(PHI, V) + std * noise
        expected = -(V - h @ THETA["A"].T - THETA["b"]) / STD**2 - (noise / std) @ PHI["B"]
        close(run(score, PHI), expected)
        # With h held too, the derivative in c would have B^T / std^2 in it and no A / STD^2.
        by_c = run(jax.jacfwd(lambda c: score(PHI | {"c": c})), PHI["c"])
        close(by_c, np.broadcast_to(THETA["A"] / STD**2, (4, 3, 2)))

    def test_h_is_held_in_the_trace_of_score_matching(self):
        score = latent_score(energy, gaussian_posterior, THETA, PHI, LatentSample(LATENTS))
        jacobian = -np.eye(3) / STD**2 + PHI["B"].T @ np.diag(np.exp(-2 * PHI["log_std"])) @ PHI["B"]
        norm = 0.5 * (np.asarray(run(score, V)) ** 2).sum(axis=1)
        close(run(lambda: SM().loss(score, V, ())), norm + np.trace(jacobian))

    def test_the_intermediates_of_a_sample_reach_the_log_probability(self):
        """With noise +-9 and temperature 0.1 h rounds to 1 and 0, here even in float64."""
        v, noise = V * 0, np.array([[9.0, -9.0]] * 4)
        slope = normal(3, 2)
        posterior_fn = lambda phi, v: RelaxedBernoulli(v @ slope, 0.1, "concrete")

        def score(v):
            sample = sample_latents(posterior_fn(None, v), noise)
            return latent_score(lambda theta, v, h: 0 * v[:, 0], posterior_fn, None, None, sample)(v)

        # grad_l log q = 1 - 2 sigmoid(l - temperature x) = tanh(noise / 2) at l = 0.
        close(run(score, v), -np.tanh(noise / 2) @ slope.T)


def divergence_loss(divergence, posterior_fn, noise, energy_fn=energy, theta=THETA):
    """The loss at V as a function of phi."""
    return lambda phi: divergence.loss(energy_fn, theta, posterior_fn(phi, V), V, noise)


def log_weights(noise):
    """log p(v, h) - log q(h | v) of each particle, in numpy and scipy."""
    std = np.exp(PHI["log_std"])
    h = mean_of(PHI, V) + std * noise
    log_joint = scipy.stats.norm.logpdf(h).sum(axis=-1)
    log_joint += scipy.stats.norm.logpdf(V, h @ THETA["A"].T + THETA["b"], STD).sum(axis=-1)
    return log_joint - scipy.stats.norm.logpdf(h, mean_of(PHI, V), std).sum(axis=-1)


# Particles over which the mean of a quadratic of standard normal noise is its expectation, [P, B, latent].
PARTICLES = np.broadcast_to(spherical_points(2)[:, None], (4, 4, 2))


class TestKL:
    def test_it_is_the_divergence_minus_the_log_evidence(self):
        variance = np.exp(2 * PHI["log_std"])
        difference = mean_of(PHI, V) - (V - THETA["b"]) @ GAIN.T
        divergence = np.einsum("bi,ij,bj->b", difference, POSTERIOR_PRECISION, difference) / 2
        divergence += (np.diag(POSTERIOR_PRECISION) @ variance - 2) / 2
        divergence += (np.linalg.slogdet(POSTERIOR_COVARIANCE)[1] - np.log(variance).sum()) / 2
        assert (divergence > 0.1).all()
        close(run(divergence_loss(KL(), gaussian_posterior, PARTICLES), PHI), divergence - LOG_EVIDENCE)

    def test_at_the_exact_posterior_each_particle_gives_the_log_evidence(self):
        keys = jax.random.split(jax.random.key(0), 3)
        losses = [divergence_loss(divergence, exact_posterior, keys) for divergence in (KL(), KL(True))]
        for value in run(lambda: [loss(None) for loss in losses]):
            close(value, -LOG_EVIDENCE)

    def test_importance_weighting_is_the_log_of_the_mean_weight(self):
        noise = normal(5, 4, 2)
        losses = [divergence_loss(KL(weighted), gaussian_posterior, noise) for weighted in (False, True)]
        plain, weighted = run(lambda: [loss(PHI) for loss in losses])
        close(plain, -log_weights(noise).mean(axis=0))
        close(weighted, np.log(5) - scipy.special.logsumexp(log_weights(noise), axis=0))

    def test_importance_weighting_with_one_particle_changes_nothing(self):
        noise = normal(1, 4, 2)
        losses = [divergence_loss(KL(weighted), gaussian_posterior, noise) for weighted in (False, True)]
        close(*run(lambda: [loss(PHI) for loss in losses]))

    def test_more_particles_bring_importance_weighting_down_to_the_log_evidence(self):
        rows, phi = 400, PHI | {"B": GAIN, "c": -GAIN @ THETA["b"], "log_std": np.zeros(2)}
        v, noise = np.broadcast_to(V[:1], (rows, 3)), normal(128, rows, 2)
        posterior = gaussian_posterior(phi, v)
        gaps = []
        for num_particles in (1, 8, 128):
            loss = run(lambda noise: KL(True).loss(energy, THETA, posterior, v, noise), noise[:num_particles])
            gaps.append((loss + LOG_EVIDENCE[0]).mean())
        assert gaps[0] > 3 * gaps[1]
        assert gaps[1] > 3 * abs(gaps[2])
        assert abs(gaps[2]) < 0.05

    def test_the_concrete_density_is_accurate_in_float32_where_h_rounds(self):
        logits, noise = np.array([[3.0, -3.0], [-3.0, 3.0]]), np.array([[[6.0, -6.0], [2.0, 0.5]]])
        posterior = RelaxedBernoulli(np.float32(logits), 0.1, "concrete")
        energy_fn = lambda theta, v, h: (h * v).sum(axis=-1)
        v = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
        found = run(lambda noise: KL().loss(energy_fn, None, posterior, v, noise), np.float32(noise))
        assert found.dtype == np.float32
        x = (logits + noise[0]) / 0.1
        expected = (scipy.special.expit(x) * v).sum(axis=1) + concrete_log_prob(logits, 0.1, x)
        close(found, expected, rtol=1e-5)


class TestFisher:
    def test_it_vanishes_at_the_exact_posterior(self):
        keys = jax.random.split(jax.random.key(0), 3)
        assert (run(divergence_loss(Fisher(), exact_posterior, keys), None) < 1e-20).all()

    def test_it_is_the_expected_squared_difference_of_the_scores(self):
        """The scores at h = mean + std noise are -P (h - posterior mean) and -noise / std."""
        std = np.exp(PHI["log_std"])
        difference = mean_of(PHI, V) - (V - THETA["b"]) @ GAIN.T
        spread = np.diag(1 / std) - POSTERIOR_PRECISION * std
        expected = ((difference @ POSTERIOR_PRECISION) ** 2).sum(axis=1) / 2 + (spread**2).sum() / 2
        close(run(divergence_loss(Fisher(), gaussian_posterior, PARTICLES), PHI), expected)

    def test_with_a_relaxed_bernoulli_it_is_the_squared_difference_of_the_logits(self):
        theta, logits = grbm_theta(3, 2), normal(4, 2)
        posterior_fn = lambda phi, v: RelaxedBernoulli(phi, 0.1)
        loss = divergence_loss(Fisher(), posterior_fn, normal(3, 4, 2), grbm(2), theta)
        close(run(loss, logits), ((grbm_field(theta, V) - logits) ** 2).sum(axis=1) / 2)


class TestDivergenceGradients:
    @pytest.fixture(params=["gaussian", "concrete"])
    def posterior(self, request):
        if request.param == "gaussian":
            return gaussian_posterior, jax.tree.map(jnp.asarray, PHI)
        module = BernoulliPosterior(2, temperature=1.5, density="concrete")
        return module.apply, random_params(module, V)

    def test_against_finite_differences(self, posterior):
        posterior_fn, phi = posterior
        quartic = lambda theta, v, h: energy(theta, v, h) + (h**4).sum(axis=-1)
        losses = [
            divergence_loss(divergence, posterior_fn, normal(3, 4, 2), quartic)
            for divergence in (KL(), KL(True), Fisher())
        ]
        assert_gradient(lambda phi: jnp.stack([loss(phi).sum() for loss in losses]), phi)


class TestParticles:
    @pytest.mark.parametrize("num_particles", [1, 3])
    def test_map_particles_is_a_loop(self, num_particles):
        keys = jax.random.split(jax.random.key(0), num_particles)
        noise = {"key": keys, "x": normal(num_particles, 4), "y": normal(num_particles, 4, 2)}
        fn = lambda noise: (noise["x"] ** 2, {"z": noise["y"].sum(axis=1) * noise["x"]}, noise["key"])
        squares, products, same_keys = run(lambda noise: map_particles(fn, noise), noise)
        np.testing.assert_array_equal(jax.random.key_data(same_keys), jax.random.key_data(keys))
        close(squares, np.stack([x**2 for x in noise["x"]]))
        close(products["z"], np.stack([y.sum(1) * x for x, y in zip(noise["x"], noise["y"], strict=True)]))

    @pytest.mark.parametrize("sample_shape", [(), (3,), (2, 3)])
    def test_noise_of_a_posterior_is_its_own_or_keys(self, sample_shape):
        draw = lambda posterior_fn: jax.eval_shape(
            lambda key: draw_latent_noise(key, posterior_fn(PHI, V), sample_shape), rng_key()
        )
        assert draw(gaussian_posterior).shape == (*sample_shape, 4, 2)
        keys = draw(foreign_posterior)
        assert keys.shape == sample_shape
        assert jax.dtypes.issubdtype(keys.dtype, jax.dtypes.prng_key)

    def test_a_foreign_distribution_samples_from_keys(self):
        keys = draw_latent_noise(jax.random.key(0), foreign_posterior(PHI, V), (3,))
        assert len(np.unique(jax.random.key_data(keys), axis=0)) == 3
        noise = np.stack([jax.random.normal(key, (4, 2)) for key in keys])
        # The same draws by explicit noise have the same pathwise gradient.
        foreign = divergence_loss(KL(), foreign_posterior, keys)
        explicit = divergence_loss(KL(), gaussian_posterior, noise)
        value_and_grad = jax.value_and_grad(lambda phi: foreign(phi).sum())
        expected_grad = jax.grad(lambda phi: explicit(phi).sum())
        (value, gradient), expected = run(lambda phi: (value_and_grad(phi), expected_grad(phi)), PHI)
        close(value, -log_weights(noise).mean(axis=0).sum())
        jax.tree.map(close, gradient, expected)


class TestEvaluation:
    def test_score_matching_objective_against_its_formula(self):
        theta, v = grbm_theta(3, 4), normal(5, 3)
        weights, _, _, log_std = grbm_arrays(theta)
        probability = scipy.special.expit(grbm_field(theta, v))
        trace = (probability * (1 - probability)) @ (weights**2).sum(axis=0) - np.exp(-2 * log_std).sum()
        expected = ((grbm_score(theta, v) ** 2).sum(axis=1) / 2 + trace).mean()
        # Five rows are not a multiple of two.
        close(score_matching_objective(GRBM(4), theta, v, batch_size=2), expected)

    def test_score_matching_objective_takes_functions_and_images(self):
        def joint_energy(theta, v, h):
            raise AssertionError("only the free energy is needed")

        joint_energy.free_energy = lambda theta, v: theta * (v**4).sum(axis=(1, 2)) / 4
        v = normal(5, 2, 3)
        expected = (0.25 * v**6 / 2 - 3 * 0.5 * v**2).sum(axis=(1, 2)).mean()
        close(score_matching_objective(joint_energy, 0.5, v), expected)

    def test_log_likelihood_against_enumeration_and_integration(self):
        theta, v = grbm_theta(2, 3), normal(5, 2)
        log_joint = scipy.special.logsumexp(-grbm_energies(theta, v), axis=1)
        close(log_likelihood(GRBM(3), theta, v), log_joint - grbm_log_partition(theta))

    def test_log_likelihood_refuses_more_than_20_hidden_units(self):
        with pytest.raises(ValueError, match=r"num_hidden=21 exceeds 20"):
            log_likelihood(GRBM(21), grbm_theta(2, 21), normal(5, 2))

    @pytest.mark.parametrize("evaluate", [score_matching_objective, log_likelihood])
    def test_a_missing_free_energy_is_named(self, evaluate):
        match = f"{evaluate.__name__} needs free_energy, which energy_fn=MLPEnergy lacks; add it as a method"
        with pytest.raises(ValueError, match=match):
            evaluate(MLPEnergy(), None, V)

    def test_a_missing_log_partition_is_named(self):
        def quadratic(theta, v, h):
            return (v**2).sum(axis=1)

        quadratic.free_energy = quadratic
        with pytest.raises(ValueError, match="log_likelihood needs log_partition, which energy_fn=quadratic"):
            log_likelihood(quadratic, None, V)
