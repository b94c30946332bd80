"""Arguments are refused everywhere as in `fit`: by name, with the reason and what works instead."""

import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from bism_jax import (
    DSM,
    KL,
    NCE,
    SM,
    VNCE,
    BiSM,
    FitResult,
    Optimizers,
    PersistentVI,
    ScoreMatching,
    fit,
    plan,
)
from bism_jax.data import checkerboard, eight_gaussians, rings, toy
from bism_jax.hypergradient import Implicit, LowerProblem, StopGradient, Truncated, Unrolled
from bism_jax.models import GRBM, BernoulliPosterior, CifarResNet, ImageClassifier, image_features
from bism_jax.objectives import MDSM, latent_score, marginal_score

KEY = jax.random.key(0)
V = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
SGD, ADAM = optax.sgd(0.1), optax.adam(0.1)
ENERGY, POSTERIOR = GRBM(2), BernoulliPosterior(2)
PHI = {"w": jnp.ones(3)}
ASKING = {
    "lbfgs": optax.lbfgs(),
    "polyak_sgd": optax.polyak_sgd(),
    "reduce_on_plateau": optax.chain(SGD, optax.contrib.reduce_on_plateau()),
    "backtracking": optax.chain(SGD, optax.scale_by_backtracking_linesearch(3)),
}
STRATEGIES = (Unrolled(2), Truncated(2, 1), Implicit(2), StopGradient(2))


def says(*parts):
    return "(?s:.*)".join(parts)


def loss(phi, theta, x):
    return jnp.sum((phi["w"] - theta["w"] * x) ** 2)


def solve(strategy=STRATEGIES[0], optimizer=SGD, phi=PHI, theta=PHI, inputs=None, **options):
    inputs = jnp.ones((2, 3)) if inputs is None else inputs
    return strategy.solve(LowerProblem(loss, optimizer), phi, theta, inputs, **options)


def bound(method=None):
    return (method or BiSM(DSM(0.1), optimizers=Optimizers(SGD, SGD))).bind(ENERGY, POSTERIOR)


# Hypergradients.


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda one: type(one).__name__)
def test_a_state_of_another_optimiser_is_refused(strategy):
    with pytest.raises(ValueError, match=says("opt_state", "ScaleByAdamState", "its own init")):
        solve(strategy, SGD, opt_state=ADAM.init(PHI))
    with pytest.raises(ValueError, match=says(r"opt_state.*has shape \(4,\)", r"keeps \(3,\)", "init")):
        solve(strategy, ADAM, opt_state=ADAM.init({"w": jnp.ones(4)}))


