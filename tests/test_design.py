"""The examples of the design page are true: each is put to use."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import bism_jax
from bism_jax.data import checkerboard
from bism_jax.errors import MissingCapability
from bism_jax.models import LinearGaussian, MLPEnergy
from bism_jax.objectives import draw_latent_noise

DESIGN = Path(__file__).parent.parent / "docs" / "design.md"


@pytest.fixture(scope="module")
def names():
    found = {"__name__": "design"}
    for block in re.findall(r"```python\n(.*?)```", DESIGN.read_text(), re.DOTALL):
        exec(compile(block, str(DESIGN), "exec"), found)
    return found


def test_a_posterior_a_divergence_and_a_callback_train_together(names):
    data = checkerboard.sample(jax.random.key(0), 200)
    method = bism_jax.BiSM(divergence=names["LogVariance"](), num_particles=2)
    result = bism_jax.fit(
        MLPEnergy(widths=(8,)),
        names["StudentPosterior"](num_hidden=2),
        data,
        method=method,
        num_steps=40,
        callbacks=[names["StopBelow"](limit=1e9, every=3)],
    )
    assert len(result.history["loss"]) == 3
    assert np.isfinite(result.history["lower_loss"]).all()


def test_the_divergence_is_zero_at_the_posterior_and_nowhere_else(names, x64):
    model = LinearGaussian(num_latent=2)
    theta = model.init(jax.random.key(0), jnp.zeros((4, 3)), jnp.zeros((4, 2)))
    v = jax.random.normal(jax.random.key(1), (4, 3))
    posterior = model.apply(theta, v, method="posterior")
    noise = draw_latent_noise(jax.random.key(2), posterior, (50,))

    def energy_fn(theta, v, h):
        return model.apply(theta, v, h)

    divergence = names["LogVariance"]()
    np.testing.assert_allclose(divergence.loss(energy_fn, theta, posterior, v, noise), 0, atol=1e-12)
    assert (divergence.loss(energy_fn, theta, posterior, v + 1, noise) > 1e-3).all()


def test_the_data_set_is_read(names, tmp_path):
    rows = np.arange(1000.0).reshape(20, 50)
    file = tmp_path / "weather" / "temperatures.npy"
    with pytest.raises(FileNotFoundError, match=r"temperatures\.npy"):
        names["load_weather"](tmp_path)
    file.parent.mkdir()
    file.write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"temperatures\.npy.* cannot be read"):
        names["load_weather"](tmp_path)
    np.save(file, rows)
    splits = names["load_weather"](tmp_path)
    assert [len(part) for part in splits] == [14, 3, 3]
    np.testing.assert_array_equal(np.concatenate(splits), rows)


def test_the_strategy_gives_the_steps_of_the_optimiser_and_the_derivative_it_says(names, x64):
    problem = bism_jax.LowerProblem(lambda phi, theta, _: 0.5 * jnp.sum((phi - theta) ** 2), optax.sgd(0.1))
    phi, theta = jnp.arange(3.0), jnp.ones(3)
    strategy = names["FirstOrder"](4)
    expected = bism_jax.Unrolled(4).solve(problem, phi, theta)
    jax.tree.map(np.testing.assert_array_equal, strategy.solve(problem, phi, theta), expected)

    def end(phi, theta):
        return strategy.solve(problem, phi, theta).phi

    with pytest.raises(ValueError, match="num_steps must be an integer of at least 0, not -2"):
        names["FirstOrder"](-2)
    np.testing.assert_array_equal(jax.jacrev(end)(phi, theta), np.eye(3))
    np.testing.assert_array_equal(jax.jacrev(end, 1)(phi, theta), np.zeros((3, 3)))


def test_the_method_reaches_the_maximum_likelihood_of_one_gaussian(names, x64):
    """F = (v - m)^2 / 2 s^2 has its maximum likelihood at the data's mean and standard deviation."""

    class Gaussian(nn.Module):
        def setup(self):
            self.mean, self.log_std = (
                self.param(name, nn.initializers.zeros, ()) for name in ("mean", "log_std")
            )

        def __call__(self, v, h):
            return self.free_energy(v) + 0.5 * jnp.sum(h**2, axis=-1)

        def free_energy(self, v):
            return 0.5 * ((v[:, 0] - self.mean) / jnp.exp(self.log_std)) ** 2

        def log_partition(self):
            return self.log_std + 0.5 * jnp.log(2 * jnp.pi)

    data = 3 + 2 * jax.random.normal(jax.random.key(0), (500, 1))
    method = names["MaximumLikelihood"](optax.adam(0.05))
    result = bism_jax.fit(Gaussian(), None, data, method=method, num_steps=400, batch_size=500)
    fitted = result.theta["params"]
    np.testing.assert_allclose(fitted["mean"], data.mean(), rtol=1e-3)
    np.testing.assert_allclose(jnp.exp(fitted["log_std"]), data.std(), rtol=1e-3)
    with pytest.raises(MissingCapability, match=r"MaximumLikelihood needs more of the model: .*free_energy"):
        bism_jax.fit(MLPEnergy(widths=(8,)), None, data, method=method, num_steps=1)
