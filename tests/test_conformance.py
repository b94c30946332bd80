"""What every public method, strategy, objective, divergence, callback and sampler promises.

They are found in the rooms' `__all__`, by what they offer: a new one is checked without being listed, and
a class that is of no kind fails by name.
"""

import contextlib
import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bism_jax
from bism_jax import samplers
from bism_jax.hypergradient import LowerProblem, LowerSolution, Strategy
from bism_jax.methods import Chain, Prior
from bism_jax.models import GRBM, DiagonalGaussian
from bism_jax.objectives import Divergence, Objective, PointwiseObjective, draw_latent_noise
from bism_jax.training import Callback
from bism_jax.typing import Algorithm, Method, Posterior
from tests.lower_levels import normal, smooth_problem
from tests.method_examples import DECODER, METHODS

ROOMS = [importlib.import_module(f"bism_jax.{room.name}") for room in pkgutil.iter_modules(bism_jax.__path__)]
PUBLIC = {name: getattr(room, name) for room in ROOMS for name in getattr(room, "__all__", ())}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}


def offers(*names):
    return lambda cls: all(hasattr(cls, name) for name in names)


# In this order: an objective has a `loss` too, and a distribution that has noise is one.
KINDS = {
    "protocol": lambda cls: getattr(cls, "_is_protocol", False) or inspect.isabstract(cls),
    "error": lambda cls: issubclass(cls, Exception),
    "record": lambda cls: issubclass(cls, tuple),
    "model": lambda cls: issubclass(cls, nn.Module),
    "posterior": offers("sample", "log_prob", "draw_noise", "transform"),
    "method": offers("bind"),
    "chain": offers("bind_chain"),
    "free energy": offers("bind_energy"),
    "strategy": offers("solve"),
    "objective": offers("draw_noise", "perturb", "loss", "lower_weight"),
    "prior": offers("start", "theta", "log_prior"),
    "divergence": offers("loss"),
    "callback": lambda cls: "snapshot" in parameters(cls.__call__),
    "data": offers("__len__", "__getitem__"),
    "density": offers("sample", "log_prob"),
    "problem": lambda cls: cls.__name__ in {"LowerProblem", "BilevelProblem", "CodecLosses"},
    "options": lambda cls: cls.__name__ in {"AnnealingSchedule", "LangevinRefinement"},
    "adapter": lambda cls: cls.__name__ in {"FactoredEnergy", "ImageFeatures", "Model"},
    "result": lambda cls: cls.__name__ in {"FeatureStatistics", "Plan"},
}
VALUES = ("method", "chain", "free energy", "strategy", "objective", "prior", "divergence", "options")
PROTOCOLS = {
    "method": Method,
    "chain": Chain,
    "strategy": Strategy,
    "objective": Objective,
    "prior": Prior,
    "divergence": Divergence,
    "posterior": Posterior,
}
REQUIRED = {"num_steps": 3, "last": 2, "num_data": 60, "num_hidden": 2, "decoder": DECODER}


def kind(cls):
    return next((name for name, is_one in KINDS.items() if is_one(cls)), None)


def of(*kinds):
    """The names of the public classes of these kinds."""
    return pytest.mark.parametrize("name", [name for name, cls in CLASSES.items() if kind(cls) in kinds])


def make(name, **changes):
    """One value, from its defaults and the least that must be given."""
    fields = [field for field in dataclasses.fields(CLASSES[name]) if field.init]
    needed = {field.name: REQUIRED[field.name] for field in fields if field.default is dataclasses.MISSING}
    return CLASSES[name](**needed | changes)


def parameters(function):
    return inspect.signature(function).parameters


def test_every_public_class_is_of_a_kind():
    assert [name for name, cls in CLASSES.items() if kind(cls) is None] == []
    assert {name for name, cls in CLASSES.items() if kind(cls) == "method"} == set(METHODS)


@of("method", "strategy", "objective", "divergence")
def test_what_fit_is_given_is_exported_from_the_top(name):
    assert getattr(bism_jax, name) is CLASSES[name]


