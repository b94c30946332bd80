"""JAX's own switches: what runs without one runs with it, and gives what it gives without.

Switches that change no number are on together, and the traced programs, of the initial state and of an
iteration, are compared as text: the same program, so the same bits. With `jax_enable_x64` integers are
wider, so there the dtypes are looked at, and results to 1e-6. The slow tests run each switch by itself.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from bism_jax import (
    DSM,
    KL,
    KSD,
    MDSM,
    NCE,
    SM,
    SSM,
    VNCE,
    BiDVL,
    BiSM,
    ContrastiveDivergence,
    Fisher,
    Implicit,
    LowerProblem,
    Optimizers,
    PersistentContrastiveDivergence,
    PersistentVI,
    ScoreMatching,
    StopGradient,
    Truncated,
    Unrolled,
    VaGES,
    evaluation,
    fit,
    plan,
    samplers,
)
from bism_jax.methods import Fadeout, Langevin, LangevinRefinement, UniformBinary, picklable
from bism_jax.methods._common.optimizers import apply_gradient
from bism_jax.models import (
    GRBM,
    BernoulliPosterior,
    ConvGaussianPosterior,
    FlowPosterior,
    GaussianPosterior,
    LinearGaussian,
    MLPDecoder,
    MLPEnergy,
    ReconstructionEnergy,
    ResidualEnergy,
)
from bism_jax.objectives import draw_latents
from bism_jax.training import Evaluate
from tests.helpers import Drift, rows

ROOT = Path(__file__).parent.parent
KEY = jax.random.key(0)
DATA = rows(60, (3,))
ENERGY, GAUSSIAN, BINARY = GRBM(2), GaussianPosterior(2), BernoulliPosterior(2, temperature=0.5)
ONE = {"hypergradient": Unrolled(1)}
LINEAR_SOLVER = {"solver_steps": 2, "damping": 1.0, "tolerance": 1e9}

# The energy is a GRBM with three visible and two hidden units.
METHODS = {
    "bism": (BiSM(DSM(0.3), hypergradient=Unrolled(2)), GAUSSIAN),
    "score matching": (ScoreMatching(DSM(0.3)), None),
    "vages": (VaGES(DSM(0.3), num_particles=2, lower_steps=1), GAUSSIAN),
    "vnce": (VNCE(lower_steps=1, noise_ratio=2, num_particles=2), GAUSSIAN),
    "nce": (NCE(2), None),
    "cd": (ContrastiveDivergence(2), None),
    "pcd": (PersistentContrastiveDivergence(2), None),
    "persistent vi": (PersistentVI(60), None),
    "bidvl": (BiDVL(MLPDecoder((3,), (4,))), GAUSSIAN),
}
VARIANTS = {
    "bism fisher": (BiSM(DSM(0.3), Fisher(), **ONE), GAUSSIAN),
    "bism sm": (BiSM(SM(), **ONE), GAUSSIAN),
    "bism binary": (BiSM(DSM(0.3), **ONE), BINARY),
    "bism mdsm": (BiSM(MDSM(0.1, 1.0), **ONE), GAUSSIAN),
    "bism ssm": (BiSM(SSM(), **ONE), GAUSSIAN),
    "bism ksd": (BiSM(KSD(0.5), **ONE), GAUSSIAN),
    "bism weighted": (BiSM(DSM(0.3), KL(importance_weighted=True), num_particles=2, **ONE), BINARY),
    "bism paper": (BiSM(DSM(0.3), lower_steps=2, keep_unrolled=False, noise="fresh", **ONE), GAUSSIAN),
    "bism plain": (BiSM(DSM(0.3), hypergradient=Unrolled(2, mixed_mode=False)), GAUSSIAN),
    "bism segments": (BiSM(DSM(0.3), hypergradient=Unrolled(3, segment=2)), GAUSSIAN),
    "bism truncated": (BiSM(DSM(0.3), hypergradient=Truncated(3, last=1)), GAUSSIAN),
    "bism implicit": (BiSM(DSM(0.3), hypergradient=Implicit(2, **LINEAR_SOLVER)), GAUSSIAN),
    "bism neumann": (BiSM(DSM(0.3), hypergradient=Implicit(2, "neumann", **LINEAR_SOLVER)), GAUSSIAN),
    "bism stopped": (BiSM(DSM(0.3), hypergradient=StopGradient(2)), GAUSSIAN),
    "bism N = 0": (BiSM(DSM(0.3), lower_steps=1, hypergradient=StopGradient(0)), GAUSSIAN),
    "score matching mdsm": (ScoreMatching(MDSM()), None),
    "score matching ssm": (ScoreMatching(SSM()), None),
    "score matching sm": (ScoreMatching(SM()), None),
    "score matching ksd": (ScoreMatching(KSD(0.5), free_energy=UniformBinary(2)), None),
    "vages ksd": (VaGES(KSD(0.5), num_particles=2, lower_steps=1, variance_reduced=True), GAUSSIAN),
    "vages refined": (
        VaGES(DSM(0.3), num_particles=2, lower_steps=1, refinement=LangevinRefinement(2)),
        GAUSSIAN,
    ),
    "cd langevin": (ContrastiveDivergence(2, chain=Langevin(0.1)), None),
    "cd joint langevin": (ContrastiveDivergence(2, chain=Langevin(0.1, (2,))), None),
    "pcd many chains": (PersistentContrastiveDivergence(2, num_chains=9), None),
    "pcd joint langevin": (PersistentContrastiveDivergence(2, chain=Langevin(0.1, (2,))), None),
    "persistent vi fadeout": (PersistentVI(60, prior=Fadeout()), None),
    "bidvl unrolled": (BiDVL(MLPDecoder((3,), (4,)), hypergradient=Unrolled(2)), GAUSSIAN),
}
ALL_METHODS = METHODS | VARIANTS


def some_slow(names, quick):
    names = [*dict.fromkeys(names)]
    arguments = [name if isinstance(name, tuple) else (name,) for name in names]
    return [
        name if name in quick else pytest.param(*each, marks=pytest.mark.slow)
        for name, each in zip(names, arguments, strict=True)
    ]


every_method = pytest.mark.parametrize("name", some_slow(ALL_METHODS, METHODS))

# None of these changes a number.
STRICT = {
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_check_tracer_leaks": True,
    "jax_enable_checks": True,
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_transfer_guard": "disallow",
    "jax_legacy_prng_key": "error",
}
X64 = {"jax_enable_x64": True}
# These change the program, but no number on a CPU by more than rounding.
OTHER = {
    "jax_disable_jit": True,
    "jax_softmax_custom_jvp": False,
    "jax_default_matmul_precision": "highest",
}
OTHER_NOISE = {"jax_threefry_partitionable": False, "jax_default_prng_impl": "rbg"}


@contextlib.contextmanager
def switched(**values):
    before = {name: getattr(jax.config, name) for name in values}
    for name, value in values.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def same_program(found, expected):
    """Without pytest's own comparison, which takes minutes for texts of this length."""
    pairs = itertools.zip_longest(found.splitlines(), expected.splitlines())
    first = next(((line, other) for line, other in pairs if line != other), None)
    if first is not None:
        pytest.fail(f"the programs differ, first in\n{first[0]}\n{first[1]}")