def test_a_state_of_its_own_still_goes_on_where_the_last_solve_ended():
    first = solve(optimizer=ADAM)
    again = solve(optimizer=ADAM, phi=first.phi, opt_state=first.opt_state)
    whole = solve(Unrolled(4), ADAM, inputs=jnp.ones((4, 3)))
    np.testing.assert_allclose(again.phi["w"], whole.phi["w"], rtol=1e-6)
    injected = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
    state = injected.init(PHI)
    state.hyperparams["learning_rate"] = 0.2  # a number in the place of an array is a state of its own too
    assert np.isfinite(solve(optimizer=injected, opt_state=state).phi["w"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phi": {"w": "a"}}, says("phi", "'w'", "is a str", "pass arrays")),
        ({"theta": {"w": object()}}, says("theta", "'w'", "object")),
        ({"theta": {"b": jnp.ones(3)}}, says("loss_fn cannot be evaluated on phi, theta", "KeyError")),
        ({"inputs": jnp.ones((2, 4))}, says("loss_fn cannot be evaluated", "inputs")),
        ({"inputs": "x"}, "inputs is a str"),
    ],
)
def test_what_the_loss_cannot_take_is_told_by_argument(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        solve(**options)


def test_a_problem_is_checked_where_it_is_made():
    with pytest.raises(TypeError, match="loss_fn must be a function"):
        LowerProblem(None, SGD)
    with pytest.raises(TypeError, match="optimizer must be an optax transformation"):
        LowerProblem(loss, optax.sgd)
    with pytest.raises(TypeError, match="axis_name must be the name"):
        LowerProblem(loss, SGD, axis_name=3)
    with pytest.raises(ValueError, match=says("axis_name='i' is no mapped axis", "pmap")):
        Unrolled(2).solve(LowerProblem(loss, SGD, axis_name="i"), PHI, PHI, jnp.ones((2, 3)))
    with pytest.raises(TypeError, match=r"problem must be LowerProblem\("):
        Unrolled(2).solve(loss, PHI, PHI)


def test_an_adjoint_needs_a_cotangent_like_phi():
    adjoint = functools.partial(Implicit(2).solve_adjoint, LowerProblem(loss, SGD), PHI, PHI, jnp.ones(3))
    np.testing.assert_allclose(adjoint(PHI).adjoint["w"], 0.5 * np.ones(3), rtol=1e-5)
    with pytest.raises(ValueError, match="cotangent must be a tree like phi"):
        adjoint({"w": jnp.ones(4)})
    with pytest.raises(TypeError, match="cotangent is a str"):
        adjoint("ones")


# Methods.


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("level", ["theta", "phi"])
def test_an_optimiser_that_asks_for_the_loss_is_refused_at_once(name, level):
    optimizers = Optimizers(SGD, SGD)._replace(**{level: ASKING[name]})
    with pytest.raises(
        ValueError, match=says(f"optimizers.{level} cannot update", "value", "take optax.sgd")
    ):
        bound(BiSM(optimizers=optimizers)).init(KEY, V)
    with pytest.raises(ValueError, match=says("optimizer cannot update", "value", "optax.adam")):
        fit(ENERGY, None, V, method=ScoreMatching(optimizer=ASKING[name]), num_steps=1, batch_size=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rng_key": 0}, says("rng_key must be a key such as jax.random.key", "not 0")),
        ({"rng_key": jax.random.split(KEY)}, says("rng_key is an array of keys", r"rng_key\[0\]")),
        ({"batch": V.astype(int)}, says("batch has dtype int64", "floating", "astype")),
        ({"batch": V[:0]}, says("batch is empty", r"\(0, 2\)")),
        ({"batch": V.tolist()}, says("batch is a list", "array")),
        ({"batch": V * np.nan}, says("batch", "NaN")),
    ],
)
def test_a_start_takes_one_key_and_a_batch(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        bound().init(**{"rng_key": KEY, "batch": V, **change})


def test_a_raw_key_gives_the_bits_of_the_typed_one():
    typed, raw = (bound().init(key, V).theta for key in (KEY, jax.random.PRNGKey(0)))
    assert jax.tree.all(jax.tree.map(lambda one, other: bool((one == other).all()), typed, raw))


def test_a_step_takes_a_state_of_its_own():
    algorithm = bound()
    state = algorithm.init(KEY, V)
    adam = bound(BiSM(DSM(0.1), optimizers=Optimizers(ADAM, ADAM))).init(KEY, V)
    other = ScoreMatching(optimizer=SGD).bind(ENERGY).init(KEY, V)
    result = FitResult(state.theta, state.phi, {}, None, [])
    for wrong, message in (
        (other, says("state must be the LatentState", "EnergyState")),
        (result, says("state must be the LatentState", "FitResult", "checkpoint_dir")),
        (adam, says("state.theta_opt_state is none for this model", "ScaleByAdamState", "init")),
        (state._replace(theta=state.phi, phi=state.theta), says("state.theta is none for this model")),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            algorithm.step(KEY, wrong, V)
    with pytest.raises(ValueError, match=says(r"state.theta is none", r"\(8, 3\)", "has shape")):
        algorithm.step(KEY, state, np.ones((8, 3), np.float32))
    with pytest.raises(TypeError, match="rng_key must be a key"):
        jax.jit(algorithm.step)(0, state, V)
    assert np.isfinite(jax.jit(algorithm.step)(KEY, state, V)[1].loss)


def test_checks_let_tracers_pass():
    algorithm = ScoreMatching(optimizer=SGD).bind(ENERGY)
    keys = jax.random.split(KEY, 3)
    states = jax.vmap(lambda key: algorithm.init(key, jnp.asarray(V)))(keys)
    _, info = jax.jit(jax.vmap(algorithm.step, in_axes=(0, 0, None)))(keys, states, V)
    assert info.loss.shape == (3,)


def test_initial_parameters_are_a_pair_of_this_model():
    state = bound().init(KEY, V)
    result = FitResult(state.theta, state.phi, {}, None, [])
    for given, message in (
        (result, says("init_params", "a whole FitResult", r"\(result.theta, result.phi\)")),
        ((result, result), says("init_params: theta is a whole FitResult", ".theta")),
        ((state.theta, result), says("init_params: phi is a whole FitResult", ".phi")),
        ((state.phi, state.theta), says("cannot be evaluated", "init_params")),
        ((state, state.phi), says("init_params: theta is a whole LatentState")),
    ):
        algorithm = BiSM(DSM(0.1)).bind(ENERGY, POSTERIOR, init_params=given)
        with pytest.raises((TypeError, ValueError), match=message):
            algorithm.init(KEY, V)


NOISES = {
    "Bernoulli": dist.Bernoulli(0.5).expand((2,)).to_event(1),
    "Poisson": dist.Poisson(3.0).expand((2,)).to_event(1),
}


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("method", [NCE, VNCE])
def test_noise_is_a_density(name, method):
    posterior = POSTERIOR if method is VNCE else None
    algorithm = method(noise=NOISES[name]).bind(ENERGY, posterior)
    with pytest.raises(ValueError, match=says("noise=", "discrete", "continuous", "dist.Normal")):
        algorithm.init(KEY, V)


def test_noise_covers_the_data():
    narrow = dist.Uniform(0.0, 1.0).expand((2,)).to_event(1)
    with pytest.raises(ValueError, match=says("noise=", r"no density at \d+ of 8 rows", "Normal")):
        NCE(noise=narrow).bind(ENERGY).init(KEY, V)
    inside = np.random.default_rng(0).uniform(size=(8, 2)).astype(np.float32)
    assert np.isfinite(NCE(noise=narrow).bind(ENERGY).init(KEY, inside).log_partition)


def test_the_number_of_data_is_that_of_the_data():
    for num_data in (4, 80):
        with pytest.raises(
            ValueError, match=says(f"num_data={num_data}", "8", r"PersistentVI\(num_data=8\)")
        ):
            fit(ENERGY, None, V, method=PersistentVI(num_data, optimizer=SGD), num_steps=1, batch_size=4)
    result = fit(ENERGY, None, V, method=PersistentVI(8, optimizer=SGD), num_steps=1, batch_size=4)
    assert np.isfinite(result.history["loss"]).all()
    batches = [V[:4], V[4:]]  # a list of batches says nothing of rows
    fit(ENERGY, None, batches, method=PersistentVI(80, optimizer=SGD), num_steps=1, batch_size=4)


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap])
def test_fit_is_not_traced(transform):
    options = {"method": ScoreMatching(optimizer=SGD), "num_steps": 1, "batch_size": 4}
    with pytest.raises(TypeError, match=says("fit is called inside jax.jit", "data", r"method.bind\(")):
        transform(lambda v: fit(ENERGY, None, v, **options).history["loss"][0])(jnp.asarray(V))


