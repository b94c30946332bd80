"""The examples of the design page are true: each is put to use."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bism_jax
from bism_jax.data import checkerboard
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
    with pytest.raises(FileNotFoundError, match=r"weather\.npy"):
        names["load_weather"](tmp_path)
    np.save(tmp_path / "weather.npy", rows)
    splits = names["load_weather"](tmp_path)
    assert [len(part) for part in splits] == [14, 3, 3]
    np.testing.assert_array_equal(np.concatenate(splits), rows)
