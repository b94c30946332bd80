"""The gradients of the baselines, in float64, against enumeration, closed forms and finite differences."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import scipy.special

from bism_jax import (
    DSM,
    KL,
    KSD,
    MDSM,
    NCE,
    VNCE,
    BiDVL,
    ContrastiveDivergence,
    Optimizers,
    PersistentContrastiveDivergence,
    PersistentVI,
    ScoreMatching,
    StopGradient,
    Unrolled,
    VaGES,
    fit,
)
from bism_jax.methods import (
    BilevelProblem,
    Fadeout,
    GaussianPrior,
    Langevin,
    LangevinRefinement,
    UniformBinary,
    VaGESNoise,
)
from bism_jax.models import GRBM, GaussianPosterior, MLPDecoder, MLPEnergy, as_model
from bism_jax.samplers import gibbs, langevin
from tests.lower_levels import normal

pytestmark = pytest.mark.usefixtures("x64")

RATE = 0.1
SGD = optax.sgd(RATE)
STATES = np.array(list(itertools.product([0.0, 1.0], repeat=2)))


def grbm_theta(dtype=jnp.float64):
    names = {"W": (3, 2), "b": (3,), "c": (2,), "log_std": (3,)}
    return {
        "params": {name: 0.4 * normal(10 + i, shape, dtype) for i, (name, shape) in enumerate(names.items())}
    }


def grbm_energy(theta, v, h):
    """E(v, h) in NumPy, `[B]`."""
    p = {name: np.asarray(leaf) for name, leaf in theta["params"].items()}
    quadratic = 0.5 * ((v - p["b"]) ** 2 * np.exp(-2 * p["log_std"])).sum(-1)
    return quadratic - h @ p["c"] - ((v @ p["W"]) * h).sum(-1)


def grbm_free_energy(theta, v):
    """F(v) by enumeration of the 4 hidden states, in NumPy."""
    return -scipy.special.logsumexp([-grbm_energy(theta, v, np.tile(h, (len(v), 1))) for h in STATES], axis=0)


def grbm_contrast(theta, data, samples):
    """The difference of the mean free energies."""
    on_data, on_samples = (grbm_free_energy(theta, np.asarray(v)).mean() for v in (data, samples))
    return on_data - on_samples


def mean_gradient(fn, theta):
    """Central differences of a NumPy function of a tree."""
    leaves, structure = jax.tree.flatten(theta)
    result = []
    for index, leaf in enumerate(leaves):
        gradient = np.zeros(leaf.shape)
        for position in np.ndindex(*leaf.shape):
            values = []
            for sign in (1, -1):
                moved = np.array(leaf)
                moved[position] += sign * 1e-6
                values.append(
                    fn(jax.tree.unflatten(structure, [*leaves[:index], moved, *leaves[index + 1 :]]))
                )
            gradient[position] = (values[0] - values[1]) / 2e-6
        result.append(gradient)
    return jax.tree.unflatten(structure, result)


def assert_step(before, after, gradient, rate=RATE, rtol=1e-6, atol=1e-8):
    """That plain gradient descent moved from one tree to the other along this gradient."""
    for start, end, slope in zip(*map(jax.tree.leaves, (before, after, gradient)), strict=True):
        np.testing.assert_allclose((np.asarray(start) - np.asarray(end)) / rate, slope, rtol=rtol, atol=atol)


def one_step(method, energy, posterior, batch, **options):
    algorithm = method.bind(energy, posterior, **options)
    state = algorithm.init(jax.random.key(0), batch)
    new_state, info = jax.jit(algorithm.step)(jax.random.key(1), state, batch)
    return state, new_state, info


# Contrastive divergence.


@pytest.mark.parametrize("k", [1, 3])
def test_cd_is_the_difference_of_mean_gradients_of_the_free_energy(k):
    v, model = normal(0, (5, 3)), GRBM(2)
    state, new_state, info = one_step(
        ContrastiveDivergence(k, optimizer=SGD), model, None, v, init_params=(grbm_theta(), None)
    )
    keys = jax.random.split(jax.random.key(1))
    method = lambda name: lambda theta, *args: model.apply(theta, *args, method=name)
    samples, _ = gibbs(method("sample_h"), method("sample_v"), state.theta, keys[1], v, k)

    def difference(theta):
        return (
            grbm_free_energy(theta, np.asarray(v)).mean()
            - grbm_free_energy(theta, np.asarray(samples)).mean()
        )

    np.testing.assert_allclose(info.loss, difference(state.theta), rtol=1e-12)
    assert_step(state.theta, new_state.theta, mean_gradient(difference, state.theta))


def test_persistent_chains_give_the_gradient_of_the_likelihood_in_the_mean():
    """Long chains of a weakly coupled model against the derivative of the enumerated likelihood."""
    v, theta, model = normal(0, (20, 3)), grbm_theta(), GRBM(2)
    method = PersistentContrastiveDivergence(k=40, num_chains=20_000, optimizer=SGD)
    state, new_state, _ = one_step(method, model, None, v, init_params=(theta, None))

    def negative_log_likelihood(theta):
        log_partition = model.apply(theta, method="log_partition")
        return model.apply(theta, v, method="free_energy").mean() + log_partition

    gradient = jax.grad(negative_log_likelihood)(theta)
    assert_step(state.theta, new_state.theta, gradient, rtol=0, atol=0.06)  # 5 errors of 20,000 chains
    assert np.max(np.abs(gradient["params"]["b"])) > 0.3


def test_persistent_chains_go_on_from_where_they_were():
    v, model = normal(0, (4, 3)), GRBM(2)
    algorithm = PersistentContrastiveDivergence(optimizer=optax.sgd(0.0)).bind(model)
    first = algorithm.init(jax.random.key(0), v)
    np.testing.assert_array_equal(first.chains.v, v)
    second, _ = algorithm.step(jax.random.key(1), first, v)
    other_data, _ = algorithm.step(jax.random.key(1), first, v + 1)
    np.testing.assert_array_equal(second.chains.v, other_data.chains.v)
    third, _ = algorithm.step(jax.random.key(2), second, v)
    from_data, _ = algorithm.step(jax.random.key(2), first, v)
    assert np.abs(third.chains.v - second.chains.v).min() > 0
    assert np.any(third.chains.v != from_data.chains.v)  # latents of other starts


def joint_energy(theta, v, h):
    return theta["a"] * (v**2).sum(-1) + (v @ theta["w"] * h).sum(-1) + (h**2).sum(-1)


def conditional_energy():
    """An energy with conditionals that ignore their key, so that every sample is known."""

    def energy(theta, v, h):
        return joint_energy(theta, v, h)

    energy.sample_h = lambda theta, key, v: jnp.tanh(v @ theta["w"])
    energy.sample_v = lambda theta, key, h: h @ theta["w"].T
    return energy


def joint_theta():
    return {"w": normal(1, (3, 2)), "a": jnp.asarray(0.7)}


def test_cd_without_a_free_energy_takes_the_joint_energy_at_sampled_latents():
    v, theta = normal(0, (5, 3)), joint_theta()
    method = ContrastiveDivergence(1, optimizer=SGD)
    energy = conditional_energy()
    state, new_state, _ = one_step(method, energy, None, v, init_params=(theta, None))
    h = np.tanh(v @ theta["w"])
    samples = h @ theta["w"].T

    def difference(theta):
        on_data = joint_energy(theta, np.asarray(v), h)
        return np.asarray(on_data).mean() - np.asarray(joint_energy(theta, samples, h)).mean()

    assert_step(state.theta, new_state.theta, mean_gradient(difference, theta))


@pytest.mark.parametrize("latent_shape", [None, (2,)])
def test_cd_by_langevin_chains(latent_shape):
    v = normal(0, (5, 3))
    chain = Langevin(0.2, latent_shape, latent_steps=4)
    method = ContrastiveDivergence(3, chain=chain, optimizer=SGD)
    keys = jax.random.split(jax.random.key(1))
    if latent_shape is None:
        theta = grbm_theta()
        state, new_state, _ = one_step(method, GRBM(2), None, v, init_params=(theta, None))
        energy_fn = lambda x: GRBM(2).apply(theta, x, method="free_energy")
        # The chain is a tree (v, None), whose one leaf has the first of one key.
        samples = langevin(lambda x: energy_fn(x[0]), keys[1], (v,), 3, 0.2)[0]
        difference = lambda theta: grbm_contrast(theta, v, samples)
    else:
        theta = joint_theta()
        state, new_state, _ = one_step(method, joint_energy, None, v, init_params=(theta, None))
        start_key, move_key = jax.random.split(keys[0])
        h = jax.random.normal(start_key, (5, 2))
        h = langevin(lambda h: joint_energy(theta, v, h), move_key, h, 4, 0.2)
        samples = langevin(lambda x: joint_energy(theta, *x), keys[1], (v, h), 3, 0.2)
        difference = lambda t: float(joint_energy(t, v, h).mean() - joint_energy(t, *samples).mean())
    assert_step(state.theta, new_state.theta, mean_gradient(difference, theta))


# Noise contrast.


def softplus(x):
    return np.logaddexp(0, x)


def standard_normal_log_prob(v):
    return -0.5 * (v**2).sum(-1) - 0.5 * v.shape[-1] * np.log(2 * np.pi)


@pytest.mark.parametrize("ratio", [1, 3])
def test_nce_is_logistic_regression_on_the_enumerated_free_energy(ratio):
    v, theta = normal(0, (5, 3)), grbm_theta()
    method = NCE(ratio, optimizer=SGD)
    _, new_state, info = one_step(method, GRBM(2), None, v, init_params=(theta, None))
    noise = np.asarray(jax.random.normal(jax.random.key(1), (ratio, 5, 3)))

    def loss(params):
        theta, log_partition = params
        log_ratio = lambda v: -grbm_free_energy(theta, v) - log_partition - standard_normal_log_prob(v)
        on_data = softplus(np.log(ratio) - log_ratio(np.asarray(v))).mean()
        on_noise = [softplus(log_ratio(part) - np.log(ratio)).mean() for part in noise]
        return on_data + np.sum(on_noise)

    params = (theta, jnp.zeros(()))
    np.testing.assert_allclose(info.loss, loss(params), rtol=1e-12)
    assert_step(params, (new_state.theta, new_state.log_partition), mean_gradient(loss, params))


def test_nce_learns_the_log_partition_and_a_given_noise():
    v = np.random.default_rng(0).normal(0.5, 0.7, (4000, 1))
    noise = dist.Normal(0.0, 2.0).expand((1,)).to_event(1)
    energy = lambda theta, v: 0.5 * ((v - theta["m"]) ** 2).sum(-1) * jnp.exp(-2 * theta["s"])
    theta = {"m": jnp.zeros(1), "s": jnp.zeros(())}
    method = NCE(2, noise=noise, optimizer=optax.adam(optax.cosine_decay_schedule(0.02, 3000)))
    result = fit(energy, None, v, method=method, init_params=(theta, None), num_steps=3000, progress=False)
    np.testing.assert_allclose(result.theta["m"], 0.5, atol=0.05)
    np.testing.assert_allclose(np.exp(result.theta["s"]), 0.7, atol=0.05)
    log_partition = np.log(0.7) + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(result.history["log_partition"][-1], log_partition, atol=0.06)


class Given(NamedTuple):
    """A posterior whose sample is its noise, with the log-probability of a Bernoulli."""

    logits: jax.Array

    def draw_noise(self, key, sample_shape=()):
        return (
            jax.random.bernoulli(key, jax.nn.sigmoid(self.logits), (*sample_shape, *self.logits.shape)) * 1.0
        )

    def transform(self, noise):
        return noise, None

    def sample(self, key, sample_shape=()):
        return self.draw_noise(key, sample_shape)

    def log_prob(self, value):
        return (value * self.logits - jax.nn.softplus(self.logits)).sum(-1)


def exact_posterior(theta):
    """The GRBM's own posterior, as a function of phi = theta."""
    return lambda phi, v: Given(phi["params"]["c"] + v @ phi["params"]["W"])


