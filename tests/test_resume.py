"""What a checkpoint is continued by: the same run, or on purpose another one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import scipy.sparse
from flax import linen as nn
from flax import nnx

from bism_jax import DSM, BiSM, ContrastiveDivergence, Optimizers, ScoreMatching, Unrolled, fit
from bism_jax.models import GRBM, GaussianPosterior
from bism_jax.training import CSVLog, DivergenceError
from bism_jax.training._checkpoints.description import describe, describe_state
from bism_jax.training._checkpoints.differences import differences
from bism_jax.training._checkpoints.iteration import describe_iteration
from bism_jax.typing import Algorithm
from tests.helpers import Drift, DriftInfo, rows

ROOT = Path(__file__).parent.parent
DATA = rows(60, (3,))
SGD = optax.sgd(0.01)


def drift(folder, num_steps=4, data=DATA, **options):
    arguments = {"method": Drift(), "batch_size": 10, "checkpoint_every": 2, **options}
    return fit(lambda *_: None, None, data, num_steps=num_steps, checkpoint_dir=folder, **arguments)


def differ(old: Any, new: Any) -> list[str]:
    """The differences of two methods on one model, as of a checkpoint and a run."""

    def description(method):
        posterior = GaussianPosterior(2) if hasattr(method, "hypergradient") else None
        algorithm = method.bind(GRBM(2), posterior)
        state = algorithm.init(jax.random.key(0), jnp.asarray(DATA[:10]))
        traced = jax.make_jaxpr(algorithm.step)(jax.random.key(0), state, jnp.asarray(DATA[:10]))
        return {"method": describe(method), "iteration": describe_iteration(traced)}

    return differences(json.loads(json.dumps(description(old))), json.loads(json.dumps(description(new))))


def bism(**options):
    defaults = {"hypergradient": Unrolled(1), "optimizers": Optimizers(SGD, SGD)}
    return BiSM(options.pop("objective", DSM(0.3)), **{**defaults, **options})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (bism(), bism(), []),
        (bism(), bism(num_particles=2), ["method.num_particles: 1 → 2"]),
        (bism(), bism(objective=DSM(0.31)), ["method.objective.noise_std: 0.3 → 0.31"]),
        (bism(), bism(hypergradient=Unrolled(2)), ["method.hypergradient.num_steps: 1 → 2"]),
        (
            ContrastiveDivergence(1, optimizer=optax.adam(1e-3)),
            ContrastiveDivergence(1, optimizer=optax.adam(1.5e-3)),
            ["method.optimizer.step_size: -0.001 → -0.0015"],
        ),
        (
            ContrastiveDivergence(1, optimizer=optax.adam(optax.linear_schedule(1e-3, 0.0, 10))),
            ContrastiveDivergence(1, optimizer=optax.adam(optax.linear_schedule(1e-3, 0.0, 20))),
            ["transition_steps: 10 → 20"],
        ),
    ],
)
def test_a_difference_names_the_old_and_the_new_value(old, new, expected):
    found = differ(old, new)
    assert len(found) == len(expected)
    for text, end in zip(found, expected, strict=True):
        assert text.endswith(end)


def test_a_constant_that_no_name_leads_to_is_found_in_the_trace():
    def scaled(scale):  # as a constant in the code, which no closure holds
        update = eval(f"lambda g, s, p=None: (__import__('jax').tree.map(lambda x: {scale} * x, g), s)")
        return ContrastiveDivergence(
            1, optimizer=optax.GradientTransformation(lambda p: optax.EmptyState(), update)
        )

    assert differ(scaled(-0.1), scaled(-0.2)) == ["constants of the iteration: -0.1 → -0.2"]


def test_other_operations_are_named_as_such():
    def energy(power):
        return (
            (lambda t, v: jnp.sum((t * v) ** 2, -1))
            if power == 2
            else (lambda t, v: jnp.sum(jnp.cosh(t * v), -1))
        )

    def description(power):
        algorithm = ScoreMatching(DSM(0.3)).bind(energy(power), None, init_params=(jnp.ones(3), None))
        v = jnp.asarray(DATA[:10])
        state = algorithm.init(jax.random.key(0), v)
        return {"iteration": describe_iteration(jax.make_jaxpr(algorithm.step)(jax.random.key(0), state, v))}

    assert differences(description(2), description(2)) == []
    (found,) = differences(description(2), description(3))
    assert "other operations" in found


def test_what_a_closure_collects_does_not_make_another_run():
    seen = []

    def energy(theta, v):
        seen.append(v.shape)
        return jnp.sum((theta * v) ** 2, -1)

    old = {"energy_fn": describe(energy), "iteration": 1}
    energy(jnp.ones(3), DATA)
    assert differences(old, {"energy_fn": describe(energy), "iteration": 1}) == []


@pytest.mark.slow
def test_descriptions_are_the_same_in_another_process():
    """Hashes of strings, and addresses in the text of a trace, are others there."""
    program = """
