"""What is said when a run stops being finite tells its causes apart."""

import pickle
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bism_jax import ScoreMatching, fit
from bism_jax.objectives import DSM
from bism_jax.training import DivergenceError
from bism_jax.training._loop.divergence import divergence_error

NAN = np.nan
STEADY = np.linspace(2.0, 1.0, 50)
CASES = {
    "value": ({"loss": NAN, "grad_norm": NAN}, {}, "float32", "loss itself is not finite"),
    "derivative": ({"loss": 1.0, "grad_norm": NAN}, {}, "float32", "smaller learning rate would not help"),
    "overflow": (
        {"loss": np.inf, "grad_norm": NAN},
        {"loss": np.full(5, 3e4)},
        "float16",
        r"float16 holds \(6.55e\+04\)",
    ),
    "overflow of float32": (
        {"loss": np.inf, "grad_norm": NAN},
        {"loss": np.full(5, 1e37)},
        "float32",
        "float32 holds",
    ),
    "growth": (
        {"loss": np.inf, "grad_norm": NAN},
        {"loss": STEADY, "grad_norm": np.geomspace(1, 1e9, 50)},
        "float32",
        r"grad_norm had grown 1e\+09-fold over the last 50 iterations. Lower the learning rate",
    ),
    "sudden": (
        {"loss": 1.0, "grad_norm": NAN},
        {"loss": STEADY, "grad_norm": STEADY},
        "float32",
        "Nothing had grown before. Look at the batch",
    ),
    "sudden from zero": (
        {"loss": 1.0, "grad_norm": NAN},
        {"loss": STEADY, "grad_norm": np.array([0.0, 0.0, 0.0, 5.0])},
        "float32",
        "Nothing had grown before",
    ),
    "growth from zero": (
        {"loss": 1.0, "grad_norm": NAN},
        {"loss": STEADY, "grad_norm": np.array([0.0, 0.0, 0.0, 5.0, 5e9])},
        "float32",
        r"grad_norm had grown 1e\+09-fold",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_causes_are_told_apart(name):
    bad, before, dtype, message = CASES[name]
    theta = {"w": jnp.zeros(2, dtype), "wide": jnp.zeros(2)}
    error = divergence_error(7, bad, before, theta, Path("runs/5"))
    assert error.cause == name.split(" ")[0]
    with pytest.raises(DivergenceError, match=message):
        raise error
    assert "at iteration 7; the last good checkpoint is runs/5." in str(error)


def test_it_survives_a_process_pool():
    error = divergence_error(3, {"loss": NAN}, {}, jnp.zeros(2), None)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.step, copy.checkpoint, copy.cause) == (str(error), 3, None, "value")


def train(free_energy, theta, learning_rate, num_steps=200):
    data = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    method = ScoreMatching(DSM(0.3), optax.sgd(learning_rate))
    options = {"init_params": (theta, None), "num_steps": num_steps, "batch_size": 20, "progress": False}
    return fit(free_energy, None, data, method=method, **options)


def test_a_learning_rate_that_is_too_large_is_named():
    with pytest.raises(DivergenceError, match="Lower the learning rate") as error:
        train(lambda theta, v: 0.5 * theta * (v**2).sum(-1), jnp.asarray(1.0), 3.0)
    assert error.value.cause in ("growth", "overflow")
    assert error.value.step > 5


def test_an_infinite_derivative_is_not_blamed_on_the_learning_rate():
    def free_energy(theta, v):
        return 0.5 * (v**2).sum(-1) * (1 + jnp.sqrt(theta))

    with pytest.raises(DivergenceError, match="derivative is infinite") as error:
        train(free_energy, jnp.asarray(0.0), 1e-3)
    assert (error.value.cause, error.value.step) == ("derivative", 0)