def program(fn, *args):
    """The traced function as text, without addresses."""
    return re.sub("0x[0-9a-f]+", "", str(jax.make_jaxpr(fn)(*args)))


def dtypes(tree):
    return jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), jax.eval_shape(lambda: tree))


def equal(tree, other):
    chex.assert_trees_all_equal(tree, other)


# ---------------------------------------------------------------- methods


def bound(name, **options):
    method, posterior = ALL_METHODS[name]
    return method.bind(ENERGY, posterior, **options)


def programs(name):
    """Of the initial state, with the checks of the model, and of an iteration."""
    algorithm, batch = bound(name), jax.ShapeDtypeStruct((6, 3), np.float32)
    state = jax.eval_shape(algorithm.init, KEY, batch)
    return program(algorithm.init, KEY, batch), program(algorithm.step, KEY, state, batch)


@every_method
def test_strict_switches_do_not_change_a_method(name):
    expected = programs(name)
    with switched(**STRICT):
        for found, before in zip(programs(name), expected, strict=True):
            same_program(found, before)


@every_method
def test_float32_data_stays_in_float32_with_x64(name):
    """State, optimisers' states and chains, and every array of the iteration but optax's scalars."""
    algorithm = bound(name)
    with switched(**X64):
        batch = jnp.asarray(DATA[:6])
        state = jax.eval_shape(algorithm.init, KEY, batch)
        new_state, info = jax.eval_shape(algorithm.step, KEY, state, batch)
        iteration = program(algorithm.step, KEY, state, batch)
    floating = [leaf for leaf in jax.tree.leaves((state, new_state, info)) if leaf.dtype != np.int32]
    assert {leaf.dtype for leaf in floating} == {np.dtype(np.float32)}
    assert jax.tree.map(lambda leaf: leaf.dtype, new_state) == jax.tree.map(lambda leaf: leaf.dtype, state)
    assert not re.search(r"f64\[\d", iteration)


