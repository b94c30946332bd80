"""Annealed Langevin dynamics against a NumPy replay and against the moments of Gaussian chains."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bism_jax.models import FactoredEnergy, LinearGaussian, ResidualEnergy
from bism_jax.samplers import (
    AnnealingSchedule,
    annealed_langevin,
    initial_noise,
    inpaint,
    interpolate,
    langevin,
    sample_joint,
    sample_latent,
    sample_visible,
)
from tests.small_models import conditional_moments, joint_moments, linear_theta, normal

NUM_CHAINS = 4000
SHORT = AnnealingSchedule(step_size=0.1, num_hot=3, num_cooling=4, num_freezing=2)


def rng_key(seed=0):
    return jax.random.key(seed, impl="rbg")  # compiles faster than the default


def constant(num_steps, step_size):
    """Temperature 1 throughout, and no denoising."""
    return AnnealingSchedule(step_size, 1, num_steps, 0, 0, denoising_std=0)


def pair_energy(x):
    """Not quadratic, and v and h interact."""
    v, h = x
    return jnp.cosh(0.5 * v).sum(axis=(1, 2)) + 0.5 * (h**2).sum(axis=1) * (1 + 0.1 * v[:, 0, 0] ** 2)


def pair_gradient(v, h):
    gradient = 0.5 * np.sinh(0.5 * v)
    gradient[:, 0, 0] += 0.1 * v[:, 0, 0] * (h**2).sum(axis=1)
    return gradient, h * (1 + 0.1 * v[:, :1, 0] ** 2)


def theta_energy(theta, v, h):
    return theta * pair_energy((v, h))


START = (normal(2, 2, 3), normal(2, 2, seed=1))


# ---------------------------------------------------------------- the schedule


def test_the_schedule_of_the_paper():
    schedule = AnnealingSchedule()
    temperatures = schedule.temperatures()
    assert (schedule.step_size, schedule.denoising_std) == (0.02, 0.1)
    assert temperatures.shape == (schedule.num_steps,) == (2700,)
    assert (temperatures[:500] == 100).all() and temperatures[500] < 100
    np.testing.assert_allclose(temperatures[501:2500] / temperatures[500:2499], 100 ** (-1 / 2000))
    assert temperatures[1499] == pytest.approx(10)
    assert temperatures[2499] == 1
    np.testing.assert_allclose(np.diff(temperatures[2499:]), -1 / 200, rtol=1e-9)
    assert temperatures[-1] == 0


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((2, 0, 0), [9, 9]),
        ((0, 2, 0), [3, 1]),
        ((0, 0, 2), [0.5, 0]),
        ((0, 0, 0), []),
        ((1, 1, 1), [9, 1, 0]),
    ],
)
def test_a_part_of_the_schedule_may_be_empty(lengths, expected):
    np.testing.assert_allclose(AnnealingSchedule(0.1, 9, *lengths).temperatures(), expected)


@pytest.mark.parametrize("num_steps", [1, 2, 5, 27, 300, 2700, 5400])
def test_a_scaled_schedule_keeps_its_proportions(num_steps):
    schedule = AnnealingSchedule(step_size=0.03)
    scaled = schedule.scaled(num_steps)
    assert scaled.num_steps == num_steps and scaled.step_size == 0.03
    for name in ("num_hot", "num_cooling", "num_freezing"):
        assert abs(getattr(scaled, name) - getattr(schedule, name) * num_steps / 2700) <= 1
    assert AnnealingSchedule().scaled(2700) == AnnealingSchedule()


def test_snapshot_steps_are_evenly_spaced_and_end_at_the_end():
    np.testing.assert_array_equal(AnnealingSchedule().snapshot_steps(9), 300 * np.arange(1, 10))
    np.testing.assert_array_equal(SHORT.snapshot_steps(4), [2, 4, 6, 9])
    np.testing.assert_array_equal(SHORT.snapshot_steps(9), np.arange(1, 10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": 0}, "step_size must be a finite number above 0, not 0"),
        ({"max_temperature": float("nan")}, "max_temperature must be a finite number above 0, not nan"),
        ({"num_hot": -1}, "num_hot must be an integer of at least 0, not -1"),
        ({"num_cooling": 2.5}, r"num_cooling must be an integer of at least 0, not 2\.5"),
        ({"num_freezing": True}, "num_freezing must be an integer of at least 0, not True"),
        ({"denoising_std": -0.1}, r"denoising_std must be a finite number of at least 0, not -0\.1"),
    ],
)
def test_a_schedule_refuses_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        AnnealingSchedule(**options)


def test_scaling_needs_steps():
    with pytest.raises(ValueError, match="num_steps must be an integer of at least 1, not 0"):
        SHORT.scaled(0)
    with pytest.raises(ValueError, match="has no steps to scale"):
        AnnealingSchedule(num_hot=0, num_cooling=0, num_freezing=0).scaled(5)


# ---------------------------------------------------------------- the chains


@functools.partial(jax.jit, static_argnums=1)
def pair_noise(key, num_steps):
    def of_step(step):
        keys = jax.random.split(jax.random.fold_in(key, step), 2)
        return [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, START, strict=True)]

    return jax.lax.map(of_step, jnp.arange(num_steps))


def numpy_replay(schedule, key, v, h):
    """Every state of the chain, the denoised one last, with the same noise and the formulas of the paper."""
    hot, cooling, freezing = schedule.num_hot, schedule.num_cooling, schedule.num_freezing
    noise = list(zip(*map(np.asarray, pair_noise(key, schedule.num_steps)), strict=True))
    states = []
    for step in range(hot + cooling + freezing):
        if step < hot:
            temperature = 100.0
        elif step < hot + cooling:
            temperature = np.exp(np.log(100.0) * (hot + cooling - 1 - step) / cooling)
        else:
            temperature = (hot + cooling + freezing - 1 - step) / freezing
        moved = []
        for leaf, gradient, xi in zip((v, h), pair_gradient(v, h), noise[step], strict=True):
            drift = -0.5 * schedule.step_size**2 * gradient
            moved.append(leaf + drift + np.sqrt(temperature) * schedule.step_size * xi)
        v, h = moved
        states.append((v, h))
    gradients = pair_gradient(v, h)
    v, h = v - schedule.denoising_std**2 * gradients[0], h - schedule.denoising_std**2 * gradients[1]
    return [*states, (v, h)]


@pytest.mark.parametrize("in_jit", [False, True])
@pytest.mark.parametrize("schedule", [AnnealingSchedule().scaled(270), SHORT], ids=["long", "short"])
def test_chains_are_those_of_a_numpy_replay(x64, schedule, in_jit):
    """With every snapshot on the way; outside jit the steps are dispatched, within it they are a loop."""
    run = functools.partial(annealed_langevin, pair_energy, schedule=schedule, num_snapshots=9)
    found = (jax.jit(run) if in_jit else run)(rng_key(), START)
    states = numpy_replay(schedule, rng_key(), *START)
    stops = [round(schedule.num_steps * k / 9) for k in range(1, 9)]
    expected = [*(states[stop - 1] for stop in stops), states[-1]]
    for leaf in (0, 1):
        kept = np.stack([state[leaf] for state in expected])
        np.testing.assert_allclose(found.x[leaf], states[-1][leaf], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.snapshots[leaf], kept, rtol=1e-12, atol=1e-12)


def test_the_whole_schedule_of_the_paper_is_a_numpy_replay(x64):
    found = annealed_langevin(pair_energy, rng_key(), START).x
    expected = numpy_replay(AnnealingSchedule(), rng_key(), *START)[-1]
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("step_size", [0.3, 1.0])
def test_at_temperature_one_it_has_the_stationary_variance_of_langevin(x64, step_size):
    """x' = (1 - a) x + s xi with a = s^2 k / 2 settles at s^2 / (1 - (1 - a)^2)."""
    curvatures = np.array([0.5, 1.0, 3.0])
    factor = 1 - 0.5 * step_size**2 * curvatures
    num_steps = int(np.ceil(np.log(1e-4) / np.log(np.abs(factor).max())))
    start = np.full((NUM_CHAINS, 3), 2.0)
    energy = lambda x: 0.5 * (x**2 * curvatures).sum(axis=-1)
    samples = np.asarray(annealed_langevin(energy, rng_key(), start, constant(num_steps, step_size)).x)
    variance = step_size**2 / (1 - factor**2)
    np.testing.assert_allclose(samples.mean(axis=0), 0, atol=4 * np.sqrt(variance.max() / NUM_CHAINS))
    np.testing.assert_allclose(samples.var(axis=0), variance, rtol=4 * np.sqrt(2 / NUM_CHAINS))