def test_plan_takes_an_array():
    with pytest.raises(TypeError, match="batch must be an array"):
        plan(ENERGY, POSTERIOR, {"v": V})
    with pytest.raises(TypeError, match=r"strategies must be a sequence such as \[Unrolled\(5\)\]"):
        plan(ENERGY, POSTERIOR, V, strategies=3)


# Objectives.


@pytest.mark.parametrize("objective", [DSM(0.1), SM(), MDSM()], ids=lambda one: type(one).__name__)
def test_a_score_is_of_the_shape_of_v(objective):
    noise = objective.draw_noise(KEY, V)
    for score_fn in (lambda v: v[:1], lambda v: v.sum(-1), lambda v: None):
        with pytest.raises(ValueError, match=says(r"score_fn\(v\) has", r"\(8, 2\)")):
            objective.loss(score_fn, jnp.asarray(V), noise)
    with pytest.raises(TypeError, match="score_fn must be a function"):
        objective.loss(3, jnp.asarray(V), noise)


def test_noise_is_not_broadcast():
    with pytest.raises(ValueError, match=says(r"noise has shape \(1, 2\)", r"v has \(8, 2\)", "draw_noise")):
        DSM(0.1).loss(lambda v: -v, V, V[:1])
    with pytest.raises(TypeError, match=says("noise must be the MultiscaleNoise", "draw_noise")):
        MDSM().loss(lambda v: -v, V, V)
    assert DSM(0.1).perturb(V, np.ones((3, 8, 2), np.float32)).shape == (3, 8, 2)