def mixed(tree):
    """Leaves in float32 and float64 by turns."""
    leaves, structure = jax.tree.flatten(tree)
    narrow = [leaf.astype(np.float32) if index % 2 else leaf for index, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, narrow)


PRECISIONS = {
    "float64 data": (np.float64, np.float32, np.float32),
    "float64 theta": (np.float32, np.float64, np.float32),
    "float64 phi": (np.float32, np.float32, np.float64),
    "float64": (np.float64, np.float64, np.float64),
    "mixed": (np.float32, None, None),
}


def a_third(names, others):
    """Pairs, of which each name and each of the others has its turn; all of them take the gate too long."""
    return [(a, b) for i, a in enumerate(names) for j, b in enumerate(others) if (i + j) % 3 == 0]


QUICK_PAIRS = {("bism", "mixed"), ("vages", "float64 theta"), ("pcd", "mixed"), ("bidvl", "float64 theta")}


@pytest.mark.parametrize(
    ("name", "precision"), some_slow([*a_third(ALL_METHODS, PRECISIONS), *sorted(QUICK_PAIRS)], QUICK_PAIRS)
)
def test_a_state_keeps_the_dtypes_it_starts_with(name, precision):
    """That is, those of data and parameters: an iteration carries nothing of another dtype, weak or not."""
    data_dtype, theta_dtype, phi_dtype = PRECISIONS[precision]
    with switched(**X64):
        batch = jnp.asarray(DATA[:6], data_dtype)
        state = jax.eval_shape(bound(name).init, KEY, jnp.asarray(batch, float))
        theta = jax.tree.map(lambda leaf: np.ones(leaf.shape), state.theta)
        phi = jax.tree.map(lambda leaf: np.ones(leaf.shape), getattr(state, "phi", None))

        def cast(tree, dtype):
            return mixed(tree) if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), tree)

        init_params = cast(theta, theta_dtype), cast(phi, phi_dtype)
        algorithm = bound(name, init_params=init_params)
        state = jax.eval_shape(algorithm.init, KEY, batch)
        new_state, _ = jax.eval_shape(algorithm.step, KEY, state, batch)
        assert dtypes(state.theta) == dtypes(init_params[0])
        assert dtypes(new_state) == dtypes(state)


def bound_with_sgd(name):
    """Adam's first step is as long as the learning rate, whatever rounding makes of a small gradient."""
    method, posterior = ALL_METHODS[name]
    sgd = picklable(optax.sgd, 0.1)
    options = {"optimizers": Optimizers(sgd, sgd)} if hasattr(method, "optimizers") else {"optimizer": sgd}
    return dataclasses.replace(method, **options).bind(ENERGY, posterior)