def test_without_noise_it_is_gradient_descent(x64):
    """T = 0 at the one step of a linear part of length 1, then the denoising step."""
    schedule = AnnealingSchedule(0.4, 100, 0, 0, 1, denoising_std=0.5)
    found = annealed_langevin(lambda x: 0.5 * 3 * (x**2).sum(axis=1), rng_key(), jnp.ones((2, 1)), schedule)
    np.testing.assert_allclose(found.x, (1 - 0.08 * 3) * (1 - 0.25 * 3))


def test_snapshots_are_the_states_of_a_shorter_schedule():
    longer = annealed_langevin(pair_energy, rng_key(), START, SHORT, num_snapshots=9)
    shorter = annealed_langevin(
        pair_energy, rng_key(), START, dataclasses.replace(SHORT, num_freezing=0, denoising_std=0)
    )
    plain = annealed_langevin(pair_energy, rng_key(), START, SHORT)
    for leaf in (0, 1):
        np.testing.assert_array_equal(longer.snapshots[leaf][6], shorter.x[leaf])
        np.testing.assert_array_equal(longer.snapshots[leaf][-1], longer.x[leaf])
        np.testing.assert_array_equal(plain.x[leaf], longer.x[leaf])
        assert plain.snapshots[leaf].shape == (0, *START[leaf].shape)