def bernoulli_log_prob(logits, h):
    return (h * logits - softplus(logits)).sum(-1)


def test_vnce_is_logistic_regression_on_importance_weights():
    v, theta = normal(0, (4, 3)), grbm_theta()
    phi = {"params": {"W": 0.5 * normal(3, (3, 2)), "c": normal(4, (2,))}}
    posterior = lambda phi, v: Given(phi["params"]["c"] + v @ phi["params"]["W"])
    losses = BilevelProblem(GRBM(2).apply, posterior, DSM(), KL())
    method = VNCE(noise_ratio=2, num_particles=3)
    noise = method.draw_noise(losses, jax.random.key(1), phi, v)
    assert noise.v.shape == (2, 4, 3)
    assert noise.noise_latent.shape == (2, 3, 4, 2)
    assert len(np.unique(noise.v)) == noise.v.size

    def log_weights(theta, v, h):
        logits = np.asarray(phi["params"]["c"] + v @ phi["params"]["W"])
        return -grbm_energy(theta, v, h) - bernoulli_log_prob(logits, h)

    def loss(params):
        theta, log_partition = params
        on_data = log_weights(theta, np.asarray(v), np.asarray(noise.data_latent[0]))
        on_data = on_data - log_partition - standard_normal_log_prob(np.asarray(v))
        points = np.asarray(noise.v).reshape(8, 3)
        latents = np.asarray(noise.noise_latent).swapaxes(0, 1).reshape(3, 8, 2)
        weights = [log_weights(theta, points, h) for h in latents]
        on_noise = scipy.special.logsumexp(weights, axis=0) - np.log(3)
        on_noise = on_noise - log_partition - standard_normal_log_prob(points)
        return softplus(np.log(2) - on_data).mean() + 2 * softplus(on_noise - np.log(2)).mean()

    params = (theta, jnp.asarray(0.3))
    higher_loss = lambda params, phi: method.higher_loss(losses, params, phi, v, noise)
    found, gradient = jax.jit(jax.value_and_grad(higher_loss))(params, phi)
    np.testing.assert_allclose(found, loss(params), rtol=1e-12)
    expected = mean_gradient(loss, params)
    for left, right in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-9)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(higher_loss, 1))(params, phi)))


