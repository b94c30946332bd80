"""Data and parameters of every floating dtype are computed with in float32 at least, or refused."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import linen as nn

from bism_jax import DSM, ScoreMatching, fit
from bism_jax._contract.initialisation import given_params, init_latent_model
from bism_jax.models import GRBM, GaussianPosterior, as_model
from bism_jax.typing import Algorithm
from tests.helpers import rows

NARROW = (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
DTYPES = (*NARROW, np.float32, np.float64, np.longdouble)
# Its squares are beyond 65,504, the largest number of float16.
DATA = np.linspace(100, 300, 24).reshape(12, 2)


def name(dtype):
    return np.dtype(dtype).name


class Info(NamedTuple):
    loss: jax.Array


class State(NamedTuple):
    theta: dict
    iteration: jax.Array


class Squares:
    """Says the mean square of each batch."""

    def bind(self, energy_fn, posterior_fn=None, *, init_params=None, axis_name=None):
        def init(rng_key, batch):
            return State({"w": batch.mean(axis=0)}, jnp.zeros((), jnp.int32))

        def step(rng_key, state, batch):
            return State(state.theta, state.iteration + 1), Info((batch**2).mean())

        return Algorithm(init, step)


class Source:
    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        return self.array[index]


def squares(data, **options):
    return fit(None, None, data, method=Squares(), num_steps=2, batch_size=12, **options)


@pytest.mark.parametrize(
    ("dtype", "convert"),
    [
        *((dtype, lambda array: array) for dtype in DTYPES),
        *((dtype, jnp.asarray) for dtype in (np.float16, ml_dtypes.bfloat16)),
        *((dtype, Source) for dtype in (np.float16, ml_dtypes.float8_e4m3fn, np.longdouble)),
        *((dtype, lambda array: [array]) for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e5m2)),
    ],
    ids=lambda value: name(value) if value in DTYPES else "",
)
def test_data(dtype, convert):
    data = DATA.astype(dtype)
    result = squares(convert(data))
    np.testing.assert_allclose(result.history["loss"], np.mean(data.astype(np.float64) ** 2), rtol=1e-6)
    assert result.theta["w"].dtype == np.float32


def test_data_by_device():
    data = DATA.astype(np.float16)
    found = squares(data, parallel="pmap").history["loss"]
    np.testing.assert_allclose(found, np.mean(data.astype(np.float64) ** 2), rtol=1e-6)


def test_long_data_are_computed_with_in_float64_where_it_is_on(x64):
    for dtype in (np.float64, np.longdouble):
        data = 1e9 + DATA.astype(dtype)
        result = squares(data)
        np.testing.assert_allclose(result.history["loss"], np.mean(data.astype(np.float64) ** 2), rtol=1e-12)
        assert result.theta["w"].dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float64, np.longdouble], ids=name)
def test_what_float32_does_not_hold_is_refused(dtype):
    with pytest.raises(ValueError, match="data holds 24 values that are NaN or infinite"):
        squares(dtype(1e40) * DATA.astype(dtype))
    with pytest.raises(ValueError, match=r"column 1 varies by 60 around 1.00000002e\+10"):
        squares(np.concatenate([DATA[:, :1], 1e10 + DATA[:, 1:]], axis=1).astype(dtype))
    with pytest.raises(ValueError, match=r"rounds that away\. Subtract the mean, or set jax_enable_x64"):
        squares(Source(1e10 + DATA.astype(dtype)))
    squares(1e4 + DATA.astype(dtype))


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, np.int8, bool, complex, object])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match=r"data has dtype .*floating"):
        squares((DATA / 100).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_parameters(dtype):
    array = np.array([0.5, 1.25, -2.0]).astype(dtype)
    theta, phi = given_params(({"a": array}, {"b": jnp.asarray(array)} if dtype in NARROW else {"b": 0.5}))
    assert jnp.asarray(theta["a"]).dtype == jnp.asarray(phi["b"]).dtype == np.float32
    np.testing.assert_array_equal(theta["a"], [0.5, 1.25, -2.0])


@pytest.mark.parametrize("dtype", [np.float64, np.longdouble], ids=name)
def test_parameters_that_float32_does_not_hold_are_refused(dtype):
    with pytest.raises(ValueError, match=r"init_params: theta\['a'\] holds NaN or infinite"):
        given_params(({"a": np.array([dtype(1e300)])}, {"b": jnp.ones(1)}))


class HalfEnergy(nn.Module):
    @nn.compact
    def __call__(self, v, h):
        hidden = nn.Dense(4, param_dtype=jnp.bfloat16)(jnp.concatenate([v, h], axis=-1))
        return nn.tanh(hidden).sum(axis=-1) + (v**2).sum(axis=-1) + (h**2).sum(axis=-1)


def test_parameters_of_a_module():
    models = as_model("energy_fn", HalfEnergy()), as_model("posterior_fn", GaussianPosterior(2))
    theta, phi = init_latent_model(*models, jax.random.key(0), jnp.asarray(rows(4)), None)
    assert {leaf.dtype for leaf in jax.tree.leaves((theta, phi))} == {np.dtype(np.float32)}


def test_half_precision_trains_to_the_bits_of_float32():
    """In bfloat16 a parameter of 1 would not feel a step of 1e-4."""
    theta = jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16), GRBM(2).init(jax.random.key(0), *2 * [rows(4)])
    )
    data = rows(40).astype(ml_dtypes.bfloat16)

    def train(dtype):
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), theta)
        options = {"method": ScoreMatching(DSM(0.3)), "num_steps": 3, "batch_size": 20}
        return fit(GRBM(2), None, data.astype(dtype), init_params=(params, None), **options)

    half, single = train(ml_dtypes.bfloat16), train(np.float32)
    chex.assert_trees_all_equal(half.theta, single.theta)
    moved = jax.tree.map(lambda new, old: np.any(new != np.float32(old)), half.theta, theta)
    assert all(jax.tree.leaves(moved))
