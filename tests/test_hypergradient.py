"""Exact strategies agree with each other, with closed forms and with finite differences."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bism_jax.hypergradient import (
    Implicit,
    LowerProblem,
    LowerSolution,
    StopGradient,
    Truncated,
    Unrolled,
)
from tests.lower_levels import OPTIMIZERS, higher, normal, quadratic, smooth_problem

N = 7
EXACT = (
    Unrolled(N),
    Unrolled(N, segment="sqrt"),
    Unrolled(N, segment=2),
    Unrolled(N, segment=3, mixed_mode=False),
    Unrolled(N, segment=100),
    Truncated(N, last=N),
)
ESTIMATORS = (Truncated(N, last=3), StopGradient(N), Implicit(N, tolerance=1e9))


@functools.cache
def solved(strategy, optimizer_name):
    """The solution, the gradient in phi^0, theta and inputs, and a second-order quantity."""
    loss, optimizer, phi, theta, inputs = smooth_problem(N, OPTIMIZERS[optimizer_name])
    problem = LowerProblem(loss, optimizer)

    def value(phi, theta, inputs):
        solution = strategy.solve(problem, phi, theta, inputs)
        return higher(solution.phi, theta), solution

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2), has_aux=True))(phi, theta, inputs)


def assert_trees_close(found, expected, tolerance=1e-10):
    chex.assert_trees_all_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "optimizer_name",
    ["sgd", "adam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("momentum", "clipped"))],
)
@pytest.mark.parametrize("strategy", EXACT, ids=repr)
def test_exact_strategies_equal_plain_reverse_mode(x64, strategy, optimizer_name):
    (value, solution), gradient = solved(strategy, optimizer_name)
    (expected_value, expected), expected_gradient = solved(Unrolled(N, mixed_mode=False), optimizer_name)
    assert_trees_close((value, solution), (expected_value, expected))
    assert_trees_close(gradient, expected_gradient)


@pytest.mark.parametrize("strategy", (*EXACT, *ESTIMATORS), ids=repr)
def test_the_primal_result_does_not_depend_on_the_strategy(x64, strategy):
    (_, solution), _ = solved(strategy, "adam")
    (_, expected), _ = solved(Unrolled(N, mixed_mode=False), "adam")
    assert isinstance(solution, LowerSolution)
    assert_trees_close(solution, expected, 1e-13)
    assert solution.losses.shape == (N,)


def test_gradient_equals_finite_differences(x64):
    loss, optimizer, phi, theta, inputs = smooth_problem(N, OPTIMIZERS["adam"])
    problem = LowerProblem(loss, optimizer)

    @jax.jit
    def value(arguments):
        phi, theta, inputs = arguments
        return higher(Unrolled(N).solve(problem, phi, theta, inputs).phi, theta)

    arguments = (phi, theta, inputs)
    _, gradient = solved(Unrolled(N), "adam")
    for seed in range(3):
        leaves, structure = jax.tree.flatten(arguments)
        direction = structure.unflatten([normal(10 * seed + i, leaf.shape) for i, leaf in enumerate(leaves)])
        step = 1e-5
        shifted = [
            value(jax.tree.map(lambda leaf, d: leaf + sign * step * d, arguments, direction))  # noqa: B023
            for sign in (1, -1)
        ]
        slope = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
        np.testing.assert_allclose((shifted[0] - shifted[1]) / (2 * step), slope, rtol=1e-6)


@pytest.mark.parametrize("strategy", (Unrolled(3), Unrolled(3, segment=2)), ids=repr)
def test_second_order_equals_plain_reverse_mode(x64, strategy):
    loss, optimizer, phi, theta, inputs = smooth_problem(3, OPTIMIZERS["adam"])
    problem = LowerProblem(loss, optimizer)

    def hessian_vector(strategy):
        def gradient(theta):
            return jax.grad(lambda t: higher(strategy.solve(problem, phi, t, inputs).phi, t))(theta)

        def squared_norm(theta):
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient(theta)))

        return jax.jit(jax.grad(squared_norm))(theta)

    assert_trees_close(hessian_vector(strategy), hessian_vector(Unrolled(3, mixed_mode=False)))


def test_gradient_descent_on_a_quadratic_has_its_closed_form(x64):
    """phi^N = M^N phi^0 + rate sum_k M^k B theta with M = I - rate A."""
    loss, matrix, coupling = quadratic()
    rate, theta, phi = 0.05, normal(1, (2,)), normal(2, (3,))
    step = np.eye(3) - rate * np.asarray(matrix)
    powers = [np.linalg.matrix_power(step, k) for k in range(N + 1)]
    by_theta = rate * sum(powers[:N]) @ np.asarray(coupling)
    strategy = Unrolled(N)
    problem = LowerProblem(loss, optax.sgd(rate))
    jacobians = jax.jacrev(lambda p, t: strategy.solve(problem, p, t).phi, argnums=(0, 1))(phi, theta)
    solution = strategy.solve(problem, phi, theta)
    np.testing.assert_allclose(solution.phi, powers[N] @ phi + by_theta @ theta, rtol=1e-12)
    np.testing.assert_allclose(jacobians[0], powers[N], atol=1e-13)
    np.testing.assert_allclose(jacobians[1], by_theta, atol=1e-13)


@pytest.mark.parametrize("last", (1, 4))
def test_truncation_drops_the_head_of_the_closed_form(x64, last):
    loss, matrix, coupling = quadratic()
    rate, theta, phi = 0.05, normal(1, (2,)), normal(2, (3,))
    step = np.eye(3) - rate * np.asarray(matrix)
    by_theta = rate * sum(np.linalg.matrix_power(step, k) for k in range(last)) @ np.asarray(coupling)
    problem = LowerProblem(loss, optax.sgd(rate))
    solve = lambda p, t: Truncated(N, last).solve(problem, p, t).phi
    by_phi, found = jax.jacrev(solve, argnums=(0, 1))(phi, theta)
    np.testing.assert_allclose(found, by_theta, atol=1e-13)
    np.testing.assert_array_equal(by_phi, 0)


@pytest.mark.parametrize(
    "strategy",
    (Implicit(400), Implicit(400, solver="neumann", solver_steps=2000, step_size=0.05)),
    ids=("cg", "neumann"),
)
def test_implicit_is_exact_at_the_optimum(x64, strategy):
    loss, matrix, coupling = quadratic()
    problem = LowerProblem(loss, optax.sgd(0.05))
    theta, phi = normal(1, (2,)), normal(2, (3,))
    jacobian = jax.jacrev(lambda t: strategy.solve(problem, phi, t).phi)(theta)
    np.testing.assert_allclose(jacobian, np.linalg.solve(matrix, coupling), atol=1e-9)


def test_implicit_tends_to_unrolled_as_the_steps_grow(x64):
    loss, *_ = quadratic()
    problem = LowerProblem(lambda p, t, x: loss(p, t, x) + 0.1 * jnp.sum(p**4), optax.sgd(0.05))
    theta, phi = normal(1, (2,)), normal(2, (3,))

    def jacobian(strategy):
        return jax.jacrev(lambda t: strategy.solve(problem, phi, t).phi)(theta)

    gaps = [
        float(jnp.abs(jacobian(Implicit(n, tolerance=1e9)) - jacobian(Unrolled(n))).max())
        for n in (5, 20, 80, 320)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-7 < gaps[0]


def test_implicit_damping_and_residual(x64):
    loss, matrix, _ = quadratic()
    problem = LowerProblem(loss, optax.sgd(0.05))
    theta, phi, cotangent = normal(1, (2,)), normal(2, (3,)), normal(3, (3,))
    damped = Implicit(5, damping=2.0).solve_adjoint(problem, phi, theta, None, cotangent)
    expected = np.linalg.solve(np.asarray(matrix) + 2 * np.eye(3), cotangent)
    np.testing.assert_allclose(damped.adjoint, expected, rtol=1e-9)
    assert damped.residual < 1e-9
    rough = Implicit(5, solver_steps=1).solve_adjoint(problem, phi, theta, None, cotangent)
    error = np.asarray(matrix) @ rough.adjoint - cotangent
    np.testing.assert_allclose(rough.residual, np.linalg.norm(error) / np.linalg.norm(cotangent))


def test_implicit_gives_the_derivative_of_the_last_input(x64):
    problem = LowerProblem(lambda p, t, x: 0.5 * jnp.sum((p - t * x) ** 2), optax.sgd(0.5))
    inputs, theta = normal(0, (4, 3)), jnp.asarray(2.0)
    solve = lambda inputs: Implicit(4).solve(problem, jnp.zeros(3), theta, inputs).phi.sum()
    gradient = jax.grad(solve)(inputs)
    np.testing.assert_array_equal(gradient[:3], 0)
    np.testing.assert_allclose(gradient[3], 2.0)


def test_no_step_leaves_phi_and_its_derivative(x64):
    loss, optimizer, phi, theta, _ = smooth_problem(0, OPTIMIZERS["adam"])
    problem = LowerProblem(loss, optimizer)
    for strategy, slope in ((Unrolled(0), 1.0), (StopGradient(0), 0.0)):
        solve = lambda p: strategy.solve(problem, p, theta).phi["a"].sum()  # noqa: B023
        np.testing.assert_array_equal(jax.grad(solve)(phi)["a"], slope)
        assert strategy.solve(problem, phi, theta).losses.shape == (0,)
        by_theta = jax.grad(lambda t: higher(strategy.solve(problem, phi, t).phi, t))(theta)  # noqa: B023
        for found, expected in zip(
            *map(jax.tree.leaves, (by_theta, jax.grad(higher, 1)(phi, theta))), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


def test_optimizer_state_carries_over(x64):
    loss, optimizer, phi, theta, inputs = smooth_problem(6, OPTIMIZERS["adam"])
    problem = LowerProblem(loss, optimizer)
    whole = Unrolled(6).solve(problem, phi, theta, inputs)
    head = StopGradient(2).solve(problem, phi, theta, inputs[:2])
    tail = Unrolled(4).solve(problem, head.phi, theta, inputs[2:], head.opt_state)
    assert_trees_close((tail.phi, tail.opt_state), (whole.phi, whole.opt_state), 1e-13)


def test_auxiliary_results_carry_no_gradient(x64):
    loss, optimizer, phi, theta, inputs = smooth_problem(3, OPTIMIZERS["adam"])
    problem = LowerProblem(loss, optimizer)
    for strategy in (Unrolled(3), Unrolled(3, segment=2), Truncated(3, 2), Implicit(3), StopGradient(3)):

        def auxiliary(theta, strategy=strategy):
            solution = strategy.solve(problem, phi, theta, inputs)
            moments = solution.opt_state[0].mu
            return solution.losses.sum() + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(moments))

        for leaf in jax.tree.leaves(jax.grad(auxiliary)(theta)):
            np.testing.assert_array_equal(leaf, 0)


def test_strategies_are_hashable_values():
    assert len({Unrolled(3), Unrolled(3), Unrolled(3, segment="sqrt"), Truncated(3, 1)}) == 3
    assert {StopGradient(2): 1}[StopGradient(2)] == 1
    assert Implicit(2) == Implicit(2) != Implicit(2, solver="neumann")


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e18])
def test_conjugate_gradients_stay_at_the_solution_that_they_have_reached(scale):
    """In float32 the squared residual of a solution underflows, and the next step would be 0 / 0."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    hessian = jnp.asarray(basis * np.linspace(0.6, 2.3, 8) @ basis.T, jnp.float32)
    problem = LowerProblem(lambda phi, theta, _: 0.5 * phi @ theta @ phi, optax.sgd(0.1))
    cotangents = jnp.asarray(scale * rng.normal(size=(300, 8)), jnp.float32)

    def solve(cotangent, solver_steps):
        strategy = Implicit(1, solver_steps=solver_steps)
        return strategy.solve_adjoint(problem, jnp.zeros(8), hessian, None, cotangent)

    expected = np.linalg.solve(np.asarray(hessian, np.float64), np.asarray(cotangents, np.float64).T).T
    for solver_steps in (10, 20, 80):
        found = jax.vmap(functools.partial(solve, solver_steps=solver_steps))(cotangents)
        np.testing.assert_allclose(found.adjoint, expected, rtol=1e-4, atol=1e-5 * scale)
        assert found.residual.max() < 1e-5


def test_a_lower_level_that_diverged_is_called_that():
    problem = LowerProblem(lambda phi, theta, _: jnp.sum((phi - theta) ** 4), optax.sgd(10.0))
    solve = Implicit(20).solve
    with pytest.warns(UserWarning, match="the lower level diverged"):
        jax.block_until_ready(
            jax.grad(lambda theta: solve(problem, jnp.ones(2), theta).phi.sum())(jnp.zeros(2))
        )
        jax.effects_barrier()