def test_it_is_a_function_of_its_key():
    first, again, other = (
        annealed_langevin(pair_energy, rng_key(seed), START, SHORT).x[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.stack([first, other]))) == 2 * first.size


def test_low_precision_is_kept():
    x = jnp.ones((2, 3), jnp.bfloat16)
    found = annealed_langevin(lambda x: (x**2).sum(axis=1), rng_key(), x, SHORT, num_snapshots=1)
    assert found.x.dtype == found.snapshots.dtype == jnp.bfloat16


def test_memory_is_flat_in_the_number_of_steps():
    def peak(num_steps):
        schedule = AnnealingSchedule().scaled(num_steps)
        run = lambda key, x: annealed_langevin(lambda x: jnp.cosh(x).sum(1), key, x, schedule).x
        compiled = jax.jit(run).lower(rng_key(), jnp.ones((64, 64))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert peak(2000) < peak(20) + 64 * 64 * 4


def test_it_is_compiled_once_for_its_shapes():
    energy = chex.assert_max_traces(theta_energy, n=2)  # in the check and in the step
    for seed, theta in enumerate((1.0, 2.0, 3.0)):
        sample_joint(energy, theta, rng_key(seed), *START, SHORT)
    sample_joint(energy, 4.0, rng_key(4), *START, SHORT, num_snapshots=3)


# ---------------------------------------------------------------- latent variables


@pytest.fixture(scope="module")
def gaussian():
    """The linear-Gaussian model, and the moments of (h, v)."""
    with jax.enable_x64(True):
        theta = linear_theta()
        return LinearGaussian(2).apply, theta, *joint_moments(theta)


def discretised(covariance, step_size):
    """The stationary covariance of Langevin steps, (P (I - step_size^2 P / 4))^-1 for a precision P."""
    precision = np.linalg.inv(covariance)
    return np.linalg.inv(precision @ (np.eye(len(precision)) - 0.25 * step_size**2 * precision))


def assert_moments(samples, mean, covariance):
    """Within four and a half standard errors of the mean and covariance of normal samples."""
    error = np.sqrt(np.diag(covariance) / len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - mean) < 4.5 * error)
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / len(samples))
    assert np.all(np.abs(np.cov(samples.T) - covariance) < 4.5 * error)


def starts(num_visible=4, num_latent=2):
    return jnp.zeros((NUM_CHAINS, num_visible)), jnp.zeros((NUM_CHAINS, num_latent))


def test_joint_samples_have_the_moments_of_the_model(x64, gaussian):
    energy, theta, mean, covariance = gaussian
    v, h = sample_joint(energy, theta, rng_key(), *starts(), constant(500, 0.4)).x
    assert_moments(np.concatenate([h, v], axis=1), mean, discretised(covariance, 0.4))


def test_visible_samples_have_the_moments_given_the_latents(x64, gaussian):
    energy, theta, mean, covariance = gaussian
    h = np.array([1.0, -0.5])
    expected, spread = conditional_moments(mean, covariance, [0, 1], h)
    v = sample_visible(energy, theta, rng_key(), starts()[0], np.tile(h, (NUM_CHAINS, 1)), constant(80, 0.3))
    assert_moments(np.asarray(v.x), expected, discretised(spread, 0.3))


