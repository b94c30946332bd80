"""The table of derivatives: each strategy, by each way that a hyperparameter enters, to each order.

Every cell is a finite difference in float64 of a plain Python loop, which shares no code with the strategies.
What a strategy cuts by definition, its loop holds at a constant value of the hyperparameter.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bism_jax.hypergradient import Implicit, LowerProblem, StopGradient, Truncated, Unrolled
from tests.lower_levels import compile_fast

WAYS = (
    "theta",
    "complex theta",
    "phi^0",
    "inputs",
    "complex inputs",
    "closure of the loss",
    "complex closure",
    "closure of the optimiser",
    "injected into opt_state",
    "moments in opt_state",
)
N, LAST = 12, 9  # more steps than a CPU writes out, which would take minutes to compile to third order
STRATEGIES = (
    Unrolled(N),
    Unrolled(N, mixed_mode=False),
    Unrolled(N, segment=3),
    Unrolled(N, segment=2, mixed_mode=False),
    Truncated(N, LAST),
    Truncated(N, LAST, mixed_mode=False),
    StopGradient(N),
    Implicit(400),
    Implicit(400, solver="neumann", solver_steps=400, step_size=0.15),
)
AT = 0.4
STEP = 1e-4


class Setting:
    """All that t enters by, at `t * select`: one entry of `select` is 1 and the others are 0."""

    def __init__(self, t, select, num_steps):
        turn = dict(zip(WAYS, t * select, strict=True))
        tilt = jnp.asarray([1.0, -0.7])
        self.theta = {
            "real": 0.3 + turn["theta"] * tilt,
            "complex": jnp.asarray([0.2 + 0.5j, -0.4j]) + turn["complex theta"] * (1 - 0.5j) * tilt,
            "count": jnp.asarray(2),
        }
        self.phi = jnp.asarray([0.5, -0.3]) + turn["phi^0"] * tilt
        phase = 0.1 * jnp.arange(num_steps)[:, None] if num_steps <= N else jnp.zeros((num_steps, 1))
        self.inputs = {
            "real": 0.2 + phase + turn["inputs"] * tilt,
            "complex": 0.3j + phase + turn["complex inputs"] * (0.5 + 1j) * tilt,
        }
        closed, closed_complex = 0.1 + turn["closure of the loss"], 1j + turn["complex closure"] * (1 + 1j)

        def loss(phi, theta, x):
            field = jnp.abs(phi - theta["complex"]) ** 2 + jnp.abs(phi * closed_complex + x["complex"]) ** 2
            pull = jnp.cosh(phi - theta["real"] * x["real"]) + closed * jnp.sin(phi)
            return jnp.sum(field * (1 + 0.1 * phi**2) + theta["count"] * pull)

        self.loss = loss
        self.optimizer = optax.chain(
            optax.trace(0.3),
            optax.scale(-0.05 * jnp.exp(turn["closure of the optimiser"])),
            optax.inject_hyperparams(optax.scale)(step_size=1.0),
        )
        trace, scale, injected = self.optimizer.init(self.phi)
        moment = jnp.asarray([0.1, 0.2]) + turn["moments in opt_state"] * tilt
        rate = {"step_size": 1.0 + 0.5 * turn["injected into opt_state"]}
        self.opt_state = (trace._replace(trace=moment), scale, injected._replace(hyperparams=rate))

    def higher(self, phi):
        """J, in which theta has no part of its own: what is measured comes through phi^N."""
        return jnp.sum(jnp.sin(phi) * jnp.asarray([1.0, 2.0])) + jnp.prod(phi)


def by_strategy(strategy, t, select):
    setting = Setting(t, select, strategy.num_steps)
    problem = LowerProblem(setting.loss, setting.optimizer)
    arguments = (setting.phi, setting.theta, setting.inputs, setting.opt_state)
    return setting.higher(strategy.solve(problem, *arguments).phi)


def run_loop(setting, phi, state, first, last):
    def step(carry, x):
        phi, state = carry
        updates, state = setting.optimizer.update(jax.grad(setting.loss)(phi, setting.theta, x), state, phi)
        return (phi + updates, state), None

    return jax.lax.scan(step, (phi, state), jax.tree.map(lambda leaf: leaf[first:last], setting.inputs))[0]


def by_loop(kind, t, held, select):
    """The same by a loop; `held` stands for t in what a strategy cuts."""
    setting, constant = Setting(t, select, N), Setting(held, select, N)
    if kind is Unrolled:
        phi, _ = run_loop(setting, setting.phi, setting.opt_state, 0, N)
    else:
        phi, (trace, scale, _) = run_loop(constant, constant.phi, constant.opt_state, 0, N - LAST)
        head = (trace, scale, setting.opt_state[2])
        if kind is Truncated:
            phi, _ = run_loop(setting, phi, head, N - LAST, N)
        else:
            phi, _ = run_loop(constant, constant.phi, constant.opt_state, 0, N)
    return setting.higher(phi)


def by_newton(kind, t, held, select):
    """The minimum itself, under the last input."""
    setting = Setting(t, select, N + 1)
    x = jax.tree.map(lambda leaf: leaf[-1], setting.inputs)

    def step(phi, _):
        gradient = jax.grad(setting.loss)(phi, setting.theta, x)
        return phi - jnp.linalg.solve(jax.hessian(setting.loss)(phi, setting.theta, x), gradient), None

    return setting.higher(jax.lax.scan(step, jnp.asarray([0.3, 0.1]), None, length=15)[0])


def forward(fn):
    """The derivative by t in forward mode, which compiles fastest."""
    return lambda t, *args: jax.jvp(lambda t: fn(t, *args), (t,), (1.0,))[1]


@functools.cache
def expected(kind):
    """Finite differences of the loop's value and of its first two derivatives, a row a way."""
    loop = by_newton if kind is Implicit else by_loop
    value = functools.partial(loop, kind)
    lower_orders = compile_fast(
        lambda *args: jnp.stack([f(*args) for f in (value, forward(value), forward(forward(value)))])
    )
    rows = []
    for select in np.eye(len(WAYS)):
        points = [lower_orders(AT + k * STEP, AT, select) for k in (-2, -1, 1, 2)]
        rows.append((points[0] - 8 * points[1] + 8 * points[2] - points[3]) / (12 * STEP))
    return np.array(rows)


