"""The flow posterior against a change of variables, quadrature, finite differences and closed forms."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from bism_jax import KL, BiSM, Unrolled
from bism_jax.models import ConvEncoder, FlowPosterior, GaussianPosterior, MLPEnergy

ENERGY = MLPEnergy((4,))


def rng_key(seed=0):
    return jax.random.key(seed, impl="rbg")  # compiles faster than the default


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def random_params(module, *args, scale=0.7):
    """Parameters away from the initial ones, so that no bias is zero."""
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype)
    return jax.tree.map(draw, jax.eval_shape(module.init, rng_key(), *args))


class TestDensity:
    def test_log_prob_is_a_change_of_variables(self, x64):
        posterior, v = FlowPosterior(5, width=4), normal(3, 2)
        phi, noise = random_params(posterior, v), normal(3, 5, seed=2)

        @jax.jit
        def evaluate(phi, noise):
            sample = lambda noise: posterior.apply(phi, v).transform(noise)[0]
            return posterior.apply(phi, v).log_prob(sample(noise)), jax.jacfwd(sample)(noise)

        log_prob, jacobian = evaluate(phi, noise)
        assert log_prob.dtype == jnp.float64
        jacobian = np.einsum("bibj->bij", jacobian)
        log_base = -0.5 * (noise**2).sum(axis=1) - 2.5 * np.log(2 * np.pi)
        expected = log_base - np.linalg.slogdet(jacobian)[1]
        np.testing.assert_allclose(log_prob, expected, atol=1e-10)
        assert np.abs(jacobian).max() > 0.1 and np.abs(expected - log_base).min() > 0.1

    def test_density_has_mass_1_and_the_moments_of_samples(self):
        posterior, v = FlowPosterior(2, width=4), normal(2, 3)
        phi = random_params(posterior, v, scale=0.5)
        axis, spacing = np.linspace(-12, 12, 241, retstep=True)
        grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 1, 2)

        @jax.jit
        def evaluate(distribution):
            points = jnp.broadcast_to(grid, (len(grid), 2, 2))
            return distribution.log_prob(points), distribution.sample(rng_key(), (40_000,))

        log_prob, samples = evaluate(jax.jit(posterior.apply)(phi, v))
        assert samples.shape == (40_000, 2, 2)
        weights = np.exp(np.asarray(log_prob, np.float64)) * spacing**2
        np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-3)
        for moment in (lambda h: h, lambda h: h**2, lambda h: h[..., :1] * h[..., 1:]):
            expected = (weights[..., None] * moment(grid)).sum(axis=0)
            tolerance = 6 * np.asarray(moment(samples)).std(axis=0) / 200
            assert (np.abs(moment(samples).mean(axis=0) - expected) < tolerance).all()

    def test_log_prob_is_differentiable_in_v_at_fixed_h(self, x64):
        posterior, v, h = FlowPosterior(3, width=4), normal(1, 2), normal(1, 3, seed=2)
        phi = random_params(posterior, v)
        log_prob = jax.jit(jax.vmap(lambda v: posterior.apply(phi, v).log_prob(h)[0]))
        offsets = 1e-5 * np.eye(2)[:, None, :]
        expected = (log_prob(v + offsets) - log_prob(v - offsets)) / 2e-5
        found = jax.jit(jax.grad(lambda v: posterior.apply(phi, v).log_prob(h)[0]))(v)
        np.testing.assert_allclose(found[0], expected, rtol=1e-6)
        assert np.abs(expected).min() > 1e-2

    def test_two_layers_make_every_latent_depend_on_v(self):
        posterior, v = FlowPosterior(9, num_layers=2, width=3), normal(1, 2)
        phi = random_params(posterior, v)
        sample = lambda v: posterior.apply(phi, v).transform(jnp.ones((1, 9)))[0]
        jacobian = jax.jit(jax.jacfwd(sample))(v)
        assert (np.abs(jacobian).max(axis=(0, 2, 3)) > 1e-3).all()


class TestModule:
    def test_keys_change_the_parameters_but_nothing_else(self):
        posterior, v = FlowPosterior(3, width=5), normal(2, 4)
        init = jax.jit(posterior.init)
        first, second = init(rng_key(0), v), init(rng_key(1), v)
        assert set(first) == {"params"}
        assert jax.tree.structure(first) == jax.tree.structure(second)
        for leaf, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
            assert leaf.dtype == jnp.float32 and leaf.shape == other.shape
            assert leaf.ndim < 2 or not leaf.any() or (leaf != other).any()
        assert [leaf.ndim for leaf in jax.tree.leaves(first["params"]["flow"])] == [2, 3, 2, 3]

    @pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.float64])
    def test_encoder_of_the_user_gives_the_context(self, x64, param_dtype):
        encoder = nn.Sequential([ConvEncoder((2,)), nn.Dense(3, param_dtype=param_dtype)])
        posterior, images = FlowPosterior(2, encoder=encoder, width=4), normal(3, 4, 4, 1)

        def log_prob(rng_key):
            distribution = posterior.apply(posterior.init(rng_key, images), images)
            assert distribution.context.shape == (3, 3)
            assert (distribution.batch_shape, distribution.event_shape) == ((3,), (2,))
            return distribution.log_prob(distribution.sample(rng_key).astype(jnp.float32))

        found = jax.eval_shape(log_prob, rng_key())
        assert (found.shape, found.dtype) == ((3,), jnp.float64)

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: FlowPosterior(1), ValueError, r"num_hidden=1: a coupling flow.*use GaussianPosterior"),
            (lambda: FlowPosterior(0), ValueError, "num_hidden must be an integer of at least 1"),
            (lambda: FlowPosterior(2, num_layers=1), ValueError, "num_layers=1 would leave.*take at least 2"),
            (lambda: FlowPosterior(2, num_layers=0), ValueError, "num_layers must be an integer"),
            (lambda: FlowPosterior(2, width=0), ValueError, "width must be an integer of at least 1"),
            (lambda: FlowPosterior(2, encoder=ConvEncoder), TypeError, "encoder must be a Flax Linen module"),
        ],
    )
    def test_bad_arguments_are_refused(self, make, error, message):
        with pytest.raises(error, match=message):
            make()

    def test_encoder_must_return_a_row_each(self):
        posterior = FlowPosterior(2, encoder=nn.Conv(2, (3, 3)))
        with pytest.raises(ValueError, match=r"encoder returns \(1, 4, 4, 2\).*\[batch, context\]: flatten"):
            jax.eval_shape(posterior.init, rng_key(), normal(1, 4, 4, 1))

    def test_missing_flowjax_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "flowjax.bijections", None)
        with pytest.raises(
            ImportError, match=r"FlowPosterior needs flowjax.*pip install 'bism-jax\[flows\]'"
        ):
            FlowPosterior(2)


def correlated_energy(theta, v, h):
    """Of a Gaussian h with mean linear in v, unit variances and correlation 0.9, with its normaliser."""
    x = h - v @ jnp.array([[1.0, -0.5], [0.3, 0.8]])
    quadratic = (x**2).sum(axis=-1) - 1.8 * x[:, 0] * x[:, 1]
    return 0.5 * quadratic / 0.19 + np.log(2 * np.pi) + 0.5 * np.log(0.19)


def two_moded_energy(theta, v, h):
    """Of an equal mixture of Gaussians of variance 0.36 at (1, 1) and (-1, -1), with its normaliser."""
    distances = jnp.stack([((h - 1) ** 2).sum(axis=-1), ((h + 1) ** 2).sum(axis=-1)])
    return -jax.nn.logsumexp(-0.5 * distances / 0.36, axis=0) + np.log(2 * 2 * np.pi * 0.36)


def fitted_divergence(posterior, energy_fn, num_steps):
    """KL(q || p) in nats after Adam steps, by many samples."""
    v = jnp.asarray(normal(64, 2), jnp.float32)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, num_steps))

    def loss_fn(phi, rng_key, num_particles):
        distribution = posterior.apply(phi, v)
        noise = distribution.draw_noise(rng_key, (num_particles,))
        return KL().loss(energy_fn, None, distribution, v, noise).mean()

    def step(carry, rng_key):
        phi, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss_fn)(phi, rng_key, 8), opt_state)
        return (optax.apply_updates(phi, updates), opt_state), None

    @jax.jit
    def fit(rng_key):
        init_key, fit_key, test_key = jax.random.split(rng_key, 3)
        phi = posterior.init(init_key, v)
        (phi, _), _ = jax.lax.scan(step, (phi, optimizer.init(phi)), jax.random.split(fit_key, num_steps))
        return loss_fn(phi, test_key, 500)

    return float(fit(rng_key()))


class TestFit:
    def test_correlated_posterior_is_fitted_closer_than_by_any_diagonal_gaussian(self):
        best_diagonal = -0.5 * np.log(1 - 0.9**2)
        found = fitted_divergence(FlowPosterior(2, width=16), correlated_energy, 300)
        assert -1e-3 < found < 0.05 * best_diagonal

    @pytest.mark.slow
    def test_two_moded_posterior_is_fitted_closer_than_by_a_diagonal_gaussian(self):
        found = fitted_divergence(FlowPosterior(2, width=16), two_moded_energy, 600)
        gaussian = fitted_divergence(GaussianPosterior(2), two_moded_energy, 600)
        assert found < 0.3 and gaussian > 0.6


class TestBilevel:
    """Warnings are errors here, so that mixed mode is what runs."""

    def test_bism_takes_it_without_a_warning(self):
        algorithm = BiSM(hypergradient=Unrolled(2)).bind(ENERGY, FlowPosterior(2, width=3))
        v = jnp.asarray(normal(5, 3), jnp.float32)
        state = jax.eval_shape(algorithm.init, rng_key(), v)
        new_state, _ = jax.eval_shape(algorithm.step, rng_key(), state, v)
        assert jax.tree.structure(new_state) == jax.tree.structure(state)

    @pytest.mark.slow
    def test_bism_step_in_mixed_mode_equals_plain_reverse_mode(self, x64):
        v = normal(5, 3)

        def step(mixed_mode, state=None):
            method = BiSM(hypergradient=Unrolled(2, mixed_mode=mixed_mode))
            algorithm = method.bind(ENERGY, FlowPosterior(2, width=3))
            state = algorithm.init(rng_key(0), v) if state is None else state
            return state, jax.jit(algorithm.step)(rng_key(1), state, v)

        state, mixed = step(True)
        _, reverse = step(False, state)
        for found, expected in zip(jax.tree.leaves(mixed), jax.tree.leaves(reverse), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
        assert np.isfinite(mixed[1].loss) and mixed[1].grad_norm > 0.1
