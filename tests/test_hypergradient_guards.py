"""What would be a silently wrong hypergradient is either right or an error."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bism_jax.hypergradient import Implicit, LowerProblem, StopGradient, Truncated, Unrolled
from bism_jax.methods import paper_adam
from tests.lower_levels import normal

N = 3


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), tangents[0]))

reversed_sine = jax.custom_jvp(jnp.sin)
reversed_sine.defjvps(lambda tangent, answer, x: -tangent * jnp.cos(x))

relabelled_relu = jax.custom_jvp(jax.nn.relu)
relabelled_relu.defjvps(lambda tangent, answer, x: tangent)


@jax.custom_vjp
def doubled_gradient(x):
    return x


doubled_gradient.defvjp(lambda x: (x, None), lambda _, cotangent: (2 * cotangent,))


@jax.custom_jvp
def one_sided_product(x, y):
    return x * y


one_sided_product.defjvp(lambda primals, tangents: (one_sided_product(*primals), tangents[0] * primals[1]))

UNTRUSTED = {
    "custom_jvp": straight_through,
    "custom_jvp that is no gradient field": lambda x: one_sided_product(x, jnp.roll(x, 1)),
    "custom_jvp of a JAX function": reversed_sine,
    "custom_jvp around one of JAX's": relabelled_relu,
    "custom_jvp in scan": lambda x: jax.lax.scan(lambda c, _: (straight_through(c), None), x, None, length=2)[
        0
    ],
    "custom_jvp in cond": lambda x: jax.lax.cond(jnp.sum(x) > -1e9, straight_through, jnp.sin, x),
    "custom_jvp in jit and vmap": jax.jit(jax.vmap(straight_through)),
    "custom_jvp in checkpoint": jax.checkpoint(straight_through),
    "custom_vjp": doubled_gradient,
}
TRUSTED = {
    "softplus": jax.nn.softplus,
    "log_sigmoid": jax.nn.log_sigmoid,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "logsumexp": lambda x: jax.nn.logsumexp(x, axis=-1, keepdims=True),
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "logaddexp": lambda x: jnp.logaddexp(x, 0.3),
    "logaddexp.reduce": lambda x: jnp.logaddexp.reduce(x, axis=-1)[:, None],
    "stop_gradient": jax.lax.stop_gradient,
    "stop_gradient of a factor": lambda x: x * jax.lax.stop_gradient(jnp.roll(x, 1)),
    "stop_gradient of a maximum": lambda x: jnp.sin(x) * jax.lax.stop_gradient(jnp.max(x)),
    "stop_gradient in scan": lambda x: jax.lax.scan(
        lambda c, _: (jnp.sin(c) * jax.lax.stop_gradient(jnp.roll(c, 1)), None), x, None, length=2
    )[0],
    "stop_gradient in cond": lambda x: jax.lax.cond(
        jnp.sum(x) > -1e9, lambda x: x * jax.lax.stop_gradient(jnp.sum(x)), jnp.sin, x
    ),
    "stop_gradient in a gradient": jax.grad(
        lambda x: jnp.sum(jnp.sin(x) * jax.lax.stop_gradient(jnp.roll(x, 1)) * jnp.sum(x))
    ),
    "score": jax.vmap(jax.grad(lambda x: jax.nn.logsumexp(x) + jax.nn.softplus(x).sum())),
}


def problem_with(fn):
    def loss(phi, theta, x):
        inner = fn(phi * theta + x)
        return jnp.sum(inner**2) + jnp.sum(jnp.sin(phi) * inner) + jnp.sum(phi**2)

    return LowerProblem(loss, optax.sgd(0.05)), normal(0, (2, 3)), normal(1, (2, 3)), normal(2, (N, 2, 3))


def gradients(fn, strategy):
    problem, phi, theta, inputs = problem_with(fn)
    value = lambda *args: jnp.sum(jnp.sin(strategy.solve(problem, *args).phi))
    return jax.grad(value, argnums=(0, 1, 2))(phi, theta, inputs)


@pytest.mark.parametrize("name", UNTRUSTED)
def test_untrusted_rules_fall_back_to_reverse_mode_and_say_so(x64, name):
    expected = gradients(UNTRUSTED[name], Unrolled(N, mixed_mode=False))
    with pytest.warns(UserWarning, match=r"custom_\w+ at .*plain reverse mode is used"):
        found = gradients(UNTRUSTED[name], Unrolled(N))
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", TRUSTED)
def test_true_derivatives_run_in_mixed_mode(x64, name):
    expected = gradients(TRUSTED[name], Unrolled(N, mixed_mode=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gradients(TRUSTED[name], Unrolled(N))
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12)


def test_without_the_guard_a_custom_rule_would_be_wrong(x64):
    """The trap is real: mixed mode on such a loss differs from reverse mode."""
    from bism_jax.hypergradient import mixed_mode

    problem, phi, theta, inputs = problem_with(UNTRUSTED["custom_jvp that is no gradient field"])

    def pull_back(gradient_fn):
        return jax.vjp(lambda p: gradient_fn(p, theta, inputs[0])[1], phi)[1](theta)[0]

    plain = pull_back(jax.value_and_grad(problem.loss_fn))
    unguarded = pull_back(mixed_mode.mixed_mode_gradient(problem.loss_fn))
    assert float(jnp.abs(plain - unguarded).max()) > 1e-3


def test_a_rule_that_touches_no_argument_is_no_reason_to_fall_back(x64):
    constant = jnp.arange(3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradients(lambda x: x * straight_through(constant), Unrolled(N))


def test_closed_over_arrays_are_differentiated(x64):
    def value(theta, strategy):
        problem = LowerProblem(lambda p, _, x: jnp.sum((p - theta) ** 2 * jnp.cosh(p)), optax.sgd(0.1))
        return jnp.sum(strategy.solve(problem, jnp.ones(3), None).phi ** 2)

    def passed(theta, strategy):
        problem = LowerProblem(lambda p, t, x: jnp.sum((p - t) ** 2 * jnp.cosh(p)), optax.sgd(0.1))
        return jnp.sum(strategy.solve(problem, jnp.ones(3), theta).phi ** 2)

    theta = normal(0, (3,))
    for strategy in (Unrolled(N), Unrolled(N, segment=2), Truncated(N, 2), Implicit(N), StopGradient(N)):
        for wrap in (lambda f: f, jax.jit):
            found = wrap(jax.grad(lambda t: value(t, strategy)))(theta)  # noqa: B023
            expected = wrap(jax.grad(lambda t: passed(t, strategy)))(theta)  # noqa: B023
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_integer_and_key_inputs_pass_and_data_gets_its_gradient(x64):
    def loss(phi, theta, x):
        noise = jax.random.normal(x["key"], phi.shape)
        return jnp.sum((phi - theta["t"] * x["data"] - noise) ** 2 * (1 + x["index"]) * theta["count"])

    inputs = {
        "data": normal(0, (N, 4)),
        "key": jax.random.split(jax.random.key(1), N),
        "index": jnp.arange(N),
    }
    theta = {"t": jnp.asarray(0.7), "count": jnp.asarray(2)}
    problem = LowerProblem(loss, optax.sgd(0.01))

    def gradient(strategy):
        def value(data, t):
            solution = strategy.solve(problem, jnp.zeros(4), {**theta, "t": t}, {**inputs, "data": data})
            return jnp.sum(solution.phi**2)

        return jax.grad(value, argnums=(0, 1))(inputs["data"], theta["t"])

    expected = gradient(Unrolled(N, mixed_mode=False))
    assert all(float(jnp.abs(leaf).min()) > 0 for leaf in expected)
    for strategy in (Unrolled(N), Unrolled(N, segment=2)):
        for left, right in zip(gradient(strategy), expected, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-12)
    gradient(Implicit(N))


def test_adam_at_a_zero_moment(x64):
    """An unused parameter: optax's default gives NaN, the library's Adam a number."""

    def loss(phi, theta, x):
        return jnp.sum((phi["used"] - theta) ** 2) + jnp.maximum(theta - 1, 0) * phi["unused"]

    def gradient(optimizer):
        problem = LowerProblem(loss, optimizer)
        phi = {"used": jnp.ones(2), "unused": jnp.asarray(1.0)}
        solve = lambda t: Unrolled(2).solve(problem, phi, t).phi
        return jax.grad(lambda t: jnp.sum(solve(t)["used"]) + solve(t)["unused"])(jnp.asarray(0.3))

    assert not np.isfinite(gradient(optax.adam(1e-3)))
    assert np.isfinite(gradient(paper_adam(1e-3)))


def test_forward_mode_raises_in_mixed_mode_and_works_without(x64):
    problem, phi, theta, inputs = problem_with(jnp.tanh)
    solve = lambda strategy: lambda t: strategy.solve(problem, phi, t, inputs).phi
    with pytest.raises(TypeError, match=r"forward-mode|jvp"):
        jax.jvp(solve(Unrolled(N)), (theta,), (theta,))
    _, tangent = jax.jvp(solve(Unrolled(N, mixed_mode=False)), (theta,), (theta,))
    _, pull_back = jax.vjp(solve(Unrolled(N)), theta)
    np.testing.assert_allclose(jnp.vdot(tangent, phi), jnp.vdot(pull_back(phi)[0], theta), rtol=1e-10)


def test_an_unfinished_linear_solve_is_reported(x64):
    matrix = jnp.diag(jnp.asarray([1.0, 10.0, 100.0]))
    problem = LowerProblem(lambda p, t, x: 0.5 * p @ matrix @ p - p @ t, optax.sgd(0.005))
    value = lambda t, strategy: jnp.sum(strategy.solve(problem, jnp.ones(3), t).phi)
    with pytest.warns(UserWarning, match="relative residual of"):
        jax.block_until_ready(jax.grad(value)(jnp.ones(3), Implicit(5, solver_steps=1)))
        jax.effects_barrier()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.block_until_ready(jax.grad(value)(jnp.ones(3), Implicit(5, solver_steps=3)))
        jax.effects_barrier()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"w": jnp.arange(3)}, 1.0), r"phi\['w'\] has dtype int"),
        (({}, 1.0), "phi has no parameters"),
        ((jnp.ones(3), 1.0, jnp.ones((2, 3))), r"inputs has shape \(2, 3\).*num_steps=3"),
        ((jnp.ones(3), 1.0, jnp.asarray(2.0)), r"inputs has shape \(\)"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, message):
    problem = LowerProblem(lambda p, t, x: jnp.sum(jax.tree.leaves(p)[0] ** 2), optax.sgd(0.1))
    with pytest.raises(ValueError, match=message):
        Unrolled(N).solve(problem, *arguments)


def test_a_loss_that_is_no_scalar_is_named():
    problem = LowerProblem(lambda p, t, x: p**2, optax.sgd(0.1))
    with pytest.raises(ValueError, match="loss_fn must return one floating scalar"):
        StopGradient(N).solve(problem, jnp.ones(3), None)
