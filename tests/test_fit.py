"""`fit`: the same bits however a run is cut, and what happens when it goes wrong."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from flax import nnx

from bism_jax import DSM, BiSM, Optimizers, ScoreMatching, Unrolled, fit
from bism_jax.models import GRBM, BernoulliPosterior
from bism_jax.training import DivergenceError, Evaluate, clear_programs

METHOD = BiSM(DSM(0.3), hypergradient=Unrolled(1))
DATA = np.random.default_rng(0).uniform(size=(60, 2)).astype(np.float32)


def train(**options):
    arguments = {"method": METHOD, "num_steps": 23, "batch_size": 10, "ema_decay": 0.9, **options}
    return fit(GRBM(2), BernoulliPosterior(2), arguments.pop("data", DATA), **arguments)


@pytest.fixture(scope="module")
def reference():
    return train()


def assert_same_bits(found, expected):
    for name in ("theta", "phi", "theta_ema", "history"):
        chex.assert_trees_all_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("steps_per_call", [1, 4, 23, 1000])
def test_chunks_do_not_change_a_bit(reference, steps_per_call):
    assert_same_bits(train(steps_per_call=steps_per_call), reference)


def test_chunks_are_one_program():
    def count_traces(**options):
        clear_programs()
        traces = []

        def energy(theta, v, h):
            traces.append(v.shape)
            return ((v @ theta["W"] - h) ** 2).sum(axis=-1) + (v**2).sum(axis=-1)

        def posterior(phi, v):
            return dist.Normal(v @ phi["A"], 1.0).to_event(1)

        params = ({"W": jnp.ones((2, 3))}, {"A": jnp.ones((2, 3))})
        options = {"method": METHOD, "init_params": params, "batch_size": 10, **options}
        fit(energy, posterior, DATA, **options)
        return len(traces)

    once = count_traces(num_steps=1)
    assert count_traces(num_steps=40) == once
    assert count_traces(num_steps=17, steps_per_call=5) == once


def test_evaluations_do_not_change_a_bit(reference):
    result = train(callbacks=[Evaluate(lambda snapshot: {"seen": snapshot.step}, every=7)])
    assert_same_bits(result, reference)
    assert [row["step"] for row in result.evaluations] == [7, 14, 21, 23]


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(reference, tmp_path):
    train(num_steps=9, checkpoint_dir=tmp_path, checkpoint_every=4)
    train(num_steps=14, checkpoint_dir=tmp_path, checkpoint_every=4)
    assert_same_bits(train(checkpoint_dir=tmp_path, checkpoint_every=5), reference)
    assert_same_bits(train(checkpoint_dir=tmp_path), reference)  # nothing is left to do


def test_a_killed_run_resumes_with_the_same_bits(reference, tmp_path):
    """SIGKILL in the middle of a run, between two checkpoints."""
    script = f"""
        import os, signal
        from bism_jax.training import Evaluate
        from tests.test_fit import train

        def die(snapshot):
            if snapshot.step == 13:
                os.kill(os.getpid(), signal.SIGKILL)
            return {{}}

        train(checkpoint_dir={str(tmp_path)!r}, checkpoint_every=5, callbacks=[Evaluate(die, every=1)])
    """
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any(name.isdigit() for name in os.listdir(tmp_path))
    assert_same_bits(train(checkpoint_dir=tmp_path, checkpoint_every=5), reference)


def test_the_seed_decides(reference):
    assert_same_bits(train(rng_key=jax.random.key(0)), reference)
    other = train(rng_key=1)
    assert not np.array_equal(other.history["loss"], reference.history["loss"])


class Source:
    """Random access over the same rows."""

    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        return DATA[index]


def test_a_random_access_source_sees_the_batches_of_its_array(reference, tmp_path):
    """Another program, so equal up to rounding; and exact under resumption."""
    result = train(data=Source())
    np.testing.assert_allclose(result.history["loss"], reference.history["loss"], rtol=1e-4)
    train(data=Source(), num_steps=9, checkpoint_dir=tmp_path)
    assert_same_bits(train(data=Source(), checkpoint_dir=tmp_path), result)


class Batches:
    """An iterator with a state."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        start = 10 * ((self.position - 1) % 6)
        return DATA[start : start + 10]

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def test_an_iterator_with_a_state_resumes_with_the_same_bits(tmp_path):
    expected = train(data=Batches())
    train(data=Batches(), num_steps=9, checkpoint_dir=tmp_path)
    assert_same_bits(train(data=Batches(), checkpoint_dir=tmp_path), expected)


def test_an_iterator_without_a_state_says_that_it_cannot_resume(tmp_path):
    batches = iter([DATA[:10], DATA[10:20], DATA[20:30]])
    with pytest.warns(UserWarning, match="a resumed run sees other data"):
        train(data=batches, checkpoint_dir=tmp_path, num_steps=2)


def test_moving_average_is_its_recursion():
    averages = []
    result = train(
        num_steps=3, steps_per_call=1, callbacks=[Evaluate(lambda s: averages.append(s) or {}, every=1)]
    )
    start = train(num_steps=0).theta
    expected = start
    for decay, snapshot in zip((1 / 10, 2 / 11, 3 / 12), averages, strict=True):  # 0.9 only later
        expected = jax.tree.map(lambda e, t, d=decay: d * e + (1 - d) * t, expected, snapshot.theta)
    for left, right in zip(jax.tree.leaves(result.theta_ema), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-7)


