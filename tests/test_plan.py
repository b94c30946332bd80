"""The cost of an iteration, before anything is run."""

import dataclasses
from unittest.mock import ANY

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from bism_jax import BiSM, Implicit, Optimizers, ScoreMatching, StopGradient, Truncated, Unrolled, plan
from bism_jax._tracing.compilation import clear_programs
from bism_jax.training import Plan, PlannedStrategy, count_flops
from bism_jax.training._plan import _largest_num_steps

BATCH = jnp.ones((20, 2))
PARAMS = ({"W": jnp.ones((2, 3))}, {"A": jnp.ones((2, 3)), "log_std": jnp.zeros(3)})
METHOD = BiSM(optimizers=Optimizers(optax.sgd(0.1), optax.sgd(0.1)))  # quick to compile


def energy(theta, v, h):
    return 0.5 * (v**2).sum(-1) + 0.5 * ((h - jnp.tanh(v @ theta["W"])) ** 2).sum(-1)


def posterior(phi, v):
    return dist.Normal(v @ phi["A"], jnp.exp(phi["log_std"])).to_event(1)


def plan_small(**options):
    return list(
        plan(energy, posterior, **{"batch": BATCH, "method": METHOD, "init_params": PARAMS, **options})
    )


def step_memory(num_steps):
    """What the compiler plans, asked for without `plan`."""
    method = dataclasses.replace(METHOD, hypergradient=Unrolled(num_steps))
    algorithm = method.bind(energy, posterior, init_params=PARAMS)
    state = algorithm.init(jax.random.key(0), BATCH)
    compiled = jax.jit(algorithm.step, donate_argnums=1).lower(jax.random.key(0), state, BATCH).compile()
    memory = compiled.memory_analysis()
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return total + memory.temp_size_in_bytes


def test_products_in_a_loop_are_counted_as_often_as_it_turns():
    def loop(x, weights):
        return jax.lax.scan(lambda x, _: (x @ weights, None), x, None, length=7)[0]

    assert count_flops(loop, jnp.ones((3, 5)), jnp.ones((5, 5))) == 7 * 2 * 3 * 5 * 5


def test_a_convolution_is_counted_as_a_product_with_its_patches():
    def convolve(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)

    flops = count_flops(convolve, jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5)))
    assert flops == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)


def test_the_derivatives_of_a_strided_convolution_cost_as_much_as_it_does():
    """Each is a sum over the same products; JAX writes one of them with zeros between the rows."""

    def convolve(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), [(1, 1)] * 2, dimension_numbers=layout)

    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((4, 4, 3, 5))
    y, pull_back = jax.vjp(convolve, x, kernel)
    expected = 2 * (2 * 4 * 4 * 5) * (4 * 4 * 3)
    assert count_flops(convolve, x, kernel) == expected
    for index in (0, 1):
        assert count_flops(lambda y, i=index: pull_back(y)[i], y) == expected


def test_what_no_output_needs_costs_nothing():
    def product_and_waste(x):
        waste = jnp.exp(x @ x)
        del waste
        return x + 1

    assert count_flops(product_and_waste, jnp.ones((10, 10))) == 100


def test_a_while_loop_turns_as_often_as_is_said():
    def loop(x):
        return jax.lax.while_loop(lambda x: x.sum() < 5, lambda x: x @ x, x)

    once, five = (count_flops(loop, jnp.ones((10, 10)), while_turns=turns) for turns in (1, 5))
    assert five == 5 * once >= 5 * 2000


def test_the_count_is_xlas_where_nothing_loops():
    def gradient(weights, x):
        return jax.grad(lambda w: jnp.tanh(x @ w[0] @ w[1]).sum())(weights)

    weights, x = [jnp.ones((64, 96)), jnp.ones((96, 32))], jnp.ones((128, 64))
    expected = jax.jit(gradient).lower(weights, x).compile().cost_analysis()["flops"]
    np.testing.assert_allclose(count_flops(gradient, weights, x), expected, rtol=0.05)


def test_the_memory_is_that_of_the_compiled_step():
    (row,) = plan_small(strategies=[Unrolled(12)])
    assert row.memory_bytes == step_memory(12)
    assert plan_small(strategies=[StopGradient(1), Unrolled(12)])[1] == row._replace(seconds=ANY)
    assert 0 < row.temporary_bytes < row.memory_bytes
    assert row.largest_num_steps is None


@pytest.mark.slow
def test_the_largest_depth_fits_and_little_more_does_not():
    budget = step_memory(100)
    (row,) = plan_small(strategies=[Unrolled(12)], memory_budget=budget)
    assert 100 / 1.1 <= row.largest_num_steps <= 115
    assert step_memory(row.largest_num_steps) <= budget
    assert step_memory(round(1.25 * row.largest_num_steps)) > budget


@pytest.mark.slow
def test_a_budget_below_one_step_leaves_none():
    (row,) = plan_small(strategies=[Unrolled(1)], memory_budget=100)
    assert row.largest_num_steps == 0