@of(*VALUES)
def test_a_choice_is_a_frozen_value(name):
    """Equal to its twin and to what it was pickled as, so that `jit` takes one for the other."""
    value = make(name)
    assert dataclasses.is_dataclass(value)
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.anything = 1
    for twin in (make(name), pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert twin == value and hash(twin) == hash(value)


def changes(value):
    """Each number or flag of it, with another that it may have."""
    for field in dataclasses.fields(value):
        old = getattr(value, field.name)
        if isinstance(old, int | float):
            for new in [not old] if isinstance(old, bool) else [old + 1, old / 2]:
                with contextlib.suppress(TypeError, ValueError):
                    yield field.name, new, dataclasses.replace(value, **{field.name: new})
                    break


@of(*VALUES)
def test_a_choice_shows_how_it_differs_from_another(name):
    value = make(name)
    found = list(changes(value))
    assert found or not any(isinstance(option, int | float) for option in vars(value).values())
    for field, new, other in found:
        assert other != value
        assert f"{field}={new!r}" in repr(other) and f"{field}={new!r}" not in repr(value)


@of(*VALUES, "record", "problem", "callback", "adapter", "result")
def test_a_docstring_names_every_field_and_says_what_raises(name):
    cls = CLASSES[name]
    doc = inspect.getdoc(cls)
    fields = [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    fields = [field for field in [*getattr(cls, "_fields", fields)] if not field.startswith("_")]
    if fields:
        attributes = doc.partition("\nAttributes:\n")[2]
        assert [field for field in fields if f"\n    {field}" not in f"\n{attributes}"] == []
    check = cls.__dict__.get("__post_init__")
    if check and any(word in inspect.getsource(check) for word in ("raise ", "check")):
        assert "\nRaises:\n" in doc


@of(*PROTOCOLS)
def test_methods_take_what_their_protocol_says(name):
    cls, protocol = CLASSES[name], PROTOCOLS[kind(CLASSES[name])]
    for member, declared in vars(protocol).items():
        if inspect.isfunction(declared) and not member.startswith("_"):
            found, expected = parameters(getattr(cls, member)), parameters(declared)
            assert [*found][: len(expected)] == [*expected], member
            own = [*found.values()][len(expected) :]
            assert all(parameter.default is not inspect.Parameter.empty for parameter in own), member


@of("method")
def test_a_method_binds_to_an_algorithm_of_arrays(name):
    _, posterior = METHODS[name]
    algorithm = make(name).bind(GRBM(2), posterior)
    assert type(algorithm) is Algorithm
    state = algorithm.init(jax.random.key(0), normal(0, (4, 2)))
    new_state, info = jax.eval_shape(algorithm.step, jax.random.key(0), state, normal(0, (4, 2)))
    assert type(new_state) is type(state)
    assert "theta" in state._fields and {"loss", "grad_norm"} <= set(info._fields)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert jax.eval_shape(lambda: state) == new_state
    assert all(leaf.shape == () for leaf in info)


@of("strategy")
def test_a_strategy_takes_the_steps_of_the_optimiser(x64, name):
    strategy = make(name)
    loss, optimizer, phi, theta, inputs = smooth_problem(strategy.num_steps, optax.adam(0.01))
    solve = jax.jit(lambda phi, theta: strategy.solve(LowerProblem(loss, optimizer), phi, theta, inputs))
    solution = solve(phi, theta)

    @jax.jit
    def step(phi, opt_state, x):
        value, grads = jax.value_and_grad(loss)(phi, theta, x)
        updates, opt_state = optimizer.update(grads, opt_state, phi)
        return optax.apply_updates(phi, updates), opt_state, value

    opt_state, losses = optimizer.init(phi), []
    for x in inputs:
        phi, opt_state, value = step(phi, opt_state, x)
        losses.append(value)
    expected = LowerSolution(phi, opt_state, jnp.stack(losses))
    chex.assert_trees_all_close(solution, expected, rtol=1e-12)


@of("objective")
def test_an_objective_draws_its_noise_apart_from_its_loss(x64, name):
    objective, v = make(name), normal(0, (4, 2))
    score = lambda points: -jnp.tanh(points @ jnp.asarray([[1.0, 0.5], [0.2, 1.0]]))
    noise, other = (objective.draw_noise(jax.random.key(seed), v) for seed in (0, 1))
    losses = objective.loss(score, v, noise)
    assert losses.shape == (4,)
    chex.assert_trees_all_equal(objective.loss(score, v, noise), losses)
    chex.assert_trees_all_equal(objective.draw_noise(jax.random.key(0), v), noise)
    if jax.tree.leaves(noise):
        assert np.abs(objective.loss(score, v, other) - losses).max() > 0
    several = objective.draw_noise(jax.random.key(0), v, (3,))
    assert jax.tree.map(jnp.shape, several) == jax.tree.map(lambda leaf: (3, *leaf.shape), noise)
    if isinstance(objective, PointwiseObjective):
        found = objective.pointwise_loss(score(objective.perturb(v, noise)), v, noise)
        np.testing.assert_allclose(found, losses, rtol=1e-12)


@of("divergence")
def test_a_divergence_is_a_function_of_its_noise(x64, name):
    divergence, v = make(name), normal(0, (4, 2))
    posterior = DiagonalGaussian(0.5 * v, 0.7 + 0 * v)
    energy = lambda theta, v, h: jnp.sum(theta * (h - jnp.tanh(v)) ** 2, axis=-1)
    loss = lambda noise: divergence.loss(energy, 0.7, posterior, v, noise)
    first, other = (draw_latent_noise(jax.random.key(seed), posterior, (3,)) for seed in (0, 1))
    assert loss(first).shape == (4,)
    chex.assert_trees_all_equal(loss(first), loss(first))
    assert np.abs(loss(first) - loss(other)).max() > 0


HOOKS = {"state": [], "restore": ["state"], "resume": ["step"], "rewind": ["step"], "close": []}


@of("callback")
def test_a_callback_has_its_turns_and_no_methods_but_hooks(tmp_path, name):
    cls = CLASSES[name]
    options = parameters(cls)
    arguments = {"fn": len, "path": tmp_path / "log", "log_dir": tmp_path}
    first = arguments[next(iter(options))]
    assert cls(first, every=7).every == 7
    with pytest.raises(ValueError, match="every must be an integer of at least 1, not 0"):
        cls(first, every=0)
    assert [*parameters(cls.__call__)] == [*parameters(Callback.__call__)]
    own = {member for member in dir(cls) if not member.startswith("_")} - set(options)
    assert own <= set(HOOKS)
    for hook in own:
        assert [*parameters(getattr(cls, hook))] == ["self", *HOOKS[hook]]


@pytest.mark.parametrize("name", [name for name in samplers.__all__ if not inspect.isclass(PUBLIC[name])])
def test_a_sampler_is_given_its_key_and_says_what_it_takes_and_refuses(name):
    given = parameters(PUBLIC[name])
    if "rng_key" in given:
        assert given["rng_key"].default is inspect.Parameter.empty
    doc = inspect.getdoc(PUBLIC[name])
    assert "\nRaises:\n" in doc or "Arguments and errors are those of" in doc
    if "\nArgs:\n" in doc:
        listed = "\n" + doc.partition("\nArgs:\n")[2]
        assert [parameter for parameter in given if f"\n    {parameter}: " not in listed] == []
