"""Score matching by a Jacobian with latents that move with v: closed forms, the bound, and what training
makes of it.

Probabilistic PCA with a mean-field posterior, E = |v - b - W h|^2 / (2 s^2) + |h|^2 / 2 and
q = N(A^T (v - b), diag D), has both forms of the loss in closed form, with R = (I - W A^T) / s^2:

    1/2 E|s|^2 = 1/2 tr(R S R^T) + 1/2 |(W / s^2 - A D^-1) D^1/2|^2
    trace = -d / s^2 + tr(W A^T) / s^2 with h moving, -d / s^2 + sum_i |A_i|^2 / D_i with h fixed
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from bism_jax import DSM, KL, SM, SSM, BiSM, StopGradient, fit
from bism_jax.methods import BilevelProblem, LevelNoise
from bism_jax.models import DiagonalGaussian, FactoredEnergy

D, M = 4, 2
RNG = np.random.default_rng(0)


def energy(theta, v, h):
    residual = v - theta["b"] - h @ theta["W"].T
    return 0.5 * (residual**2).sum(-1) * jnp.exp(-2 * theta["log_std"]) + 0.5 * (h**2).sum(-1)


def posterior(phi, v):
    mean = v @ phi["A"] + phi["c"]
    return DiagonalGaussian(mean, jnp.broadcast_to(jnp.exp(phi["log_std"]), mean.shape))


def parameters(seed):
    rng = np.random.default_rng(seed)
    theta = {"W": rng.normal(size=(D, M)), "b": 0.3 * rng.normal(size=D), "log_std": 0.3 * rng.normal()}
    slope = 0.4 * rng.normal(size=(D, M))
    phi = {"A": slope, "c": -theta["b"] @ slope, "log_std": 0.4 * rng.normal(size=M)}
    return jax.tree.map(jnp.asarray, (theta, phi))


ROOT = RNG.normal(size=(D, D))
COVARIANCE = ROOT @ ROOT.T / D + 0.2 * np.eye(D)


def sphere(size):
    """Points with mean 0 and covariance I: a mean over them is an expectation, for what is quadratic."""
    return np.sqrt(size) * np.concatenate([np.eye(size), -np.eye(size)])


def expected_loss(objective, theta, phi, num_particles=1, average="losses"):
    """The higher-level loss in expectation over data N(b, COVARIANCE), latent noise and projections."""
    points = sphere(D) @ np.linalg.cholesky(COVARIANCE).T
    # Each particle has noise of its own: every row meets every combination.
    grids = [points, *[sphere(M)] * num_particles]
    rows = list(itertools.product(*grids))
    v = theta["b"] + jnp.asarray([row[0] for row in rows])
    latent = jnp.asarray([[row[1 + p] for row in rows] for p in range(num_particles)])
    problem = BilevelProblem(energy, posterior, objective, KL(), num_particles, particle_average=average)
    if isinstance(objective, DSM):
        loss = jax.jit(problem.higher_loss)
        return np.mean(
            [loss(theta, phi, v, LevelNoise(jnp.broadcast_to(e, v.shape), latent)) for e in sphere(D)]
        )
    return float(jax.jit(problem.higher_loss)(theta, phi, v, LevelNoise((), latent)))


def closed_form(theta, phi, latents="moving", num_particles=1, noise_std=0.0, covariance=COVARIANCE):
    """The same by the formulas above; with a noise level, of denoising score matching."""
    slope, variance = np.asarray(phi["A"]), np.exp(2 * np.asarray(phi["log_std"]))
    weights, precision = np.asarray(theta["W"]), np.exp(-2 * float(theta["log_std"]))
    residual = (np.eye(D) - weights @ slope.T) * precision
    spread = (weights * precision - slope / variance) * np.sqrt(variance)
    noise = 0.5 * (spread**2).sum() / num_particles
    if noise_std:
        at_noise = np.eye(D) / noise_std - noise_std * residual
        return 0.5 * np.trace(residual @ covariance @ residual.T) + 0.5 * (at_noise**2).sum() + noise
    trace = {
        "moving": np.trace(weights @ slope.T) * precision,
        "fixed": (slope**2 / variance).sum(),
    }[latents]
    return 0.5 * np.trace(residual @ covariance @ residual.T) + noise - D * precision + trace


@pytest.mark.parametrize("latents", ["moving", "fixed"])
def test_score_matching_has_its_closed_form(x64, latents):
    for seed in range(3):
        theta, phi = parameters(seed)
        found = expected_loss(SM(latents=latents), theta, phi)
        np.testing.assert_allclose(found, closed_form(theta, phi, latents), rtol=1e-10)


@pytest.mark.parametrize("latents", ["moving", "fixed"])
def test_sliced_score_matching_is_exact_over_all_projections(x64, latents):
    theta, phi = parameters(0)
    v, latent = jnp.asarray(RNG.normal(size=(3, D))), jnp.asarray(RNG.normal(size=(1, 3, M)))

    @functools.partial(jax.jit, static_argnums=0)
    def loss(objective, visible):
        problem = BilevelProblem(energy, posterior, objective, KL())
        return problem.higher_loss(theta, phi, v, LevelNoise(visible, latent))

    signs = itertools.product((-1.0, 1.0), repeat=D)
    sliced = [loss(SSM(latents=latents), jnp.broadcast_to(jnp.asarray(u), v.shape)) for u in signs]
    np.testing.assert_allclose(np.mean(sliced), loss(SM(latents=latents), ()), rtol=1e-12)


def test_the_moving_form_is_a_bound_and_the_fixed_one_is_not(x64):
    """No field has a lower loss than the data's score, -1/2 tr COVARIANCE^-1."""
    lowest = -0.5 * np.trace(np.linalg.inv(COVARIANCE))
    assert min(closed_form(*parameters(seed)) for seed in range(200)) > lowest
    # With W = w Q, A = a Q, w a = 0.9 and D = sqrt(3) a s^2 / w the fixed trace pays for a posterior that is
    # wrong.
    columns, product = np.eye(D)[:, :M], 0.9
    precision = (1 - (np.sqrt(3) - 1) * product) / (1 - product) ** 2
    covariance = np.diag([1.0] * M + [1 / precision] * (D - M))
    theta = {"W": columns, "log_std": -0.5 * np.log(precision)}
    phi = {"A": product * columns, "log_std": np.full(M, 0.5 * np.log(np.sqrt(3) * product / precision))}
    lowest = -0.5 * np.trace(np.linalg.inv(covariance))
    assert closed_form(theta, phi, "fixed", covariance=covariance) < lowest - 5
    assert closed_form(theta, phi, "moving", covariance=covariance) > lowest


