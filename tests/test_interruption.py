"""What ends a run early: signals, and callbacks that have seen enough."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from bism_jax import fit
from bism_jax.training import CSVLog, Evaluate, StopTraining
from tests.helpers import Drift, rows

ROOT = Path(__file__).parent.parent
NUM_STEPS = 12
DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Kill:
    """Sends this process a signal at some iteration."""

    every = 1

    def __init__(self, step, number):
        self.step, self.number = step, number

    def __call__(self, snapshot):
        if snapshot.step == self.step:
            os.kill(os.getpid(), self.number)


def train(folder, *callbacks, **options):
    arguments = {"method": Drift(), "batch_size": 4, "num_steps": NUM_STEPS, "checkpoint_every": 5, **options}
    logs = () if folder is None else (CSVLog(folder / "log.csv", 2), Evaluate(lambda s: {"x": s.step}, 3))
    return fit(
        lambda *_: None, None, rows(), callbacks=[*logs, *callbacks],
        checkpoint_dir=None if folder is None else folder / "run", **arguments,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def default_handlers():
    """Those of a program that is run by itself; a test runner may have its own."""
    before = {number: signal.signal(number, handler) for number, handler in DEFAULTS.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return train(folder), (folder / "log.csv").read_bytes()


def assert_continues(folder, whole):
    result, log = whole
    found = train(folder)
    np.testing.assert_array_equal(found.theta["w"], result.theta["w"])
    assert found.evaluations == result.evaluations
    assert (folder / "log.csv").read_bytes() == log


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("step", [4, 5, 7])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, whole, capsys, number, status, step):
    with pytest.raises(SystemExit) as found:
        train(tmp_path, Kill(step, number))
    assert found.value.code == status
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"{number.name} after iteration {step} of 12\. The last checkpoint is .*/run/{step}; the same call "
        r"continues from it\.", line
    )  # fmt: skip
    assert_continues(tmp_path, whole)


def test_a_process_exits_with_the_customary_status(tmp_path, whole):
    program = f"""
        from pathlib import Path
        from tests.test_interruption import *
        train(Path({str(tmp_path)!r}), Kill(7, signal.SIGTERM))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 143
    assert len(done.stderr.splitlines()) == 1
    assert_continues(tmp_path, whole)


def test_a_signal_without_checkpoints_says_that_nothing_is_kept(capsys):
    with pytest.raises(SystemExit):
        train(None, Kill(4, signal.SIGINT))
    assert "There is no checkpoint; a run with a checkpoint_dir could be" in capsys.readouterr().err


def test_at_a_prompt_an_interrupt_returns_the_result_so_far(tmp_path, whole, monkeypatch, capsys):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    result = train(tmp_path, Kill(7, signal.SIGINT))
    assert len(result.history["loss"]) == 7
    assert "SIGINT after iteration 7 of 12" in capsys.readouterr().err
    assert_continues(tmp_path, whole)


def test_a_second_signal_acts_at_once():
    class Twice(Kill):
        def __call__(self, snapshot):
            super().__call__(snapshot)
            super().__call__(snapshot)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        train(None, Twice(3, signal.SIGINT))


def test_handlers_are_as_before_afterwards_and_those_of_a_program_are_its_own():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(None)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        assert len(train(None, Kill(3, signal.SIGTERM)).history["loss"]) == NUM_STEPS
    finally:
        signal.signal(signal.SIGTERM, before[1])
    assert seen == [1]


def test_a_signal_in_the_last_call_ends_the_process_too(tmp_path):
    with pytest.raises(SystemExit):
        train(tmp_path, Kill(NUM_STEPS, signal.SIGTERM))
    assert len(train(tmp_path).history["loss"]) == NUM_STEPS


def test_a_callback_that_has_seen_enough_returns_the_result_so_far(tmp_path, whole):
    class Stop:
        every = 7

        def __call__(self, snapshot):
            raise StopTraining

    result = train(tmp_path, Stop())
    assert len(result.history["loss"]) == 7
    assert [row["step"] for row in result.evaluations] == [3, 6]
    assert_continues(tmp_path, whole)
    assert len(train(None, Stop()).history["loss"]) == 7


def test_an_evaluation_may_stop_a_run_too():
    def enough(snapshot):
        raise StopTraining("enough")

    assert len(train(None, Evaluate(enough, 5)).history["loss"]) == 5


def test_the_state_of_a_callback_is_kept(tmp_path):
    class Patience:
        every = 1

        def __init__(self):
            self.seen = []

        def __call__(self, snapshot):
            self.seen.append(snapshot.step)

        def state(self):
            return self.seen

        def restore(self, state):
            self.seen = list(state)

    train(tmp_path, Patience(), num_steps=3)
    again = Patience()
    train(tmp_path, again, num_steps=5)
    assert again.seen == [1, 2, 3, 4, 5]


# Errors that end a run: what was done before them is kept.


class Fails:
    """A callback that fails once at some iteration."""

    every = 1

    def __init__(self, step):
        self.step = step

    def __call__(self, snapshot):
        if snapshot.step == self.step:
            self.step = None
            raise ZeroDivisionError("a slip")


