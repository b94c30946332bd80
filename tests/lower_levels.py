"""Lower-level problems that several tests share."""

import jax
import jax.numpy as jnp
import optax


def normal(seed, shape, dtype=None):
    return jax.random.normal(jax.random.key(seed), shape, dtype or jnp.result_type(float))


def smooth_loss(phi, theta, x):
    """Softplus, logsumexp and a per-step input; nothing is linear in anything."""
    field = jax.nn.softplus(x @ phi["w"] + theta["b"]) + phi["a"]
    fit = jnp.mean((jax.nn.logsumexp(field, axis=-1) - theta["c"]) ** 2)
    return fit + 0.1 * jnp.exp(theta["c"]) * jnp.sum(phi["w"] ** 2)


def smooth_problem(num_steps, optimizer):
    phi = {"w": 0.3 * normal(0, (3, 4)), "a": 0.2 * normal(1, (4,))}
    theta = {"b": 0.1 * normal(2, (4,)), "c": jnp.asarray(0.3)}
    return smooth_loss, optimizer, phi, theta, normal(3, (num_steps, 6, 3))


def higher(phi, theta):
    return jnp.sum(jnp.sin(phi["w"]) ** 2) * theta["c"] + jnp.sum(phi["a"] * theta["b"])


OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.01, b2=0.95),
    "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.rmsprop(0.01, eps=1e-3)),
}


def quadratic(dimension=3):
    """G = 1/2 phi^T A phi - phi^T B theta, A positive definite; phi*(theta) = A^-1 B theta."""
    root = normal(5, (dimension, dimension))
    matrix = root @ root.T + jnp.eye(dimension)
    coupling = normal(6, (dimension, 2))

    def loss(phi, theta, x):
        return 0.5 * phi @ matrix @ phi - phi @ coupling @ theta

    return loss, matrix, coupling


def compile_fast(fn):
    """`jax.jit` for a program that is large and runs a few times, such as a third derivative."""
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0})
