"""A program that was compiled once is not compiled again, and another program is never taken for it."""

import collections
import contextlib
import dataclasses
import functools
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from bism_jax import DSM, BiSM, Optimizers, Unrolled, fit
from bism_jax._tracing.compilation import call_compiled, clear_programs, compiled_once
from bism_jax._tracing.jaxpr_key import jaxpr_key
from bism_jax.models import GRBM, GaussianPosterior
from tests.helpers import Drift, rows

DATA = rows(40, (3,))
WEIGHT = jnp.full((2, 3), 0.5)
SCALE = 1.0


@pytest.fixture
def compilations():
    """The names of what is compiled while the test runs."""
    found = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(kwargs.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def train(**options):
    """As a user who builds everything anew for each call."""
    optimizers = Optimizers(optax.adam(options.pop("learning_rate", 1e-2)), optax.sgd(1e-2))
    method = BiSM(DSM(options.pop("noise_std", 0.3)), hypergradient=Unrolled(1), optimizers=optimizers)
    options = {"method": method, "num_steps": 2, "batch_size": 10, **options}
    return fit(GRBM(2), GaussianPosterior(2), DATA, **options)


def scaled_energy(theta, v, h):
    return SCALE * ((v @ theta["W"] - h) ** 2).sum(axis=-1) + (v**2).sum(axis=-1)


def normal_posterior(phi, v):
    return dist.Normal(v @ phi["A"], 1.0).to_event(1)


def train_functions(energy, **options):
    params = ({"W": jnp.ones((3, 2))}, {"A": jnp.ones((3, 2))})
    options = {"num_steps": 1, "batch_size": 10, "init_params": params, **options}
    return fit(energy, normal_posterior, DATA, method=BiSM(hypergradient=Unrolled(1)), **options)


def assert_same(found, expected):
    chex.assert_trees_all_equal(found[:3], expected[:3])


def test_the_second_run_compiles_nothing(compilations):
    clear_programs()
    first = train()
    assert len(compilations) > 0
    compilations.clear()
    assert_same(train(), first)
    assert train(rng_key=1).history["loss"][0] != first.history["loss"][0]
    assert compilations == []


def test_the_first_run_compiles_few_programs(compilations):
    clear_programs()
    jax.clear_caches()
    train()
    assert len(compilations) <= 8, collections.Counter(compilations)


def test_a_resumed_run_compiles_nothing(compilations, tmp_path):
    train(checkpoint_dir=tmp_path, num_steps=2)
    whole = train(num_steps=4)
    compilations.clear()
    assert_same(train(checkpoint_dir=tmp_path, num_steps=4), whole)
    assert compilations == []


@pytest.mark.parametrize("options", [{"learning_rate": 2e-2}, {"noise_std": 0.4}, {"ema_decay": 0.9}])
def test_another_constant_is_another_program(options, compilations):
    train()
    compilations.clear()
    found = train(**options)
    assert len(compilations) > 0
    clear_programs()
    assert_same(train(**options), found)


def test_a_global_that_changes_is_seen(monkeypatch):
    train_functions(scaled_energy)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    found = train_functions(scaled_energy)
    clear_programs()
    assert_same(train_functions(scaled_energy), found)
    assert found.history["loss"][0] > 50


def test_an_array_that_a_function_closes_over_is_seen():
    weight = np.ones((3, 2), np.float32)

    def energy(theta, v, h):
        return scaled_energy(theta, v * weight[:, 0], h)

    first = train_functions(energy)
    weight[:] = 2
    second = train_functions(energy)
    assert first.history["loss"][0] != second.history["loss"][0]
    clear_programs()
    assert_same(train_functions(energy), second)


def test_another_callback_on_the_host_is_another_program():
    for scale in (1, 2):
        method = Drift(lambda k, scale=scale: scale * k)
        history = fit(lambda *_: None, None, DATA, method=method, num_steps=3, batch_size=10).history
        np.testing.assert_array_equal(history["loss"], scale * np.arange(3))


@pytest.mark.optimized  # jit and pmap give equal bits of what XLA optimises
def test_devices_and_layout_are_part_of_the_key():
    assert_same(train(), train(parallel="pmap"))


def add_noise(x):
    return x + jax.random.normal(jax.random.key(0), x.shape)


@pytest.mark.parametrize(
    ("first", "second", "args"),
    [
        (lambda x: x + 1, lambda x: x + 2, (1.0,)),
        (lambda x: x + jnp.ones(3), lambda x: x + jnp.array([1.0, 1.0, 2.0]), (1.0,)),
        (lambda x: jnp.sum(x, axis=0), lambda x: jnp.sum(x, axis=1), (np.ones((2, 2)),)),
        (lambda x: jax.lax.scan(lambda c, _: (c + 1, c), x, None, 2)[0], lambda x: x, (1.0,)),
        (lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x), jnp.sin, (1.0,)),
        (
            lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x),
            lambda x: jax.lax.cond(x > 0, jnp.cos, jnp.sin, x),
            (1.0,),
        ),
        (jax.jit(lambda x: x * 2), jax.jit(lambda x: x * 3), (1.0,)),
        (lambda x, y: x - y, lambda x, y: y - x, (1.0, 2.0)),
        (lambda x: x @ x, lambda x: jnp.matmul(x, x, precision="highest"), (np.ones((2, 2)),)),
        (lambda x: x.astype(int), lambda x: x.astype(bool), (1.0,)),
    ],
)
def test_two_programs_have_two_keys(first, second, args):
    keys = [jaxpr_key(jax.make_jaxpr(fn)(*args)) for fn in (first, second, first)]
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]
    assert hash(keys[0]) == hash(keys[2])