@pytest.mark.slow
def test_strategies_compare_as_they_should():
    wide = (jax.tree.map(lambda leaf: jnp.ones((*leaf.shape[:-1], 64)), part) for part in PARAMS)
    rows = plan_small(
        batch=jnp.ones((200, 2)),
        method=dataclasses.replace(METHOD, hypergradient=Unrolled(20)),
        init_params=tuple(wide),
    )
    names = ("plain", "mixed", "segments", "truncated", "implicit", "none")
    by_name = dict(zip(names, rows, strict=True))
    temporaries = {name: row.temporary_bytes for name, row in by_name.items()}
    assert temporaries["plain"] > 3 * temporaries["mixed"] >= 3 * temporaries["segments"]
    flops = {name: row.flops for name, row in by_name.items()}
    assert flops["none"] < flops["truncated"] < flops["mixed"] < flops["segments"]
    assert flops["none"] < flops["implicit"]


def planned(strategy, mebibytes, largest=None, seconds=0.02):
    return PlannedStrategy(strategy, mebibytes * 2**20, 2**20, 5e9, seconds, largest)


@pytest.mark.parametrize("write", [str, repr])
def test_a_plan_prints_as_a_table_and_a_recommendation(write):
    rows = (planned(Unrolled(3, segment="sqrt"), 3, 100_000), planned(StopGradient(3), 2000, 70, None))
    header, _, first, second, _, recommendation = write(Plan(rows, 2**30)).splitlines()
    assert "largest N in 1024 MiB" in header
    cap = "100,000 or more (not searched)"
    assert first == f"| `Unrolled(num_steps=3, segment='sqrt')` | 3.0 | 1.0 | 5 | 20 | {cap} |"
    assert second == "| `StopGradient(num_steps=3)` | 2000.0 | 1.0 | 5 | - | 70 |"
    assert recommendation.startswith("Take `Unrolled(num_steps=3, segment='sqrt')`: it is exact")


ROWS = (
    planned(StopGradient(9), 1),
    planned(Implicit(9), 2),
    planned(Truncated(9, last=3), 3),
    planned(Unrolled(9, segment="sqrt"), 4),
    planned(Unrolled(9, mixed_mode=False), 9),
    planned(Unrolled(9), 8),
)


@pytest.mark.parametrize(
    ("budget", "expected"), [(None, 5), (8.5, 5), (7, 3), (3.5, 2), (2.5, 1), (1.5, 0), (0.5, None)]
)
def test_the_recommendation_is_the_best_that_fits(budget, expected):
    found = Plan(ROWS, budget and int(budget * 2**20))
    assert found.recommended is (None if expected is None else ROWS[expected])
    if expected is None:
        assert "None fits: the least, `StopGradient(num_steps=9)`, takes 1.0 MiB" in str(found)


@pytest.mark.parametrize("true_largest", [3, 17, 600, 57_876, 100_000])
@pytest.mark.parametrize("curve", [lambda n: n, lambda n: 40 * n**0.5 + 0.1 * n, lambda n: n**0.5])
@pytest.mark.parametrize("written_out", [0, 8])
def test_the_search_finds_the_largest_depth_in_few_compilations(curve, true_largest, written_out):
    """Of memory that is linear in N, in its root, or both, and less where a CPU writes out few steps."""
    calls = []

    def bytes_at(num_steps):
        calls.append(num_steps)
        return int(1e5 + 1e3 * curve(num_steps) * (0.7 if num_steps <= written_out else 1))

    known, budget = (5, bytes_at(5)), bytes_at(true_largest) + 1
    calls.clear()
    found = _largest_num_steps(bytes_at, known, budget)
    assert len(calls) <= 8
    assert bytes_at(found) <= budget
    assert bytes_at(int(1.1 * found) + 1) > budget or found == 100_000


def test_where_memory_does_not_grow_one_compilation_ends_the_search():
    calls = []
    assert _largest_num_steps(lambda n: calls.append(n) or 10, (5, 10), 10**9) == 100_000
    assert calls == [100_000]


def test_time_is_in_the_ratio_of_operations():
    cheap, dear = plan_small(strategies=[StopGradient(2), Unrolled(12)])
    assert 0 < cheap.seconds < dear.seconds
    assert dear.seconds / cheap.seconds == pytest.approx(dear.flops / cheap.flops)


def test_no_program_is_compiled_twice():
    found = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration" and "checked_step" in kwargs["fun_name"]:
            found.append(event)

    clear_programs()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        strategies = [Unrolled(12), Unrolled(12), StopGradient(12)]
        plan_small(strategies=strategies)
        plan_small(strategies=strategies)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(found) == 2  # one to look at and one that is run too


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"method": ScoreMatching()}, TypeError, r"has no hypergradient.*pass BiSM"),
        ({"method": 5}, TypeError, "method"),
        ({"memory_budget": 0}, ValueError, r"memory_budget.*None"),
        ({"strategies": []}, ValueError, "strategies is empty"),
        ({"strategies": ["unrolled"]}, TypeError, "strategies"),
        ({"batch": jnp.ones((4, 2), int)}, ValueError, "batch"),
    ],
)
def test_what_cannot_be_planned_is_named(options, error, match):
    with pytest.raises(error, match=match):
        plan_small(**options)
