"""Posteriors whose log-density a loss cannot differentiate as it does, and data that has no score."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from flax import linen as nn
from numpyro.distributions import transforms

from bism_jax import DSM, KL, MDSM, SM, SSM, BiSM, Fisher, ScoreMatching, Unrolled, VaGES, fit, plan
from bism_jax.evaluation import gradient_bias
from bism_jax.methods._common.data_checks import check_batch
from bism_jax.methods._common.density_checks import check_higher_density, check_lower_density
from bism_jax.models import (
    GRBM,
    BernoulliPosterior,
    FlowPosterior,
    GaussianPosterior,
    LinearGaussian,
    as_model,
)
from bism_jax.objectives import KSD, LatentSample, latent_score
from tests.helpers import rows

V = rows(16, (3,))
PHI = {"w": 0.5 * rows(3), "s": np.zeros(2, np.float32), "k": np.full(2, 0.1, np.float32)}
KEY = jax.random.key(0)


class Own:
    """h = loc + Laplace noise, with a log-density of its own."""

    def __init__(self, loc, log_prob):
        self.loc, self._log_prob = loc, log_prob
        self.batch_shape, self.event_shape = loc.shape[:1], loc.shape[1:]

    def draw_noise(self, key, sample_shape=()):
        return jax.random.laplace(key, (*sample_shape, *self.loc.shape))

    def transform(self, noise):
        return self.loc + noise, None

    def sample(self, key, sample_shape=()):
        return self.transform(self.draw_noise(key, sample_shape))[0]

    def log_prob(self, h):
        return self._log_prob(h - self.loc).sum(axis=-1)


class Wrapped(nn.Module):
    """A posterior whose density shows only when it is called."""

    density: str

    @nn.compact
    def __call__(self, v):
        return dist.Independent(BernoulliPosterior(2, density=self.density)(v), 0)


def posterior(make):
    """(loc, scale, asymmetry) -> distribution, as a posterior of V and PHI."""
    return lambda phi, v: make(v @ phi["w"], jnp.exp(phi["s"]), jnp.exp(phi["k"]))


def numpyro(make):
    return posterior(lambda *parameters: make(*parameters).to_event(1))


def sigmoid_of_normal(m, s, k):
    return dist.TransformedDistribution(dist.Normal(30 * m, 5 * s), transforms.SigmoidTransform())


def name_of(value):
    return type(value).__name__


def reason(check):
    """What a check says: "" for nothing, a warning's text, or an error's behind its name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check()
        except ValueError as error:
            return f"refused: {error}"
    return "".join(f"warned: {warning.message}" for warning in caught)


def of_fisher(posterior_fn, phi=PHI):
    return reason(lambda: check_lower_density(as_model("posterior_fn", posterior_fn), phi, V, Fisher()))


def of_dsm(posterior_fn, phi=PHI):
    return reason(lambda: check_higher_density(as_model("posterior_fn", posterior_fn), phi, V, DSM(0.3)))