def test_the_bound_is_tight_at_maximum_likelihood(x64):
    """At data of probabilistic PCA with orthogonal columns the posterior is in the family."""
    columns, _ = np.linalg.qr(RNG.normal(size=(D, M)))
    weights, std = columns * [1.3, 0.7], 0.6
    covariance = weights @ weights.T + std**2 * np.eye(D)
    moments = np.eye(M) + weights.T @ weights / std**2
    phi = {"A": weights @ np.linalg.inv(moments) / std**2, "log_std": -0.5 * np.log(np.diag(moments))}
    residual = (np.eye(D) - weights @ phi["A"].T) / std**2
    loss = 0.5 * np.trace(residual @ covariance @ residual.T) - np.trace(residual)
    np.testing.assert_allclose(loss, -0.5 * np.trace(np.linalg.inv(covariance)), rtol=1e-12)
    variance = np.exp(2 * phi["log_std"])
    np.testing.assert_allclose(weights / std**2, phi["A"] / variance, rtol=1e-12)


@pytest.mark.parametrize("objective", [SM(), DSM(0.5)], ids=["SM", "DSM"])
def test_the_loss_of_the_mean_score_tightens_with_particles_and_the_mean_of_losses_does_not(x64, objective):
    theta, phi = parameters(1)
    level = getattr(objective, "noise_std", 0.0)
    for num_particles in (1, 2):
        exact = closed_form(theta, phi, num_particles=num_particles, noise_std=level)
        one = closed_form(theta, phi, noise_std=level)
        scores = expected_loss(objective, theta, phi, num_particles, "scores")
        losses = expected_loss(objective, theta, phi, num_particles, "losses")
        np.testing.assert_allclose(scores, exact, rtol=1e-10)
        np.testing.assert_allclose(losses, one, rtol=1e-10)
    assert exact < one


def test_a_factored_energy_has_the_loss_of_the_plain_one(x64):
    theta, phi = parameters(2)
    factored = FactoredEnergy(
        lambda theta, v: (v - theta["b"]) ** 2,
        lambda theta, v, f, h: 0.5 * f.sum(-1) + energy(theta, v, h),
    )
    plain = lambda theta, v, h: factored.head(theta, v, factored.features(theta, v), h)
    v, latent = jnp.asarray(RNG.normal(size=(3, D))), jnp.asarray(RNG.normal(size=(2, 3, M)))
    noise = LevelNoise(SSM().draw_noise(jax.random.key(0), v), latent)
    for average in ("losses", "scores"):
        values = [
            jax.value_and_grad(
                BilevelProblem(fn, posterior, SSM(), KL(), 2, particle_average=average).higher_loss
            )(theta, phi, v, noise)
            for fn in (factored, plain)
        ]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), *values)


