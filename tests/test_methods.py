"""Methods against an independent loop in Python."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import bism_jax
from bism_jax import (
    DSM,
    KL,
    MDSM,
    SM,
    SSM,
    BiSM,
    Fisher,
    Implicit,
    Optimizers,
    ScoreMatching,
    StopGradient,
    Truncated,
    Unrolled,
)
from bism_jax.methods import BilevelProblem, paper_adam
from bism_jax.models import GRBM, BernoulliPosterior, GaussianPosterior, MLPEnergy
from tests.lower_levels import normal

SGD = Optimizers(optax.sgd(0.02), optax.sgd(0.05))


def energy(theta, v, h):
    joint = jnp.tanh(v @ theta["w"] + h)
    return jnp.sum(joint**2, axis=-1) * theta["a"] + 0.5 * jnp.sum(v**2, -1) + 0.5 * jnp.sum(h**2, -1)


def posterior(phi, v):
    return dist.Normal(v @ phi["m"], jnp.exp(phi["s"]) * jnp.ones((len(v), 3))).to_event(1)


def params(dtype=None):
    theta = {"w": 0.5 * normal(0, (2, 3), dtype), "a": jnp.asarray(0.7, dtype)}
    return theta, {"m": 0.3 * normal(1, (2, 3), dtype), "s": -0.5 * jnp.ones(3, dtype)}


def by_hand(method, theta, phi, v, noise):
    """One iteration with SGD, written out: a Python loop and reverse mode through it."""
    sigma = method.objective.noise_std
    total = method.lower_steps + method.hypergradient.num_steps

    def points(k):
        eps = noise.higher.visible if noise.lower.visible is None else noise.lower.visible[k]
        return v + sigma * eps

    def draw(phi, v, key):
        mean = v @ phi["m"]
        return mean + jnp.exp(phi["s"]) * jax.random.normal(key, mean.shape, mean.dtype)

    def log_q(phi, v, h):
        z = (h - v @ phi["m"]) * jnp.exp(-phi["s"])
        return jnp.sum(-0.5 * z**2 - phi["s"] - 0.5 * jnp.log(2 * jnp.pi), -1)

    def lower(phi, theta, k):
        w = points(k)
        h = draw(phi, w, noise.lower.latent[k, 0])
        return jnp.mean(energy(theta, w, h) + log_q(phi, w, h))

    def descend(phi, theta, k):
        return jax.tree.map(lambda p, g: p - 0.05 * g, phi, jax.grad(lower)(phi, theta, k))

    for k in range(method.lower_steps):
        phi = descend(phi, theta, k)
    first = phi

    def higher(theta):
        last = first
        for k in range(method.lower_steps, total):
            last = descend(last, theta, k)
        w = v + sigma * noise.higher.visible
        h = draw(last, w, noise.higher.latent[0])
        score = jax.grad(lambda w: jnp.sum(-energy(theta, w, h) - log_q(last, w, h)))(w)
        return jnp.mean(0.5 * jnp.sum((score + noise.higher.visible / sigma) ** 2, -1)), last

    (loss, last), grads = jax.value_and_grad(higher, has_aux=True)(theta)
    theta = jax.tree.map(lambda p, g: p - 0.02 * g, theta, grads)
    return loss, theta, last if method.keep_unrolled else first


@pytest.mark.parametrize("noise_mode", ["fresh", "shared"])
@pytest.mark.parametrize(("lower_steps", "keep"), [(0, True), (2, True), (2, False)])
def test_bism_is_the_loop_written_out(x64, noise_mode, lower_steps, keep):
    method = BiSM(
        DSM(0.3),
        lower_steps=lower_steps,
        hypergradient=Unrolled(2),
        optimizers=SGD,
        noise=noise_mode,
        keep_unrolled=keep,
    )
    theta, phi = params(jnp.float64)
    v = normal(4, (5, 2), jnp.float64)
    algorithm = method.bind(energy, posterior, init_params=(theta, phi))
    state = algorithm.init(jax.random.key(0), v)
    new_state, info = algorithm.step(jax.random.key(1), state, v)
    losses = BilevelProblem(energy, posterior, method.objective, method.divergence)
    noise = method.draw_noise(losses, jax.random.key(1), phi, v)
    loss, expected_theta, expected_phi = by_hand(method, theta, phi, v, noise)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-12)
    for found, expected in ((new_state.theta, expected_theta), (new_state.phi, expected_phi)):
        for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-11)
    assert new_state.iteration == 1


def test_noise_of_every_step_is_its_own():
    method = BiSM(lower_steps=2, hypergradient=Unrolled(3), noise="fresh")
    losses = BilevelProblem(GRBM(2).apply, BernoulliPosterior(2).apply, DSM(), KL(), num_particles=2)
    v = normal(0, (4, 3))
    phi = BernoulliPosterior(2).init(jax.random.key(0), v)
    noise = method.draw_noise(losses, jax.random.key(0), phi, v)
    assert noise.lower.visible.shape == (5, 4, 3)
    assert noise.lower.latent.shape == (5, 2, 4, 2)
    assert noise.higher.latent.shape == (2, 4, 2)
    every = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(noise)])
    assert len(np.unique(every)) == every.size


def test_schedules_of_both_levels_count_iterations():
    """Each iteration of the schedule sets the rate of all its lower-level steps."""
    rates = jnp.asarray([0.05, 0.0, 0.02])
    schedule = lambda count: rates[count]
    theta, phi = params()
    v = normal(4, (5, 2))

    def run(lower):
        optimizers = Optimizers(optax.sgd(schedule), lower)
        method = BiSM(DSM(0.3), lower_steps=1, hypergradient=Unrolled(2), optimizers=optimizers)
        algorithm = method.bind(energy, posterior, init_params=(theta, phi))
        states = [algorithm.init(jax.random.key(0), v)]
        step = jax.jit(algorithm.step)
        for k in range(3):
            states.append(step(jax.random.key(k), states[-1], v)[0])
        return [np.concatenate([np.ravel(x) for x in jax.tree.leaves((s.theta, s.phi))]) for s in states]

    for optimizer in (optax.sgd(schedule), optax.inject_hyperparams(optax.sgd)(learning_rate=schedule)):
        moves = [float(np.abs(b - a).max()) for a, b in zip(run(optimizer), run(optimizer)[1:], strict=False)]
        assert moves[1] == 0 < min(moves[0], moves[2])


COMBINATIONS = [
    BiSM(SSM(), Fisher(), hypergradient=Unrolled(2)),
    BiSM(SM(), KL(importance_weighted=True), num_particles=3, hypergradient=Unrolled(2)),
    BiSM(
        MDSM(0.1, 1.0),
        Fisher(),
        noise="fresh",
        lower_steps=1,
        hypergradient=Unrolled(1),
        keep_unrolled=False,
    ),
    BiSM(MDSM(0.1, 1.0, spacing="linear"), num_particles=2, hypergradient=Unrolled(2)),
    BiSM(DSM(0.2), hypergradient=Truncated(2, 1)),
    BiSM(DSM(0.2), hypergradient=Implicit(2, damping=1.0, tolerance=1e9)),
    BiSM(DSM(0.2), hypergradient=StopGradient(0), lower_steps=2),
]


@pytest.mark.parametrize(
    "method", COMBINATIONS, ids=lambda m: f"{type(m.objective).__name__}-{m.hypergradient}"
)
def test_every_combination_takes_a_finite_step(method):
    v = normal(0, (6, 2))
    algorithm = method.bind(MLPEnergy((8,)), GaussianPosterior(2, (8,)))
    state = algorithm.init(jax.random.key(0), v)
    new_state, info = jax.jit(algorithm.step)(jax.random.key(1), state, v)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((new_state, info)))
    for before, after in ((state.theta, new_state.theta), (state.phi, new_state.phi)):
        moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
        assert max(moved) > 0


@pytest.mark.parametrize("objective", [DSM(0.2), SSM(), SM(), MDSM(0.1, 1.0)], ids=lambda o: type(o).__name__)
def test_marginal_score_matching_is_gradient_descent_on_its_objective(x64, objective):
    v = normal(0, (6, 2), jnp.float64)
    model = GRBM(2)
    algorithm = ScoreMatching(objective, optax.sgd(0.1)).bind(model)
    state = algorithm.init(jax.random.key(0), v)
    new_state, info = algorithm.step(jax.random.key(1), state, v)
    noise = objective.draw_noise(jax.random.key(1), v)

    def loss(theta):
        def score(v):
            field = v @ theta["W"] + theta["c"]
            return -(v - theta["b"]) * jnp.exp(-2 * theta["log_std"]) + jax.nn.sigmoid(field) @ theta["W"].T

        return objective.loss(score, v, noise).mean()

    value, grads = jax.value_and_grad(loss)(state.theta["params"])
    np.testing.assert_allclose(info.loss, value, rtol=1e-12)
    for name, leaf in new_state.theta["params"].items():
        np.testing.assert_allclose(leaf, state.theta["params"][name] - 0.1 * grads[name], rtol=1e-10)


def test_adams_default_changes_no_step_by_more_than_eps():
    params = {"a": normal(0, (5,))}
    grads = {"a": normal(1, (5,))}
    plain = optax.adam(1e-3, b1=0.9, b2=0.95)
    found, _ = paper_adam(1e-3).update(grads, paper_adam(1e-3).init(params), params)
    expected, _ = plain.update(grads, plain.init(params), params)
    np.testing.assert_allclose(found["a"], expected["a"], rtol=1e-7)


def test_public_names():
    for name in bism_jax.__all__:
        assert getattr(bism_jax, name).__doc__, name