def test_energies_are_one_a_row():
    posterior = dist.Normal(V, 1.0).to_event(1)
    for energy in (lambda theta, v, h: v, lambda theta, v, h: v.sum()):
        with pytest.raises(ValueError, match=says(r"energy_fn\(theta, v, h\) has shape", r"\(8,\)")):
            KL().loss(energy, {}, posterior, V, jax.random.split(KEY, 2))
    with pytest.raises(ValueError, match=r"free_energy_fn\(theta, v\) has shape \(\)"):
        marginal_score(lambda theta, v: v.sum(), {})(V)
    with pytest.raises(TypeError, match="posterior_fn must be a function"):
        latent_score(lambda theta, v, h: v.sum(-1), 3, {}, {}, None)


# Data and models.


def test_points_of_a_toy_are_on_the_plane():
    for density in (checkerboard, eight_gaussians, rings):
        for points in (np.ones((4, 3)), np.ones((4, 1)), np.ones(())):
            with pytest.raises(ValueError, match=says("points has shape", re.escape(str(points.shape)))):
                density.log_prob(points)
    assert np.isnan(checkerboard.log_prob(np.array([np.nan, 0.2], np.float32)))
    assert jax.vmap(checkerboard.log_prob)(V).shape == (8,)
    assert checkerboard.log_prob([1, 1]) == pytest.approx(np.log(2))  # integers were rounded to 0
    with pytest.raises(TypeError, match="rng_key must be a key"):
        rings.sample(0, 3)
    with pytest.raises(ValueError, match="num_samples must be an integer"):
        rings.sample(KEY, 0)
    with pytest.raises(ValueError, match="name: there is no toy density"):
        toy(["rings"])


def test_feature_networks_are_fed_channels_last_and_unit_range():
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    classifier, resnet = ImageClassifier(2, (2,), 4), CifarResNet(8)
    params = jax.jit(resnet.init)(KEY, images)
    made = image_features("a classifier", classifier, jax.jit(classifier.init)(KEY, images))
    with pytest.raises(ValueError, match=says("channels before the pixels", r"transpose\(0, 2, 3, 1\)")):
        made(images.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match=says(r"cannot take images of shape \(2, 16, 16, 3\)")):
        made(images[:, :16, :16])
    for scaled in (255 * images, 2 * images - 1):
        with pytest.raises(ValueError, match=says("CifarResNet", r"images in \[0, 1\]", "lie between")):
            resnet.apply(params, scaled)
    with pytest.raises(TypeError, match=says("network must be a Linen module", "features")):
        image_features("a GRBM", ENERGY, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(images).shape == (2, 4)
