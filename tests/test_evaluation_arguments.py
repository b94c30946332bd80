"""Refusals come before compilation; what is right is computed as before, also while traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bism_jax import FitResult, evaluation, samplers
from bism_jax.models import GRBM, BernoulliPosterior, GaussianPosterior
from tests.helpers import rows

V = rows(6)
KEY = jax.random.key(0)
ENERGY, POSTERIOR = GRBM(3), BernoulliPosterior(3)
THETA = ENERGY.init(KEY, V, np.zeros((6, 3), np.float32))
PHI = POSTERIOR.init(KEY, V)


def likelihood(theta=THETA, v=V, **options):
    return evaluation.log_likelihood(ENERGY, theta, v, **options)


@pytest.fixture
def compilations():
    """The seconds of each compilation by XLA; what is refused must not be compiled."""
    found = []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


RESULT = FitResult(THETA, PHI, None, {}, [])


@pytest.mark.parametrize(
    ("theta", "error", "match"),
    [
        (RESULT, TypeError, r"theta is a FitResult; pass its part, \.theta"),
        ((THETA, PHI), TypeError, r"theta is a pair such as \(theta, phi\); pass its part, \[0\]"),
        (None, TypeError, r"theta must be the parameters of energy_fn=GRBM, such as fit\(\.\.\.\)\.theta"),
        (PHI, ValueError, "energy_fn=GRBM: free_energy cannot be evaluated with theta of shapes .*MLP_0"),
        (THETA["params"], ValueError, "cannot be evaluated with theta of shapes"),
        (
            jax.tree.map(lambda x: x[..., :1], THETA),
            ValueError,
            r"'W'\] \(2, 1\).* arrays of shapes \(6, 2\)",
        ),
        (jax.tree.map(lambda x: x * np.nan, THETA), ValueError, r"theta\['params'\]\['W'\] holds NaN"),
        (
            jax.tree.map(lambda x: x.astype(int), THETA),
            ValueError,
            r"\['W'\] has dtype int32, but .* floating",
        ),
        ({"w": "text"}, TypeError, r"theta\['w'\] is str 'text'; parameters are arrays"),
    ],
)
def test_theta_of_something_else_is_told_before_compilation(theta, error, match, compilations):
    compilations.clear()
    with pytest.raises(error, match=match):
        likelihood(theta)
    assert not compilations


def test_what_is_compiled_is_counted(compilations):
    jax.jit(lambda x: x + 12345)(1.0)
    assert compilations


@pytest.mark.parametrize(
    ("v", "match"),
    [
        (V[:, :1], r"cannot be evaluated with theta of .* on arrays of shapes \(6, 1\)"),
        (V[0], r"cannot be evaluated.*GRBM takes v of shape \[batch, visible\], not \(2,\)"),
        (V[:0], r"v has no rows: its shape is \(0, 2\)"),
        (V.astype(int), "v has dtype int64, but must be floating; convert it"),
        (np.where(V > 1, np.nan, V), r"v: 1 rows hold NaN or infinite values, the first of them row"),
    ],
)
def test_rows_that_are_none_of_the_model(v, match):
    with pytest.raises(ValueError, match=match):
        likelihood(v=v)


class Scaled(nnx.Module):
    def __init__(self, size):
        self.weight = nnx.Param(jnp.ones((size,)))

    def free_energy(self, v):
        return (self.weight[...] * v**2).sum(axis=-1)

    def __call__(self, v, h):
        return self.free_energy(v)


def test_parameters_of_an_nnx_module_are_compared_with_its_own():
    """It takes any shapes: those of a module of one visible unit would be broadcast in silence."""
    module, other = Scaled(2), Scaled(1)
    theta, wrong = (nnx.to_pure_dict(nnx.state(one)) for one in (module, other))
    found = evaluation.log_likelihood(module, theta, V, log_partition=0.0)
    np.testing.assert_allclose(found, -(V**2).sum(axis=1), rtol=1e-6)
    with pytest.raises(
        ValueError, match=r"theta has shapes \{\['weight'\] \(1,\)\}, but energy_fn=Scaled has"
    ):
        evaluation.log_likelihood(module, wrong, V, log_partition=0.0)


def test_a_function_of_its_own_takes_any_parameters():
    free_energy = lambda theta, v: 0.5 * (v**2).sum(axis=1) * theta["power"]
    found = evaluation.log_likelihood(free_energy, {"power": 2}, V, log_partition=1)
    np.testing.assert_allclose(found, -(V**2).sum(axis=1) - 1, rtol=1e-6)
    with pytest.raises(ValueError, match=r"free_energy cannot be evaluated with theta .* KeyError: 'power'"):
        evaluation.log_likelihood(free_energy, {}, V, log_partition=1)


def test_an_energy_that_is_not_one_a_row():
    for energy in (lambda theta, v: v, lambda theta, v: (v**2).sum()):
        with pytest.raises(
            ValueError, match=r"free_energy must return one floating number a row, shape \(6,\)"
        ):
            evaluation.log_likelihood(energy, None, V, log_partition=0)


@pytest.mark.parametrize("value", [np.zeros(6), np.zeros((6, 1)), np.nan, np.inf, "1", True])
def test_the_log_partition_is_one_number(value):
    with pytest.raises(ValueError, match="log_partition must be"):
        likelihood(log_partition=value)


def test_calls_under_transformations_are_as_before():
    expected = likelihood()
    np.testing.assert_allclose(jax.jit(likelihood)(THETA, V), expected, rtol=1e-6)
    by_theta = jax.vmap(likelihood, in_axes=(0, None))(jax.tree.map(lambda x: jnp.stack([x, x]), THETA), V)
    np.testing.assert_allclose(by_theta, jnp.stack([expected, expected]), rtol=1e-5)
    slopes = jax.grad(lambda theta: likelihood(theta).sum())(THETA)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))

    def move(key):
        return samplers.langevin(lambda x: (x**2).sum(axis=1), key, V, 2, 0.1)

    keys = jax.random.split(KEY, 3)
    np.testing.assert_allclose(jax.vmap(move)(keys)[1], move(keys[1]), rtol=1e-5)
    squared = jax.jit(lambda width: evaluation.maximum_mean_discrepancy(V, V + 1, bandwidth=width))
    np.testing.assert_allclose(
        squared(2.0), evaluation.maximum_mean_discrepancy(V, V + 1, bandwidth=2.0), rtol=1e-5
    )


def test_raw_keys_are_keys():
    raw, typed = jax.random.PRNGKey(3), jax.random.key(3)
    found, expected = (
        evaluation.sliced_score_matching_objective(ENERGY, THETA, V, key) for key in (raw, typed)
    )
    assert found == expected


@pytest.mark.parametrize("bandwidth", [-1.0, 0.0, np.nan, np.inf, jnp.ones(2), jnp.ones((1, 1))])
def test_a_bandwidth_in_an_array_is_looked_at_too(bandwidth):
    with pytest.raises(ValueError, match="bandwidth must be"):
        evaluation.maximum_mean_discrepancy(V, V, bandwidth=jnp.asarray(bandwidth))


@pytest.mark.parametrize("scale", [1e30, 1e-30, 2.0**90])
def test_precision_and_recall_depend_on_no_scale(scale):
    """The squares of such numbers are infinite or zero in float32."""
    data, samples = np.random.default_rng(0).normal(size=(2, 60, 3))
    samples[:20] += 5
    expected = evaluation.precision_recall(data, samples)
    assert 0 < expected.precision < 1
    assert evaluation.precision_recall(scale * data, scale * samples) == expected


def test_a_posterior_that_gives_no_distribution():
    with pytest.raises(ValueError, match="posterior_fn=<lambda> must return a distribution, such as"):
        evaluation.ood_scores(ENERGY, lambda phi, v: v, THETA, None, V)


def test_phi_of_another_posterior():
    other = GaussianPosterior(3).init(KEY, V)
    with pytest.raises(
        ValueError, match="posterior_fn=BernoulliPosterior cannot be evaluated with phi of shapes"
    ):
        evaluation.ood_scores(ENERGY, POSTERIOR, THETA, other, V)


def test_gibbs_chains_that_would_be_rounded():
    sample_h = lambda theta, key, v: (v > 0).astype(jnp.float32)
    sample_v = lambda theta, key, h: h + jax.random.normal(key, h.shape)
    with pytest.raises(
        ValueError, match="v has dtype int32, in which the float32 that sample_v draws would lose"
    ):
        samplers.gibbs(sample_h, sample_v, None, KEY, jnp.zeros((3, 2), int), 2)
    binary = lambda theta, key, h: jax.random.bernoulli(key, 0.5, h.shape).astype(jnp.int32)
    v, _ = samplers.gibbs(sample_h, binary, None, KEY, jnp.zeros((3, 2), jnp.int32), 2)
    assert v.dtype == jnp.int32
