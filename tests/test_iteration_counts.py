"""Schedules count iterations whatever carries them, an optimiser's own counters updates; doubt is refused."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from bism_jax import DSM, BiSM, Optimizers, Unrolled, VaGES
from bism_jax.hypergradient._optimizer_trace import trace_update
from bism_jax.methods import counts_updates
from bism_jax.methods._common.iteration_counts import count_iterations, schedule_counters

PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
SCHEDULE = optax.linear_schedule(1e-3, 0.0, 100)


class CountState(NamedTuple):
    count: jax.Array


class MomentumState(NamedTuple):
    count: jax.Array
    momentum: dict


def momentum(factor_fn, init=lambda params: params):
    """A user's transformation with a counter beside what it accumulates."""

    def update(grads, state, params=None):
        moved = jax.tree.map(lambda m, g: 0.9 * m + g, state.momentum, grads)
        factor = factor_fn(state.count)
        return jax.tree.map(lambda m: factor * m, moved), MomentumState(state.count + 1, moved)

    def init_fn(params):
        return MomentumState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    return optax.GradientTransformation(init_fn, update)


def own_schedule(step=1, state=CountState):
    """A user's schedule with a state of its own."""

    def update(grads, state, params=None):
        (count,) = state
        return jax.tree.map(lambda g: g * SCHEDULE(count), grads), type(state)(*[count + step])

    if state is tuple:
        bare = lambda grads, count, params=None: (
            jax.tree.map(lambda g: g * SCHEDULE(count), grads),
            count + step,
        )
        return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), bare)
    return optax.GradientTransformation(lambda params: CountState(jnp.zeros((), jnp.int32)), update)


def own_clock(start, factor_fn, next_fn):
    """A user's schedule that keeps what it likes."""

    def update(grads, state, params=None):
        factor = factor_fn(state)
        return jax.tree.map(lambda g: g * factor, grads), next_fn(state)

    return optax.GradientTransformation(lambda params: start, update)


def own_correction(state_type):
    def update(grads, state, params=None):
        scale = 1 / (1 - 0.9 ** (state.count + 1))
        return jax.tree.map(lambda g: g * scale, grads), state_type(state.count + 1)

    return optax.GradientTransformation(lambda params: state_type(jnp.zeros((), jnp.int32)), update)


SCHEDULES = {
    "adam": (optax.adam(SCHEDULE), ["[1].count"]),
    "adamw, two": (optax.adamw(SCHEDULE, weight_decay=SCHEDULE), ["[1].count", "[2].count"]),
    "noise": (optax.chain(optax.add_noise(0.1, 0.55, key=0), optax.sgd(1e-3)), ["[0].count"]),
    "injected": (
        optax.inject_hyperparams(optax.adam)(learning_rate=SCHEDULE),
        [".hyperparams_states['learning_rate'].count"],
    ),
    "masked": (optax.masked(optax.adam(SCHEDULE), {"w": True, "b": False}), [".inner_state[1].count"]),
    "partition": (
        optax.partition({"a": optax.adam(SCHEDULE), "b": optax.sgd(0.1)}, {"w": "a", "b": "b"}),
        [".inner_states['a'].inner_state[1].count"],
    ),
    "MultiSteps": (
        optax.MultiSteps(optax.adam(SCHEDULE), 3).gradient_transformation(),
        [".inner_opt_state[1].count"],
    ),
    "apply_if_finite": (optax.apply_if_finite(optax.adam(SCHEDULE), 3), [".inner_state[1].count"]),
    "momentum": (optax.sgd(SCHEDULE, momentum=0.9), ["[1].count"]),
    "a user's": (own_schedule(), [".count"]),
    **{
        name: (getattr(optax, name)(SCHEDULE), ["[1].count"])
        for name in ("adabelief", "amsgrad", "nadam", "novograd", "radam", "yogi")
    },
    "adafactor": (optax.adafactor(SCHEDULE), ["[2].count"]),
    "lion": (optax.lion(SCHEDULE), ["[2].count"]),
}
NO_SCHEDULES = {
    "adam": optax.adam(1e-3),
    "adamw": optax.adamw(1e-3),
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=1e-3),
    "MultiSteps": optax.MultiSteps(optax.adam(1e-3), lambda step: 1 + step // 3).gradient_transformation(),
    "apply_every": optax.apply_every(3),
    "ema": optax.ema(0.9),
    "lookahead-like": optax.chain(optax.trace(0.9), optax.sgd(1e-3)),
    "a user's bias correction": momentum(lambda count: 1 / (1 - 0.9 ** (count + 1))),
    "the same alone": own_correction(CountState),
    "marked": counts_updates(momentum(SCHEDULE)),
    "marked, within a chain": optax.chain(optax.clip(1.0), counts_updates(own_schedule())),
}
REFUSED = {
    "a schedule beside a momentum": momentum(SCHEDULE),
    "a period beside a momentum": momentum(lambda count: jnp.where(count % 3 == 0, 1.0, 0.5)),
    "a count down": own_schedule(step=-1),
    "in twos": own_schedule(step=2),
    "a bare counter": own_schedule(state=tuple),
    "an exponential schedule in a bare counter": own_clock(
        jnp.zeros((), jnp.int32), lambda t: 0.5**t, lambda t: t + 1
    ),
    "in a dict": own_clock(
        {"c": jnp.zeros((), jnp.int32)}, lambda s: 0.5 ** s["c"], lambda s: {"c": s["c"] + 1}
    ),
    "an exponential schedule beside a momentum": momentum(lambda count: 0.1 * 0.5**count),
    "progress": own_clock(jnp.zeros(()), lambda t: 1 - t, lambda t: t + 0.01),
    "a rate that decays": own_clock(jnp.asarray(0.1), lambda rate: rate, lambda rate: 0.5 * rate),
    "a counter of one entry": own_clock(jnp.zeros(1), lambda t: SCHEDULE(t)[0], lambda t: t + 1),
    "schedule_free": optax.contrib.schedule_free_sgd(SCHEDULE),
}