def test_the_key_holds_random_bits_and_their_settings():
    def key():
        return jaxpr_key(jax.make_jaxpr(add_noise)(np.ones(2, np.float32)))

    assert key() == key()
    with jax.threefry_partitionable(not jax.config.jax_threefry_partitionable):
        other = key()
    assert other != key()
    assert compiled_once(key(), object) is compiled_once(key(), object)
    with jax.default_matmul_precision("highest"):
        inside = compiled_once(key(), object)
    assert inside is not compiled_once(key(), object)


@pytest.mark.parametrize("fn", [jnp.sin, add_noise, jax.nn.relu, lambda x: {"a": (x, None), "b": [x * 2]}])
def test_a_call_is_the_function(fn):
    x = np.linspace(-1, 1, 5, dtype=np.float32)
    found, expected = call_compiled(fn, x), fn(x)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)
    chex.assert_trees_all_equal(jax.jit(lambda x: call_compiled(fn, x))(x), jax.jit(fn)(x))


def test_few_programs_are_kept():
    first = compiled_once("first", object)
    assert compiled_once("first", object) is first
    for index in range(200):
        compiled_once(index, object)
    assert compiled_once("first", object) is not first
    clear_programs()
    assert compiled_once(199, lambda: "anew") == "anew"
    clear_programs()


def test_threads_train_at_once():
    expected = train()
    results = {}

    def run(index):
        results[index] = train()

    clear_programs()
    threads = [threading.Thread(target=run, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(3):
        assert_same(results[index], expected)


def test_programs_with_large_constants_are_not_kept():
    large = jnp.ones(2**20 + 1)
    assert jaxpr_key(jax.make_jaxpr(lambda x: x + large)(1.0)) is None
    assert jaxpr_key(jax.make_jaxpr(jax.jit(lambda x: x + large))(1.0)) is None
    assert compiled_once(None, object) is not compiled_once(None, object)


# A program that is traced when it is called must not be kept: its model may have changed by then.


class Scaling:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, theta, v, h):
        return self.scale * scaled_energy(theta, v, h)


@pytest.mark.parametrize("setting", ["disable_jit", "debug_nans", "pmap"])
def test_a_model_that_changes_after_its_run_is_not_taken_for_an_equal_one(setting):
    options = {"parallel": "pmap"} if setting == "pmap" else {}
    switch = {"disable_jit": jax.disable_jit, "debug_nans": functools.partial(jax.debug_nans, True)}
    with switch.get(setting, contextlib.nullcontext)():
        expected = train_functions(Scaling(1.0), **options)
        first = Scaling(1.0)
        train_functions(first, num_steps=0, **options)
        first.scale = 100.0
        assert_same(train_functions(Scaling(1.0), **options), expected)


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Equal to others that write elsewhere."""

    calls: list = dataclasses.field(default_factory=list, compare=False, hash=False)

    def __call__(self, x):
        self.calls.append(float(x))
        return np.float32(x)


def test_equal_objects_on_the_host_are_two():
    def key(function):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jaxpr_key(jax.make_jaxpr(lambda x: jax.pure_callback(function, shape, x))(np.float32(1)))

    first, second = Recorded(), Recorded()
    assert first == second
    assert key(first) != key(second)
    assert key(first) == key(first)