INFINITE, NO_MEAN = "is not finite at", "has no finite mean"
EDGES = {
    "relaxed Bernoulli": (lambda m, s, k: dist.RelaxedBernoulli(jnp.array(0.1), logits=m), INFINITE),
    "sigmoid of a wide normal": (sigmoid_of_normal, f"({INFINITE}|{NO_MEAN})"),
    "Beta": (lambda m, s, k: dist.Beta(0.5 * jnp.exp(m), 0.5 * s), NO_MEAN),
    "Kumaraswamy": (lambda m, s, k: dist.Kumaraswamy(jnp.exp(m), 0.5 * s), f"({INFINITE}|{NO_MEAN})"),
    "Gamma": (lambda m, s, k: dist.Gamma(0.5 * jnp.exp(0.1 * m), s), NO_MEAN),
    "Uniform": (lambda m, s, k: dist.Uniform(m, m + s), "is flat in h"),
}
KINKS = {
    "Laplace": numpyro(lambda m, s, k: dist.Laplace(m, s)),
    "AsymmetricLaplace": numpyro(dist.AsymmetricLaplace),
    "relu": posterior(lambda m, s, k: Own(m, lambda x: -jax.nn.relu(x) - jax.nn.relu(-x) / 2)),
    "maximum": posterior(lambda m, s, k: Own(m, lambda x: -jnp.maximum(x, -x))),
    "where": posterior(lambda m, s, k: Own(m, lambda x: jnp.where(x > 0, -x, x))),
}
SMOOTH = {
    "Normal": numpyro(lambda m, s, k: dist.Normal(m, s)),
    "Normal of a relu": numpyro(lambda m, s, k: dist.Normal(jax.nn.relu(m), s)),
    "StudentT": numpyro(lambda m, s, k: dist.StudentT(4.0, m, s)),
    "Logistic": numpyro(lambda m, s, k: dist.Logistic(m, s)),
    "Gumbel": numpyro(lambda m, s, k: dist.Gumbel(m, s)),
    "Cauchy": numpyro(lambda m, s, k: dist.Cauchy(m, s)),
    "MultivariateNormal": posterior(lambda m, s, k: dist.MultivariateNormal(m, jnp.diag(s))),
    "LogNormal": numpyro(lambda m, s, k: dist.LogNormal(m, 0.5 * s)),
    "sigmoid of a normal": numpyro(
        lambda m, s, k: dist.TransformedDistribution(dist.Normal(m, 0.5 * s), transforms.SigmoidTransform())
    ),
    "TruncatedNormal": numpyro(lambda m, s, k: dist.TruncatedNormal(m, s, low=0.0)),
    "Huber": posterior(
        lambda m, s, k: Own(m, lambda x: jnp.where(jnp.abs(x) < 1, -0.5 * x**2, 0.5 - jnp.abs(x)))
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_fisher_refuses_densities_without_a_mean_squared_score(name):
    make, why = EDGES[name]
    message = of_fisher(numpyro(make))
    assert message.startswith("refused: divergence=Fisher()") and "Use KL()" in message
    assert re.search(why, message), message


@pytest.mark.parametrize("name", KINKS)
def test_kinks_are_named(name):
    for message, argument in ((of_fisher(KINKS[name]), "divergence=Fisher()"), (of_dsm(KINKS[name]), "DSM")):
        assert message.startswith("warned: ") and argument in message, message
        assert "kink" in message and "Use a smooth density such as Normal or StudentT" in message


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_densities_pass(name):
    assert of_fisher(SMOOTH[name]) == of_dsm(SMOOTH[name]) == ""


@pytest.mark.parametrize(
    "module",
    [BernoulliPosterior(2), BernoulliPosterior(2, temperature=3.0, density="concrete"), GaussianPosterior(2)],
    ids=["bernoulli", "warm concrete", "gaussian"],
)
def test_own_posteriors_pass(module):
    phi = module.init(KEY, V)
    assert of_fisher(module, phi) == of_dsm(module, phi) == ""


@pytest.mark.slow
def test_flows_pass():
    module = FlowPosterior(2, num_layers=2, width=8)
    assert of_dsm(module, module.init(KEY, V)) == ""


def test_smooth_densities_compile_nothing(monkeypatch):
    def compile_(*_, **__):
        raise AssertionError("a check compiled")

    model = as_model("posterior_fn", SMOOTH["Normal"])
    monkeypatch.setattr("bism_jax.methods._common.density_checks.call_compiled", compile_)
    check_lower_density(model, PHI, V, Fisher())
    check_higher_density(model, PHI, V, DSM())


@pytest.mark.parametrize(
    ("method", "module"),
    [
        (BiSM(DSM(0.1), Fisher()), Wrapped("concrete")),
        (VaGES(DSM(0.1), Fisher()), BernoulliPosterior(2, density="concrete")),
    ],
    ids=["BiSM", "VaGES"],
)
def test_the_concrete_density_under_fisher_is_refused_by_every_method(method, module):
    with pytest.raises(ValueError, match=r"(?s)Fisher\(\).*temperature.*Use KL\(\), or density='bernoulli'"):
        method.bind(GRBM(2), module).init(KEY, V)


def test_what_fisher_is_not_given_passes():
    method = BiSM(DSM(0.1), KL(), hypergradient=Unrolled(1))
    method.bind(GRBM(2), Wrapped("concrete")).init(KEY, V)
    BiSM(DSM(0.1), Fisher(), hypergradient=Unrolled(1)).bind(GRBM(2), Wrapped("bernoulli")).init(KEY, V)


def test_fit_and_gradient_bias_say_it_before_training():
    energy = LinearGaussian(2)
    theta = energy.init(KEY, V, jnp.zeros((16, 2)))
    with pytest.raises(UserWarning, match="has a kink"):
        fit(
            energy.apply,
            KINKS["Laplace"],
            V,
            method=BiSM(DSM(0.3), hypergradient=Unrolled(1)),
            init_params=(theta, PHI),
            num_steps=0,
            batch_size=8,
        )
    options = {"objective": DSM(0.3), "divergence": Fisher(), "optimizer": optax.sgd(0.1)}
    with pytest.raises(ValueError, match="has no finite mean"):
        gradient_bias(energy, numpyro(EDGES["Gamma"][0]), theta, PHI, V, KEY, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "error"), [("Normal", 0), ("Laplace", 0), ("AsymmetricLaplace", 0.29)])
def test_the_gradient_in_phi_at_a_kink(name, error, x64):
    """Against finite differences of the mean over many draws, which see a draw cross the kink."""
    rng, num_rows = np.random.default_rng(0), 200_000
    theta, weights = rng.normal(size=(2, 2, 2))
    phi = {"w": weights, "s": -0.3 * np.ones(2), "k": 0.2 * np.ones(2)}
    v = rng.normal(size=(num_rows, 2)) @ np.array([[1.0, 0.5], [0.0, 0.8]])
    eps = rng.normal(size=v.shape)
    posterior_fn = {**SMOOTH, **KINKS}[name]

    def energy(theta, v, h):
        return ((v - h @ theta.T) ** 2).sum(axis=-1) + 0.5 * (h**2).sum(axis=-1)

    @jax.jit
    def loss(phi):
        points = DSM(0.3).perturb(v, eps)
        sample = LatentSample(posterior_fn(phi, points).sample(KEY))
        return DSM(0.3).loss(latent_score(energy, posterior_fn, theta, phi, sample), v, eps).mean()

    flat, unravel = jax.flatten_util.ravel_pytree(phi)
    steps = 5e-3 * np.eye(flat.size)
    expected = np.array([loss(unravel(flat + e)) - loss(unravel(flat - e)) for e in steps]) / 1e-2
    found = jax.flatten_util.ravel_pytree(jax.grad(loss)(phi))[0]
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) == pytest.approx(error, abs=0.03)


