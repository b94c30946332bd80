"""Methods, results and errors survive pickling, copying and the way into and out of a spawned process."""

import concurrent.futures
import copy
import multiprocessing
import pickle

import chex
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from bism_jax import (
    DSM,
    KSD,
    MDSM,
    NCE,
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
    Truncated,
    Unrolled,
    VaGES,
    fit,
)
from bism_jax.methods import (
    Fadeout,
    Langevin,
    LangevinRefinement,
    UniformBinary,
    paper_adam,
    picklable,
)
from bism_jax.models import GRBM, GaussianPosterior, MLPDecoder
from bism_jax.training import DivergenceError, Snapshot
from tests.helpers import Drift, rows

DATA = rows(60, (3,))


def warm_up():
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-3, 10)))


ADAM, OWN = picklable(optax.adam, 1e-2, b1=0.5), picklable(warm_up)
METHODS = [
    BiSM(),
    BiSM(
        MDSM(), Fisher(), lower_steps=5, hypergradient=Unrolled(3, segment="sqrt"),
        optimizers=Optimizers(ADAM, OWN), noise="fresh", keep_unrolled=False,
    ),
    BiSM(SSM(), hypergradient=Truncated(3, last=1), optimizers=Optimizers(paper_adam(1e-2), OWN)),
    BiSM(hypergradient=Implicit(2, "neumann")),
    ScoreMatching(),
    ScoreMatching(KSD(), OWN, free_energy=UniformBinary(2)),
    VaGES(),
    VaGES(DSM(0.2), refinement=LangevinRefinement(), optimizers=Optimizers(OWN, ADAM)),
    VNCE(),
    VNCE(3, 2, optimizers=Optimizers(OWN, ADAM)),
    NCE(),
    NCE(2, optimizer=ADAM),
    ContrastiveDivergence(),
    ContrastiveDivergence(5, Langevin(0.2, (2,)), ADAM),
    PersistentContrastiveDivergence(),
    PersistentContrastiveDivergence(5, 7, optimizer=OWN),
    PersistentVI(60),
    PersistentVI(60, Fadeout(), optimizer=ADAM),
    BiDVL(MLPDecoder((3,), (4,))),
    BiDVL(MLPDecoder((3,), (4,)), hypergradient=Unrolled(2), optimizers=Optimizers(OWN, ADAM)),
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_method_equals_what_it_was_pickled_or_copied_from(method):
    """And hashes alike, so that `jit` takes the one for the other."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found = pickle.loads(pickle.dumps(method, protocol))
        assert found == method and hash(found) == hash(method)
    assert copy.copy(method) == copy.deepcopy(method) == method


def test_an_optimiser_that_was_pickled_does_the_same():
    params = {"w": jnp.arange(3.0)}
    expected = optax.adam(1e-2, b1=0.5)
    found = pickle.loads(pickle.dumps(ADAM))
    results = [
        optimizer.update(params, optimizer.init(params), params)
        for optimizer in (expected, found, copy.deepcopy(ADAM))
    ]
    for result in results[1:]:
        chex.assert_trees_all_equal(result, results[0])


def test_equal_calls_are_one_optimiser():
    assert picklable(optax.adam, 1e-2, b1=0.5) is ADAM
    assert picklable(optax.adam, 1e-2, b1=0.6) != ADAM
    assert paper_adam() is paper_adam(1e-3)
    assert BiSM() == BiSM(optimizers=Optimizers(paper_adam(), paper_adam()))
    unhashable = picklable(optax.adam, jnp.asarray(1e-2))  # an array identifies no call
    assert pickle.loads(pickle.dumps(unhashable)).init is not unhashable.init


@pytest.mark.parametrize(
    ("method", "option"),
    [
        (BiSM(optimizers=Optimizers(ADAM, optax.adam(1e-3))), r"BiSM .*optimizers\.phi=.* of chain"),
        (VNCE(optimizers=Optimizers(optax.sgd(0.1), ADAM)), r"VNCE .*optimizers\.theta=.* of chain"),
        (NCE(optimizer=optax.adam(1e-3)), "NCE .*optimizer=.* of chain"),
        (NCE(optimizer=optax.masked(ADAM, True)), "NCE .*optimizer=.* of masked"),
        (NCE(optimizer=paper_adam(optax.constant_schedule(1.0))), "NCE .*optimizer=.*constant_schedule"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_optimiser_of_optax_is_refused_by_name(method, option):
    with pytest.raises(TypeError, match=rf"{option}.*picklable\(optax\.adam, 1e-3\).*picklable\(fn\)"):
        pickle.dumps(method)
    assert copy.copy(method) == copy.deepcopy(method) == method


def test_an_option_that_is_local_is_refused_by_name():
    with pytest.raises(TypeError, match=r"BiDVL cannot be pickled, because of decoder=.*lambda"):
        pickle.dumps(BiDVL(lambda params, h: h))


def test_a_method_that_holds_arrays():
    noise = dist.Normal(jnp.zeros(3), 2.0).to_event(1)
    found = pickle.loads(pickle.dumps(NCE(noise=noise)))
    np.testing.assert_array_equal(found.noise.log_prob(DATA), noise.log_prob(DATA))
    assert copy.deepcopy(NCE(noise=noise)).noise is not noise


def test_results_survive():
    result = fit(None, None, DATA, method=Drift(), num_steps=3, batch_size=6, ema_decay=0.9)
    problem = LowerProblem(lambda phi, theta, x: ((phi - theta) ** 2).sum(), ADAM)
    solution = Unrolled(2).solve(problem, jnp.ones(3), jnp.zeros(3))
    snapshot = Snapshot(3, result.theta, None, None, {"loss": 1.0})
    for value in (result, solution, snapshot):
        for found in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
            assert type(found) is type(value)
            chex.assert_trees_all_equal(found, value)


def diverge(checkpoint_dir=None):
    loss_fn = lambda k: np.nan if k == 2 else k
    options = {"num_steps": 4, "batch_size": 6, "checkpoint_dir": checkpoint_dir, "checkpoint_every": 1}
    return fit(None, None, DATA, method=Drift(loss_fn), **options)


def check_divergence(found, expected):
    assert type(found) is DivergenceError and str(found) == str(expected)
    assert vars(found) == vars(expected) and found.step == 2


def test_a_divergence_error_keeps_its_attributes(tmp_path):
    with pytest.raises(DivergenceError) as caught:
        diverge(tmp_path)
    for found in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        check_divergence(found, caught.value)
        assert found.checkpoint is not None


def train(method, num_steps):
    posterior = None if method == Drift() else GaussianPosterior(2)
    return fit(GRBM(2), posterior, DATA, method=method, num_steps=num_steps, batch_size=6)


def is_default(method):
    return method == BiSM()


@pytest.fixture(scope="module")
def pool():
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        yield pool


def test_fit_in_a_spawned_process(pool):
    """Methods and results cross over, and so does an error."""
    assert pool.submit(is_default, BiSM()).result()
    found = pool.submit(train, Drift(), 3).result()
    chex.assert_trees_all_equal(found, train(Drift(), 3))
    error = pool.submit(diverge).exception()
    with pytest.raises(DivergenceError) as caught:
        diverge()
    check_divergence(error, caught.value)


@pytest.mark.slow
def test_bism_in_a_spawned_process(pool):
    method = BiSM(hypergradient=Unrolled(1), optimizers=Optimizers(OWN, ADAM))
    found = pool.submit(train, method, 3).result()
    chex.assert_trees_all_equal(found, train(method, 3))