def test_vnce_fits_its_posterior_to_the_data_by_k_steps():
    """K plain gradient steps on KL, written out."""
    v, theta = normal(0, (4, 2)), {"w": 0.5 * normal(1, (2, 2))}
    energy = lambda theta, v, h: 0.5 * (v**2).sum(-1) + 0.5 * (h**2).sum(-1) - (v @ theta["w"] * h).sum(-1)
    posterior = lambda phi, v: dist.Normal(v @ phi["m"], jnp.full((len(v), 2), 1e-3)).to_event(1)
    phi = {"m": 0.1 * normal(2, (2, 2))}
    method = VNCE(lower_steps=60, optimizers=Optimizers(optax.sgd(0.0), optax.sgd(0.1)))
    _, new_state, _ = one_step(method, energy, posterior, v, init_params=(theta, phi))
    # KL is quadratic in m with minimum w; its gradient, but for the noise, is v^T v (m - w) / B.
    expected = phi["m"]
    for _ in range(60):
        expected = expected - 0.1 * v.T @ v @ (expected - theta["w"]) / len(v)
    before = np.abs(phi["m"] - theta["w"]).max()
    assert np.abs(new_state.phi["m"] - expected).max() < 0.01 * before


# VaGES.


def vages_losses(objective, theta):
    return BilevelProblem(GRBM(2).apply, exact_posterior(theta), objective, KL())