import json, sys
from tests.test_resume import *
method = bism(objective=DSM(0.3), num_particles=2, optimizers=Optimizers(optax.adam(1e-3), optax.adam(1e-3)))
algorithm = method.bind(GRBM(2), GaussianPosterior(2))
v = jnp.asarray(DATA[:10])
traced = jax.make_jaxpr(algorithm.step)(jax.random.key(0), algorithm.init(jax.random.key(0), v), v)
print(json.dumps({"method": describe(method), "iteration": describe_iteration(traced)}))
"""
    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 20}, r"another run: batch_size: 10 → 20\. Choose .*resume='parameters'"),
        ({"rng_key": 1}, r"another run: rng_key: threefry2x32 \[0, 0\] → threefry2x32 \[0, 1\]\."),
        ({"ema_decay": 0.9}, r"another run: ema_decay: None → 0\.9\."),
        ({"data": DATA[:50]}, r"another run: data.checksum: \w+ → \w+; data.shape\[0\]: 60 → 50\."),
        ({"data": DATA.astype(np.float16)}, r"data.dtype: float32 → float16"),
        (
            {"data": np.where(np.arange(60)[:, None] == 33, 0, DATA)},
            r"another run: data.checksum: \w+ → \w+\.",
        ),
    ],
)
def test_another_run_is_refused(tmp_path, options, message):
    drift(tmp_path, 2)
    with pytest.raises(ValueError, match=message):
        drift(tmp_path, **options)
    assert drift(tmp_path).history["loss"].tolist() == [0, 1, 2, 3]


def test_another_start_is_refused(tmp_path):
    def train(value):
        return fit(
            lambda t, v: jnp.sum(t * v**2, -1), None, DATA, method=ScoreMatching(DSM(0.3), SGD), num_steps=2,
            batch_size=10, init_params=(jnp.full(3, value), None), checkpoint_dir=tmp_path,
        )  # fmt: skip

    train(1.0)
    with pytest.raises(ValueError, match=r"init_params: \w+ → \w+"):
        train(2.0)


class Rows:
    """A source whose rows are those of an array, times a factor."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        return DATA[index] * self.factor() if callable(self.factor) else DATA[index] * np.float32(self.factor)


def test_other_rows_of_a_source_are_refused(tmp_path):
    drift(tmp_path, 2, Rows())
    with pytest.raises(ValueError, match=r"data\.checksum"):
        drift(tmp_path, data=Rows(2.0))
    drift(tmp_path, data=Rows())


def test_a_source_whose_rows_are_random_is_continued(tmp_path):
    generator = np.random.default_rng(0)
    source = Rows(lambda: np.float32(generator.normal()))
    drift(tmp_path, 2, source)
    assert len(drift(tmp_path, data=source).history["loss"]) == 4


class Batches:
    """An iterator of batches with a state."""

    def __init__(self, factor=1.0):
        self.position, self.factor = 0, factor

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        return DATA[:10] * np.float32(self.factor * self.position)

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def test_an_iterator_that_goes_on_otherwise_is_refused(tmp_path):
    expected = drift(tmp_path / "whole", data=Batches()).theta["w"]
    drift(tmp_path / "cut", 2, Batches())
    with pytest.raises(ValueError, match="data does not go on as it did"):
        drift(tmp_path / "cut", data=Batches(2.0))
    np.testing.assert_array_equal(drift(tmp_path / "cut", data=Batches()).theta["w"], expected)


