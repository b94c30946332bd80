"""What would be a silently wrong hypergradient is either right or an error."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir

from bism_jax.hypergradient import (
    Implicit,
    LowerProblem,
    StopGradient,
    Truncated,
    Unrolled,
)
from bism_jax.hypergradient import (
    _trusted_rules as derivative_rules,
)
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
    "solve": lambda x: jnp.linalg.solve(jnp.eye(2) + 0.1 * x @ x.T, x),
    "inverse": lambda x: jnp.linalg.inv(jnp.eye(2) + 0.1 * x @ x.T) @ x,
    "cholesky": lambda x: jnp.linalg.cholesky(jnp.eye(2) + 0.1 * x @ x.T) @ x,
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
    from bism_jax.hypergradient import _mixed_mode as mixed_mode

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
    """An unused parameter, whose second moment stays zero: neither Adam gives NaN."""

    def loss(phi, theta, x):
        return jnp.sum((phi["used"] - theta) ** 2) + jnp.maximum(theta - 1, 0) * phi["unused"]

    def gradient(optimizer):
        problem = LowerProblem(loss, optimizer)
        phi = {"used": jnp.ones(2), "unused": jnp.asarray(1.0)}
        solve = lambda t: Unrolled(2).solve(problem, phi, t).phi
        return jax.grad(lambda t: jnp.sum(solve(t)["used"]) + solve(t)["unused"])(jnp.asarray(0.3))

    slopes = [gradient(optimizer) for optimizer in (optax.adam(1e-3, b2=0.95), paper_adam(1e-3))]
    np.testing.assert_allclose(*slopes, rtol=1e-6)


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


def own_primitive(name, rule):
    """A primitive that a user registers, x -> sin x, with a derivative of its own."""
    primitive = Primitive(name)
    primitive.def_impl(jnp.sin)
    primitive.def_abstract_eval(lambda x: x)
    mlir.register_lowering(primitive, mlir.lower_fun(jnp.sin, multiple_results=False))
    ad.defjvp(primitive, rule)
    return primitive


WRONG = own_primitive("wrong_sine", lambda tangent, x: tangent * jnp.cos(jnp.roll(x, 1)))
TRUE = own_primitive("true_sine", lambda tangent, x: tangent * jnp.cos(x))
POSING = own_primitive("sin", lambda tangent, x: tangent * jnp.cos(jnp.roll(x, 1)))


def rough_root(x):
    """y + y^3 = x, with a linear solve that is off."""
    solve = lambda fn, start: jax.lax.fori_loop(0, 30, lambda _, y: (x + 2 * y**3) / (1 + 3 * y**2), start)
    return jax.lax.custom_root(lambda y: y + y**3 - x, x, solve, lambda g, y: 0.8 * y)


def rough_solve(x):
    matrix = jnp.eye(x.shape[0]) + 0.1 * x @ x.T
    return jax.lax.custom_linear_solve(
        lambda y: matrix @ y, x, lambda _, b: 2 * b - matrix @ b, symmetric=True
    )


def iterative_solve(x):
    matrix = jnp.eye(x.shape[0]) + 0.1 * x @ x.T
    return jax.scipy.sparse.linalg.cg(lambda y: matrix @ y, x, maxiter=1)[0]


ALLOW_LIST = {
    "a user's primitive": WRONG.bind,
    "a user's primitive of a known name": POSING.bind,
    "custom_root": rough_root,
    "custom_linear_solve": rough_solve,
    "conjugate gradients": iterative_solve,
}


@pytest.mark.parametrize("name", ALLOW_LIST)
def test_what_jax_does_not_vouch_for_falls_back(x64, name):
    expected = gradients(ALLOW_LIST[name], Unrolled(N, mixed_mode=False))
    with pytest.warns(UserWarning, match=r"plain reverse mode is used.*trusted="):
        found = gradients(ALLOW_LIST[name], Unrolled(N))
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12)


@jax.custom_jvp
def vouched_sine(x):
    return jnp.sin(x)


vouched_sine.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), jnp.cos(primals[0]) * tangents[0]))


def exact_root(x):
    """A root whose tangent solve is exact."""
    solve = lambda fn, start: jax.lax.fori_loop(0, 40, lambda _, y: (x + 2 * y**3) / (1 + 3 * y**2), start)
    return jax.lax.custom_root(lambda y: y + y**3 - x, x, solve, lambda g, y: y / g(jnp.ones_like(y)))


VOUCHED = {
    "primitive": (TRUE.bind, TRUE),
    "custom_jvp": (vouched_sine, vouched_sine),
    "function around it": (exact_root, exact_root),
    "JAX's own entry": (exact_root, jax.lax.custom_root),
}


@pytest.mark.parametrize("name", VOUCHED)
def test_a_user_may_vouch_for_a_rule(x64, name):
    fn, trusted = VOUCHED[name]
    expected = gradients(fn, Unrolled(N, mixed_mode=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [
            gradients(fn, Unrolled(N, trusted=(trusted,))),
            gradients(fn, Truncated(N, N, trusted=(trusted,))),
        ]
    for solved in found:
        for left, right in zip(solved, expected, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12)
    with pytest.warns(UserWarning, match="plain reverse mode is used"):
        gradients(fn, Unrolled(N, trusted=(relabelled_relu,)))


def test_vouching_keeps_the_memory_of_mixed_mode(x64):
    from bism_jax.hypergradient import _mixed_mode as mixed_mode

    fn = lambda phi, theta, x: jnp.sum(vouched_sine(phi * theta))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient_fn = mixed_mode.lower_gradient(
            fn, jnp.ones(2), jnp.ones(2), None, mixed_mode=True, trusted=(vouched_sine,)
        )
    jaxpr = str(jax.make_jaxpr(lambda p: gradient_fn(p, jnp.ones(2), None))(jnp.ones(2)))
    assert "custom_vjp_call" in jaxpr


@pytest.mark.parametrize("trusted", [vouched_sine, [vouched_sine], ("sin",)])
def test_trusted_is_a_tuple_of_functions_and_primitives(trusted):
    with pytest.raises(TypeError, match="trusted must be a tuple"):
        Unrolled(N, trusted=trusted)


def test_every_listed_primitive_has_the_rule_of_jax():
    """A list that nobody checks would grow stale: what JAX registers and is not listed is listed here."""
    registered = {primitive.name: primitive for primitive in ad.primitive_jvps}
    listed = registered.keys() & derivative_rules._TRUE_DERIVATIVES
    registered.pop("sin") if registered["sin"] is POSING else None
    strangers = [
        name
        for name in listed
        if name in registered and name != "sin" and not derivative_rules._has_rule_of_jax(registered[name])
    ]
    assert strangers == []
    assert len(listed) > 130
    assert {
        "custom_linear_solve",
        "linear_call",
        "psum",
        "pure_callback",
    } & derivative_rules._TRUE_DERIVATIVES == set()


def test_a_loss_that_averages_over_devices_itself_is_refused():
    def on_device(phi, x):
        problem = LowerProblem(lambda p, t, _: jax.lax.pmean(jnp.sum((p - t) ** 2), "i"), optax.sgd(0.1))
        return Unrolled(2).solve(problem, phi, x).phi

    with pytest.raises(ValueError, match=r"loss_fn averages or communicates over a mapped axis.*axis_name"):
        jax.vmap(on_device, axis_name="i")(jnp.ones((2, 3)), jnp.ones((2, 3)))


def test_trusted_takes_no_custom_vjp():
    """It has no forward mode, which mixed mode needs."""
    with pytest.raises(TypeError, match="trusted holds a custom_vjp, which has no forward mode"):
        Unrolled(N, trusted=(doubled_gradient,))
