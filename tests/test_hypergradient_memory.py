"""Memory of the compiled hypergradient, as the compiler plans it."""

import jax
import jax.numpy as jnp
import optax
import pytest

from bism_jax.hypergradient import LowerProblem, Truncated, Unrolled
from tests.lower_levels import normal

pytestmark = pytest.mark.optimized
N = 64


def data():
    points = normal(0, (1024, 64), jnp.float32)
    return points, jnp.sin(points)


def loss_on(points, targets):
    """That of a tanh network 64-128-64 on 1,024 points, under a weight decay theta."""

    def loss(phi, theta, x):
        prediction = jnp.tanh(points @ phi["w1"] + phi["b1"]) @ phi["w2"] + phi["b2"]
        return jnp.mean((prediction - targets) ** 2) + jnp.exp(theta) * sum(
            jnp.sum(leaf**2) for leaf in phi.values()
        )

    return loss


def start():
    phi = {
        "w1": 0.1 * normal(1, (64, 128), jnp.float32),
        "b1": jnp.zeros(128),
        "w2": 0.1 * normal(2, (128, 64), jnp.float32),
        "b2": jnp.zeros(64),
    }
    return phi, jnp.float32(-5.0)


def temporary_bytes(solve, is_traced=False):
    """Of the gradient in theta, by a loss that closes over data, or over what is traced."""
    phi, theta = start()
    known = data()

    def value(theta, traced):
        loss = loss_on(*(traced or known))
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(solve(loss, phi, theta)))

    compiled = jax.jit(jax.grad(value)).lower(theta, known if is_traced else None).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def by_strategy(strategy):
    return lambda loss, phi, theta: strategy.solve(LowerProblem(loss, optax.adam(1e-3)), phi, theta).phi


def plain_scan(loss, phi, theta):
    """What a user would write: reverse mode through `scan`, without the library."""
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


@pytest.mark.parametrize("is_traced", [False, True])
@pytest.mark.parametrize(("strategy", "ratio"), [(Unrolled(N, segment="sqrt"), 30), (Unrolled(N), 10)])
def test_memory_against_plain_reverse_mode(plain_bytes, strategy, ratio, is_traced):
    found = temporary_bytes(by_strategy(strategy), is_traced) - bytes_of_jax_tanh()
    assert found * ratio <= plain_bytes, f"{plain_bytes / found:.1f} times less, not {ratio}"


def test_segments_keep_the_steps_of_one_and_the_starts_of_all():
    """Phi and two moments at the start of each segment, and those and the gradient at each step of one.

    The rest is the product of the Hessian of one step's loss with a vector, whose last sum reads four arrays
    of 1,024 x 128 (tanh, its tangent, and two parts of the cotangent's) and writes a fifth.
    """
    phi_bytes = sum(leaf.nbytes for leaf in start()[0].values())
    hidden_bytes = 4 * 1024 * 128
    history = 8 * (3 + 4) * phi_bytes
    found = temporary_bytes(by_strategy(Unrolled(N, segment="sqrt"))) - bytes_of_jax_tanh()
    assert history < found < history + 6.25 * hidden_bytes


def test_truncation_stores_its_tail_only():
    whole = temporary_bytes(by_strategy(Unrolled(N)))
    assert temporary_bytes(by_strategy(Truncated(N, last=4))) < whole / 2