def test_it_says_from_where_it_goes_on(tmp_path, capsys):
    drift(tmp_path, 2)
    assert "continuing" not in capsys.readouterr().err
    drift(tmp_path, 2000, steps_per_call=1000, checkpoint_every=2000)
    assert "continuing from 2 of 2,000\n" in capsys.readouterr().err
    drift(tmp_path, 2000)
    assert "continuing from 2,000 of 2,000\n" in capsys.readouterr().err


def train(folder, method, num_steps, **options):
    return fit(
        GRBM(2),
        None,
        DATA,
        method=method,
        num_steps=num_steps,
        batch_size=10,
        checkpoint_dir=folder,
        **options,
    )


def momentum(rate):
    return ContrastiveDivergence(1, optimizer=optax.sgd(rate, momentum=0.9))


def test_parameters_go_on_under_another_learning_rate(tmp_path, capsys):
    """With the momentum of the first run; the record is that of both."""
    first = train(tmp_path, momentum(0.0), 3)
    with pytest.raises(ValueError, match=r"another run: method\.optimizer\.step_size: -0\.0 → -0\.5"):
        train(tmp_path, momentum(0.5), 4)
    result = train(tmp_path, momentum(0.5), 4, resume="parameters")
    expected = "continuing from 3 of 4 under other settings (method.optimizer.step_size: -0.0 → -0.5)\n"
    assert expected in capsys.readouterr().err
    np.testing.assert_array_equal(result.history["loss"][:3], first.history["loss"])
    # One step of momentum: trace = g + 0.9 * trace, theta -= 0.5 * trace, with a trace of the three before.
    plain = train(tmp_path / "plain", momentum(0.5), 1, init_params=(first.theta, None), rng_key=1)
    step = np.abs(result.theta["params"]["W"] - first.theta["params"]["W"]).max()
    assert step > np.abs(plain.theta["params"]["W"] - first.theta["params"]["W"]).max() * 0.1
    assert train(tmp_path, momentum(0.5), 5).history["loss"].shape == (5,)  # it is this run's folder now


def test_an_optimizer_of_another_structure_starts_anew(tmp_path, capsys):
    first = train(tmp_path, momentum(0.1), 3)
    result = train(
        tmp_path, ContrastiveDivergence(1, optimizer=optax.adam(0.0)), 5, resume="parameters", ema_decay=0.5
    )
    said = capsys.readouterr().err
    assert "continuing from 3 of 5 under other settings (ema_decay: None → 0.5; " in said
    assert "); theta_opt_state, theta_ema start anew\n" in said
    for found, expected in zip(jax.tree.leaves(result.theta), jax.tree.leaves(first.theta), strict=True):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(jax.tree.leaves(result.theta_ema), jax.tree.leaves(first.theta), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_parameters_of_another_model_are_refused(tmp_path):
    train(tmp_path, momentum(0.1), 1)
    with pytest.raises(
        ValueError, match=r"the theta .* does not fit the model: theta\[.*\] is float32\[3, 2\] there"
    ):
        fit(
            GRBM(3), None, DATA, method=momentum(0.1), num_steps=2, batch_size=10, checkpoint_dir=tmp_path,
            resume="parameters",
        )  # fmt: skip


def test_parameters_go_on_under_another_method(tmp_path):
    """Its record has other scalars, which are NaN where they were not measured."""
    drift(tmp_path, 2, init_params=None)

    class Other(Drift):
        def bind(self, *args, **options):
            algorithm = super().bind(*args, **options)

            def step(key, state, batch):
                state, info = algorithm.step(key, state, batch)
                return state, OtherInfo(info.loss, info.loss)

            return Algorithm(algorithm.init, step)

    found = drift(
        tmp_path, 4, method=Other(), resume="parameters", callbacks=[CSVLog(tmp_path / "log.csv", 4)]
    )
    np.testing.assert_array_equal(found.history["other"], [np.nan, np.nan, 2, 3])
    np.testing.assert_array_equal(np.isnan(found.history["noise"]), [False, False, True, True])


class OtherInfo(NamedTuple):
    loss: Any
    other: Any


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": "parameters"}, "resume='parameters' needs a checkpoint_dir"),
        (
            {"resume": True, "checkpoint_dir": "x"},
            "resume=True is unknown; choose one of 'strict', 'parameters'",
        ),
    ],
)
def test_resume_is_a_choice(options, message):
    with pytest.raises(ValueError, match=message):
        fit(lambda *_: None, None, DATA, method=Drift(), **options)


