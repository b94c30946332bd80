"""Every optimiser of optax in the lower level: the hypergradient is that of a Python loop, or it is "
"refused by name."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bism_jax.hypergradient import LowerProblem, Unrolled
from tests.lower_levels import compile_fast

N = 3
LABELS = {"w": "adam", "b": "sgd"}


def sgd_after(*transformations):
    return optax.chain(*transformations, optax.sgd(0.1))


TRANSFORMATIONS = {
    "adabelief": optax.adabelief(0.1),
    "adadelta": optax.adadelta(0.1),
    "adafactor": optax.adafactor(0.1),
    "adagrad": optax.adagrad(0.1),
    "adam": optax.adam(0.1),
    "adamax": optax.adamax(0.1),
    "adamaxw": optax.adamaxw(0.1),
    "adamw": optax.adamw(0.1),
    "adan": optax.adan(0.1),
    "adaptive_grad_clip": sgd_after(optax.adaptive_grad_clip(0.01)),
    "add_decayed_weights": sgd_after(optax.add_decayed_weights(0.1)),
    "add_noise": sgd_after(optax.add_noise(0.01, 0.55, key=0)),
    "amsgrad": optax.amsgrad(0.1),
    "apply_every": sgd_after(optax.apply_every(2)),
    "apply_if_finite": optax.apply_if_finite(optax.adam(0.1), 3),
    "centralize": sgd_after(optax.centralize()),
    "clip": sgd_after(optax.clip(0.5)),
    "clip_by_block_rms": sgd_after(optax.clip_by_block_rms(0.5)),
    "clip_by_global_norm": sgd_after(optax.clip_by_global_norm(0.5)),
    "ema": sgd_after(optax.ema(0.9)),
    "fromage": optax.fromage(0.1),
    "inject_hyperparams": optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "keep_params_nonnegative": optax.chain(optax.sgd(0.1), optax.keep_params_nonnegative()),
    "lamb": optax.lamb(0.1),
    "lars": optax.lars(0.1),
    "lion": optax.lion(0.1),
    "masked": optax.masked(optax.adam(0.1), {"w": True, "b": False}),
    "MultiSteps": optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "nadam": optax.nadam(0.1),
    "nadamw": optax.nadamw(0.1),
    "nesterov": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "noisy_sgd": optax.noisy_sgd(0.1, key=0),
    "normalize_by_update_norm": sgd_after(optax.normalize_by_update_norm()),
    "novograd": optax.novograd(0.1),
    "optimistic_adam": optax.optimistic_adam_v2(0.1),
    "optimistic_gradient_descent": optax.optimistic_gradient_descent(0.1),
    "partition": optax.partition({"adam": optax.adam(0.1), "sgd": optax.sgd(0.1)}, LABELS),
    "radam": optax.radam(0.1),
    "rmsprop": optax.rmsprop(0.1),
    "rmsprop centred": optax.rmsprop(0.1, centered=True, momentum=0.9),
    "rprop": optax.rprop(0.1),
    "scale_by_factored_rms": sgd_after(optax.scale_by_factored_rms()),
    "scale_by_param_block_norm": sgd_after(optax.scale_by_param_block_norm()),
    "scale_by_param_block_rms": sgd_after(optax.scale_by_param_block_rms()),
    "scale_by_rss": sgd_after(optax.scale_by_rss(0.0)),
    "scale_by_trust_ratio": sgd_after(optax.scale_by_trust_ratio()),
    "schedule": optax.adam(optax.linear_schedule(0.1, 0.0, 10)),
    "sgd": optax.sgd(0.1),
    "sign_sgd": optax.sign_sgd(0.1),
    "sm3": optax.sm3(0.1),
    "trace": sgd_after(optax.trace(0.9)),
    "yogi": optax.yogi(0.1),
    "zero_nans": sgd_after(optax.zero_nans()),
    "muon": optax.contrib.muon(0.1),
    "prodigy": optax.contrib.prodigy(),
    "schedule_free_sgd": optax.contrib.schedule_free_sgd(0.1),
}
REFUSED = {
    "lbfgs": optax.lbfgs(),
    "polyak_sgd": optax.polyak_sgd(),
    "reduce_on_plateau": optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
}
QUICK = ("adam", "clip_by_global_norm", "lamb", "MultiSteps")
# Zero has no direction, so their steps jump there, or have a kink, and no derivative.
JUMPS_AT_ZERO = {
    *("keep_params_nonnegative", "lamb", "lars", "lion", "rprop", "sign_sgd", "scale_by_trust_ratio"),
    *("scale_by_rss", "sm3"),  # which have a branch of their own at exactly zero
}
# Its values are NaN there, in a plain loop as well.
NAN_AT_ZERO = {"prodigy"}
# Two add noise, and yogi's momentum starts above zero, so they do not stay there; MultiSteps accumulates in
# float32, whose smallest numbers are larger.
STEPS = {"add_noise": 1e-5, "noisy_sgd": 1e-5, "yogi": 1e-7, "MultiSteps": 1e-20}


def loss(phi, theta, x):
    """Convex, with its minimum, where the gradient is exactly zero, at phi = theta."""
    return jnp.sum(jnp.cosh(phi["w"] - theta["w"])) + jnp.sum(2 * (phi["b"] - theta["b"]) ** 2)


def tree(scale):
    w = scale * jnp.asarray([[1.0, -0.5], [0.3, 0.8], [-1.2, 0.6]])
    return {"w": w, "b": scale * jnp.asarray([0.7, -0.4])}


def higher(phi):
    return jnp.sum(phi["w"] * jnp.arange(1.0, 7.0).reshape(3, 2)) + jnp.sum(
        phi["b"] * jnp.asarray([1.0, -2.0])
    )


def by_loop(optimizer, phi, t):
    theta, state = tree(t), optimizer.init(phi)
    for _ in range(N):
        updates, state = optimizer.update(jax.grad(loss)(phi, theta, None), state, phi)
        phi = optax.apply_updates(phi, updates)
    return higher(phi)


def by_strategy(optimizer, phi, t):
    return higher(Unrolled(N).solve(LowerProblem(loss, optimizer), phi, tree(t)).phi)


def measure(optimizer, start, t, step):
    """The hypergradient, and the finite difference of the loop at two step sizes."""
    phi = tree(start)
    loop = compile_fast(functools.partial(by_loop, optimizer, phi))
    value, slope = compile_fast(jax.value_and_grad(functools.partial(by_strategy, optimizer, phi)))(t)
    np.testing.assert_allclose(value, loop(t), rtol=1e-12, atol=1e-14)
    differences = [float(loop(t + h) - loop(t - h)) / (2 * h) for h in (step, 0.5 * step)]
    return float(slope), differences


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in TRANSFORMATIONS],
)
def test_hypergradient_is_that_of_a_python_loop(x64, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slope, differences = measure(TRANSFORMATIONS[name], 0.4, 1.3, 1e-5)
        step = STEPS.get(name, 1e-60)  # below every epsilon
        at_zero, zero_differences = measure(TRANSFORMATIONS[name], 0.0, 0.0, step)
    jumps = name in JUMPS_AT_ZERO
    shown = "jumps" if jumps else f"{zero_differences[1]:.6g}"
    print(f"\n| {name} | {slope:.6g} | {differences[1]:.6g} | {at_zero:.6g} | {shown} |")
    np.testing.assert_allclose(slope, differences[1], rtol=1e-6, atol=1e-8)
    assert np.isfinite(at_zero) != (name in NAN_AT_ZERO)
    if not jumps and name not in NAN_AT_ZERO:
        np.testing.assert_allclose(at_zero, zero_differences[1], rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("name", REFUSED)
def test_an_optimiser_without_a_derivative_is_refused(name):
    with pytest.raises(ValueError, match=r"optimizer (cannot update|holds a loop).*take .*optax.adam"):
        by_strategy(REFUSED[name], tree(0.4), 1.3)


def test_a_loop_of_unknown_length_is_refused():
    def update(grads, state, params=None):
        halve = lambda leaf: jax.lax.while_loop(lambda x: jnp.sum(x**2) > 1, lambda x: x / 2, leaf)
        return jax.tree.map(halve, grads), state

    with pytest.raises(ValueError, match="optimizer holds a loop of unknown length"):
        by_strategy(optax.GradientTransformation(lambda params: (), update), tree(0.4), 1.3)


OWN = {
    "by a root in a loop": lambda g: jax.lax.fori_loop(
        0, 2, lambda _, x: x - 0.1 * g * jnp.sqrt(jnp.sum(g**2)), -0.1 * g
    ),
    "by an angle": lambda g: -0.1 * jnp.arctan2(g, jnp.abs(g)),
    "by a singular value": lambda g: (
        -0.1 * jnp.linalg.svd(jnp.outer(g, g))[0] @ g.ravel() if g.ndim == 1 else -g
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_an_optimiser_of_ones_own_has_a_derivative_at_zero_or_is_refused(x64, name):
    update = lambda grads, state, params=None: (jax.tree.map(OWN[name], grads), state)
    optimizer = optax.GradientTransformation(lambda params: (), update)
    if "singular" in name:
        with pytest.raises(ValueError, match="has no finite derivative at a gradient of zero"):
            by_strategy(optimizer, tree(0.0), 0.0)
    else:
        assert np.isfinite(jax.grad(functools.partial(by_strategy, optimizer, tree(0.0)))(0.0))


def test_a_derivative_that_overflows_float32_is_refused():
    """That of adafactor's root at its epsilon of 1e-30 is 1e45."""
    with pytest.raises(ValueError, match=r"FactoredState.*has no finite derivative at a gradient of zero"):
        by_strategy(optax.adafactor(0.1), tree(0.4), 1.3)
    by_strategy(optax.adafactor(0.1, eps=1e-12), tree(0.4), 1.3)