@pytest.mark.parametrize("factored", [False, True])
def test_latent_samples_have_the_moments_of_the_posterior(x64, gaussian, factored):
    energy, theta, mean, covariance = gaussian
    v = normal(4, seed=3)
    expected, spread = conditional_moments(mean, covariance, [2, 3, 4, 5], v)
    if factored:
        energy = factored_gaussian()
    schedule = dataclasses.replace(constant(150, 0.3), denoising_std=0.5)  # which is for v, not for h
    h = sample_latent(energy, theta, rng_key(), np.tile(v, (NUM_CHAINS, 1)), starts()[1], schedule)
    assert_moments(np.asarray(h.x), expected, discretised(spread, 0.3))


def factored_gaussian():
    """The terms of the energy by way of v - b; called as a whole it fails, since features are enough."""

    def head(theta, v, features, h):
        params = theta["params"]
        residual = features - h @ params["W"].T
        return 0.5 * (h**2).sum(1) + 0.5 * (residual**2).sum(1) * jnp.exp(-2 * params["log_std"])

    class Factored(FactoredEnergy):
        def __call__(self, theta, v, h):
            raise AssertionError("the features were not used")

    return Factored(lambda theta, v: v - theta["params"]["b"], head)


def test_inpainting_samples_the_rest_of_a_correlated_gaussian(x64, gaussian):
    """The second and the fourth visible unit, and both latents, given the other two units."""
    energy, theta, mean, covariance = gaussian
    known = np.array([0.7, -1.2])
    v = np.tile([0.7, np.nan, -1.2, 1e6], (NUM_CHAINS, 1))
    observed = np.tile([True, False, True, False], (NUM_CHAINS, 1))
    expected, spread = conditional_moments(mean, covariance, [2, 4], known)
    samples = inpaint(energy, theta, rng_key(), v, observed, starts()[1], constant(450, 0.4), num_snapshots=2)
    found, h = samples.x
    assert_moments(np.concatenate([h, found[:, [1, 3]]], axis=1), expected, discretised(spread, 0.4))
    for kept in (found, *samples.snapshots[0]):
        np.testing.assert_array_equal(kept[:, [0, 2]], v[:, [0, 2]])


def test_inpainting_does_not_look_at_what_is_missing():
    observed = normal(2, 2, 3, seed=4) > 0
    v, h = START
    with_truth, without = (
        inpaint(theta_energy, 1.0, rng_key(), given, observed, h, SHORT).x
        for given in (v, np.where(observed, v, np.nan))
    )
    np.testing.assert_array_equal(with_truth[0], without[0])
    np.testing.assert_array_equal(with_truth[1], without[1])
    assert len(np.unique(np.asarray(without[0])[~observed])) == (~observed).sum()


def test_inpainting_starts_from_noise_far_from_all_data():
    still = AnnealingSchedule(num_hot=0, num_cooling=0, num_freezing=0, denoising_std=0)
    v, h = jnp.full((NUM_CHAINS, 2), 9.0), jnp.zeros((NUM_CHAINS, 1))
    observed = jnp.tile(jnp.array([True, False]), (NUM_CHAINS, 1))
    start = inpaint(lambda theta, v, h: (v**2).sum(1), 0.0, rng_key(), v, observed, h, still).x[0]
    assert (start[:, 0] == 9).all()
    assert_moments(np.asarray(start[:, 1:]), [0.5], np.eye(1))
    np.testing.assert_allclose(initial_noise(rng_key(), (3, 2)), 0.5 + jax.random.normal(rng_key(), (3, 2)))


def test_chains_under_vmap_share_their_noise():
    """So that pictures of several latents differ by the latent alone."""
    v, latents = START[0][:1], np.stack([START[1][0], START[1][1], START[1][0]])
    run = lambda h: sample_visible(theta_energy, 1.0, rng_key(), v, h[None], SHORT).x[0]
    found = jax.vmap(run)(jnp.asarray(latents))
    np.testing.assert_allclose(found[0], found[2], rtol=1e-6)
    np.testing.assert_allclose(found, [run(jnp.asarray(h)) for h in latents], rtol=1e-4, atol=1e-5)
    together = sample_visible(theta_energy, 1.0, rng_key(), jnp.tile(v, (3, 1, 1)), latents, SHORT).x
    assert np.abs(together[0] - together[2]).min() > 0.01