class KeyedState(NamedTuple):
    theta: Any
    phi: Any
    key: Any
    extra: Any


class Keyed(Drift):
    """A method whose state holds typed keys of two kinds, integers, a boolean and narrow floats."""

    def bind(self, energy_fn, posterior_fn=None, *, init_params=None, axis_name=None):
        def init(rng_key, batch):
            extra = {
                "chains": jax.random.split(jax.random.key(1, impl="rbg"), 3),
                "count": jnp.zeros((), jnp.int32),
                "flag": jnp.zeros((2,), bool),
                "narrow": jnp.zeros((2,), jnp.bfloat16),
                "unsigned": jnp.zeros((), jnp.uint8),
                "python": 0,
            }
            return KeyedState({"w": jnp.zeros(batch.shape[1:])}, None, jax.random.key(7), extra)

        def step(rng_key, state, batch):
            key, noise_key = jax.random.split(state.key)
            noise = jax.random.normal(noise_key, batch.shape[1:])
            more = jax.vmap(lambda key: jax.random.normal(key, batch.shape[1:]))(state.extra["chains"]).sum(0)
            extra = {
                "chains": jax.vmap(lambda key: jax.random.split(key)[0])(state.extra["chains"]),
                "count": state.extra["count"] + 1,
                "flag": ~state.extra["flag"],
                "narrow": state.extra["narrow"] + 1,
                "unsigned": state.extra["unsigned"] + jnp.uint8(1),
                "python": state.extra["python"],
            }
            theta = {
                "w": state.theta["w"] + noise + more * (1 + state.extra["narrow"][0].astype(jnp.float32))
            }
            return KeyedState(theta, None, key, extra), DriftInfo(jnp.float32(0), noise[0])

        return Algorithm(init, step)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_states_of_any_kind_survive_a_resume(tmp_path, parallel):
    options = {"method": Keyed(), "parallel": parallel}
    whole = drift(tmp_path / "whole", 6, **options).theta["w"]
    drift(tmp_path / "cut", 3, **options)
    np.testing.assert_array_equal(drift(tmp_path / "cut", 6, **options).theta["w"], whole)


def test_an_optimizer_with_a_key_survives_a_resume(tmp_path):
    noisy = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.sgd(0.1))
    method = ContrastiveDivergence(1, optimizer=noisy)
    whole = train(tmp_path / "whole", method, 4).theta
    train(tmp_path / "cut", method, 2)
    again = train(tmp_path / "cut", method, 4).theta
    for found, expected in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_distributions_of_a_closure_are_described_by_their_type():
    assert describe(dist.Normal(0.0, 1.0)) == "Normal"


# Lists of batches have an order, so that they can be set back and told apart.


def test_a_list_of_batches_goes_on_where_it_stopped(tmp_path):
    batches = list(DATA.reshape(6, 10, 3))
    whole = drift(tmp_path / "whole", 10, batches)
    drift(tmp_path / "parts", 4, batches)
    found = drift(tmp_path / "parts", 10, batches)
    np.testing.assert_array_equal(found.theta["w"], whole.theta["w"])
    changed = [*batches[:5], batches[5] + 1]
    with pytest.raises(ValueError, match=r"another run: data\.checksum: "):
        drift(tmp_path / "parts", 12, changed)
    with pytest.raises(ValueError, match=r"another run: data\.batches: 6 → 5"):
        drift(tmp_path / "parts", 12, batches[:5])


