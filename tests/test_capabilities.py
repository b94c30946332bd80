"""A model that lacks what a method needs is told what is missing and what it does support."""

import re

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from flax import linen as nn

from bism_jax import (
    KSD,
    NCE,
    SM,
    SSM,
    VNCE,
    BiDVL,
    ContrastiveDivergence,
    PersistentContrastiveDivergence,
    PersistentVI,
    ScoreMatching,
    VaGES,
    fit,
)
from bism_jax.evaluation import score_matching_objective
from bism_jax.methods import (
    GaussianPrior,
    Gibbs,
    Langevin,
    LangevinRefinement,
    MissingCapability,
    UniformBinary,
    supported_methods,
)
from bism_jax.models import (
    GRBM,
    BernoulliPosterior,
    GaussianPosterior,
    LinearGaussian,
    MLPDecoder,
    MLPEnergy,
    as_model,
)
from tests.helpers import rows
from tests.method_examples import DECODER, METHODS

REFUSAL = (TypeError, ValueError)


def quadratic(theta, v):
    return (theta["w"] * v**2).sum(-1)


def joint(theta, v, h):
    return quadratic(theta, v) + (h**2).sum(-1)


joint.sample_h = lambda theta, key, v: jax.random.normal(key, (len(v), 2))
joint.sample_v = lambda theta, key, h: jax.random.normal(key, (len(h), 2))