def test_the_samplers_work_within_jit_with_traced_parameters_alone():
    """Where only the parameters are traced and the energy is a closure over them."""

    @jax.jit
    def within(theta):
        return annealed_langevin(lambda x: theta * pair_energy(x), rng_key(), START, SHORT).x[0]

    expected = sample_joint(theta_energy, 0.7, rng_key(), *START, SHORT).x[0]
    np.testing.assert_allclose(within(0.7), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_deep_energy_is_sampled():
    """Its factored form and its plain form give the same latents."""
    module = ResidualEnergy(num_hidden=3, channels=1)
    v, h = initial_noise(rng_key(), (2, 8, 8, 1)), initial_noise(rng_key(1), (2, 3))
    theta = module.init(rng_key(2), v, h)
    factored = FactoredEnergy(
        functools.partial(module.apply, method="features"),
        lambda theta, v, f, h: module.apply(theta, v, f, h, method="head"),
    )
    plain = sample_latent(module.apply, theta, rng_key(), v, h, SHORT).x
    np.testing.assert_allclose(
        sample_latent(factored, theta, rng_key(), v, h, SHORT).x, plain, rtol=1e-4, atol=1e-5
    )
    found = sample_visible(module.apply, theta, rng_key(), v, plain, SHORT, num_snapshots=2)
    assert found.snapshots.shape == (2, 2, 8, 8, 1) and bool(jnp.isfinite(found.x).all())


# ---------------------------------------------------------------- interpolation


def test_linear_interpolation():
    start, stop = normal(2, 3), normal(2, 3, seed=1)
    found = interpolate(start, stop, 5)
    assert found.shape == (2, 5, 3)
    expected = start[:, None] + np.linspace(0, 1, 5)[:, None] * (stop - start)[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(interpolate(start[0], stop[0], 5), found[0], rtol=1e-6, atol=1e-7)


def test_spherical_interpolation_keeps_the_length_and_turns_at_constant_speed(x64):
    start = normal(4, 7)
    stop = normal(4, 7, seed=1)
    stop *= np.linalg.norm(start, axis=1, keepdims=True) / np.linalg.norm(stop, axis=1, keepdims=True)
    found = np.asarray(interpolate(start, stop, 6, spherical=True))
    lengths = np.linalg.norm(found, axis=-1)
    np.testing.assert_allclose(lengths, np.linalg.norm(start, axis=1, keepdims=True) * np.ones(6))
    cosines = (found[:, 1:] * found[:, :-1]).sum(axis=-1) / (lengths[:, 1:] * lengths[:, :-1])
    whole = np.arccos((start * stop).sum(axis=1) / lengths[:, 0] ** 2)
    np.testing.assert_allclose(np.arccos(cosines), whole[:, None] / 5 * np.ones(5), rtol=1e-7)
    np.testing.assert_allclose(found[:, 0], start)
    np.testing.assert_allclose(found[:, -1], stop)


def test_spherical_interpolation_of_one_direction_is_linear():
    start = normal(1, 3)
    found = interpolate(start, 2 * start, 3, spherical=True)
    np.testing.assert_allclose(found, interpolate(start, 2 * start, 3), rtol=1e-5)
    jitted = jax.jit(functools.partial(interpolate, num=3, spherical=True))(start, 2 * start)
    np.testing.assert_allclose(jitted, found, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.ones(2), np.ones(3), 4), {}, r"start has shape \(2,\) and stop \(3,\)"),
        ((np.ones(2), np.ones(2), 1), {}, "num must be at least 2"),
        ((np.ones(2), np.ones(2), 2), {"spherical": 1}, "spherical must be True or False"),
        (
            (np.ones(2), np.zeros(2), 2),
            {"spherical": True},
            "zero, which has no direction; use spherical=False",
        ),
        ((np.ones(2), -np.ones(2), 2), {"spherical": True}, "opposite"),
    ],
)
def test_interpolation_refuses_what_has_no_way(arguments, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        interpolate(*arguments, **options)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((2, 3), int), "x has dtype int.*floating states"),
        (np.ones((2, 3), complex), "x has dtype complex"),
        (1.0, "x is a scalar; give one row a chain"),
        ((), "x is an empty tree"),
        ({"v": np.ones((2, 1)), "h": np.ones((3, 1))}, r"x\['v'\] has 2 chains, but x\['h'\] has 3"),
        (np.array([[1.0], [np.nan]]), "x holds NaN or infinite values, the first in chain 1"),
        ((np.ones((1, 2)), np.array([[np.inf]])), r"x\[1\] holds NaN or infinite values.* chain 0"),
    ],
)
def test_states_are_checked(x, message):
    with pytest.raises(ValueError, match=message):
        annealed_langevin(lambda x: x[:, 0], rng_key(), x, SHORT)


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        (lambda x: x.sum(), r"one energy a chain, floating and of shape \(2,\), but returns .*\(shape=\(\)"),
        (lambda x: x, r"returns .*shape=\(2, 3\)"),
        (lambda x: x.sum(axis=1, keepdims=True), r"returns .*shape=\(2, 1\)"),
        (lambda x: x.sum(axis=1) > 0, r"returns .*bool"),
        (lambda x: (x.sum(axis=1), 0.0), r"returns \(Shape"),
    ],
)
def test_energies_of_another_shape_are_refused(energy, message):
    for run in (annealed_langevin, jax.jit(annealed_langevin, static_argnums=(0, 3))):
        with pytest.raises(ValueError, match=message):
            run(energy, rng_key(), jnp.ones((2, 3)), SHORT)