def paths_of_schedules(optimizer, once=False):
    state = optimizer.init(PARAMS)
    marks = schedule_counters(trace_update(optimizer, PARAMS, state, PARAMS), state, once)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    return [path for path, mark in zip(paths, marks, strict=True) if mark]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_found_whatever_carries_them(name):
    optimizer, expected = SCHEDULES[name]
    assert paths_of_schedules(optimizer) == expected


@pytest.mark.parametrize("name", NO_SCHEDULES)
def test_an_algorithms_own_counters_are_left_alone(name):
    assert paths_of_schedules(NO_SCHEDULES[name]) == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused(name):
    with pytest.raises(ValueError, match=r"optimizer keeps in .* may be a schedule's.*counts_updates"):
        paths_of_schedules(REFUSED[name])


def test_with_one_update_an_iteration_there_is_nothing_to_tell():
    assert paths_of_schedules(momentum(SCHEDULE), once=True) == []
    assert paths_of_schedules(
        optax.MultiSteps(optax.adam(SCHEDULE), 3).gradient_transformation(), once=True
    ) == [".inner_opt_state[1].count"]


@pytest.mark.parametrize("name", ["adam", "injected", "MultiSteps", "masked", "a user's"])
def test_an_update_sees_the_schedule_at_the_iteration(name):
    """Twelve updates at iteration 100, where the schedule is 0, after as many at iteration 0."""
    optimizer, _ = SCHEDULES[name]
    state = optimizer.init(PARAMS)
    size = {}
    for iteration in (0, 100):
        counted = count_iterations(optimizer, state, PARAMS, jnp.asarray(iteration))
        sizes = []
        for _ in range(6):
            updates, state = counted.update(PARAMS, state, PARAMS)
            sizes.append(float(jnp.abs(updates["w"]).max()))
        size[iteration] = max(sizes)
    assert size[0] > 9e-4
    assert size[100] < 1e-9


@pytest.mark.parametrize("method_type", [BiSM, VaGES])
def test_a_weight_decay_schedule_of_the_lower_level_counts_iterations(method_type):
    """phi moves by decay alone: not in iteration 0, and by (1 - decay)^steps in iteration 1."""
    energy = lambda t, v, h: 0.5 * (v**2).sum(-1) + 0.5 * ((h - t * v) ** 2).sum(-1)
    posterior = lambda p, v: dist.Normal(p * v, 1.0).to_event(1)
    decay = lambda count: jnp.where(count < 1, 0.0, 0.5)
    lower = optax.chain(optax.scale(0.0), optax.add_decayed_weights(decay), optax.scale(-1.0))
    options = {"hypergradient": Unrolled(5)} if method_type is BiSM else {"lower_steps": 5}
    method = method_type(DSM(0.1), optimizers=Optimizers(optax.sgd(1e-3), lower), **options)
    v = jax.random.normal(jax.random.key(0), (8, 2))
    algorithm = method.bind(energy, posterior, init_params=(jnp.ones(2), jnp.ones(2)))
    state = algorithm.init(jax.random.key(0), v)
    step = jax.jit(algorithm.step)
    for expected in (1.0, 0.5**5):
        state, _ = step(jax.random.key(1), state, v)
        np.testing.assert_allclose(state.phi, expected, rtol=1e-6)


def test_a_counter_that_starts_elsewhere_keeps_its_start():
    factor = lambda state: 0.5 ** (state.count - 100)
    advance = lambda state: CountState(state.count + 1)
    optimizer = own_clock(CountState(jnp.asarray(100)), factor, advance)
    state = optimizer.init(PARAMS)
    for iteration, expected in ((0, 1.0), (3, 0.125)):
        counted = count_iterations(optimizer, state, PARAMS, jnp.asarray(iteration))
        for _ in range(2):
            updates, state = counted.update(PARAMS, state, PARAMS)
            np.testing.assert_allclose(updates["w"], expected)