MODELS = {
    "GRBM": GRBM(2),
    "LinearGaussian": LinearGaussian(1),
    "MLPEnergy": MLPEnergy((4,)),
    "plain": quadratic,
}
LANGEVIN = {
    "ContrastiveDivergence": ContrastiveDivergence(chain=Langevin(0.1, (2,))),
    "PersistentContrastiveDivergence": PersistentContrastiveDivergence(chain=Langevin(0.1, (2,))),
    "PersistentVI": PersistentVI(100, chain=Langevin(0.1, (2,))),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_what_is_supported_is_what_binds(model, method):
    condition = supported_methods(MODELS[model]).get(method)
    chosen, posterior = METHODS[method]
    if condition in ("", "a posterior_fn"):
        chosen.bind(MODELS[model], posterior)
    else:
        with pytest.raises(
            ValueError, match=rf"{method} needs more of the model: energy_fn=\w+ has no method"
        ):
            chosen.bind(MODELS[model], posterior)
    if condition is not None and "Langevin" in condition:
        LANGEVIN[method].bind(MODELS[model])


def test_the_table_names_every_method():
    assert set(supported_methods(GRBM(2))) == set(METHODS)


@pytest.mark.parametrize(
    ("method", "missing"),
    [
        (NCE(), r"method free_energy\(v\)"),
        (ScoreMatching(KSD()), r"method free_energy\(v\)"),
        (BiDVL(DECODER), r"method free_energy\(v\)"),
        (ContrastiveDivergence(5), r"method sample_h\(rng_key, v\) and no method sample_v\(rng_key, h\)"),
        (ContrastiveDivergence(5, chain=Langevin()), r"method free_energy\(v\)"),
        (PersistentContrastiveDivergence(), r"method sample_h\(rng_key, v\)"),
        (PersistentVI(100), r"method sample_h\(rng_key, v\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_missing_capability_is_named_before_any_work(method, missing):
    posterior = GaussianPosterior(2) if isinstance(method, BiDVL) else None

    def no_work(*_, **__):
        raise AssertionError("the data was touched")

    data = type("Data", (), {"__len__": lambda self: 100, "__getitem__": no_work})()
    supported = r"BiSM \(with a posterior_fn\).*ContrastiveDivergence \(with chain=Langevin"
    with pytest.raises(ValueError, match=f"energy_fn=MLPEnergy has no {missing}.*{supported}"):
        method.bind(MLPEnergy((4,)), posterior)
    with pytest.raises(ValueError, match=f"energy_fn=MLPEnergy has no {missing}"):
        fit(MLPEnergy((4,)), posterior, data, method=method, num_steps=1)


def test_a_method_is_called_by_the_name_of_its_class():
    class Mine(NCE):
        """NCE by another name."""

    with pytest.raises(MissingCapability, match=r"^Mine needs more of the model") as caught:
        Mine().bind(MLPEnergy((4,)))
    assert str(caught.value.__cause__) == "energy_fn=MLPEnergy has no method free_energy(v)"
    with pytest.raises(ValueError, match=r"^Mine takes no posterior_fn"):
        Mine().bind(GRBM(2), GaussianPosterior(2))


@pytest.mark.parametrize("name", ["NCE", "ContrastiveDivergence", "PersistentVI", "ScoreMatching"])
def test_a_posterior_without_a_use_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} takes no posterior_fn: pass None, or train by BiSM"):
        METHODS[name][0].bind(GRBM(2), BernoulliPosterior(2))


@pytest.mark.parametrize("name", ["BiSM", "VaGES", "VNCE", "BiDVL"])
def test_a_missing_posterior_is_named(name):
    with pytest.raises(ValueError, match=f"{name} needs a posterior_fn.*Pass one"):
        METHODS[name][0].bind(GRBM(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContrastiveDivergence(0), "k must be an integer of at least 1"),
        (lambda: ContrastiveDivergence(chain=Gibbs), "chain must be a value such as Gibbs"),
        (lambda: ContrastiveDivergence(chain=0.1), "chain must be a value such as Gibbs.*Langevin"),
        (lambda: PersistentContrastiveDivergence(num_chains=0), "num_chains must be .* or use None"),
        (lambda: Langevin(0.0), "step_size must be a finite number above 0"),
        (lambda: Langevin(0.1, (0,)), "latent_shape must be a tuple"),
        (lambda: NCE(0), "noise_ratio must be an integer of at least 1"),
        (lambda: NCE(0.5), "noise_ratio must be an integer"),
        (lambda: VNCE(lower_steps=0), "lower_steps must be an integer of at least 1"),
        (lambda: VaGES(num_particles=1), "num_particles=1 has no covariance; pass at least 2"),
        (lambda: VaGES(SSM()), "needs derivatives of the score.*use DSM, MDSM or KSD"),
        (lambda: VaGES(SM()), "needs derivatives of the score"),
        (
            lambda: VaGES(refinement=LangevinRefinement(), variance_reduced=True),
            "variance_reduced=True with a refinement.*Take one of the two",
        ),
        (lambda: NCE(noise="normal"), "noise must be a value such as dist.Normal"),
        (lambda: Langevin(latent_steps=0), "latent_steps must be an integer"),
        (lambda: VaGES(refinement=5), "refinement must be a value such as LangevinRefinement"),
        (lambda: LangevinRefinement(0), "num_steps must be .* or use refinement=None"),
        (lambda: KSD(0), "bandwidth must be a finite number above 0"),
        (lambda: UniformBinary(0), "num_hidden must be an integer"),
        (lambda: PersistentVI(0), "num_data must be an integer"),
        (lambda: PersistentVI(10, prior=1.0), "prior must be a value such as GaussianPrior"),
        (lambda: GaussianPrior(0), "std must be a finite number above 0"),
        (lambda: BiDVL(None), "decoder must be a Flax module"),
        (lambda: BiDVL(DECODER, 0.0), "reconstruction_weight must be a finite number above 0"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(REFUSAL, match=message):
        make()


def start(method, energy, posterior=None, **options):
    method.bind(energy, posterior, **options).init(jax.random.key(0), jnp.asarray(rows(4)))


def test_samplers_of_the_wrong_shape_are_refused():
    theta = {"w": jnp.ones(2)}
    for name, sampler, message in (
        ("sample_h", lambda theta, key, v: v[:1], "sample_h returns shape .* one h a row"),
        ("sample_v", lambda theta, key, h: h[:, :1], "sample_v returns shape .* the data's shape"),
        ("sample_v", lambda theta, key, h: 1 / 0, "sample_v cannot be evaluated.*ZeroDivisionError"),
    ):

        def energy(theta, v, h):
            return joint(theta, v, h)

        energy.sample_h, energy.sample_v = joint.sample_h, joint.sample_v
        setattr(energy, name, sampler)
        with pytest.raises(ValueError, match=message):
            start(ContrastiveDivergence(), energy, init_params=(theta, None))


def test_integer_latents_of_a_sampler_are_taken():
    def energy(theta, v, h):
        return joint(theta, v, h)

    energy.sample_h = lambda theta, key, v: jax.random.bernoulli(key, shape=(len(v), 2)).astype(int)
    energy.sample_v = joint.sample_v
    state, _ = take_step(ContrastiveDivergence(), energy, {"w": jnp.ones(2)})
    assert jnp.all(state.theta["w"] != 1)


def take_step(method, energy, theta):
    algorithm = method.bind(energy, init_params=(theta, None))
    batch = jnp.asarray(rows(4))
    return algorithm.step(jax.random.key(1), algorithm.init(jax.random.key(0), batch), batch)


def test_a_plain_function_of_v_alone_is_its_own_free_energy():
    assert as_model("energy_fn", quadratic).method("free_energy") is quadratic
    assert as_model("energy_fn", lambda theta, v, h: 0).method("free_energy") is None
    assert "NCE" not in supported_methods(joint)
    assert score_matching_objective(quadratic, {"w": jnp.ones(2)}, jnp.ones((3, 2))) == 2 * 2 - 4


def test_latents_of_another_size_name_the_option():
    with pytest.raises(ValueError, match=r"\(4, 3\), the latter of .* \(latent_shape, num_hidden\)"):
        start(ContrastiveDivergence(chain=Langevin(0.1, (3,))), FixedLatents())


class FixedLatents(nn.Module):
    """An energy that takes two latents."""

    @nn.compact
    def __call__(self, v, h):
        return (v**2).sum(-1) * self.param("a", nn.initializers.ones, ()) + (h @ jnp.ones((2, 1)))[:, 0] ** 2


@pytest.mark.parametrize(
    "noise",
    [dist.Normal(0.0, 1.0), dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3))],
    ids=["numbers", "three dimensions"],
)
def test_noise_over_other_points_is_refused(noise):
    with pytest.raises(ValueError, match=re.escape("event shape (2,)")):
        start(NCE(noise=noise), GRBM(2))


def test_fewer_data_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="num_data=3, but a batch has 4 rows; pass the number of rows"):
        start(PersistentVI(3), GRBM(2))


def test_a_decoder_of_another_shape_is_refused():
    with pytest.raises(
        ValueError, match=r"decoder=MLPDecoder returns shape \(4, 3\) for a batch of shape \(4, 2\)"
    ):
        start(BiDVL(MLPDecoder((3,))), GRBM(2), GaussianPosterior(2))


def test_an_encoder_that_is_no_gaussian_is_refused():
    with pytest.raises(ValueError, match=r"divergence to N\(0, I\) numpyro does not know; use Gauss"):
        start(BiDVL(DECODER), GRBM(2), BernoulliPosterior(2))


def test_an_odd_batch_for_ksd_is_refused():
    with pytest.raises(ValueError, match=r"KSD compares the rows of a batch in pairs.*even batch_size"):
        fit(GRBM(2), None, rows(9), method=ScoreMatching(KSD()), batch_size=3, num_steps=1)
