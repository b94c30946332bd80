"""Memory of the compiled hypergradient, as the compiler plans it."""

import jax
import jax.numpy as jnp
import optax
import pytest

from bism_jax.hypergradient import LowerProblem, Unrolled
from tests.lower_levels import normal

pytestmark = pytest.mark.optimized
N = 64


def regression():
    """A tanh network 64-128-64 on 1,024 points, fitted by Adam under a weight decay theta."""
    points = normal(0, (1024, 64), jnp.float32)
    targets = jnp.sin(points)
    phi = {
        "w1": 0.1 * normal(1, (64, 128), jnp.float32),
        "b1": jnp.zeros(128),
        "w2": 0.1 * normal(2, (128, 64), jnp.float32),
        "b2": jnp.zeros(64),
    }

    def loss(phi, theta, x):
        prediction = jnp.tanh(points @ phi["w1"] + phi["b1"]) @ phi["w2"] + phi["b2"]
        return jnp.mean((prediction - targets) ** 2) + jnp.exp(theta) * sum(
            jnp.sum(leaf**2) for leaf in phi.values()
        )

    return loss, phi, jnp.float32(-5.0)


def temporary_bytes(solve):
    _, phi, theta = regression()
    value = lambda theta: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(solve(phi, theta)))
    compiled = jax.jit(jax.grad(value)).lower(theta).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def plain_scan(phi, theta):
    """What a user would write: reverse mode through `scan`, without the library."""
    loss, *_ = regression()
    optimizer = optax.adam(1e-3)

    def step(carry, _):
        phi, state = carry
        updates, state = optimizer.update(jax.grad(loss)(phi, theta, None), state, phi)
        return (optax.apply_updates(phi, updates), state), None

    return jax.lax.scan(step, (phi, optimizer.init(phi)), None, length=N)[0][0]


@pytest.fixture(scope="module")
def plain_bytes():
    return temporary_bytes(plain_scan)


def bytes_of_jax_tanh():
    """Since JAX 0.12 the second derivative of tanh keeps 1 - tanh^2, of one step: whatever the strategy."""
    kept = "one_minus_square" in str(jax.make_jaxpr(jax.grad(jnp.tanh))(0.0))
    return kept * 4 * 1024 * 128


@pytest.mark.parametrize(("strategy", "ratio"), [(Unrolled(N, segment="sqrt"), 30), (Unrolled(N), 10)])
def test_memory_against_plain_reverse_mode(plain_bytes, strategy, ratio):
    loss, *_ = regression()
    problem = LowerProblem(loss, optax.adam(1e-3))
    found = temporary_bytes(lambda phi, theta: strategy.solve(problem, phi, theta).phi)
    found -= bytes_of_jax_tanh()
    assert found * ratio <= plain_bytes, f"{plain_bytes / found:.1f} times less, not {ratio}"


def test_truncation_stores_its_tail_only():
    loss, *_ = regression()
    problem = LowerProblem(loss, optax.adam(1e-3))
    whole = temporary_bytes(lambda phi, theta: Unrolled(N).solve(problem, phi, theta).phi)
    from bism_jax.hypergradient import Truncated

    tail = temporary_bytes(lambda phi, theta: Truncated(N, last=4).solve(problem, phi, theta).phi)
    assert tail < whole / 2
