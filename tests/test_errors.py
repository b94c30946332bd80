"""Errors of models are told apart by their type, and one model's error is not wrapped in another's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from bism_jax import BiSM, ContrastiveDivergence
from bism_jax.evaluation import log_likelihood
from bism_jax.methods import MissingCapability, ModelError
from bism_jax.models import BernoulliPosterior, MLPEnergy
from tests.helpers import rows


class WithDropout(nn.Module):
    """An energy that draws random numbers, which none may."""

    @nn.compact
    def __call__(self, v, h):
        noisy = nn.Dropout(0.5, deterministic=False)(v)
        return (noisy**2).sum(-1) * self.param("a", nn.initializers.ones, ()) + (h**2).sum(-1)

    def sample_h(self, rng_key, v):
        return self(v, v)[:, None]

    def sample_v(self, rng_key, h):
        return h


@pytest.mark.parametrize(
    ("method", "posterior"), [(BiSM(), BernoulliPosterior(2)), (ContrastiveDivergence(), None)]
)
def test_an_impure_model_is_told_once(method, posterior):
    with pytest.raises(ModelError, match=r"^energy_fn=WithDropout uses dropout"):
        method.bind(WithDropout(), posterior).init(jax.random.key(0), jnp.asarray(rows(4)))


def test_what_breaks_the_contract_is_a_model_error():
    with pytest.raises(ModelError, match="returns shape"):
        BiSM().bind(
            lambda theta, v, h: theta["a"] * v,
            BernoulliPosterior(2),
            init_params=({"a": 1.0}, BernoulliPosterior(2).init(jax.random.key(0), jnp.ones((4, 2)))),
        ).init(jax.random.key(0), jnp.asarray(rows(4)))


def test_what_a_user_passes_beside_the_model_is_none():
    def energy(theta, v, h):
        return (v**2).sum(-1)

    energy.sample_h = energy.sample_v = lambda theta, rng_key, x: x
    with pytest.raises(ValueError, match=r"^init_params must be a pair") as caught:
        ContrastiveDivergence().bind(energy, init_params={}).init(jax.random.key(0), jnp.asarray(rows(4)))
    assert not isinstance(caught.value, ModelError)


def test_a_method_and_an_evaluation_say_what_is_missing_by_one_type():
    with pytest.raises(MissingCapability, match=r"^log_likelihood needs"):
        log_likelihood(MLPEnergy((4,)), {}, rows(4))
    assert not issubclass(MissingCapability, ModelError)