def after_steps(name):
    """State and diagnostics after an iteration of compiled code, from the method's own first state."""
    algorithm, batch = bound_with_sgd(name), jnp.asarray(DATA[:6])
    state = algorithm.init(KEY, batch)
    return jax.tree.map(np.asarray, jax.jit(algorithm.step)(KEY, state, batch))


@pytest.mark.parametrize("name", some_slow(["pcd", *list(ALL_METHODS)[::3]], ("pcd",)))
def test_x64_does_not_change_the_numbers_of_float32_data(name):
    expected = after_steps(name)
    with switched(**X64):
        found = after_steps(name)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "switch"), a_third(METHODS, [*STRICT, *OTHER]))
def test_each_switch_by_itself(name, switch):
    """Equal bits; to 1e-6 where the program is another one."""
    expected = after_steps(name)
    with switched(**{switch: (STRICT | OTHER)[switch]}):
        found = after_steps_allowing_transfers(name)
    if switch in STRICT:
        equal(found, expected)
    else:
        chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def after_steps_allowing_transfers(name):
    # `fit` moves the data to the device; a user who binds a method does it alone.
    with jax.transfer_guard("allow"):
        algorithm, batch = bound_with_sgd(name), jnp.asarray(DATA[:6])
        state = algorithm.init(KEY, batch)
    return jax.device_get(jax.jit(algorithm.step)(KEY, state, batch))


# ---------------------------------------------------------------- optimisers