class StillPosterior:
    def __init__(self, mean, density):
        self.mean, self.density = mean, density

    def sample(self, key, sample_shape=()):
        return self.mean + jax.random.normal(key, (*sample_shape, *self.mean.shape))

    def log_prob(self, h):
        return self.density.log_prob(h)


def test_a_posterior_whose_samples_do_not_move_is_refused():
    """Their log-probability depends on v and they do not: no reparameterisation of it."""

    def still(phi, v):
        return StillPosterior(
            jax.lax.stop_gradient(v) @ phi["A"], DiagonalGaussian(v @ phi["A"], jnp.ones((len(v), M)))
        )

    theta, phi = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), parameters(0))
    batch = jax.random.normal(jax.random.key(1), (40, D))
    with pytest.raises(ValueError, match=r"samples .*move with v.*latents=.fixed."):
        BiSM(SSM()).bind(energy, still, init_params=(theta, phi)).init(jax.random.key(0), batch)
    BiSM(SSM(latents="fixed")).bind(energy, still, init_params=(theta, phi)).init(jax.random.key(0), batch)
    BiSM(DSM(0.1)).bind(energy, still, init_params=(theta, phi)).init(jax.random.key(0), batch)


def test_a_posterior_whose_samples_have_no_second_derivative_is_refused():
    """As implicit reparameterisation gives them: the derivative of a Gamma sample has no derivative."""
    gamma = lambda phi, v: dist.Gamma(jnp.exp(v @ phi["A"]), 1.0).to_event(1)
    theta, phi = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), parameters(0))
    batch = jax.random.normal(jax.random.key(1), (40, D))
    with pytest.raises(ValueError, match=r"samples whose derivative by v has none by phi.*Take DSM"):
        BiSM(SSM()).bind(energy, gamma, init_params=(theta, phi)).init(jax.random.key(0), batch)


def foreign_posterior(phi, v):
    return dist.Normal(v @ phi["A"] + phi["c"], jnp.exp(phi["log_std"])).to_event(1)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [SSM(), SM()], ids=["SSM", "SM"])
@pytest.mark.parametrize("unrolled", [True, False], ids=["N=5", "N=0"])
def test_a_users_probabilistic_pca_reaches_maximum_likelihood(objective, unrolled):
    dimension, rng = 6, np.random.default_rng(0)
    truth = rng.normal(size=(dimension, M))
    rows = 20_000
    v = rng.normal(size=(rows, M)) @ truth.T + 0.5 * rng.normal(size=(rows, dimension))
    theta = {"W": 0.3 * rng.normal(size=(dimension, M)), "b": np.zeros(dimension), "log_std": 0.0}
    phi = {"A": np.zeros((dimension, M)), "c": np.zeros(M), "log_std": np.zeros(M)}
    theta, phi = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (theta, phi))
    method = BiSM(objective) if unrolled else BiSM(objective, lower_steps=5, hypergradient=StopGradient(0))
    result = fit(
        energy,
        foreign_posterior,
        v.astype(np.float32),
        method=method,
        init_params=(theta, phi),
        num_steps=20_000,
        batch_size=200,
        progress=False,
    )
    gap = likelihood_gap(result.theta, v)
    print(f"\n{objective}, N = {5 * unrolled}: {gap:.5f} nats below maximum likelihood")
    assert 0 <= gap < 0.01


def likelihood_gap(theta, v):
    """Nats a row below the maximum likelihood of probabilistic PCA, in closed form."""
    weights, b, log_std = (np.asarray(theta[name], float) for name in ("W", "b", "log_std"))
    dimension, mean = v.shape[1], v.mean(axis=0)
    scatter = np.cov(v.T, bias=True)
    model = weights @ weights.T + np.exp(2 * log_std) * np.eye(dimension)
    moments = scatter + np.outer(mean - b, mean - b)
    found = np.linalg.slogdet(model)[1] + np.trace(np.linalg.solve(model, moments))
    values = np.linalg.eigvalsh(scatter)
    rest = values[:-M]
    best = np.log(values[-M:]).sum() + len(rest) * np.log(rest.mean()) + dimension
    return 0.5 * (found - best)