def all_particle_sets(num_particles, num_rows):
    """Every choice of binary latents `[P, B, 2]` for so many particles and rows."""
    per_particle = np.array(list(itertools.product(range(4), repeat=num_particles * num_rows)))
    return STATES[per_particle].reshape(-1, num_particles, num_rows, 2)


@pytest.mark.parametrize(
    ("objective", "num_rows"), [(DSM(0.3), 1), (MDSM(0.2, 0.2, 0.5), 1), (KSD(0.8), 2)], ids=str
)
def test_vages_is_unbiased_by_enumeration_of_all_particles(objective, num_rows):
    """The exact expectation over both sets of 2 particles is the gradient at the exact marginal score."""
    theta, v = grbm_theta(), 0.5 * normal(0, (num_rows, 3))
    losses, method = vages_losses(objective, theta), VaGES(objective, num_particles=2)
    visible = objective.draw_noise(jax.random.key(0), v)
    points = objective.perturb(v, visible)
    logits = np.asarray(theta["params"]["c"] + points @ theta["params"]["W"])
    sets = all_particle_sets(2, num_rows)
    probabilities = np.exp(np.array([bernoulli_log_prob(logits, s).sum() for s in sets]))
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-12)

    def estimate(first, second):
        noise = VaGESNoise(visible, jnp.concatenate([first, second]), jax.random.key(0))
        return jax.grad(lambda t: method.surrogate(losses, t, theta, v, noise))(theta)

    sets, probabilities = jnp.asarray(sets), jnp.asarray(probabilities)

    @jax.jit
    def mean_over_second(first):
        estimates = jax.vmap(lambda second: estimate(first, second))(sets)
        return jax.tree.map(lambda leaf: jnp.tensordot(probabilities, leaf, 1), estimates)

    means = jax.lax.map(mean_over_second, sets)
    found = jax.tree.map(lambda leaf: jnp.tensordot(probabilities, leaf, 1), means)

    def exact(theta):
        score = jax.grad(lambda v: -GRBM(2).apply(theta, v, method="free_energy").sum())
        return objective.loss(score, v, visible).mean()

    for left, right in zip(*map(jax.tree.leaves, (found, jax.grad(exact)(theta))), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_vages_with_a_biased_covariance_shrinks_it_by_the_number_of_particles():
    theta, v = grbm_theta(), normal(0, (3, 3))
    losses = vages_losses(DSM(0.3), theta)
    n = 4

    def gradient(**options):
        method = VaGES(DSM(0.3), num_particles=n, **options)
        noise = method.draw_noise(losses, jax.random.key(3), theta, v)
        return jax.jit(jax.grad(lambda t: method.surrogate(losses, t, theta, v, noise)))(theta)

    def parts(theta_):
        """The mean term and the covariance term from explicit Jacobians."""
        method = VaGES(DSM(0.3), num_particles=n)
        noise = method.draw_noise(losses, jax.random.key(3), theta, v)
        points = v + 0.3 * noise.visible
        first, second = noise.latent[:n], noise.latent[n:]
        score = lambda t, h: jax.grad(lambda x: -GRBM(2).apply(t, x, h).sum())(points)
        z = np.mean([score(theta, h) for h in first], axis=0) + noise.visible / 0.3
        slopes = np.array([(z * score(theta, h)).sum(-1) for h in second])
        mean = jax.grad(lambda t: jnp.mean(sum((z * score(t, h)).sum(-1) for h in second) / n))(theta)
        rows = [jax.jacobian(lambda t, h=h: -GRBM(2).apply(t, points, h))(theta) for h in second]
        centred = slopes - slopes.mean(0)
        weighted = [
            jax.tree.map(lambda j, w=w: jnp.tensordot(w, j, 1), r) for r, w in zip(rows, centred, strict=True)
        ]
        covariance = jax.tree.map(lambda *leaves: sum(leaves) / len(v), *weighted)
        return mean, covariance

    mean, covariance = parts(theta)
    for options, divisor in (({}, n - 1), ({"biased_covariance": True}, n)):
        expected = jax.tree.map(lambda m, c, d=divisor: m + c / d, mean, covariance)
        for left, right in zip(*map(jax.tree.leaves, (gradient(**options), expected)), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_variance_reduction_makes_the_score_exact_at_the_true_posterior():
    """grad_v [-E - log p(h|v)] is the marginal score for every h, so z is exact from any particles."""
    theta, v = grbm_theta(), normal(0, (3, 3))
    losses, objective = vages_losses(DSM(0.3), theta), DSM(0.3)
    method = VaGES(objective, num_particles=2, variance_reduced=True)
    noise = method.draw_noise(losses, jax.random.key(3), theta, v)
    loss = method.surrogate(losses, theta, theta, v, noise)
    score = jax.grad(lambda v: -GRBM(2).apply(theta, v, method="free_energy").sum())
    np.testing.assert_allclose(loss, objective.loss(score, v, noise.visible).mean(), rtol=1e-12)
    plain = VaGES(objective, num_particles=2).surrogate(losses, theta, theta, v, noise)
    assert abs(float(plain - loss)) > 1e-3


def test_refinement_moves_particles_to_the_posterior():
    """Langevin steps on E(v, .) from a wrong q reach the mean of p(h | v) = N(v w, I)."""
    energy = lambda theta, v, h: 0.5 * (h**2).sum(-1) - (v @ theta["w"] * h).sum(-1) + (v**2).sum(-1)
    posterior = lambda phi, v: dist.Normal(jnp.full((len(v), 2), 3.0) + phi["m"], 0.1).to_event(1)
    theta, phi = {"w": normal(1, (2, 2))}, {"m": jnp.zeros(2)}
    losses = BilevelProblem(energy, posterior, DSM(1e-3), KL())
    v = normal(0, (2, 2))
    method = VaGES(DSM(1e-3), num_particles=4000, refinement=LangevinRefinement(200, 0.3))
    noise = method.draw_noise(losses, jax.random.key(0), phi, v)
    trunk = losses.trunk(theta, v, noise.visible)
    particles = jnp.concatenate([s.h for s in method._draw_particles(losses, theta, phi, trunk, noise)])
    assert particles.shape == (8000, 2, 2)
    np.testing.assert_allclose(particles.mean(0), v @ theta["w"], atol=0.08)
    np.testing.assert_allclose(particles.std(0), 1 / np.sqrt(1 - 0.3**2 / 4), atol=0.05)


# Kernel Stein discrepancy.


def test_ksd_is_the_stein_kernel_by_differentiation():
    v, scores, bandwidth = normal(0, (6, 3)), normal(1, (6, 3)), 0.8
    found = KSD(bandwidth).pointwise_loss(scores, v, ())

    def kernel(x, y):
        return jnp.exp(-jnp.sum((x - y) ** 2) / (2 * bandwidth**2))

    for pair in range(3):
        (x, y), (s, t) = v[2 * pair : 2 * pair + 2], scores[2 * pair : 2 * pair + 2]
        cross = jax.jacfwd(jax.grad(kernel, 0), 1)(x, y)
        expected = (
            s @ t * kernel(x, y)
            + s @ jax.grad(kernel, 1)(x, y)
            + t @ jax.grad(kernel)(x, y)
            + jnp.trace(cross)
        )
        np.testing.assert_allclose(found[2 * pair : 2 * pair + 2], expected, rtol=1e-12)


def test_ksd_vanishes_at_the_data_distribution_and_not_elsewhere():
    v = normal(0, (200_000, 2))
    values = KSD(1.0).pointwise_loss(-v, v, ())
    error = float(values.std() / np.sqrt(len(v) / 2))
    assert abs(float(values.mean())) < 4 * error
    # A score that is off by d: E[d^2 k] with k averaged over pairs, (1 + 2)^-1 in two dimensions.
    shifted = KSD(1.0).pointwise_loss(-v + jnp.array([0.5, 0.0]), v, ())
    np.testing.assert_allclose(shifted.mean(), 0.25 / 3, atol=0.01)


def test_uniform_latents_are_the_free_energy_where_every_state_is_drawn_once():
    theta, v = grbm_theta(), normal(0, (5, 3))
    model = UniformBinary(2, num_particles=4).bind_energy(as_model("energy_fn", GRBM(2)))
    states = jnp.broadcast_to(jnp.asarray(STATES)[:, None], (4, 5, 2))
    np.testing.assert_allclose(
        model.apply(theta, v, states), grbm_free_energy(theta, np.asarray(v)), rtol=1e-12
    )
    drawn = model.draw_noise(jax.random.key(0), jnp.zeros((1000, 3)))
    assert drawn.shape == (4, 1000, 2)
    np.testing.assert_allclose(drawn.mean((0, 1)), 0.5, atol=0.05)


def test_importance_sampled_ksd_descends_on_its_estimate():
    v, theta = normal(0, (4, 3)), grbm_theta()
    method = ScoreMatching(KSD(0.7), SGD, free_energy=UniformBinary(2, 3))
    state, new_state, info = one_step(method, GRBM(2), None, v, init_params=(theta, None))
    h = np.asarray(jax.random.bernoulli(jax.random.fold_in(jax.random.key(1), 1), shape=(3, 4, 2)) * 1.0)

    def loss(theta):
        def free_energy(v):
            return -scipy.special.logsumexp([-grbm_energy(theta, v, part) for part in h], axis=0)

        steps = 1e-5 * np.eye(3)
        score = np.stack(
            [-(free_energy(np.asarray(v) + e) - free_energy(np.asarray(v) - e)) / 2e-5 for e in steps],
            axis=-1,
        )
        return float(KSD(0.7).pointwise_loss(jnp.asarray(score), v, ()).mean())

    np.testing.assert_allclose(info.loss, loss(theta), rtol=1e-6)
    assert_step(state.theta, new_state.theta, mean_gradient(loss, theta), rtol=1e-3, atol=1e-4)


# Persistent variational inference.


def gaussian_mean_model():
    """v ~ N(theta, 1) as an undirected model, with an exact sampler in the place of Gibbs sweeps."""

    def energy(theta, v):
        return 0.5 * ((v - theta["m"]) ** 2).sum(-1)

    energy.free_energy = energy
    energy.sample_h = lambda theta, key, v: v
    energy.sample_v = lambda theta, key, h: theta["m"] + jax.random.normal(key, h.shape, h.dtype)
    return energy


def test_persistent_vi_finds_the_posterior_of_a_conjugate_model():
    """A normal mean with a normal prior: N(n vbar / (n + 1/s^2), 1 / (n + 1/s^2))."""
    n, prior_std = 40, 0.2
    v = np.random.default_rng(0).normal(1.0, 1.0, (n, 1))
    method = PersistentVI(
        n,
        GaussianPrior(prior_std),
        num_chains=200,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.02, 6000)),
    )
    theta = {"m": jnp.zeros(1)}
    options = {"method": method, "init_params": (theta, None), "num_steps": 6000, "progress": False}
    result = fit(gaussian_mean_model(), None, v, batch_size=40, **options)
    precision = n + 1 / prior_std**2
    np.testing.assert_allclose(result.theta["m"], v.sum() / precision, atol=0.02)
    np.testing.assert_allclose(np.exp(result.phi.log_std["m"]), precision**-0.5, rtol=0.1)
    draws = method.draw_theta(result.phi, jax.random.key(0), 4000)["m"]
    np.testing.assert_allclose(draws.mean(), result.theta["m"], atol=0.01)
    np.testing.assert_allclose(draws.std(), precision**-0.5, rtol=0.15)