def test_what_changes_on_purpose_is_said(tmp_path, capfd):
    drift(tmp_path, 2)
    drift(tmp_path, 4, batch_size=20, rng_key=3, resume="parameters")
    said = capfd.readouterr().err
    assert "continuing from 2 of 4 under other settings (batch_size: 10 → 20; rng_key: " in said
    drift(tmp_path, 6, batch_size=20, rng_key=3)
    assert "continuing from 4 of 6\n" in capfd.readouterr().err


def test_parameters_of_no_run_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no checkpoint to take them from; pass the folder of that run"):
        drift(tmp_path / "mistyped", resume="parameters")
    assert not (tmp_path / "mistyped").exists()


def test_parameters_that_do_not_fit_are_not_recommended(tmp_path):
    drift(tmp_path, 2)
    with pytest.raises(
        ValueError, match=r"theta\['w'\] is float32\[3\] there and float32\[2\] here"
    ) as error:
        drift(tmp_path, 4, rows(60, (2,)))
    assert "resume='parameters'" not in str(error.value)


# What acts through the first state alone, or beside the trace.


def train_grbm(folder, num_steps=2, energy=None, posterior=None, **options):
    optimizers = options.pop("optimizers", Optimizers(optax.sgd(0.01), optax.sgd(0.01)))
    method = BiSM(DSM(0.3), hypergradient=Unrolled(1), optimizers=optimizers)
    arguments = {"method": method, "batch_size": 10, **options}
    energy, posterior = energy or GRBM(2), posterior or GaussianPosterior(2)
    return fit(energy, posterior, DATA, num_steps=num_steps, checkpoint_dir=folder, **arguments)


class Scaled(nn.Module):
    scale: float

    @nn.compact
    def __call__(self, v, h):
        weight = self.param("weight", nn.initializers.normal(self.scale), (3, 2))
        return ((v @ weight - h) ** 2).sum(axis=-1) + (v**2).sum(axis=-1)


class Layer(nnx.Module):
    def __init__(self, seed):
        self.layer = nnx.Linear(3, 2, rngs=nnx.Rngs(seed))

    def __call__(self, v, h):
        return ((self.layer(v) - h) ** 2).sum(axis=-1) + (v**2).sum(axis=-1)


def injected(learning_rate):
    return Optimizers(*[optax.inject_hyperparams(optax.sgd)(learning_rate=learning_rate) for _ in range(2)])


def adagrad(start):
    return Optimizers(optax.adagrad(0.1, initial_accumulator_value=start), optax.sgd(0.01))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"energy": Scaled(0.1)}, {"energy": Scaled(3.0)}, r"energy_fn\.scale: 0\.1 → 3\.0"),
        (
            {"energy": Layer(0)},
            {"energy": Layer(1)},
            r"initial state: theta\['layer'\]\['kernel'\] has other",
        ),
        (
            {"optimizers": injected(1e-3)},
            {"optimizers": injected(1e-1)},
            r"optimizers\.phi\..*learning_rate: 0\.001 → 0\.1",
        ),
        (
            {"optimizers": adagrad(0.1)},
            {"optimizers": adagrad(10.0)},
            r"optimizers\.theta\..*initial_accumulator_value: 0\.1 → 10\.0",
        ),
    ],
)
def test_what_acts_through_the_first_state_decides(first, second, message, tmp_path):
    train_grbm(tmp_path, **first)
    with pytest.raises(ValueError, match=message):
        train_grbm(tmp_path, 4, **second)
    train_grbm(tmp_path, 4, **first)


def test_a_rounded_first_state_is_the_same():
    """As another processor may initialise it."""
    state = {"w": np.linspace(-1, 1, 1000, dtype=np.float32), "rate": np.float32(1e-3)}
    rounded = {name: leaf * np.float32(1 + 1e-7) for name, leaf in state.items()}
    run = dict.fromkeys(("iteration", "data", "batch_size", "rng_key", "ema_decay", "init_params"))
    first, second = (
        {**run, "settings": {}, "initial_state": describe_state(each)} for each in (state, rounded)
    )
    assert first["initial_state"] != second["initial_state"]
    assert differences(first, second) == []
    second["initial_state"] = describe_state({**state, "rate": np.float32(1.001e-3)})
    assert differences(first, second) == ["initial state: ['rate']: 0.001 → 0.001001"]