@pytest.mark.parametrize("step", [1, 4, 6, 7, NUM_STEPS])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_error_in_a_callback_loses_nothing(step, is_first, whole, tmp_path):
    fails = Fails(step)

    def run():
        logs = [CSVLog(tmp_path / "log.csv", 2), Evaluate(lambda s: {"x": s.step}, 3)]
        callbacks = [fails, *logs] if is_first else [*logs, fails]
        return fit(
            lambda *_: None, None, rows(), callbacks=callbacks, checkpoint_dir=tmp_path / "run",
            method=Drift(), batch_size=4, num_steps=NUM_STEPS, checkpoint_every=5,
        )  # fmt: skip

    with pytest.raises(ZeroDivisionError) as failure:
        run()
    assert any(f"run/{step}; the same call continues" in note for note in failure.value.__notes__)
    result = run()
    np.testing.assert_array_equal(result.theta["w"], whole[0].theta["w"])
    np.testing.assert_array_equal(result.history["loss"], whole[0].history["loss"])
    assert list(result.history) == list(whole[0].history)
    assert result.evaluations == whole[0].evaluations
    assert (tmp_path / "log.csv").read_bytes() == whole[1]


def test_an_iterator_that_ends_loses_nothing(tmp_path):
    batches = list(rows(28).reshape(7, 4, 2))

    def run(data, num_steps=NUM_STEPS):
        with pytest.warns(UserWarning, match=r"Pass an array, a list of batches"):
            return fit(
                lambda *_: None, None, data, checkpoint_dir=tmp_path, method=Drift(), batch_size=4,
                num_steps=num_steps, steps_per_call=1,
            )  # fmt: skip

    with pytest.raises(ValueError, match=r"exhausted after 7 batches") as failure:
        run(iter(batches))
    assert any(f"{tmp_path}/7; the same call continues" in note for note in failure.value.__notes__)
    assert len(run(iter(batches), 10).history["loss"]) == 10


def test_a_signal_during_the_start_is_not_lost(tmp_path):
    """It comes while the model is traced, and ends the run before its first iteration."""

    class Slow(Drift):
        def bind(self, *args, axis_name=None, **options):
            if not sent:
                sent.append(os.kill(os.getpid(), signal.SIGINT))
            return Drift.bind(self, *args, **options)

    sent = []
    with pytest.raises(SystemExit) as end:
        train(tmp_path, method=Slow())
    assert end.value.code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "0"]


@pytest.mark.parametrize("steps_per_call", [1, 4, None])
def test_data_that_fails_once_loses_no_batch(steps_per_call, tmp_path):
    batches = list(rows(48).reshape(12, 4, 2))
    failed = []

    class Loader:
        def __init__(self):
            self.k = 0

        def __iter__(self):
            return self

        def __next__(self):
            if self.k == 6 and not failed:
                failed.append(self.k)
                raise OSError("the disk is gone for a moment")
            self.k += 1
            return batches[(self.k - 1) % 12]

        def get_state(self):
            return self.k

        def set_state(self, state):
            self.k = state

    def run(folder):
        return fit(
            lambda *_: None, None, Loader(), checkpoint_dir=folder, method=Drift(), batch_size=4,
            num_steps=NUM_STEPS, steps_per_call=steps_per_call,
        )  # fmt: skip

    with pytest.raises(OSError, match="gone for a moment"):
        run(tmp_path / "run")
    found = run(tmp_path / "run")
    np.testing.assert_array_equal(found.theta["w"], run(tmp_path / "whole").theta["w"])


def test_a_log_that_fails_keeps_the_run(whole, tmp_path, monkeypatch):
    append, failing = CSVLog._append, [True]

    def fail(log, text):
        if "\n" in text and failing and len(log._text) > 1:
            raise OSError(28, "No space left on device")
        append(log, text)

    monkeypatch.setattr(CSVLog, "_append", fail)
    monkeypatch.setattr(CSVLog, "rewind", lambda *_: fail(CSVLog(tmp_path / "other"), ""))
    with pytest.raises(OSError, match="No space left") as failure:
        train(tmp_path)
    assert any("the same call continues from it" in note for note in failure.value.__notes__)
    failing.clear()
    assert_same = np.testing.assert_array_equal
    assert_same(train(tmp_path).theta["w"], whole[0].theta["w"])


class Counts:
    every = 1

    def __init__(self):
        self.count = 0

    def __call__(self, snapshot):
        self.count += 1

    def state(self):
        return self.count

    def restore(self, state):
        self.count = state


@pytest.mark.parametrize("step", [4, NUM_STEPS])
def test_turns_are_taken_once(step, tmp_path):
    fails = Fails(step)
    with pytest.raises(ZeroDivisionError):
        train(tmp_path, Counts(), fails)
    for _ in range(2):  # the second reads back what is done
        counts, seen = Counts(), []
        train(tmp_path, counts, Evaluate(lambda s, seen=seen: seen.append(s.step) or {}, 1), fails)
        assert counts.count == NUM_STEPS
    assert seen == []
