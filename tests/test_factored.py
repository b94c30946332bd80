"""Factored energies: the same numbers as the plain form, at the cost of one pass through the trunk."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bism_jax import (
    DSM,
    KL,
    KSD,
    MDSM,
    SSM,
    VNCE,
    BiSM,
    Fisher,
    Optimizers,
    StopGradient,
    Truncated,
    Unrolled,
    VaGES,
)
from bism_jax.evaluation import gradient_bias
from bism_jax.hypergradient import LowerProblem
from bism_jax.hypergradient._problem import prepare
from bism_jax.methods import LangevinRefinement
from bism_jax.models import ConvGaussianPosterior, GaussianPosterior, ResidualEnergy
from bism_jax.training import count_flops
from tests.lower_levels import normal

SGD = Optimizers(optax.sgd(1.0), optax.sgd(0.05))


class Factored:
    """A trunk tanh(v w) and a head that takes v as well; counts the traces of the trunk."""

    def __init__(self):
        self.num_traces = 0

    def features(self, theta, v):
        self.num_traces += 1
        return {"f": jnp.tanh(v @ theta["trunk"])}

    def head(self, theta, v, features, h):
        joint = jnp.sin(features["f"] + h) * (1 + v.sum(-1, keepdims=True))
        return (joint @ theta["head"]) ** 2 + 0.5 * (v**2).sum(-1) + 0.5 * (h**2).sum(-1)

    def __call__(self, theta, v, h):
        return self.head(theta, v, self.features(theta, v), h)


def plain(energy):
    """The same energy without its factors."""

    def energy_fn(theta, v, h):
        return energy(theta, v, h)

    return energy_fn


def params():
    theta = {"trunk": normal(0, (2, 3), jnp.float64), "head": normal(1, (3,), jnp.float64)}
    v = normal(2, (6, 2), jnp.float64)
    return theta, GaussianPosterior(3).init(jax.random.key(3), v), v


def one_step(method, energy, posterior, theta, phi, v):
    algorithm = method.bind(energy, posterior, init_params=(theta, phi))
    state, info = jax.jit(algorithm.step)(jax.random.key(1), algorithm.init(jax.random.key(0), v), v)
    gradient = jax.tree.map(jnp.subtract, theta, state.theta)
    return info.loss, gradient, state.phi


def assert_equal(found, expected, rtol=1e-10):
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = np.abs(right).max()
        np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol * scale)


METHODS = {
    "shared": BiSM(DSM(0.3), Fisher(), 1, Unrolled(2), SGD, num_particles=2),
    "fresh": BiSM(DSM(0.3), Fisher(), 1, Unrolled(2), SGD, noise="fresh"),
    "kl": BiSM(MDSM(), KL(importance_weighted=True), 0, Unrolled(3, segment=2), SGD, num_particles=3),
    "truncated": BiSM(DSM(0.3), KL(), 1, Truncated(3, last=2), SGD, keep_unrolled=False),
    "N = 0": BiSM(MDSM(), Fisher(), 2, StopGradient(0), SGD, keep_unrolled=False),
    "differentiated score": BiSM(SSM(), KL(), 1, Unrolled(2), SGD),
    "VaGES": VaGES(DSM(0.3), Fisher(), 2, 3, optimizers=SGD),
    "VaGES refined": VaGES(KSD(), KL(), 1, 2, LangevinRefinement(2, 0.1), optimizers=SGD),
    "VaGES reduced": VaGES(MDSM(), KL(), 1, 2, variance_reduced=True, optimizers=SGD),
    "VNCE": VNCE(2, 2, 3, optimizers=SGD),
}


QUICK = ("shared", "fresh", "N = 0", "VaGES", "VaGES refined", "VaGES reduced", "VNCE")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in METHODS]
)
def test_the_factored_form_is_the_plain_form(x64, name):
    method = METHODS[name]
    theta, phi, v = params()
    found = one_step(method, Factored(), GaussianPosterior(3), theta, phi, v)
    assert_equal(found, one_step(method, plain(Factored()), GaussianPosterior(3), theta, phi, v))


def test_factors_of_another_energy_are_named(x64):
    class Wrong(Factored):
        def __call__(self, theta, v, h):
            return super().__call__(theta, v, h) + 1e-2 * (v.sum(-1) * h.sum(-1))

    class Lost(Factored):
        def head(self, theta, v, features, h):
            return super().head(theta, v, {"f": features["g"]}, h)

        def __call__(self, theta, v, h):
            return Factored.head(self, theta, v, self.features(theta, v), h)

    theta, phi, v = params()
    for energy, message in ((Wrong(), "not its value at"), (Lost(), "head(v, features(v), h) cannot be")):
        with pytest.raises(ValueError, match=re.escape(message)):
            one_step(METHODS["shared"], energy, GaussianPosterior(3), theta, phi, v)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["shared", "fresh"])
def test_the_image_energy_in_both_forms(x64, noise):
    energy, posterior = ResidualEnergy(3, channels=2), ConvGaussianPosterior(3, widths=(2, 2))
    v = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1), jnp.float64)
    phi = posterior.init(jax.random.key(1), v)
    theta = energy.init(jax.random.key(2), v, jnp.zeros((3, 3)))
    method = BiSM(MDSM(max_std=2.0), Fisher(), 1, Unrolled(2), SGD, noise)
    found = one_step(method, energy, posterior, theta, phi, v)
    assert_equal(found, one_step(method, plain(energy.apply), posterior, theta, phi, v))


def test_gradient_bias_takes_the_factored_form(x64):
    theta, phi, v = params()

    def measure(energy):
        energy.free_energy = lambda theta, v: ((v @ theta["trunk"]) ** 2 @ theta["head"]) ** 2
        options = {"objective": DSM(0.3), "divergence": KL(), "optimizer": optax.sgd(0.05)}
        counts = {"num_steps": (0, 2), "lower_steps": (0, 1), "num_draws": 2}
        arguments = (energy, GaussianPosterior(3), theta, phi, v, jax.random.key(0))
        return gradient_bias(*arguments, **options, **counts)

    assert_equal(measure(Factored()), measure(plain(Factored())))


class Deep(Factored):
    """A trunk that costs nearly all of the energy."""

    def features(self, theta, v):
        return super().features(theta, jnp.tanh(v @ jnp.ones((2, 999))) @ jnp.ones((999, 2)))


@pytest.mark.parametrize(
    "method",
    [
        lambda num_steps: VaGES(KSD(), KL(), 1, 2, LangevinRefinement(num_steps, 0.1)),
        VNCE,
    ],
    ids=["refinement", "lower steps at the data"],
)
def test_steps_at_the_same_points_share_a_pass_through_the_trunk(method):
    theta = {"trunk": jnp.ones((2, 3)), "head": jnp.ones(3)}
    phi, v = GaussianPosterior(3).init(jax.random.key(3), jnp.zeros((6, 2))), jnp.zeros((6, 2))

    def flops(energy, num_steps):
        algorithm = method(num_steps).bind(energy, GaussianPosterior(3), init_params=(theta, phi))
        state = algorithm.init(jax.random.key(0), v)
        return count_flops(algorithm.step, jax.random.key(0), state, v)

    assert flops(Deep(), 20) < 1.3 * flops(Deep(), 2)
    assert flops(plain(Deep()), 20) > 2 * flops(plain(Deep()), 2)


@pytest.mark.parametrize(("noise", "grows"), [("shared", False), ("fresh", True)])
def test_shared_noise_runs_the_trunk_once(noise, grows):
    def count(num_steps):
        energy = Factored()
        method = BiSM(DSM(0.3), KL(), num_steps, Unrolled(num_steps), noise=noise)
        theta = {"trunk": jnp.ones((2, 3)), "head": jnp.ones(3)}
        phi = GaussianPosterior(3).init(jax.random.key(3), jnp.zeros((6, 2)))
        algorithm = method.bind(energy, GaussianPosterior(3), init_params=(theta, phi))
        v = jnp.zeros((6, 2))
        state = algorithm.init(jax.random.key(0), v)
        energy.num_traces = 0
        jax.eval_shape(algorithm.step, jax.random.key(0), state, v)
        return energy.num_traces

    # Under shared noise the score's trunk serves both levels; fresh noise needs it at other points too.
    assert (count(4) > 1) == grows
    assert count(4) == count(2)


def test_parameters_that_the_loss_does_not_use_stay_out_of_the_loop():
    def loss_fn(phi, theta, x):
        return ((phi - theta["used"]) ** 2).sum()

    theta = {"trunk": jnp.ones((5, 5)), "used": jnp.ones(2)}
    problem = LowerProblem(loss_fn, optax.sgd(0.1))
    prepared = prepare(problem, 2, jnp.zeros(2), theta, None, None)
    assert [leaf.shape for leaf in jax.tree.leaves(prepared.theta)] == [(2,)]
    gradient = jax.grad(lambda theta: Unrolled(2).solve(problem, jnp.zeros(2), theta).phi.sum())(theta)
    np.testing.assert_array_equal(gradient["trunk"], np.zeros((5, 5)))
    np.testing.assert_allclose(gradient["used"], np.full(2, 1 - 0.8**2), rtol=1e-6)