def test_an_injected_rate_is_a_setting(tmp_path):
    first = train_grbm(tmp_path, optimizers=injected(1e-3))
    second = train_grbm(tmp_path, 4, optimizers=injected(0.0), resume="parameters")
    chex.assert_trees_all_equal(second.theta, first.theta)


def test_other_random_numbers_are_another_run(tmp_path):
    drift(tmp_path, 2)
    with (
        jax.threefry_partitionable(not jax.config.jax_threefry_partitionable),
        pytest.raises(ValueError, match=r"settings\.jax_threefry_partitionable: (True → False|False → True)"),
    ):
        drift(tmp_path, 4)


def test_what_runs_on_the_host_decides(tmp_path):
    def on_host(scale):
        return Drift(lambda k: scale * k)

    drift(tmp_path, 2, method=on_host(1))
    drift(tmp_path, 4, method=on_host(1))
    with pytest.raises(ValueError, match=r"scale: 1 → 5"):
        drift(tmp_path, 6, method=on_host(5))


def test_all_of_a_sparse_array_decides(tmp_path):
    def sparse(data):
        return scipy.sparse.csr_array(data)

    drift(tmp_path, 2, sparse(DATA))
    for row in range(0, 60, 7):
        changed = DATA.copy()
        changed[row, 1] += 1
        with pytest.raises(ValueError, match=r"data\.checksum"):
            drift(tmp_path, 4, sparse(changed))
    drift(tmp_path, 4, sparse(DATA))


class Stateful:
    """An endless loader whose state is made by a function."""

    def __init__(self, make_state=lambda k: {"k": k}, data=DATA):
        self._make_state, self._batches, self._k = make_state, data.reshape(6, 10, 3), 0

    def __iter__(self):
        return self

    def __next__(self):
        self._k += 1
        return self._batches[(self._k - 1) % 6]

    def get_state(self):
        return self._make_state(self._k)

    def set_state(self, state):
        self._k = state["k"]


@pytest.mark.parametrize("make_state", [lambda k: {k: 1}, lambda k: {"k": np.int64(k)}, lambda k: {"k": {1}}])
def test_a_state_that_would_not_come_back_is_refused(make_state, tmp_path):
    with pytest.raises(TypeError, match=r"data: get_state\(\) returns .* which a checkpoint cannot keep"):
        drift(tmp_path, 2, Stateful(make_state))


def test_parameters_go_on_with_other_data_from_its_beginning(tmp_path):
    drift(tmp_path, 2, Stateful())
    before = drift(tmp_path / "own", 2, Stateful(data=DATA + 1)).theta["w"]
    start = drift(tmp_path, 2, Stateful()).theta["w"]
    after = drift(tmp_path, 4, Stateful(data=DATA + 1), resume="parameters", rng_key=1).theta["w"]
    np.testing.assert_allclose(after - start, before - 1, rtol=1e-5)
    generator = (batch for batch in DATA.reshape(6, 10, 3))
    with pytest.raises(ValueError, match=r"data\.keeps_its_state: "), pytest.warns(match="another|iterable"):
        drift(tmp_path, 6, generator, rng_key=1)


def test_states_that_are_not_finite_or_complex_are_told_apart():
    states = [
        np.array([np.inf, 1.0]), np.array([1.0, np.inf]), np.array([-np.inf, 1.0]), np.array([np.nan, 1.0]),
        np.array([1j, 1.0]), np.array([2j, 1.0]), np.zeros(2, jax.dtypes.float0),
    ]  # fmt: skip
    found = [json.dumps(describe_state({"a": state})) for state in states]
    assert len(set(found)) == len(states)


def test_a_rollback_before_the_first_checkpoint_tells_of_the_divergence(tmp_path):
    drift(tmp_path, 2)
    diverging = Drift(lambda k: np.nan if k == 3 else k)
    with pytest.raises(DivergenceError):
        drift(tmp_path, 6, method=diverging, resume="parameters", on_divergence="rollback")
