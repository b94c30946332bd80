"""Models small enough for enumeration and closed forms, and what NumPy makes of them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats
from jax.flatten_util import ravel_pytree

from bism_jax.models import GRBM


def rng_key():
    return jax.random.key(0, impl="rbg")  # compiles faster than the default


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def run(fn, *args):
    """fn(*args) as one compiled program, which costs less than one for each operation."""
    return jax.jit(fn)(*args)


def grbm_theta(num_visible, num_hidden, seed=0, scale=0.7):
    rng = np.random.default_rng(seed)
    params = {
        "W": scale * rng.normal(size=(num_visible, num_hidden)),
        "b": scale * rng.normal(size=num_visible),
        "c": scale * rng.normal(size=num_hidden),
        "log_std": 0.3 * rng.normal(size=num_visible),
    }
    return {"params": jax.tree.map(jnp.asarray, params)}


def grbm(num_hidden, method="__call__"):
    return jax.jit(functools.partial(GRBM(num_hidden).apply, method=method))


def grbm_arrays(theta):
    return tuple(np.asarray(theta["params"][name]) for name in ("W", "b", "c", "log_std"))


def hidden_states(num_hidden):
    return np.array(list(itertools.product((0.0, 1.0), repeat=num_hidden)))


def grbm_energies(theta, v):
    """The energy of each row of v with each state of h, term by term, `[B, 2^m]`."""
    weights, b, c, log_std = grbm_arrays(theta)
    states = hidden_states(len(c))
    quadratic = ((v - b) ** 2 / (2 * np.exp(log_std) ** 2)).sum(axis=1)
    return quadratic[:, None] - states @ c - np.einsum("bi,ij,sj->bs", v, weights, states)


def visible_grid(num_visible, limit, num_points):
    """Grid points, and the volume of a cell; the sum over such a grid is exact for smooth densities."""
    axis, spacing = np.linspace(-limit, limit, num_points, retstep=True)
    grid = np.stack(np.meshgrid(*[axis] * num_visible, indexing="ij"), axis=-1)
    return grid.reshape(-1, num_visible), spacing**num_visible


def grbm_log_partition(theta, limit=15.0, num_points=150):
    """log of the integral over v of sum_h exp(-E)."""
    points, cell = visible_grid(len(theta["params"]["b"]), limit, num_points)
    return scipy.special.logsumexp(-grbm_energies(theta, points)) + np.log(cell)


def assert_gradient(fn, params, step=1e-5):
    """Asserts that the Jacobian of fn agrees with central differences of it, in float64."""
    flat, unravel = ravel_pytree(params)
    assert flat.dtype == jnp.float64

    def jacobians(flat):
        at = lambda x: fn(unravel(x))
        offsets = step * jnp.eye(flat.size)
        values = jax.lax.map(at, jnp.concatenate([flat + offsets, flat - offsets]))
        above, below = jnp.split(values, 2)
        return jax.jacrev(at)(flat), (above - below).T / (2 * step)

    found, expected = run(jacobians, flat)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def concrete_log_prob(logits, temperature, x):
    """The density of sigmoid(x), x logistic with location logits / temperature and scale 1 / temperature."""
    log_density = scipy.stats.logistic.logpdf(x, logits / temperature, 1 / temperature)
    return (log_density + np.logaddexp(0, x) + np.logaddexp(0, -x)).sum(axis=-1)


def random_params(module, *args):
    """Parameters of a module of which none is zero, as biases are at initialisation."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, rng_key(), *args)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape)), shapes)


def linear_theta(num_visible=4, num_latent=2, log_std=-0.4):
    params = {"W": normal(num_visible, num_latent), "b": normal(num_visible, seed=1), "log_std": log_std}
    return {"params": jax.tree.map(jnp.asarray, params)}


def joint_moments(theta):
    """Mean and covariance of the stacked vector (h, v), from v = b + W h + e^s noise."""
    weights, b, log_std = (np.asarray(theta["params"][name]) for name in ("W", "b", "log_std"))
    num_visible, num_latent = weights.shape
    from_noise = np.block(
        [
            [np.eye(num_latent), np.zeros((num_latent, num_visible))],
            [weights, np.exp(log_std) * np.eye(num_visible)],
        ]
    )
    return np.concatenate([np.zeros(num_latent), b]), from_noise @ from_noise.T


def conditional_moments(mean, covariance, given, value):
    """Moments of the other coordinates of a normal vector at `value` of those in `given`, one a row."""
    rest = [index for index in range(len(mean)) if index not in given]
    gain = covariance[np.ix_(rest, given)] @ np.linalg.inv(covariance[np.ix_(given, given)])
    means = mean[rest] + (value - mean[given]) @ gain.T
    return means, covariance[np.ix_(rest, rest)] - gain @ covariance[np.ix_(given, rest)]
