"""What cannot work is refused before anything is compiled, by an error that says what to do instead."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from flax import linen as nn
from flax import nnx

from bism_jax import (
    DSM,
    KL,
    MDSM,
    SM,
    SSM,
    BiSM,
    Implicit,
    Optimizers,
    ScoreMatching,
    StopGradient,
    Truncated,
    Unrolled,
    fit,
)
from bism_jax.models import GRBM, BernoulliPosterior, GaussianPosterior, MLPEnergy
from bism_jax.training import CSVLog, Evaluate, JSONLLog, TensorBoardLog, clear_programs
from tests.helpers import Drift, rows

DATA = rows()
METHOD = BiSM(hypergradient=Unrolled(1))  # quick to trace
ENERGY, POSTERIOR = GRBM(2), GaussianPosterior(2)
PARAMS = {"w": jnp.ones((2, 2)) / 2}
REFUSAL = (TypeError, ValueError)
ADAM = optax.adam(1e-3)
COUNTS = (-1, 1.5, True, "5", None)


class Compiled(BaseException):
    """Raised in place of the compilation of the training loop."""


@pytest.fixture(autouse=True)
def _no_compilation(monkeypatch):
    def compile_(*_, **__):
        raise Compiled("nothing was refused before compilation")

    clear_programs()  # or an equal one would not be compiled again
    monkeypatch.setattr(jax.stages.Lowered, "compile", compile_)


def train(energy=ENERGY, posterior=POSTERIOR, data=DATA, **options):
    arguments = {"method": METHOD, "num_steps": 2, "batch_size": 4, **options}
    return fit(energy, posterior, data, **arguments)


def train_any(**options):
    """With a method that takes any model, for what is not about the model."""
    return train(**{"method": Drift(), **options})


def says(*parts):
    """A pattern for a message with these parts: the argument, the reason, the alternative."""
    return "(?s:.*)".join(parts)


def cases(*rows):
    """Parameters whose first entry is their name."""
    return [pytest.param(*values, id=name) for name, *values in rows]


# Data.

SPOILT = DATA.copy()
SPOILT[7, 1] = SPOILT[9] = np.nan
INFINITE = DATA.copy()
INFINITE[3, 0] = -np.inf


@pytest.mark.parametrize(
    ("data", "message"),
    cases(
        ("nan", SPOILT, says("data holds 3 values that are NaN", "first in row 7", "remove")),
        ("inf", INFINITE, says("data holds 1 values", "infinite", "first in row 3", "remove")),
        ("nan half", SPOILT.astype(np.float16), says("data holds 3 values", "row 7")),
        ("nan bfloat16", jnp.asarray(SPOILT, jnp.bfloat16), says("data holds 3 values", "row 7")),
        ("nan image", np.full((40, 4, 4), np.nan), says("data holds 640 values", "row 0")),
        ("beyond float32", DATA.astype(np.float64) * 1e300, says("data", "float32|infinite")),
        ("integers", DATA.astype(int), says("data has dtype int64", "floating", "astype")),
        ("bytes of an image", DATA.astype(np.uint8), says("data has dtype uint8", r"/ 255")),
        ("booleans", DATA > 0, says("data has dtype bool", "floating", "astype")),
        ("complex", DATA.astype(complex), says("data has dtype complex128", "floating")),
        ("objects", DATA.astype(object), says("data has dtype object", "floating")),
        ("strings", DATA.astype(str), says("data has dtype", "floating")),
        ("structured", np.zeros(40, [("a", "f4")]), says("data has dtype", "floating")),
        ("keys", jax.random.split(jax.random.key(0), 40), says("data", "dtype key", "floating")),
        ("masked", np.ma.masked_greater(DATA, 1), says("data", "mask")),
        ("no rows", DATA[:0], says("data is empty", r"\(0, 2\)", r"\[rows")),
        ("no columns", DATA[:, :0], says("data is empty", r"\(40, 0\)", r"\[rows")),
        ("a number", np.float32(3), says("data", r"shape is \(\)", r"\[rows")),
        ("a jax number", jnp.ones(()), says("data", r"shape is \(\)", r"\[rows")),
        ("a float", 3.0, says("data is a float", "array", "iterable of batches")),
        ("a string", "data.npz", says("data is a str", "array", "iterable of batches")),
        ("bytes", b"data.npz", says("data is a bytes", "array", "iterable of batches")),
        ("a dict", {"train": DATA}, says("data is a dict", "array", "iterable of batches")),
        ("a pair", (DATA, DATA), says("data is a tuple", "array", "iterable of batches")),
        ("None", None, says("data is a NoneType", "array", "iterable of batches")),
        ("a function", lambda: DATA, says("data is a function", "array", "iterable of batches")),
        ("a model", POSTERIOR, says("data is a GaussianPosterior", "array", "iterable of batches")),
        ("a class", np.ndarray, says("data", "class|type")),
        ("an empty list", [], says("data ended", "yields no batch", "iterable")),
    ),
)
def test_data(data, message):
    with pytest.raises(REFUSAL, match=message):
        train_any(data=data)


@pytest.mark.parametrize("data", [DATA[:, None], DATA[:, 0]], ids=["image", "numbers"])
def test_data_of_a_shape_that_the_model_does_not_take(data):
    shape = (4, *data.shape[1:])
    with pytest.raises(ValueError, match=says("GRBM takes v of shape", re.escape(f"not {shape}"), "flatten")):
        train(data=data)


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (41, says("batch_size=41 exceeds the 40 rows", "pass batch_size=40")),
        *((value, says("batch_size must be an integer of at least 1", "not")) for value in (0, *COUNTS)),
    ],
    ids=str,
)
def test_batch_size(batch_size, message):
    with pytest.raises(ValueError, match=message):
        train_any(batch_size=batch_size)


# Options of `fit`.


@pytest.mark.parametrize(
    ("options", "message"),
    cases(
        *((f"num_steps {n}", {"num_steps": n}, says("num_steps must be an integer", "0")) for n in COUNTS),
        *(
            (f"steps_per_call {n}", {"steps_per_call": n}, says("steps_per_call must be", "1", "None"))
            for n in (0, -1, 1.5, True)
        ),
        *(
            (f"checkpoint_every {n}", {"checkpoint_every": n}, "checkpoint_every must be an integer")
            for n in (0, *COUNTS)
        ),
        *(
            (f"ema_decay {x}", {"ema_decay": x}, says("ema_decay must be at least 0 and below 1"))
            for x in (1.0, 1, -0.1, float("nan"), "0.9")
        ),
        ("parallel", {"parallel": "gpu"}, says("parallel='gpu'", "choose one of None, 'jit', 'pmap'")),
        ("on_divergence", {"on_divergence": "ignore"}, says("on_divergence='ignore'", "'raise', 'rollb")),
        ("rollback", {"on_divergence": "rollback"}, says("rollback", "needs a checkpoint_dir")),
        *(
            (f"rng_key {name}", {"rng_key": key}, says("rng_key must be a seed or a key"))
            for name, key in {
                "None": None,
                "legacy": jax.random.PRNGKey(0),
                "float": 1.5,
                "string": "0",
                "boolean": True,
                "array": np.array(3),
                "several keys": jax.random.split(jax.random.key(0), 2),
                "too large": 2**64,
            }.items()
        ),
        ("method class", {"method": BiSM}, says(r"method must be a value such as BiSM\(")),
        ("method name", {"method": "bism"}, says(r"method must be a value such as BiSM\(")),
        ("strategy as method", {"method": Unrolled(5)}, says(r"method must be a value such as BiSM\(")),
        ("checkpoint_dir number", {"checkpoint_dir": 5}, says("checkpoint_dir")),
        ("checkpoint_dir file", {"checkpoint_dir": __file__}, says("checkpoint_dir", "file")),
    ),
)
def test_options_of_fit(options, message):
    with pytest.raises((*REFUSAL, OSError), match=message):
        train_any(**options)


def test_options_of_fit_are_keywords_that_it_knows():
    with pytest.raises(TypeError, match="unexpected keyword argument 'learning_rate'"):
        train_any(learning_rate=0.1)
    with pytest.raises(TypeError, match="positional argument"):
        fit(ENERGY, POSTERIOR, DATA, BiSM())
    with pytest.raises(TypeError, match="data"):
        fit(ENERGY, POSTERIOR)


# Callbacks.


class Callback:
    every = 1

    def __call__(self, snapshot):
        return None


class NeverCallback(Callback):
    every = 0


class Uncallable:
    every = 1


@pytest.mark.parametrize(
    "callbacks",
    cases(
        ("never", [NeverCallback()]),
        ("no every", [print]),
        ("not callable", [Uncallable()]),
        ("class", [Callback]),
        ("one, not several", Callback()),
        ("None", None),
    ),
)
def test_callbacks(callbacks):
    with pytest.raises(REFUSAL, match=says("callbacks?", "every|Callback|sequence")):
        train_any(callbacks=callbacks)


@pytest.mark.parametrize("every", [0, *COUNTS])
@pytest.mark.parametrize("make", [CSVLog, JSONLLog, TensorBoardLog, Evaluate])
def test_turns_of_callbacks(make, every, tmp_path):
    with pytest.raises(ValueError, match="every must be an integer of at least 1"):
        make(tmp_path / "log" if make is not Evaluate else dict, every)
    assert not any(tmp_path.iterdir())


def test_what_is_evaluated_is_a_function():
    with pytest.raises(TypeError, match=says("fn", "function|call")):
        Evaluate({"loss": 1})


def test_an_existing_log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step\n1\n")
    with pytest.raises(FileExistsError, match=says("log.csv exists", "choose another path")):
        train_any(callbacks=[CSVLog(path)])


# Energies, as functions.


def energy(theta, v, h):
    return 0.5 * (v**2).sum(axis=-1) - (h * (v @ theta["w"])).sum(axis=-1) + 0.5 * (h**2).sum(axis=-1)


def posterior(phi, v):
    return dist.Normal(v @ phi["w"], 1.0).to_event(1)


def free_energy(theta, v):
    return 0.5 * (v**2).sum(axis=-1) - jax.nn.softplus(v @ theta["w"]).sum(axis=-1)


def train_functions(energy=energy, posterior=posterior, **options):
    return train(energy, posterior, **{"init_params": (PARAMS, PARAMS), **options})


def moved(v):
    return v - v.mean(axis=0)


SHAPE = says("energy_fn=", "one energy a row", r"shape \(4,\)", "Sum over all axes")
ROWS = says("energy_fn=", "depends on the other rows", "order", "Remove")
DTYPE = says("energy_fn=", "dtype", "floating")
CALL = says("energy_fn")
ENERGIES = cases(
    ("scalar", lambda t, v, h: energy(t, v, h).sum(), SHAPE),
    ("column", lambda t, v, h: energy(t, v, h)[:, None], SHAPE),
    ("matrix", lambda t, v, h: energy(t, v, h)[:, None] * jnp.ones(4), SHAPE),
    ("tuple", lambda t, v, h: (energy(t, v, h), 1.0), SHAPE),
    ("dict", lambda t, v, h: {"energy": energy(t, v, h)}, SHAPE),
    ("None", lambda t, v, h: None, SHAPE),
    ("number", lambda t, v, h: 1.0, SHAPE),
    ("few rows", lambda t, v, h: energy(t, v, h)[:2], SHAPE),
    ("integers", lambda t, v, h: energy(t, v, h).astype(int), DTYPE),
    ("complex", lambda t, v, h: energy(t, v, h) + 0j, DTYPE),
    ("arange over rows", lambda t, v, h: energy(t, v, h) * jnp.arange(v.shape[0]), ROWS),
    (
        "noise of its own",
        lambda t, v, h: energy(t, v + jax.random.normal(jax.random.key(0), v.shape), h),
        ROWS,
    ),
    ("v less its mean", lambda t, v, h: energy(t, moved(v), h), ROWS),
    ("h less its mean", lambda t, v, h: energy(t, v, moved(h)), ROWS),
    ("neighbour", lambda t, v, h: energy(t, jnp.roll(v, 1, axis=0), h), ROWS),
    ("largest of the batch", lambda t, v, h: energy(t, v, h) + 0.01 * v.max(), ROWS),
    ("gated by the batch", lambda t, v, h: energy(t, v, h) * (1 + (v[:, 0] >= v[:, 0].max())), ROWS),
    ("sum of the batch", lambda t, v, h: energy(t, v, h) + 1e-3 * (h**2).sum(), ROWS),
    ("ignores h", lambda t, v, h: energy(t, v, jnp.zeros_like(h)), says("no gradient", "h", "ScoreMatching")),
    ("rounds h", lambda t, v, h: energy(t, v, jnp.round(h)), says("no gradient", "h", "ScoreMatching")),
    ("ignores v", lambda t, v, h: energy(t, jnp.zeros_like(v), h), says("no gradient", "to v", "no score")),
    ("stops v", lambda t, v, h: energy(t, jax.lax.stop_gradient(v), h), says("to v", "no score")),
    ("closes over theta", lambda t, v, h: energy(PARAMS, v, h), says("to theta", "closed over", "argument")),
    ("stops theta", lambda t, v, h: energy(jax.lax.stop_gradient(t), v, h), says("energy_fn", "to theta")),
    ("two arguments", lambda t, v: (v**2).sum(axis=-1), CALL),
    ("four arguments", lambda t, v, h, key: energy(t, v, h), CALL),
    ("numpy", lambda t, v, h: np.asarray(v).sum(axis=-1), CALL),
    ("other latent size", lambda t, v, h: energy(t, v, h @ jnp.ones((3, 3))), CALL),
    ("another batch size", lambda t, v, h: energy(t, v.reshape(8, 2), h), CALL),
)


@pytest.mark.parametrize(("energy_fn", "message"), ENERGIES)
def test_energies(energy_fn, message):
    with pytest.raises(REFUSAL, match=message):
        train_functions(energy_fn)


@pytest.mark.parametrize("batch_size", [1, 40])
def test_coupled_rows_are_found_in_any_batch(batch_size):
    with pytest.raises(ValueError, match=ROWS):
        train_functions(lambda t, v, h: energy(t, moved(v), h), batch_size=batch_size)


def test_coupled_rows_are_found_in_equal_rows():
    with pytest.raises(ValueError, match=ROWS):
        train_functions(lambda t, v, h: energy(t, moved(v), h), data=np.ones((40, 2), np.float32))


@pytest.mark.parametrize(
    ("free_energy_fn", "message"),
    cases(
        ("scalar", lambda t, v: free_energy(t, v).sum(), SHAPE),
        ("column", lambda t, v: free_energy(t, v)[:, None], SHAPE),
        ("integers", lambda t, v: free_energy(t, v).astype(int), DTYPE),
        ("arange over rows", lambda t, v: free_energy(t, v) * jnp.arange(v.shape[0]), ROWS),
        ("v less its mean", lambda t, v: free_energy(t, moved(v)), ROWS),
        ("ignores v", lambda t, v: free_energy(t, jnp.zeros_like(v)), says("to v", "no score")),
        ("closes over theta", lambda t, v: free_energy(PARAMS, v), says("to theta", "closed over")),
        ("with latents", energy, CALL),
    ),
)
def test_free_energies(free_energy_fn, message):
    with pytest.raises(REFUSAL, match=message):
        train(free_energy_fn, None, method=ScoreMatching(), init_params=(PARAMS, None))


# Posteriors, as functions.


def sample(phi, v, key, sample_shape):
    return v @ phi["w"] + jax.random.normal(key, (*sample_shape, *v.shape))


def log_prob(phi, v, h):
    return -0.5 * ((h - v @ phi["w"]) ** 2).sum(axis=-1)


def own_posterior(sample=sample, log_prob=log_prob, **members):
    """A posterior from functions rather than from numpyro."""

    def posterior_fn(phi, v):
        methods = {
            "sample": lambda self, key, sample_shape=(): sample(phi, v, key, sample_shape),
            "log_prob": lambda self, h: log_prob(phi, v, h),
            **members,
        }
        return type("Own", (), {name: method for name, method in methods.items() if method is not None})()

    return posterior_fn


def noise_posterior(draw_noise, transform):
    return own_posterior(
        draw_noise=lambda self, key, sample_shape=(): draw_noise(key, sample_shape),
        transform=lambda self, noise: transform(noise),
    )


def without_gradient(phi):
    return jax.tree.map(jax.lax.stop_gradient, phi)


BATCH_SHAPE = says("posterior_fn=", "batch shape", r"\(4,\)", "to_event")
SAMPLES = says("posterior_fn=", "samples", "first axis must be 4")
PATHWISE = says("posterior_fn=", "not reparameterised", "Use", "Normal")
LACKS_SAMPLE = says("posterior_fn=", r"lacks sample\(\)", "numpyro")
LOG_PROB = says("posterior_fn=", "log_prob", r"\(4,\)")
POSTERIOR_ROWS = says("posterior_fn=", "rows")
POSTERIORS = cases(
    ("no to_event", lambda p, v: dist.Normal(v @ p["w"], 1.0), BATCH_SHAPE),
    ("to_event(2)", lambda p, v: dist.Normal(v @ p["w"], 1.0).to_event(2), BATCH_SHAPE),
    ("vmapped", lambda p, v: jax.vmap(lambda row: posterior(p, row))(v), BATCH_SHAPE),
    ("mean of the batch", lambda p, v: posterior(p, v.mean(axis=0)), BATCH_SHAPE),
    ("few rows", lambda p, v: posterior(p, v[:2]), BATCH_SHAPE),
    ("rows twice", lambda p, v: posterior(p, jnp.tile(v, (2, 1))), BATCH_SHAPE),
    ("Bernoulli", lambda p, v: dist.Bernoulli(logits=v @ p["w"]).to_event(1), PATHWISE),
    ("Categorical", lambda p, v: dist.CategoricalLogits(v @ p["w"]), PATHWISE),
    ("Poisson", lambda p, v: dist.Poisson(jnp.exp(v @ p["w"])).to_event(1), PATHWISE),
    ("stops phi", lambda p, v: posterior(without_gradient(p), v), PATHWISE),
    ("closes over phi", lambda p, v: posterior(PARAMS, v), PATHWISE),
    ("no phi", lambda p, v: dist.Normal(jnp.zeros_like(v), 1.0).to_event(1), PATHWISE),
    ("integers", own_posterior(lambda *args: sample(*args).astype(int)), PATHWISE),
    ("array", lambda p, v: v @ p["w"], LACKS_SAMPLE),
    ("tuple", lambda p, v: (v @ p["w"], 1.0), LACKS_SAMPLE),
    ("None", lambda p, v: None, LACKS_SAMPLE),
    ("no sample", lambda p, v: type("Own", (), {"log_prob": len})(), LACKS_SAMPLE),
    ("no log_prob", lambda p, v: type("Own", (), {"sample": len})(), says("posterior_fn=", "lacks log_prob")),
    ("samples of few rows", own_posterior(lambda *args: sample(*args)[:2]), SAMPLES),
    ("samples of many rows", own_posterior(lambda *args: jnp.tile(sample(*args), (3, 1))), SAMPLES),
    ("scalar samples", own_posterior(lambda *args: sample(*args).sum()), SAMPLES),
    ("tuple of samples", own_posterior(lambda *args: (sample(*args),)), says("posterior_fn=", "samples")),
    ("None of samples", own_posterior(lambda *args: None), says("posterior_fn=", "samples")),
    ("scalar log_prob", own_posterior(log_prob=lambda *args: log_prob(*args).sum()), LOG_PROB),
    ("column log_prob", own_posterior(log_prob=lambda *args: log_prob(*args)[:, None]), LOG_PROB),
    ("matrix log_prob", own_posterior(log_prob=lambda p, v, h: -((h - v @ p["w"]) ** 2)), LOG_PROB),
    ("tuple log_prob", own_posterior(log_prob=lambda *args: (log_prob(*args),)), LOG_PROB),
    ("v less its mean", lambda p, v: posterior(p, moved(v)), POSTERIOR_ROWS),
    ("arange over rows", lambda p, v: posterior(p, v * jnp.arange(v.shape[0])[:, None]), POSTERIOR_ROWS),
    ("coupled log_prob", own_posterior(log_prob=lambda p, v, h: log_prob(p, v, moved(h))), POSTERIOR_ROWS),
    (
        "the same noise for every row",
        own_posterior(lambda p, v, key, shape: v @ p["w"] + jax.random.normal(key, (*shape, 1, 2))),
        says("posterior_fn=", "same noise", "rows?"),
    ),
    (
        "noise without rows",
        noise_posterior(lambda key, shape: jax.random.normal(key, (*shape, 2)), lambda noise: (noise, None)),
        SAMPLES,
    ),
    (
        "transform to h alone",
        noise_posterior(lambda key, shape: jax.random.normal(key, (*shape, 4, 2)), lambda noise: noise),
        says("posterior_fn=", "transform", "intermediates|pair"),
    ),
    ("one argument", lambda v: posterior(PARAMS, v), says("posterior_fn")),
    ("three arguments", lambda p, v, key: posterior(p, v), says("posterior_fn")),
)


@pytest.mark.parametrize(("posterior_fn", "message"), POSTERIORS)
def test_posteriors(posterior_fn, message):
    with pytest.raises(REFUSAL, match=message):
        train_functions(posterior=posterior_fn)


def test_latents_of_another_size_name_both_sides():
    with pytest.raises(REFUSAL, match=says("energy_fn", "posterior_fn")):
        train(GRBM(3), GaussianPosterior(2))


def test_energy_and_posterior_exchanged():
    with pytest.raises(REFUSAL, match="posterior_fn"):
        train(POSTERIOR, ENERGY)


# What is passed as a model.


@pytest.mark.parametrize(
    ("models", "options", "message"),
    cases(
        ("plain functions", (energy, posterior), {}, says("posterior_fn=posterior", "init_params")),
        ("plain energy", (energy, POSTERIOR), {}, says("energy_fn=energy is a plain", "init_params=.*Flax")),
        ("plain posterior", (ENERGY, posterior), {}, says("posterior_fn=posterior", "init_params=.*Flax")),
        ("apply", (ENERGY.apply, POSTERIOR), {}, says("energy_fn=apply is a plain", "init_params")),
        ("energy class", (GRBM, POSTERIOR), {}, says("energy_fn is the class GRBM", r"GRBM\(\.\.\.\)")),
        ("posterior class", (ENERGY, GaussianPosterior), {}, says("posterior_fn is the class", "instance")),
        ("no energy", (None, POSTERIOR), {}, says("energy_fn must be", "function", "NoneType")),
        ("no posterior", (ENERGY, None), {}, says("BiSM needs a posterior_fn", "Pass one", "ScoreMatching")),
        ("energy name", ("grbm", POSTERIOR), {}, says("energy_fn must be a Flax module", "not str")),
        ("posterior array", (ENERGY, DATA), {}, says("posterior_fn must be a Flax module", "ndarray")),
        (
            "ScoreMatching with a posterior",
            (ENERGY, POSTERIOR),
            {"method": ScoreMatching()},
            says("ScoreMatching takes no posterior_fn", "None", "BiSM"),
        ),
        (
            "ScoreMatching without a free energy",
            (MLPEnergy((4,)), None),
            {"method": ScoreMatching()},
            says("energy_fn=MLPEnergy has no method free_energy", "Add it", "BiSM"),
        ),
        (
            "ScoreMatching on a plain function",
            (free_energy, None),
            {"method": ScoreMatching()},
            says("energy_fn=free_energy is a plain", "init_params"),
        ),
        (
            "ScoreMatching on a class",
            (GRBM, None),
            {"method": ScoreMatching()},
            says("energy_fn is the class GRBM", "instance"),
        ),
    ),
)
def test_models(models, options, message):
    with pytest.raises(REFUSAL, match=message):
        train(*models, **options)


THETA = {"params": {"W": jnp.ones((2, 2)), "b": jnp.ones(2), "c": jnp.ones(2), "log_std": jnp.ones(2)}}
PAIR = says(r"init_params must be a pair \(theta, phi\)")
INTEGERS = {"w": jnp.ones((2, 2), int)}


@pytest.mark.parametrize(
    ("init_params", "message"),
    cases(
        ("a list", [PARAMS, PARAMS], PAIR),
        ("one", (PARAMS,), PAIR),
        ("three", (PARAMS, PARAMS, PARAMS), PAIR),
        ("a dict", {"theta": PARAMS, "phi": PARAMS}, PAIR),
        ("an array", jnp.ones((2, 2)), PAIR),
        ("theta alone", PARAMS, PAIR),
        ("no phi", (PARAMS, None), says("init_params", "phi")),
        ("no theta", (None, PARAMS), says("init_params", "theta")),
        ("empty theta", ({}, PARAMS), says("init_params", "theta", "no parameters|empty")),
        ("empty phi", (PARAMS, {}), says("init_params", "phi", "no parameters|empty")),
        ("integer theta", (INTEGERS, PARAMS), says("init_params", "theta", "int32", "floating")),
        ("integer phi", (PARAMS, INTEGERS), says("init_params", "phi", "int32", "floating")),
        ("a counter in theta", ({**PARAMS, "n": 3}, PARAMS), says("init_params", "theta", "'n'", "int")),
        ("a counter in phi", (PARAMS, {**PARAMS, "n": 3}), says("init_params|phi", "'n'", "int", "floating")),
        ("a key in theta", ({**PARAMS, "k": jax.random.key(0)}, PARAMS), says("init_params", "'k'", "key")),
        ("a string in theta", ({"w": "ones"}, PARAMS), says("init_params", "theta", "'w'")),
        ("NaN in theta", ({"w": jnp.full((2, 2), jnp.nan)}, PARAMS), says("init_params", "theta", "NaN")),
        ("theta of another shape", ({"w": jnp.ones((3, 2))}, PARAMS), says("energy_fn")),
        ("phi of another shape", (PARAMS, {"w": jnp.ones((3, 2))}), says("posterior_fn")),
    ),
)
def test_init_params(init_params, message):
    with pytest.raises(REFUSAL, match=message):
        train_functions(init_params=init_params)


@pytest.mark.parametrize(
    "theta", cases(("unwrapped", THETA["params"]), ("another model's", PARAMS), ("None", None))
)
def test_init_params_of_a_module(theta):
    with pytest.raises(Exception, match=says("energy_fn=GRBM|init_params")):
        train_linen(theta)


def train_linen(theta):
    phi = POSTERIOR.init(jax.random.key(0), DATA[:4])
    return train(init_params=(theta, phi))


# Modules with a state.


class Joint(nn.Module):
    """A quadratic energy of a layer of v and h, with something in between."""

    between: nn.Module

    @nn.compact
    def __call__(self, v, h):
        x = self.between(nn.Dense(3)(jnp.concatenate([v, h], axis=-1)))
        return 0.5 * (x**2).sum(axis=-1)


class Encoder(nn.Module):
    between: nn.Module

    @nn.compact
    def __call__(self, v):
        return dist.Normal(self.between(nn.Dense(2)(v)), 1.0).to_event(1)


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + jax.random.normal(self.make_rng("noise"), x.shape)


class Sown(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.sow("intermediates", "x", x)
        return x


class NNXJoint(nnx.Module):
    def __init__(self, between=None):
        self.layer, self.between = nnx.Linear(4, 3, rngs=nnx.Rngs(0)), between

    def __call__(self, v, h):
        x = self.layer(jnp.concatenate([v, h], axis=-1))
        return 0.5 * ((x if self.between is None else self.between(x)) ** 2).sum(axis=-1)


STATEFUL = cases(
    (
        "dropout",
        nn.Dropout(0.5, deterministic=False),
        says("dropout", "pure functions", "deterministic=True"),
    ),
    ("noise", Noisy(), says("draw of random numbers", "pure functions", "Remove")),
    ("batch norm", nn.BatchNorm(use_running_average=False), says("batch_stats", "pure functions", "Remove")),
    ("batch norm's averages", nn.BatchNorm(use_running_average=True), says("batch_stats", "pure functions")),
)


@pytest.mark.parametrize(("between", "message"), STATEFUL)
def test_modules_with_a_state(between, message):
    with pytest.raises(ValueError, match=says("energy_fn=Joint", message)):
        train(Joint(between))
    with pytest.raises(ValueError, match=says("posterior_fn=Encoder", message)):
        train(posterior=Encoder(between))


@pytest.mark.parametrize(("between", "message"), STATEFUL)
def test_modules_with_a_state_whose_parameters_are_given(between, message):
    # Otherwise the running averages would be trained as if they were parameters.
    rngs = {name: jax.random.key(0) for name in ("params", "dropout", "noise")}
    theta = Joint(between).init(rngs, DATA[:4], DATA[:4])
    phi = POSTERIOR.init(jax.random.key(0), DATA[:4])
    with pytest.raises(ValueError, match=says("energy_fn=Joint", message)):
        train(Joint(between), init_params=(theta, phi))


@pytest.mark.parametrize(
    ("between", "message"),
    cases(
        ("dropout", nnx.Dropout(0.5, rngs=nnx.Rngs(0)), says("Rng", "pure functions", "Remove")),
        ("batch norm", nnx.BatchNorm(3, rngs=nnx.Rngs(0)), says("BatchStat", "pure functions", "Remove")),
    ),
)
def test_nnx_modules_with_a_state(between, message):
    with pytest.raises(ValueError, match=says("energy_fn=NNXJoint", message)):
        train(NNXJoint(between))


# Values that are wrong by themselves.


@pytest.mark.parametrize("num_steps", COUNTS)
@pytest.mark.parametrize(
    "strategy", [Unrolled, StopGradient, Implicit, lambda num_steps: Truncated(num_steps, last=1)]
)
def test_num_steps_of_strategies(strategy, num_steps):
    with pytest.raises(ValueError, match=says("num_steps must be an integer of at least", "not")):
        strategy(num_steps=num_steps)


NUMBER = "must be a finite number"
INTEGER = "must be an integer of at least"
BOOLEAN = says("must be (a bool|True or False)")
OPTAX = says("must be an optax transformation such as optax.adam", "not")
OPTIMIZERS = says(r"optimizers must be Optimizers\(theta=..., phi=...\), not")


@pytest.mark.parametrize(
    ("make", "message"),
    cases(
        ("Implicit 0", lambda: Implicit(0), says("num_steps", INTEGER, "StopGradient")),
        ("Implicit solver", lambda: Implicit(5, solver="gmres"), says("solver='gmres'", "'cg', 'neumann'")),
        ("Implicit steps", lambda: Implicit(5, solver_steps=0), says("solver_steps", INTEGER)),
        ("Implicit negative damping", lambda: Implicit(5, damping=-1), says("damping", NUMBER)),
        ("Implicit nan damping", lambda: Implicit(5, damping=float("nan")), says("damping", NUMBER)),
        ("Implicit boolean damping", lambda: Implicit(5, damping=True), says("damping", NUMBER)),
        ("Implicit step_size", lambda: Implicit(5, "neumann", step_size=0), says("step_size", NUMBER)),
        ("Implicit tolerance", lambda: Implicit(5, tolerance=0), says("tolerance", NUMBER)),
        ("Truncated beyond", lambda: Truncated(3, last=4), says("last", "cannot exceed", "Unrolled")),
        ("Truncated 0", lambda: Truncated(3, last=0), says("last", INTEGER, "StopGradient")),
        ("Truncated float", lambda: Truncated(3, last=1.0), says("last", INTEGER)),
        *(
            (
                f"segment {value}",
                lambda value=value: Unrolled(5, segment=value),
                says("segment", INTEGER, "sqrt"),
            )
            for value in (0, -1, "cube", 1.5, True)
        ),
        ("mixed_mode", lambda: Unrolled(5, mixed_mode="no"), says("mixed_mode", BOOLEAN)),
        *(
            (f"lower_steps {n}", lambda n=n: BiSM(lower_steps=n), says("lower_steps", INTEGER))
            for n in COUNTS
        ),
        ("K = N = 0", lambda: BiSM(hypergradient=Unrolled(0)), says("lower_steps=0", "never move", "Take")),
        (
            "K = N = 0 direct",
            lambda: BiSM(hypergradient=StopGradient(0)),
            says("lower_steps=0", "never move"),
        ),
        (
            "K = 0 thrown away",
            lambda: BiSM(keep_unrolled=False),
            says("keep_unrolled=False", "Take keep_unr"),
        ),
        ("keep_unrolled", lambda: BiSM(keep_unrolled="no"), says("keep_unrolled", BOOLEAN)),
        ("noise", lambda: BiSM(noise="frsh"), says("noise='frsh'", "choose one of 'fresh', 'shared'")),
        ("num_particles", lambda: BiSM(num_particles=0), says("num_particles", INTEGER)),
        ("objective class", lambda: BiSM(DSM), says(r"objective must be a value such as DSM\(", "class")),
        ("objective name", lambda: BiSM("dsm"), says(r"objective must be a value such as DSM\(", "'dsm'")),
        ("divergence as objective", lambda: BiSM(KL()), says("objective must be a value such as")),
        ("divergence class", lambda: BiSM(divergence=KL), says(r"divergence must be a value such as KL\(\)")),
        ("objective as divergence", lambda: BiSM(divergence=DSM()), says("divergence must be a value such")),
        ("strategy class", lambda: BiSM(hypergradient=Unrolled), says("hypergradient must be a value such")),
        ("strategy number", lambda: BiSM(hypergradient=5), says("hypergradient must be", r"Unrolled\(num_s")),
        ("one optimiser", lambda: BiSM(optimizers=ADAM), OPTIMIZERS),
        ("plain pair", lambda: BiSM(optimizers=(ADAM, ADAM)), OPTIMIZERS),
        ("dict of optimisers", lambda: BiSM(optimizers={"theta": ADAM, "phi": ADAM}), OPTIMIZERS),
        ("Optimizers itself", lambda: BiSM(optimizers=Optimizers), OPTIMIZERS),
        ("factories", lambda: BiSM(optimizers=Optimizers(optax.adam, ADAM)), says("optimizers.theta", OPTAX)),
        ("rates", lambda: BiSM(optimizers=Optimizers(ADAM, 1e-3)), says("optimizers.phi", OPTAX)),
        ("ScoreMatching pair", lambda: ScoreMatching(optimizer=Optimizers(ADAM, ADAM)), OPTAX),
        ("ScoreMatching factory", lambda: ScoreMatching(optimizer=optax.adam), OPTAX),
        ("ScoreMatching class", lambda: ScoreMatching(SM), says("objective must be a value such as")),
        ("BiSM keyword", lambda: BiSM(lower_step=5), says("unexpected keyword argument 'lower_step'")),
        *(
            (f"noise_std {x}", lambda x=x: DSM(x), says("noise_std", NUMBER))
            for x in (0, -1, float("nan"), float("inf"), "0.1", None, True)
        ),
        ("MDSM level", lambda: MDSM(min_std=0), says("min_std", NUMBER)),
        ("MDSM order", lambda: MDSM(min_std=2, max_std=1), says("min_std=2 exceeds max_std=1", "swap")),
        ("MDSM spacing", lambda: MDSM(spacing="log"), says("spacing='log'", "'geometric', 'linear'")),
        ("SSM projection", lambda: SSM("normal"), says("projection='normal'", "'rademacher', 'gaussian'")),
        ("KL of five particles", lambda: KL(5), says("importance_weighted", BOOLEAN)),
        ("temperature", lambda: BernoulliPosterior(2, temperature=0), says("temperature", NUMBER)),
        ("density", lambda: BernoulliPosterior(2, density="normal"), says("density='normal'", "'concrete'")),
        *(
            (f"{model.__name__} {n}", lambda model=model, n=n: model(n), says("num_hidden", INTEGER))
            for model in (GRBM, GaussianPosterior, BernoulliPosterior)
            for n in (0, 1.5)
        ),
        ("widths", lambda: GaussianPosterior(2, widths=8), says("widths")),
        ("zero width", lambda: BernoulliPosterior(2, widths=(8, 0)), says("widths")),
        ("widths of an energy", lambda: MLPEnergy(8), says("widths")),
    ),
)
def test_values(make, message):
    with pytest.raises(REFUSAL, match=message):
        make()


# What is unusual but works.


class OwnRows:
    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        return DATA[index]


@pytest.mark.parametrize(
    "options",
    cases(
        ("nothing", {}),
        ("half precision", {"data": DATA.astype(np.float16)}),
        ("bfloat16", {"data": jnp.asarray(DATA, jnp.bfloat16)}),
        ("float64", {"data": DATA.astype(np.float64)}),
        ("numbers", {"data": DATA[:, 0]}),
        ("an array of jax", {"data": jnp.asarray(DATA)}),
        ("a list of batches", {"data": [DATA[:4], DATA[4:8]]}),
        ("a source", {"data": OwnRows()}),
        ("one row a batch", {"batch_size": 1}),
        ("all rows a batch", {"batch_size": 40}),
        ("a batch size of NumPy", {"batch_size": np.int64(4)}),
        ("a seed of NumPy", {"rng_key": np.int64(3)}),
        ("a negative seed", {"rng_key": -1}),
        ("another generator", {"rng_key": jax.random.key(0, impl="rbg")}),
        ("no average", {"ema_decay": 0.0}),
        ("one program", {"parallel": "jit"}),
        ("a callback of one's own", {"callbacks": [Callback()]}),
        ("a list of none", {"callbacks": []}),
    ),
)
def test_unusual_options_are_not_refused(options):
    with pytest.raises(Compiled):
        train_any(**options)


@pytest.mark.parametrize("models", [(ENERGY, POSTERIOR, None), (energy, posterior, (PARAMS, PARAMS))])
def test_models_get_to_the_compiler(models):
    with pytest.raises(Compiled):
        train(*models[:2], init_params=models[2])


def grid(phi, v):
    """Latents of two axes."""
    return dist.Normal(jnp.stack([v @ phi["w"]] * 3, axis=1), 1.0).to_event(2)


MODULES = {"posterior": POSTERIOR, "init_params": None}
OWN_PHI = {"energy": ENERGY, "init_params": None}


def initialise(
    energy=energy, posterior=posterior, init_params=(PARAMS, PARAMS), data=DATA[:4], method=METHOD
):
    return method.bind(energy, posterior, init_params=init_params).init(jax.random.key(0), jnp.asarray(data))


def numpy_params(scale):
    return {"w": scale * np.eye(2, dtype=np.float32)}


@pytest.mark.parametrize(
    "options",
    cases(
        ("one row", {"data": DATA[:1]}),
        ("zeros", {"data": np.zeros((4, 2), np.float32)}),
        ("large numbers", {"data": 1e4 * DATA}),
        ("bfloat16", {"data": jnp.asarray(DATA, jnp.bfloat16)}),
        ("NumPy parameters", {"init_params": (numpy_params(1), numpy_params(2))}),
        ("a parameter without use", {"init_params": ({**PARAMS, "a": jnp.ones(3)}, PARAMS)}),
        (
            "a posterior that is sure",
            {"posterior": BernoulliPosterior(2), **OWN_PHI, "data": 30 + 0 * DATA[:4]},
        ),
        ("a posterior of one's own", {"posterior": own_posterior()}),
        ("several latent axes", {"energy": lambda t, v, h: energy(t, v, h.sum(1)), "posterior": grid}),
        ("norm, sown", {"energy": Joint(nn.Sequential([nn.LayerNorm(), Sown()])), **MODULES}),
        ("dropout that is off", {"posterior": Encoder(nn.Dropout(0.5, deterministic=True)), **OWN_PHI}),
        ("nnx", {"energy": NNXJoint(), **MODULES}),
        ("a free energy", {"energy": free_energy, "posterior": None, "method": ScoreMatching()}),
    ),
)
def test_unusual_models_are_not_refused(options):
    state = initialise(**options)
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state.theta))