def test_fadeout_is_a_horseshoe_in_logarithms():
    prior, theta = Fadeout(), {"w": normal(0, (3,)), "b": normal(1, (2,))}
    x = prior.start(theta)
    for left, right in zip(*map(jax.tree.leaves, (prior.theta(x), theta)), strict=True):
        np.testing.assert_allclose(left, right)
    x = x._replace(
        log_scale=jax.tree.map(lambda leaf: 0.3 * leaf, theta),
        log_global={"w": jnp.asarray(-0.4), "b": jnp.asarray(0.2)},
    )

    def half_cauchy_of_log(log_value, scale):  # with the Jacobian of the logarithm
        return dist.HalfCauchy(scale).log_prob(jnp.exp(log_value)) + log_value

    expected = 0.0
    for name in theta:
        expected += dist.Normal(0, 1).log_prob(x.standard[name]).sum()
        expected += half_cauchy_of_log(x.log_scale[name], jnp.exp(x.log_global[name])).sum()
        expected += half_cauchy_of_log(x.log_global[name], 1.0)
    np.testing.assert_allclose(prior.log_prior(x), expected, rtol=1e-12)
    np.testing.assert_allclose(prior.theta(x)["w"], theta["w"] * np.exp(0.3 * theta["w"]), rtol=1e-12)


