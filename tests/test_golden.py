"""Loss, direct gradient and hypergradient agree in float64 with a program that differentiates by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bism_jax.hypergradient import StopGradient, Unrolled
from tests import golden

pytestmark = pytest.mark.optimized
VALUES = golden.load()
INPUTS = VALUES["inputs"]
OPTIMIZERS = (
    "sgd",
    "adam_fresh_higher_eps",
    "adam_fresh_standard_eps",
    "adam_carried_state_higher_eps",
)
TEMPERATURES = (0.1, 0.5)


MODES = (Unrolled(5), Unrolled(5, segment="sqrt"))
MORE_MODES = (
    Unrolled(5, mixed_mode=False),
    Unrolled(5, segment=2),
    Unrolled(5, segment="sqrt", mixed_mode=False),
)
CASES = [
    *((Unrolled(num_steps), name) for num_steps in (0, 1, 2) for name in OPTIMIZERS),
    *((Unrolled(2, mixed_mode=False), name) for name in OPTIMIZERS),
    *((MODES[0], name) for name in OPTIMIZERS),
    *((MODES[1], name) for name in ("sgd", "adam_carried_state_higher_eps")),
    *((strategy, "sgd") for strategy in MORE_MODES),
    *(
        pytest.param(strategy, name, marks=pytest.mark.slow)
        for strategy in (MODES[1], *MORE_MODES)
        for name in OPTIMIZERS[1:]
    ),
]


def agree(found, expected):
    """1e-9 relative in max norm over a gradient, plus 1e-12 absolute."""
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    scale = max(float(np.abs(leaf).max()) for leaf in expected)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-9 * scale + 1e-12)


@functools.cache
def compiled(optimizer_name, strategy, objective="DSM", latents=None):
    """One program for both temperatures."""
    spec = next(spec for spec in INPUTS["optimizers"] if spec["name"] == optimizer_name)

    @jax.jit
    def run(temperature):
        setup = golden.setup(INPUTS, spec, temperature, objective, latents)
        losses, problem, lower_input, theta, phi, v = setup
        outer = golden.noise(INPUTS, "outer", objective)
        steps = jnp.zeros(strategy.num_steps, jnp.int32)
        stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None][steps], lower_input)
        value = jax.value_and_grad(losses.unrolled_loss, has_aux=True)
        (loss, solution), hypergradient = value(theta, phi, v, outer, strategy, problem, stacked)
        partial = jax.grad(losses.higher_loss, argnums=(0, 1))(theta, solution.phi, v, outer)
        return loss, solution.phi, solution.losses, hypergradient, *partial

    return run


def find(num_steps, optimizer_name, temperature, objective="DSM", latents=None):
    wanted = {"objective": objective, "latents": latents, "tau": temperature}
    wanted |= {"optimizer": optimizer_name, "N": num_steps}
    return next(case for case in VALUES["cases"] if wanted.items() <= case.items())


def check(strategy, optimizer_name, objective="DSM", latents=None):
    """J, phi^N, the losses on the way, the direct gradient and the hypergradient, at both temperatures."""
    run = compiled(optimizer_name, strategy, objective, latents)
    for temperature in TEMPERATURES:
        case = find(strategy.num_steps, optimizer_name, temperature, objective, latents)
        loss, phi, losses, hypergradient, direct, by_phi = run(temperature)
        agree(loss, case["J"])
        agree(phi, golden.phi_of(case["phi_N"]))
        agree(hypergradient, golden.theta_of(case["hypergrad"]))
        agree(direct, golden.theta_of(case["direct_grad"]))
        agree(by_phi, golden.phi_of(case["dJ_dphi"]))
        if strategy.num_steps:
            agree(losses, np.asarray(case["inner_loss_along_path"][: strategy.num_steps]))


@pytest.mark.parametrize(("strategy", "optimizer_name"), CASES)
def test_golden_values(x64, strategy, optimizer_name):
    check(strategy, optimizer_name)


@pytest.mark.parametrize("num_steps", [0, 2])
@pytest.mark.parametrize("objective", ["SSM", "SM"])
@pytest.mark.parametrize("latents", golden.LATENT_OPTIONS)
def test_golden_values_of_losses_with_a_jacobian(x64, latents, objective, num_steps):
    check(Unrolled(num_steps), "sgd", objective, latents)


def test_stop_gradient_gives_the_direct_gradient(x64):
    case = find(5, "sgd", 0.5)
    loss, _, _, gradient, *_ = compiled("sgd", StopGradient(5))(0.5)
    agree(loss, case["J"])
    agree(gradient, golden.theta_of(case["direct_grad"]))