NAMES = (
    "adabelief", "adadelta", "adagrad", "adafactor", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad",
    "fromage", "lamb", "lars", "lion", "nadam", "nadamw", "novograd", "optimistic_gradient_descent", "radam",
    "rmsprop", "rprop", "sgd", "sign_sgd", "sm3", "yogi",
)  # fmt: skip
OPTIMIZERS = {name: getattr(optax, name)(1e-3) for name in NAMES} | {
    # The derivative of its root at the default 1e-30 overflows float32, and is refused.
    "adafactor": optax.adafactor(1e-3, eps=1e-12),
    "noisy_sgd": optax.noisy_sgd(1e-3, key=KEY),
    "schedule": optax.adam(optax.cosine_decay_schedule(1e-3, 10)),
    "injected": optax.inject_hyperparams(optax.adam)(1e-3),
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.add_decayed_weights(0.1), optax.sgd(0.1)),
    "many": optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation(),
    "averaged": optax.chain(optax.ema(0.9), optax.trace(0.9), optax.sgd(0.1)),
}
PHI = {"m": np.full((2, 3), 0.5, np.float32), "s": np.full(1, 0.1, np.float32)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_keep_the_dtypes_of_their_state_with_x64(name):
    optimizer = OPTIMIZERS[name]
    problem = LowerProblem(lambda phi, theta, x: ((phi["m"] - x) ** 2).sum() * phi["s"].sum(), optimizer)
    with switched(**X64):
        phi = jax.tree.map(jnp.asarray, PHI)
        opt_state = jax.eval_shape(optimizer.init, phi)
        new = jax.eval_shape(functools.partial(apply_gradient, optimizer), phi, opt_state, phi)
        assert dtypes(new) == dtypes((phi, opt_state))
        inputs = jnp.zeros((2, 2, 3), np.float32)
        for strategy in (Unrolled(2), StopGradient(2)):
            solution = jax.eval_shape(
                functools.partial(strategy.solve, problem), phi, None, inputs, opt_state
            )
            assert dtypes((solution.phi, solution.opt_state)) == dtypes((phi, opt_state))


# ---------------------------------------------------------------- strategies

STRATEGIES = [
    Unrolled(3),
    Unrolled(3, mixed_mode=False),
    Unrolled(3, segment=2),
    Truncated(3, last=2),
    Implicit(3, **LINEAR_SOLVER),
    Implicit(3, "neumann", **LINEAR_SOLVER),
    StopGradient(3),
    StopGradient(0),
]


def hypergradient(strategy):
    problem = LowerProblem(
        lambda phi, theta, x: ((phi["m"] - theta * x) ** 2).sum() * jnp.cosh(phi["s"]).sum(), optax.adam(0.1)
    )

    def higher(theta, phi, inputs):
        return (strategy.solve(problem, phi, theta, inputs).phi["m"] ** 2).sum()

    return jax.grad(higher)


@pytest.mark.parametrize(
    "strategy", some_slow(STRATEGIES, (STRATEGIES[0], STRATEGIES[2], STRATEGIES[4])), ids=str
)
def test_strict_switches_do_not_change_a_hypergradient(strategy):
    args = np.float32(0.7), PHI, np.ones((strategy.num_steps, 2, 3), np.float32)
    expected = program(hypergradient(strategy), *args)
    with switched(**STRICT):
        same_program(program(hypergradient(strategy), *args), expected)
    with switched(**X64):
        assert not re.search(r"f64\[\d", program(hypergradient(strategy), *args))


def test_loops_of_no_steps_without_jit():
    """JAX has none there; a chain of one sweep, the default of contrastive divergence, holds one."""

    def chain_of_one(v):
        sampler = lambda theta, key, x: x + jax.random.normal(key, x.shape)
        return samplers.gibbs(sampler, sampler, None, KEY, v, 1), samplers.langevin(quadratic, KEY, v, 0, 0.1)

    strategy = Implicit(1, "neumann", solver_steps=1, step_size=0.5, tolerance=1e9)
    args = jnp.float32(0.7), jax.tree.map(jnp.asarray, PHI), jnp.ones((1, 2, 3), np.float32)
    expected = chain_of_one(DATA[:6]), hypergradient(strategy)(*args)
    with jax.disable_jit():
        found = chain_of_one(DATA[:6]), hypergradient(strategy)(*args)
    chex.assert_trees_all_close(found, expected, rtol=1e-5)


# ---------------------------------------------------------------- models


IMAGES = rows(2, (8, 8, 1))
LATENTS = rows(2, (2,))
MODELS = {
    "GRBM": (ENERGY, (DATA[:6], DATA[:6, :2]), ("free_energy",)),
    "LinearGaussian": (LinearGaussian(2), (DATA[:6], DATA[:6, :2]), ("free_energy",)),
    "MLPEnergy": (MLPEnergy((4,)), (DATA[:6], DATA[:6, :2]), ()),
    "ResidualEnergy": (ResidualEnergy(2, 2, 6), (IMAGES, LATENTS), ()),
    "ReconstructionEnergy": (ReconstructionEnergy(2, 2), (IMAGES, LATENTS), ()),
    "GaussianPosterior": (GaussianPosterior(2, (4,)), (DATA[:6],), ()),
    "BernoulliPosterior": (BernoulliPosterior(2, density="concrete"), (DATA[:6],), ()),
    "ConvGaussianPosterior": (ConvGaussianPosterior(2, (2,)), (IMAGES,), ()),
    "FlowPosterior": (FlowPosterior(2, num_layers=2, width=4), (DATA[:6],), ()),
}


def evaluate_model(name):
    """All that a method asks of a model, differentiated."""
    model, args, extra = MODELS[name]

    def value(params, *args):
        result = model.apply(params, *args)
        if len(args) == 1:  # a posterior
            h = draw_latents(result, KEY)
            return h.sum() + result.log_prob(h).sum()
        others = [model.apply(params, args[0], method=method).sum() for method in extra]
        return result.sum() + sum(others)

    def all_of_it(*args):
        return jax.value_and_grad(value)(model.init(KEY, *args), *args)

    return program(all_of_it, *args), jax.eval_shape(all_of_it, *args)


@pytest.mark.parametrize(
    "name", some_slow(MODELS, ("GRBM", "LinearGaussian", "MLPEnergy", "BernoulliPosterior"))
)
def test_strict_switches_do_not_change_a_model(name):
    expected, _ = evaluate_model(name)
    with switched(jax_numpy_dtype_promotion="strict", jax_numpy_rank_promotion="raise"):
        same_program(evaluate_model(name)[0], expected)


@pytest.mark.parametrize(
    "name", some_slow(MODELS, ("GRBM", "LinearGaussian", "MLPEnergy", "BernoulliPosterior"))
)
def test_a_model_of_float32_inputs_is_float32_with_x64(name):
    with switched(**X64):
        _, (value, gradient) = evaluate_model(name)
    assert {leaf.dtype for leaf in jax.tree.leaves((value, gradient))} == {np.dtype(np.float32)}


def test_the_energy_of_a_user_is_held_to_what_the_user_has_set():
    def energy(theta, v, h):
        return ((v - theta["b"]) ** 2).sum(-1) + (h**2).sum(-1)  # [B, 3] - [3]

    def posterior(phi, v):
        return dist.Normal(v @ phi["m"], jnp.ones((len(v), 2))).to_event(1)

    init_params = {"b": jnp.ones(3)}, {"m": jnp.ones((3, 2))}
    with (
        switched(jax_numpy_rank_promotion="raise"),
        pytest.raises(ValueError, match=r"energy_fn=energy cannot be evaluated(?s:.*)jax_numpy_rank"),
    ):
        fit(energy, posterior, DATA, init_params=init_params, num_steps=1, batch_size=6)


# ---------------------------------------------------------------- fit


LAYOUTS = ("jit", "pmap")


class Stream:
    """Batches of rows, for a source that is not held on the device."""

    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        return DATA[index]


def drift(**options):
    options = {"method": Drift(), "num_steps": 7, "batch_size": 6, "ema_decay": 0.9, **options}
    callbacks = [Evaluate(lambda snapshot: {"norm": float((snapshot.theta["w"] ** 2).sum())}, every=3)]
    return fit(ENERGY, None, options.pop("data", DATA), callbacks=callbacks, **options)


@pytest.mark.parametrize("parallel", some_slow(LAYOUTS, ("jit",)))
@pytest.mark.parametrize("data", [DATA, Stream()], ids=["resident", "streamed"])
def test_fit_with_strict_switches(parallel, data, tmp_path):
    """To the bit, with a checkpoint on the way; the loop itself transfers nothing unasked."""
    expected = drift(parallel=parallel, data=data)
    for steps in (6, 7):
        with switched(**STRICT):
            found = drift(parallel=parallel, data=data, checkpoint_dir=tmp_path, num_steps=steps)
    equal(found, expected)


@pytest.mark.parametrize("parallel", some_slow(LAYOUTS, ("jit",)))
def test_fit_without_jit(parallel):
    calls = []

    def energy_of_host(k):
        calls.append(k)
        return k

    expected = drift(parallel=parallel)
    with jax.disable_jit():
        found = drift(parallel=parallel, method=Drift(energy_of_host))
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_fit_draws_from_the_default_prng_of_a_seed():
    expected = drift(rng_key=jax.random.key(0, impl="rbg"))
    with switched(jax_default_prng_impl="rbg"):
        found = drift()
    equal(found, expected)
    assert not np.array_equal(found.history["noise"], drift().history["noise"])


@pytest.mark.parametrize("parallel", LAYOUTS)
def test_nan_checks_stop_a_run_where_the_numbers_do(parallel):
    """By JAX's own error, which is what its user asked for; without the switch it is a `DivergenceError`."""
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
        drift(method=Drift(lambda k: np.nan if k == 3 else k), parallel=parallel)


DEVICES = """
import jax, numpy as np
from bism_jax import fit
from tests.helpers import Drift, rows

def train():
    return fit(None, None, rows(60, (3,)), method=Drift(), num_steps=7, batch_size=6, parallel={parallel!r})

assert jax.device_count() == 4
try:
    train()
except ValueError as error:
    assert "does not divide among the 4 devices" in str(error)
else:
    raise AssertionError
with jax.default_device(jax.devices()[2]):
    result = train()
jax.config.update("jax_default_device", "cpu")
try:
    train()
except ValueError as error:
    assert "does not divide among the 4 devices" in str(error)
np.save({output!r}, result.theta["w"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("parallel", LAYOUTS)
def test_fit_stays_on_the_default_device(parallel, tmp_path):
    output = str(tmp_path / "theta.npy")
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    script = DEVICES.format(parallel=parallel, output=output)
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, timeout=300)
    np.testing.assert_array_equal(np.load(output), drift(ema_decay=None).theta["w"])


def train(name, parallel):
    method, posterior = ALL_METHODS[name]
    return fit(ENERGY, posterior, DATA, method=method, num_steps=3, batch_size=6, parallel=parallel)


SWITCHES = STRICT | X64 | OTHER | OTHER_NOISE


@pytest.mark.slow
@pytest.mark.parametrize("parallel", LAYOUTS)
@pytest.mark.parametrize(("name", "switch"), a_third(["bism", "nce", "pcd"], SWITCHES))
def test_fit_with_each_switch(name, parallel, switch):
    with switched(**{switch: SWITCHES[switch]}):
        found = train(name, parallel)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    if switch not in OTHER_NOISE:
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
        jax.tree.map(close, found, train(name, parallel))


# ---------------------------------------------------------------- samplers, evaluation, plan


@functools.cache
def theta():
    return ENERGY.init(KEY, DATA[:6], DATA[:6, :2])


@functools.cache
def phi():
    return GAUSSIAN.init(KEY, DATA[:6])


@functools.cache
def binary_phi():
    return BINARY.init(KEY, DATA[:6])


def quadratic(x):
    return 0.5 * (x**2).sum(axis=-1)


def features(images):
    return images.mean(axis=(1, 2))


features.name = "mean"
SCHEDULE = samplers.AnnealingSchedule(num_hot=2, num_cooling=2, num_freezing=2)
PAIR = DATA[:30], DATA[30:]
ENTRY_POINTS = {
    "langevin": lambda: samplers.langevin(quadratic, KEY, DATA[:6], 3, 0.1),
    "gibbs": lambda: samplers.gibbs(
        functools.partial(ENERGY.apply, method="sample_h"),
        functools.partial(ENERGY.apply, method="sample_v"),
        theta(), KEY, DATA[:6], 2,
    ),
    "annealed_langevin": lambda: samplers.annealed_langevin(quadratic, KEY, DATA[:6], SCHEDULE),
    "initial_noise": lambda: samplers.initial_noise(KEY, (2, 3), np.float32),
    "interpolate": lambda: samplers.interpolate(DATA[0], DATA[1], 3, spherical=True),
    "log_likelihood": lambda: evaluation.log_likelihood(ENERGY, theta(), DATA),
    "maximum_mean_discrepancy": lambda: evaluation.maximum_mean_discrepancy(*PAIR),
    "energy_distance": lambda: evaluation.energy_distance(*PAIR),
}  # fmt: skip


def operations_and_kib(planned):
    """To the KiB: casts that strict promotion asks for are some bytes of scalars."""
    return [(row.flops, round(row.memory_bytes / 1024)) for row in planned]


SLOW_ENTRY_POINTS = {
    "sample_joint": lambda: samplers.sample_joint(
        ENERGY.apply, theta(), KEY, DATA[:6], DATA[:6, :2], SCHEDULE, num_snapshots=2
    ),
    "sample_visible": lambda: samplers.sample_visible(
        ENERGY.apply, theta(), KEY, DATA[:6], DATA[:6, :2], SCHEDULE
    ),
    "sample_latent": lambda: samplers.sample_latent(
        ENERGY.apply, theta(), KEY, DATA[:6], DATA[:6, :2], SCHEDULE
    ),
    "inpaint": lambda: samplers.inpaint(
        ENERGY.apply, theta(), KEY, DATA[:6], DATA[:6] > 0, DATA[:6, :2], SCHEDULE
    ),
    "nuts": lambda: samplers.nuts(quadratic, KEY, DATA[:6], 3, num_warmup=3),
    "annealed_importance_sampling": lambda: evaluation.annealed_importance_sampling(
        ENERGY, theta(), KEY, num_particles=50, num_temperatures=20
    ),
    "score_matching_objective": lambda: evaluation.score_matching_objective(ENERGY, theta(), DATA),
    "sliced_score_matching_objective": lambda: evaluation.sliced_score_matching_objective(
        ENERGY, theta(), DATA, KEY
    ),
    "fisher_divergence": lambda: evaluation.fisher_divergence(
        ENERGY, theta(), DATA, lambda v: -quadratic(v)
    ),
    "critic_fisher_divergence": lambda: evaluation.critic_fisher_divergence(
        ENERGY, theta(), DATA, KEY, num_steps=3, batch_size=6
    ),
    "posterior_gap": lambda: evaluation.posterior_gap(ENERGY, BINARY, theta(), binary_phi(), DATA),
    "gradient_bias": lambda: evaluation.gradient_bias(
        ENERGY, GAUSSIAN, theta(), phi(), DATA[:6], KEY, objective=DSM(0.3), divergence=KL(),
        optimizer=optax.adam(1e-2), num_steps=(0, 1), lower_steps=(0, 1), num_draws=2,
    ),
    "ood_scores": lambda: evaluation.ood_scores(
        ENERGY, GAUSSIAN, theta(), phi(), DATA, KEY, score="score_norm"
    ),
    "latent_probe": lambda: evaluation.latent_probe(
        GAUSSIAN, phi(), DATA[:40], np.arange(40) % 2, DATA[40:], np.arange(20) % 2
    ),
    "extract_features": lambda: evaluation.extract_features(features, IMAGES),
    "feature_statistics": lambda: evaluation.feature_statistics(features, IMAGES).mean,
    "frechet_distance": lambda: evaluation.frechet_distance(*PAIR),
    "kernel_distance": lambda: evaluation.kernel_distance(*PAIR, KEY, subset_size=10),
    "precision_recall": lambda: evaluation.precision_recall(*PAIR),
    "plan": lambda: operations_and_kib(plan(ENERGY, GAUSSIAN, DATA[:6], strategies=[Unrolled(2)])),
}  # fmt: skip
# Whose width is JAX's default, and with it what they are; numpyro's draws are of the default dtype too.
DRAWS_INTEGERS = ("critic_fisher_divergence", "nuts")
every_entry_point = pytest.mark.parametrize("name", some_slow(ENTRY_POINTS | SLOW_ENTRY_POINTS, ENTRY_POINTS))


@every_entry_point
def test_strict_switches_do_not_change_what_is_measured_or_drawn(name):
    """To the bit."""
    run = (ENTRY_POINTS | SLOW_ENTRY_POINTS)[name]
    theta(), phi(), binary_phi()
    expected = jax.device_get(run())
    with switched(**STRICT):
        found = jax.device_get(run())
    chex.assert_trees_all_equal(found, expected)


@every_entry_point
def test_x64_does_not_change_what_is_measured_or_drawn(name):
    """To 1e-3: some measures sum in float64 there."""
    run = (ENTRY_POINTS | SLOW_ENTRY_POINTS)[name]
    theta(), phi(), binary_phi()
    expected = jax.device_get(run())
    with switched(**X64):
        found = jax.device_get(run())
    if name in DRAWS_INTEGERS:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
        return
    if name == "plan":  # integers are wider, and so the program
        assert found[0][0] == pytest.approx(expected[0][0], rel=0.05)
        assert 1 <= found[0][1] / expected[0][1] < 2
        return
    chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-4)