@pytest.mark.parametrize("prior", [GaussianPrior(0.7), Fadeout()], ids=["gaussian", "fadeout"])
def test_persistent_vi_step_is_the_reparameterised_gradient(prior):
    """At chains and data that are known, against differences of the bound in (mu, log s)."""
    v, theta, model = normal(0, (6, 3)), grbm_theta(), GRBM(2)
    method = PersistentVI(10, prior, optimizer=SGD)
    state, new_state, _ = one_step(method, model, None, v, init_params=(theta, None))
    noise_key = jax.random.split(jax.random.key(1), 3)[0]
    xi = optax.tree.random_like(noise_key, state.phi.mean, sampler=jax.random.normal)
    chains = np.asarray(new_state.chains.v)

    def negative_bound(phi):
        x = jax.tree.map(lambda m, s, z: jnp.asarray(m) + jnp.exp(s) * z, phi.mean, phi.log_std, xi)
        theta = prior.theta(x)
        entropy = sum(np.sum(leaf) for leaf in jax.tree.leaves(phi.log_std))
        return grbm_contrast(theta, v, chains) - float(prior.log_prior(x) + entropy) / 10

    assert_step(state.phi, new_state.phi, mean_gradient(negative_bound, state.phi), rtol=1e-5, atol=1e-7)


