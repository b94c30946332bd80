"""What the library takes from inside JAX is where it was; each test names what a release has moved."""

import functools
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from bism_jax._tracing import jax_internals as internals
from bism_jax._tracing.jaxprs import bodies

ROOT = Path(jax.__file__).parent


def equations(fn, *args):
    return jax.make_jaxpr(fn)(*args).jaxpr.eqns


def equation(name, fn, *args):
    found = [eqn for eqn in equations(fn, *args) if eqn.primitive.name == name]
    assert found, f"the primitive {name} has another name in JAX {jax.__version__}"
    return found[0]


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("jax.core", ("Tracer", "eval_jaxpr")),
        ("jax.extend.core", ("ClosedJaxpr", "Jaxpr", "JaxprEqn", "Literal", "Primitive", "jaxpr_as_fun")),
        ("jax.interpreters.ad", ("primitive_jvps",)),
        ("jax.interpreters.partial_eval", ("dce_jaxpr",)),
        ("jax.tree_util", ("default_registry",)),
    ],
)
def test_names_are_where_they_were(module, names):
    found = importlib.import_module(module)
    missing = [name for name in names if not hasattr(found, name)]
    assert not missing, f"JAX {jax.__version__} has no {missing} in {module}"


def test_equations_and_variables_have_their_parts():
    closed = jax.make_jaxpr(lambda x: jnp.sin(x) * 2.0)(1.0)
    assert isinstance(closed, internals.ClosedJaxpr)
    assert isinstance(closed.jaxpr, internals.Jaxpr)
    missing = [part for part in ("constvars", "invars", "outvars", "eqns") if not hasattr(closed.jaxpr, part)]
    sine, product = closed.jaxpr.eqns
    parts = ("primitive", "params", "invars", "outvars", "ctx", "source_info")
    missing += [part for part in parts if not hasattr(sine, part)]
    assert not missing, f"JAX {jax.__version__} has renamed {missing}"
    assert isinstance(sine, internals.JaxprEqn)
    assert isinstance(sine.primitive, internals.Primitive)
    assert isinstance(product.invars[1], internals.Literal)
    assert product.invars[1].val == 2.0
    assert internals.aval_of(sine.invars[0]).shape == ()
    assert internals.context_of(sine) == internals.context_of(product)
    np.testing.assert_allclose(internals.eval_jaxpr(closed.jaxpr, closed.consts, 0.5)[0], 2 * np.sin(0.5))
    np.testing.assert_allclose(internals.jaxpr_as_fun(closed)(0.5)[0], 2 * np.sin(0.5))


def test_what_is_traced():
    seen = []
    jax.jit(lambda x: seen.append(internals.is_traced({"x": x}, 1.0)))(1.0)
    assert seen == [True]
    assert not internals.is_traced({"x": jnp.ones(2)}, np.ones(2), 1.0, None)


@pytest.mark.parametrize(
    ("fn", "operand"),
    [
        (jax.jit(jnp.sin), 1.0),
        (jax.checkpoint(jnp.sin), 1.0),
        (jax.jit(lambda x: (jnp.sin(x), x)), 1.0),
    ],
)
def test_plain_calls_keep_their_operands(fn, operand):
    (call,) = equations(fn, operand)
    name = call.primitive.name
    assert name in internals.PLAIN_CALLS, f"a call is the primitive {name} in JAX {jax.__version__}"
    ((body, _),) = bodies(call)
    assert (len(body.invars), len(body.outvars)) == (len(call.invars), len(call.outvars))


def test_a_scan_has_its_parts():
    def fn(scale, carry, slices):
        return jax.lax.scan(lambda c, x: (c * scale + x, c), carry, slices, reverse=True, unroll=2)

    loop = internals.scan_of(equation("scan", fn, 2.0, 0.0, jnp.ones(4)))
    assert loop == internals.Scan(length=4, reverse=True, unroll=2, num_consts=1, num_carry=1)


def test_cond_and_while_have_their_bodies():
    branch = equation("cond", lambda p, x: jax.lax.cond(p, jnp.sin, jnp.cos, x), True, 1.0)
    assert [body.eqns[0].primitive.name for body, _ in bodies(branch)] == ["cos", "sin"]
    loop = equation("while", lambda x: jax.lax.while_loop(lambda y: y < 1, lambda y: y + 1, x), 0.0)
    assert [body.eqns[0].primitive.name for body, _ in bodies(loop)] == ["lt", "add"]


def test_parameters_of_arithmetic():
    assert internals.exponent_of(equation("integer_pow", lambda x: x**3, 2.0)) == 3
    product = equation("dot_general", lambda a, b: jnp.einsum("ij,kj->ik", a, b), *np.ones((2, 3, 4)))
    assert list(internals.contracted_axes(product)) == [1]

    def convolve(image, kernel):
        layout = ("NCHW", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            image, kernel, (1, 1), ((1, 1), (1, 1)), lhs_dilation=(2, 1), dimension_numbers=layout
        )

    found = equation("conv_general_dilated", convolve, np.ones((1, 2, 5, 5)), np.ones((3, 3, 2, 7)))
    assert internals.convolution_of(found) == internals.Convolution(output_axis=3, input_dilation=(2, 1))