# Data of separate values.


def binary(num_rows=40, num_columns=6):
    return (rows(num_rows, (num_columns,)) > 0).astype(np.float32)


def said_of(objective, batch):
    return reason(lambda: check_batch(objective, jnp.asarray(batch)))


DISCRETE = {
    "zeros and ones": (binary(), 1),
    "a small batch": (binary(8, 2), 1),
    "minus one and one": (2 * binary() - 1, 2),
    "counts": (np.round(3 * rows(40, (6,))), 1),
    "one column of several": (np.concatenate([rows(40, (3,)), binary(40, 1)], axis=1), 1),
    "standardised": ((binary() - binary().mean(axis=0)) / binary().std(axis=0), 2),
    "pictures of ink": (binary(8, 64).reshape(8, 8, 8, 1), 1),
}
CONTINUOUS = {
    "normal": rows(40),
    "one row": rows(1),
    "constant": np.ones((40, 2), np.float32),
    "a constant column": np.concatenate([rows(40), np.ones((40, 1), np.float32)], axis=1),
    "many zeros": np.maximum(rows(40, (6,)), 0),
    "8 bits": np.floor(255 / (1 + np.exp(-rows(40, (64,))))) / 255,
    "rare ink in 8 bits": np.where(rows(40, (64,)) > 1.5, np.floor(99 * np.abs(rows(40, (64,)))) / 255, 0),
    "half precision": rows(40, (64,)).astype(np.float16),
    "bfloat16": np.asarray(rows(40, (64,)).astype(jnp.bfloat16)),
}


@pytest.mark.parametrize("objective", [SM(), SSM(), DSM(0.05), DSM(), MDSM(0.01, 0.1)], ids=repr)
@pytest.mark.parametrize("name", DISCRETE)
def test_separate_values_are_named(name, objective):
    batch, spacing = DISCRETE[name]
    message = said_of(objective, batch)
    assert message.startswith("warned: data") and type(objective).__name__ in message
    assert f" {spacing}" in message.split("apart")[0] and "uniform noise" in message, message


@pytest.mark.parametrize("name", DISCRETE)
def test_noise_of_the_order_of_the_spacing_joins_them(name):
    batch, spacing = DISCRETE[name]
    for objective in (DSM(0.5 * spacing), MDSM(0.1, 3.0, 0.1), KSD()):
        if not isinstance(objective, MDSM) or len(batch) >= 4:
            assert said_of(objective, batch) == ""


@pytest.mark.parametrize("objective", [SM(), SSM(), DSM(0.05), MDSM(0.01, 0.1)], ids=str)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_data_pass(name, objective):
    batch = CONTINUOUS[name]
    if len(batch) > 1 or not isinstance(objective, MDSM):
        assert said_of(objective, batch) == ""


@pytest.mark.parametrize("method", [BiSM(SSM()), VaGES(DSM(0.1)), ScoreMatching(SM())], ids=name_of)
def test_every_method_with_an_objective_names_them(method):
    q = None if isinstance(method, ScoreMatching) else GaussianPosterior(2)
    with pytest.raises(UserWarning, match=r"data takes a few values only, 1 apart.*DSM\(0.5\)"):
        fit(GRBM(2), q, binary(), method=method, num_steps=0, batch_size=20)


# Noise levels over a batch.


@pytest.mark.parametrize("method", [BiSM(MDSM()), VaGES(MDSM()), ScoreMatching(MDSM())], ids=name_of)
def test_a_batch_of_one_has_one_noise_level(method):
    q = None if isinstance(method, ScoreMatching) else GaussianPosterior(2)
    with pytest.raises(ValueError, match=r"MDSM.*batch of 1 has only the smallest.*batch_size.*DSM\(0.1\)"):
        fit(GRBM(2), q, V, method=method, num_steps=0, batch_size=1)


def test_few_noise_levels_are_named():
    assert said_of(MDSM(), rows(4)) == said_of(MDSM(0.2, 0.2), rows(1)) == ""
    for objective, batch_size in ((MDSM(), 2), (MDSM(), 3), (MDSM(spacing="linear"), 5)):
        message = said_of(objective, rows(batch_size))
        assert f"a batch of {batch_size} has levels up to" in message and "batch_size" in message
    with pytest.raises(ValueError, match="batch of 1"):
        plan(GRBM(2), GaussianPosterior(2), V[:1], BiSM(MDSM()))