# BiDVL.


def codec_setting():
    model, encoder, decoder = GRBM(2), GaussianPosterior(2, (4,)), MLPDecoder((3,), (4,))
    v = normal(0, (5, 3))
    method = BiDVL(decoder, 0.3, StopGradient(1), Optimizers(SGD, SGD))
    algorithm = method.bind(model, encoder)
    state = algorithm.init(jax.random.key(0), v)
    return model, encoder, decoder, v, state._replace(theta=grbm_theta())


def codec_losses(model, encoder, decoder, v):
    """Both losses, written out."""

    def lower(phi, theta, h, eps):
        generated = decoder.apply(phi.decoder, h)
        mean = encoder.apply(jax.lax.stop_gradient(phi.encoder), generated).mean
        on_prior = model.apply(theta, generated, method="free_energy") + ((mean - h) ** 2).sum(-1) / 2
        q = encoder.apply(phi.encoder, v)
        loc, scale = q.base_dist.loc, q.base_dist.scale
        reconstruction = decoder.apply(phi.decoder, loc + scale * eps)
        kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * jnp.log(scale)).sum(-1)
        return jnp.mean(on_prior + 0.3 * (((reconstruction - v) ** 2).sum(-1) + kl))

    def higher(theta, phi, h):
        on_data = model.apply(theta, v, method="free_energy")
        return jnp.mean(on_data - model.apply(theta, decoder.apply(phi.decoder, h), method="free_energy"))

    return lower, higher