def test_equations_are_evaluated_on_other_operands():
    pair = equation("top_k", lambda x: jax.lax.top_k(x, 1), np.arange(3.0))
    values, indices = internals.bind(pair, [jnp.asarray([1.0, 5.0, 2.0])])
    assert (values, indices) == (5, 1)
    np.testing.assert_allclose(internals.bind(equation("sin", jnp.sin, 1.0), [0.5]), [np.sin(0.5)], rtol=1e-6)
    jitted = equation("jit", jax.jit(jnp.sin), 1.0)
    np.testing.assert_allclose(internals.bind(jitted, [0.5]), [np.sin(0.5)], rtol=1e-6)


def test_rules_of_derivatives_are_found():
    @jax.custom_jvp
    def fn(x):
        return x

    @fn.defjvp
    def rule(primals, tangents):
        return primals[0], tangents[0]

    call = equation("custom_jvp_call", fn, 1.0)
    found = internals.jvp_rule(call)
    assert internals.wrapped_parts(found), f"{type(found)} has other parts in JAX {jax.__version__}"
    assert internals.registered_jvp(equation("sin", jnp.sin, 1.0).primitive) is not None
    assert internals.registered_jvp(call.primitive) is None
    assert internals.wrapped_parts(rule) == ()


def test_parameters_that_hold_derivative_rules():
    """Whatever is new in each trace of the same function is known to be a rule."""
    jvp = jax.custom_jvp(jnp.sin)
    jvp.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), tangents[0]))
    vjp = jax.custom_vjp(jnp.sin)
    vjp.defvjp(lambda x: (jnp.sin(x), None), lambda _, g: (g,))
    for fn in (jvp, vjp):
        first, second = (equations(functools.partial(fn), 1.0)[0] for _ in range(2))
        dropped = internals.DERIVATIVE_RULES[first.primitive.name]
        kept = {name for name in first.params if name not in dropped}
        rules = {name for name in kept if callable(first.params[name]) and not list(bodies_of(first, name))}
        assert not rules, f"{first.primitive.name} keeps a rule in {rules} in JAX {jax.__version__}"
        assert dropped & set(first.params), f"{first.primitive.name} has none of {dropped}"
        assert set(second.params) == set(first.params)


def bodies_of(eqn, name):
    value = eqn.params[name]
    return [value] if isinstance(value, (internals.ClosedJaxpr, internals.Jaxpr)) else []


def test_calls_that_led_to_an_equation():
    frames = internals.frames_of(equation("sin", lambda x: 2 * jnp.sin(x), 1.0))
    names = [frame.file_name for frame in frames]
    assert __file__ in names
    assert any(map(internals.is_in_jax, names))
    assert not internals.is_in_jax(__file__)
    ours = frames[names.index(__file__)]
    assert ours.line_num > 0
    assert ours.function_name.endswith("<lambda>")


def test_files_of_jax_are_where_they_were():
    files = (internals.SOLVES, *internals.EXACT_SOLVES, *internals.MACHINERY)
    prefixes = [file for file in files if not list(ROOT.glob(f"{file}*"))]
    assert not prefixes, f"JAX {jax.__version__} has moved {prefixes}"


def test_a_solve_is_called_from_these_files():
    def solve(matrix, vector):
        return jax.scipy.linalg.cho_solve((matrix, True), vector) + jnp.linalg.solve(matrix, vector)

    jaxpr = jax.make_jaxpr(solve)(jnp.eye(2), jnp.ones(2)).jaxpr
    files = {frame.file_name for eqn in jaxpr.eqns for frame in internals.frames_of(eqn)}
    assert any(file.endswith(internals.EXACT_SOLVES) for file in files), sorted(files)


@pytest.mark.parametrize("call", [jax.pure_callback, io_callback])
def test_the_function_of_a_callback_is_found(call):
    def host(x):
        return np.asarray(x)

    (eqn,) = equations(lambda x: call(host, jax.ShapeDtypeStruct((), jnp.float32), x), jnp.float32(0))
    assert internals.host_function(eqn.params["callback"]) is host


def test_what_no_output_needs_is_left_out():
    jaxpr = jax.make_jaxpr(lambda x: (jnp.sin(x), jnp.cos(x))[0])(1.0).jaxpr
    assert [eqn.primitive.name for eqn in internals.used_part(jaxpr).eqns] == ["sin"]


def test_children_of_a_node():
    assert list(internals.children_of({"b": 1, "a": None})) == [None, 1]
    assert list(internals.children_of((1, (2, 3)))) == [1, (2, 3)]


def test_settings_follow_the_thread():
    before = dict(internals.settings())
    assert {"jax_enable_x64", "jax_default_matmul_precision", "jax_debug_nans"} <= set(before)
    with jax.default_matmul_precision("float32"):
        assert dict(internals.settings()) != before
    assert not internals.jit_is_disabled()
    with jax.disable_jit():
        assert internals.jit_is_disabled()