@pytest.mark.parametrize(
    ("strategy", "orders"),
    [
        (STRATEGIES[0], 2),
        (Implicit(400), 2),
        *(pytest.param(strategy, 3, marks=pytest.mark.slow) for strategy in STRATEGIES),
    ],
    ids=repr,
)
def test_each_cell_is_a_finite_difference(x64, strategy, orders):
    first = jax.grad(functools.partial(by_strategy, strategy))
    second = jax.grad(first)
    third = jax.grad(second)  # reverse mode over reverse mode, where a custom rule can go wrong unseen
    stack = [first, second, third][:orders]
    found_fn = compile_fast(lambda *args: jnp.stack([derivative(*args) for derivative in stack]))
    found = np.array([found_fn(AT, select) for select in np.eye(len(WAYS))])
    want = expected(type(strategy))[:, :orders]
    print(f"\n{strategy}\n{'':26}" + "".join(f"{f'order {k}':>24}" for k in range(1, orders + 1)))
    for way, row, reference in zip(WAYS, found, want, strict=True):
        cells = (f"{value:12.6f} ({abs(value - ref):.0e})" for value, ref in zip(row, reference, strict=True))
        print(f"{way:26}" + "".join(f"{cell:>24}" for cell in cells))
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-10)


def test_what_a_strategy_cuts_and_what_it_does_not(x64):
    """The table is not of zeros: the exact strategy has none, the others where their docstrings say so."""
    cut = {
        Unrolled: set(),
        Truncated: {"phi^0", "moments in opt_state"},
        StopGradient: set(WAYS),
        Implicit: {"phi^0", *WAYS[-3:]},
    }
    for kind, ways in cut.items():
        zeros = {way for way, row in zip(WAYS, expected(kind), strict=True) if np.abs(row[0]) < 1e-7}
        assert zeros == ways, kind


@pytest.mark.parametrize("mixed_mode", [True, False])
def test_complex_parameters_of_the_lower_level_are_refused(mixed_mode):
    problem = LowerProblem(lambda p, t, x: jnp.sum(jnp.abs(p - t) ** 2), optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"phi has dtype complex64.*real and imaginary parts"):
        Unrolled(2, mixed_mode=mixed_mode).solve(problem, jnp.ones(2) * 1j, jnp.ones(2))


def test_weight_decay_is_refused_by_implicit():
    loss = lambda p, t, x: jnp.sum((p - t) ** 2)
    for optimizer in (
        optax.adamw(0.1),
        optax.lion(0.1),
        optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)),
    ):
        with pytest.raises(ValueError, match=r"Implicit .*weight decay.*penalty"):
            Implicit(3).solve(LowerProblem(loss, optimizer), jnp.ones(2), jnp.ones(2))

    def traced(decay):
        return (
            Implicit(3)
            .solve(LowerProblem(loss, optax.adamw(0.1, weight_decay=decay)), jnp.ones(2), jnp.ones(2))
            .phi
        )

    with pytest.raises(ValueError, match=r"Implicit .*weight decay.*penalty"):
        jax.jit(traced)(0.1)
    scheduled = optax.adamw(optax.warmup_constant_schedule(0.0, 0.1, 10), weight_decay=0.5)
    for optimizer in (
        scheduled,
        optax.MultiSteps(optax.adamw(0.1), 2).gradient_transformation(),
        optax.chain(optax.sgd(0.1), optax.keep_params_nonnegative()),
    ):
        with pytest.raises(ValueError, match=r"Implicit .*weight decay.*penalty"):
            Implicit(3).solve(LowerProblem(loss, optimizer), jnp.ones(2), jnp.ones(2))
    multi = optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()
    Implicit(3).solve(LowerProblem(loss, multi), jnp.ones(2), jnp.ones(2))


def test_parameters_that_the_optimiser_leaves_alone_are_refused_by_implicit():
    phi, loss = (
        {"moved": jnp.ones(2), "held": jnp.ones(2)},
        lambda p, t, x: jnp.sum((p["moved"] + p["held"] - t) ** 2),
    )
    parts = {"a": optax.sgd(0.1), "b": optax.set_to_zero()}
    optimizer = optax.partition(parts, {"moved": "a", "held": "b"})
    with pytest.raises(ValueError, match="leaves parameters alone whatever their gradient"):
        Implicit(3).solve(LowerProblem(loss, optimizer), phi, jnp.ones(2))


@pytest.mark.parametrize("power", [1, 2, 3])
def test_second_and_third_derivatives_of_implicit_in_closed_form(x64, power):
    """The minimum of cosh p - p t is p = arcsinh t."""
    problem = LowerProblem(lambda p, t, x: jnp.cosh(p) - p * t, optax.sgd(0.2))
    found = lambda t: Implicit(300).solve(problem, jnp.asarray(0.1), t).phi ** power
    known = lambda t: jnp.arcsinh(t) ** power
    for _ in range(3):
        found, known = jax.grad(found), jax.grad(known)
        np.testing.assert_allclose(jax.jit(found)(0.7), known(0.7), rtol=1e-9)