@pytest.mark.parametrize("strategy", [StopGradient(1), Unrolled(2), Unrolled(3)], ids=["N=0", "N=2", "N=3"])
def test_bidvl_is_its_two_losses_written_out(strategy):
    model, encoder, decoder, v, state = codec_setting()
    method = BiDVL(decoder, 0.3, strategy, Optimizers(SGD, SGD))
    algorithm = method.bind(model, encoder)
    new_state, info = jax.jit(algorithm.step)(jax.random.key(1), state, v)
    prior_key, encoder_key = jax.random.split(jax.random.key(1))
    h = jax.random.normal(prior_key, (strategy.num_steps + 1, 5, 2))
    eps = jax.random.normal(encoder_key, (strategy.num_steps + 1, 5, 2))
    lower, higher = codec_losses(model, encoder, decoder, v)

    def descended(theta):
        phi = state.phi
        for k in range(strategy.num_steps):
            gradient = jax.grad(lower)(phi, theta, h[k], eps[k])
            phi = jax.tree.map(lambda p, g: p - RATE * g, phi, gradient)
        return phi

    @jax.jit
    def total(theta):
        phi = descended(theta)
        return higher(theta, jax.lax.stop_gradient(phi) if strategy.num_steps == 1 else phi, h[-1])

    np.testing.assert_allclose(info.loss, total(state.theta), rtol=1e-10)
    for left, right in zip(*map(jax.tree.leaves, (new_state.phi, descended(state.theta))), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)
    if strategy.num_steps != 2:  # from N = 3 on, the held encoder is a constant that differences would move
        gradient = jax.grad(total)(state.theta)
    else:
        gradient = mean_gradient(lambda theta: float(total(theta)), state.theta)
    assert_step(state.theta, new_state.theta, gradient, rtol=1e-5, atol=1e-7)


def test_bidvl_reacts_only_where_it_unrolls():
    """With N > 0 the gradient in theta differs from the direct one by the reaction of the decoder."""
    model, encoder, decoder, v, state = codec_setting()
    moves = []
    for strategy in (StopGradient(2), Unrolled(2)):
        method = BiDVL(decoder, 0.3, strategy, Optimizers(SGD, SGD))
        new_state, _ = jax.jit(method.bind(model, encoder).step)(jax.random.key(1), state, v)
        moves.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(new_state.theta)]))
    assert np.abs(moves[0] - moves[1]).max() > 1e-6


@pytest.mark.parametrize(
    ("method", "posterior"),
    [
        (VNCE(1), GaussianPosterior(2)),
        (VaGES(DSM(0.2), lower_steps=1, num_particles=3), GaussianPosterior(2)),
        (ContrastiveDivergence(2, chain=Langevin(0.1, latent_shape=(2,))), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_energy_without_closed_forms_takes_a_finite_step(method, posterior):
    state, new_state, info = one_step(method, MLPEnergy((4,)), posterior, normal(0, (6, 2)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((new_state, info)))
    pairs = zip(*map(jax.tree.leaves, (state.theta, new_state.theta)), strict=True)
    assert max(np.abs(before - after).max() for before, after in pairs) > 0