def test_options_are_checked():
    run = functools.partial(annealed_langevin, lambda x: x[:, 0], rng_key(), jnp.ones((2, 1)))
    with pytest.raises(ValueError, match="num_snapshots=10 exceeds the 9 steps of the schedule"):
        run(SHORT, num_snapshots=10)
    with pytest.raises(ValueError, match="num_snapshots must be an integer of at least 0, not -1"):
        run(SHORT, num_snapshots=-1)
    with pytest.raises(TypeError, match=r"schedule must be a value such as AnnealingSchedule\(\), not 300"):
        run(300)
    with pytest.raises(TypeError, match="schedule must be a value"):
        sample_latent(theta_energy, 1.0, rng_key(), *START, schedule=300)
    with pytest.raises(TypeError, match=r"must be a pure function .*not ResidualEnergy.*module\.apply"):
        sample_joint(ResidualEnergy(3), {}, rng_key(), *START, SHORT)

    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return x[:, 0]

    with pytest.raises(TypeError, match="energy_fn of type Unhashable has no hash"):
        annealed_langevin(Unhashable(), rng_key(), jnp.ones((2, 1)), SHORT)


@pytest.mark.parametrize("sampler", [sample_joint, sample_visible, sample_latent])
def test_visible_units_and_latents_are_checked(sampler):
    v, h = START
    run = functools.partial(sampler, theta_energy, 1.0, rng_key())
    with pytest.raises(ValueError, match=r"h has shape \(3, 2\), 3 rows, but v has 2.*jnp\.repeat"):
        run(v, np.ones((3, 2)), SHORT)
    with pytest.raises(ValueError, match="v has dtype int"):
        run(v.astype(int), h, SHORT)
    with pytest.raises(ValueError, match="h holds NaN or infinite values, the first in chain 0"):
        run(v, h * np.nan, SHORT)


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        (np.ones((2, 2, 3)), "observed has dtype float.*a mask holds booleans.*observed > 0.5"),
        (np.ones((2, 3), bool), r"observed has shape \(2, 3\), but v has \(2, 2, 3\).*broadcast_to"),
    ],
)
def test_masks_are_checked(observed, message):
    with pytest.raises(ValueError, match=message):
        inpaint(theta_energy, 1.0, rng_key(), START[0], observed, START[1], SHORT)


def test_observed_values_must_be_finite():
    v = np.full((2, 2, 3), np.nan)
    with pytest.raises(ValueError, match="v holds NaN or infinite values"):
        inpaint(theta_energy, 1.0, rng_key(), v, np.ones(v.shape, bool), START[1], SHORT)


def test_its_step_is_that_of_langevin(x64):
    """At temperature 1 a step is Langevin's, with the key of the step."""
    annealed = annealed_langevin(pair_energy, rng_key(), START, constant(1, 0.2)).x
    (key,) = jax.random.split(rng_key(3), 1)
    gradient = langevin(pair_energy, rng_key(3), START, 1, 0.2)
    noise = [jax.random.normal(k, leaf.shape) for k, leaf in zip(jax.random.split(key), START, strict=True)]
    other = [
        jax.random.normal(k, leaf.shape)
        for k, leaf in zip(jax.random.split(jax.random.fold_in(rng_key(), 0)), START, strict=True)
    ]
    for found, plain, xi, own in zip(annealed, gradient, noise, other, strict=True):
        np.testing.assert_allclose(found - 0.2 * own, plain - 0.2 * xi, rtol=1e-12, atol=1e-12)