def test_moving_average_ends_at_its_decay():
    averages = []
    train(num_steps=84, steps_per_call=1, callbacks=[Evaluate(lambda s: averages.append(s) or {}, every=1)])
    before, after = averages[-2:]  # (1 + t) / (10 + t) is above 0.9 from t = 80 on
    expected = jax.tree.map(lambda e, t: 0.9 * e + 0.1 * t, before.theta_ema, after.theta)
    for left, right in zip(jax.tree.leaves(after.theta_ema), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-7)


class NNXEnergy(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(0.5 * jnp.ones((2, 2)))

    def __call__(self, v, h):
        return 0.5 * jnp.sum(v**2, -1) - jnp.sum((v @ self.w[...]) * h, -1)


def plain_energy(theta, v, h):
    return 0.5 * jnp.sum(v**2, -1) - jnp.sum((v @ theta["w"]) * h, -1)


def test_module_and_function_train_alike():
    posterior = BernoulliPosterior(2)
    phi = posterior.init(jax.random.key(3), DATA[:10])
    options = {"method": METHOD, "num_steps": 5, "batch_size": 10}
    apply = posterior.apply
    plain = fit(plain_energy, apply, DATA, init_params=({"w": 0.5 * jnp.ones((2, 2))}, phi), **options)
    module = fit(NNXEnergy(), apply, DATA, init_params=({"w": 0.5 * jnp.ones((2, 2))}, phi), **options)
    np.testing.assert_array_equal(plain.theta["w"], module.theta["w"])
    own = fit(NNXEnergy(), BernoulliPosterior(2), DATA, **options)
    assert np.isfinite(own.theta["w"]).all()


def explode(step):
    """An optimiser that turns theta into NaN at an iteration."""

    def update(updates, count, params=None):
        bad = jnp.where(count == step, jnp.nan, 0.0)
        return jax.tree.map(lambda leaf: -0.01 * leaf + bad, updates), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def test_divergence_stops_the_run_and_names_step_and_checkpoint(tmp_path):
    method = BiSM(DSM(0.3), hypergradient=Unrolled(1), optimizers=Optimizers(explode(12), optax.sgd(0.01)))
    with pytest.raises(
        DivergenceError, match=r"loss.* at iteration 13; the last good checkpoint is .*/10\."
    ) as e:
        train(method=method, checkpoint_dir=tmp_path, checkpoint_every=5)
    assert e.value.step == 13
    assert e.value.checkpoint == tmp_path / "10"
    with pytest.raises(DivergenceError, match="there is no checkpoint"):
        train(method=method)


def test_rollback_continues_from_the_last_checkpoint_with_new_noise(tmp_path):
    """The energy is not finite on a rare draw of the noise, which the second attempt does not meet."""

    def rare(theta, v):
        return 0.5 * jnp.sum(v**2, -1) * jnp.exp(theta) + jnp.where(v[:, 0] > 1.65, jnp.nan, 0.0) * v[:, 1]

    options = {
        "method": ScoreMatching(DSM(0.3), optax.sgd(1e-4)),
        "init_params": (jnp.asarray(0.1), None),
        "num_steps": 60,
        "batch_size": 10,
        "rng_key": 1,
    }
    with pytest.raises(DivergenceError):
        fit(rare, None, DATA, **options)
    with pytest.warns(UserWarning, match="back to iteration .* with new noise, 1 of 3 times"):
        result = fit(
            rare, None, DATA, checkpoint_dir=tmp_path, checkpoint_every=5, on_divergence="rollback", **options
        )
    assert np.isfinite(result.history["loss"]).all()
    assert len(result.history["loss"]) == 60


def test_rollback_gives_up_after_three_times(tmp_path):
    method = BiSM(DSM(0.3), hypergradient=Unrolled(1), optimizers=Optimizers(explode(2), optax.sgd(0.01)))
    with pytest.warns(UserWarning, match="of 3 times"), pytest.raises(DivergenceError):
        train(method=method, checkpoint_dir=tmp_path, on_divergence="rollback")


def test_one_trace_serves_the_whole_run():
    traces = []

    def counted(theta, v):
        traces.append(v.shape)
        return 0.5 * jnp.sum(v**2, -1) * theta

    options = {"method": ScoreMatching(DSM(0.3)), "init_params": (jnp.asarray(1.0), None), "batch_size": 10}
    fit(counted, None, DATA, num_steps=3, **options)  # the checks of the model are traced once for all
    traces.clear()
    fit(counted, None, DATA, num_steps=3, **options)
    few = len(traces)
    traces.clear()
    fit(counted, None, DATA, num_steps=300, **options)
    assert len(traces) == few


@pytest.mark.slow
def test_the_checkerboard_is_learnt():
    """Unrolling leaves the plateau, N = 0 does not (a fifth of the iterations at five times the rate)."""
    from bism_jax import StopGradient
    from bism_jax.data import checkerboard_splits
    from bism_jax.evaluation import log_likelihood
    from bism_jax.methods import paper_adam

    splits = checkerboard_splits(jax.random.key(0))

    def likelihood(strategy, lower_steps):
        optimizers = Optimizers(paper_adam(5e-3), paper_adam(5e-3))
        method = BiSM(DSM(0.05), hypergradient=strategy, lower_steps=lower_steps, optimizers=optimizers)
        result = fit(
            GRBM(4), BernoulliPosterior(4), splits.train, method=method, num_steps=20_000, ema_decay=0.999
        )
        return float(log_likelihood(GRBM(4), result.theta_ema, splits.test).mean())

    assert likelihood(Unrolled(5), 0) > 0.28
    assert likelihood(StopGradient(0), 5) < -0.2
