"""What happens between iterations: evaluations, logs, the bar, and the record of a run."""

import csv
import inspect
import io
import json
import struct
import sys

import chex
import jax
import numpy as np
import pytest
from etils import epath

from bism_jax import BiSM, ScoreMatching, Unrolled, fit
from bism_jax.methods import EnergyInfo, LatentInfo
from bism_jax.models import GRBM, GaussianPosterior
from bism_jax.training import Callback, CSVLog, Evaluate, JSONLLog, StopTraining, TensorBoardLog
from tests.helpers import Drift, DriftInfo, rows

NUM_STEPS = 10
LOGS = {"csv": CSVLog, "jsonl": JSONLLog}


def train(*callbacks, **options):
    """Iteration k, from 0, has loss k."""
    arguments = {"method": Drift(), "num_steps": NUM_STEPS, "batch_size": 4, **options}
    return fit(lambda *_: None, None, rows(), callbacks=callbacks, **arguments)


def read(path):
    """The rows of either kind of log; cells without a value are left out."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if value != ""} for row in found]


def steps_of(path):
    return [row["step"] for row in read(path)]


def last_step(snapshot):
    return {"last_step": snapshot.step}


class Recorder:
    """A callback of a user's own, with the optional `resume`."""

    def __init__(self, every):
        self.every, self.snapshots, self.resumed = every, [], []

    def resume(self, step):
        self.resumed.append(step)

    def __call__(self, snapshot):
        self.snapshots.append(snapshot)


@pytest.fixture(params=LOGS)
def log(request, tmp_path):
    """`log(every)` on one path, which is `log.path`."""

    def make(every):
        return LOGS[request.param](make.path, every)

    make.path = tmp_path / f"log.{request.param}"
    return make


# Turns and what a callback sees.


@pytest.mark.parametrize(
    ("every", "num_steps", "expected"),
    [(3, 10, [3, 6, 9, 10]), (5, 10, [5, 10]), (1, 3, [1, 2, 3]), (1000, 4, [4])],
)
def test_turns_are_the_multiples_and_the_last(every, num_steps, expected):
    recorder = Recorder(every)
    result = train(Evaluate(last_step, every), recorder, num_steps=num_steps)
    assert result.evaluations == [{"step": step, "last_step": step} for step in expected]
    assert [snapshot.step for snapshot in recorder.snapshots] == expected
    assert recorder.resumed == [0]


def test_evaluations_of_one_step_share_a_row():
    result = train(Evaluate(lambda s: {"a": 1}, 5), Evaluate(lambda s: {"b": 2}, 2), num_steps=5)
    assert result.evaluations == [{"step": 2, "b": 2}, {"step": 4, "b": 2}, {"step": 5, "a": 1, "b": 2}]


def test_evaluations_become_plain_numbers():
    measured = {"a": np.float32(0.5), "b": jax.numpy.asarray(2), "c": np.ones(())}
    result = train(Evaluate(lambda s: measured, 5), num_steps=5)
    assert result.evaluations == [{"step": 5, "a": 0.5, "b": 2.0, "c": 1.0}]
    assert all(type(value) in (int, float) for value in result.evaluations[0].values())


def test_what_a_users_own_callback_measures_may_be_logged(log):
    class Norm:
        every = 5

        def __call__(self, snapshot):
            return {"norm": np.float32(snapshot.step)}

    result = train(Norm(), log(5))
    assert [row["norm"] for row in result.evaluations] == [5, 10]
    assert [row["norm"] for row in read(log.path)] == [5, 10]


def test_a_measurement_cannot_overwrite_the_step(log):
    result = train(Evaluate(lambda s: {"step": 99, "x": 1}, 5), log(5))
    assert [row["step"] for row in result.evaluations] == [5, 10]
    assert steps_of(log.path) == [5, 10]


def test_an_evaluation_must_measure_something_named():
    with pytest.raises(TypeError, match=r"Evaluate.*fn.*NoneType"):
        train(Evaluate(lambda s: None, 5), num_steps=5)


def test_a_snapshot_is_the_run_after_its_step():
    recorder = Recorder(3)
    result = train(recorder, ema_decay=0.5)
    for snapshot in (recorder.snapshots[0], recorder.snapshots[2]):
        alone = train(num_steps=snapshot.step, ema_decay=0.5)
        np.testing.assert_array_equal(snapshot.theta["w"], alone.theta["w"])
        np.testing.assert_array_equal(snapshot.theta_ema["w"], alone.theta_ema["w"])
        assert snapshot.phi is None
    np.testing.assert_array_equal(recorder.snapshots[-1].theta["w"], result.theta["w"])
    assert train(Recorder(5)).theta_ema is None


@pytest.mark.parametrize("steps_per_call", [1, 3, None])
def test_metrics_are_means_since_the_last_turn(steps_per_call):
    recorders = [Recorder(4), Recorder(3)]
    history = train(*recorders, steps_per_call=steps_per_call).history
    for recorder, windows in zip(recorders, ([0, 4, 8, 10], [0, 3, 6, 9, 10]), strict=True):
        assert [snapshot.step for snapshot in recorder.snapshots] == windows[1:]
        for snapshot, start in zip(recorder.snapshots, windows, strict=False):
            stop = snapshot.step
            assert set(snapshot.metrics) == set(DriftInfo._fields)
            for name, value in snapshot.metrics.items():
                np.testing.assert_allclose(value, history[name][start:stop].mean(), rtol=1e-6)
    assert recorders[0].snapshots[0].metrics["loss"] == 1.5


def test_callbacks_may_be_any_iterable():
    # A generator must not be used up before the first turn.
    arguments = {"method": Drift(), "num_steps": 4, "batch_size": 4}
    callbacks = (Evaluate(last_step, every) for every in (2,))
    result = fit(lambda *_: None, None, rows(), callbacks=callbacks, **arguments)
    assert [row["step"] for row in result.evaluations] == [2, 4]


def test_an_error_in_a_callback_is_the_users_to_see(tmp_path):
    def fail(snapshot):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        train(Evaluate(fail, 6), checkpoint_dir=tmp_path, checkpoint_every=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "0", "4", "6"]


# Logs.


def test_a_log_has_the_means_of_its_windows(log):
    history = train(log(4)).history
    found = read(log.path)
    assert [row["step"] for row in found] == [4, 8, 10]
    for row, (start, stop) in zip(found, [(0, 4), (4, 8), (8, 10)], strict=True):
        assert set(row) == {"step", *DriftInfo._fields}
        for name in DriftInfo._fields:
            np.testing.assert_allclose(row[name], history[name][start:stop].mean(), rtol=1e-6)


def test_a_log_holds_what_was_measured_before_it(log):
    train(Evaluate(lambda s: {"x": s.step}, 4), log(2))
    assert [row.get("x") for row in read(log.path)] == [None, 4, None, 8, 10]


def test_a_log_does_not_hold_what_is_measured_after_it(log):
    train(log(2), Evaluate(lambda s: {"x": s.step}, 4))
    assert all("x" not in row for row in read(log.path))


def test_columns_may_come_later_and_go(log):
    def measure(snapshot):
        return {f"x{snapshot.step}": snapshot.step, "always": 1}

    train(Evaluate(measure, 3), log(1), num_steps=7)
    found = read(log.path)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6, 7]
    for row in found:
        expected = {f"x{row['step']:.0f}", "always"} if row["step"] in (3, 6, 7) else set()
        assert set(row) - {"step", *DriftInfo._fields} == expected


def test_columns_of_a_csv_keep_their_order(tmp_path):
    path = tmp_path / "log.csv"
    train(Evaluate(lambda s: {"x": 1}, 4), CSVLog(path, 2))
    assert path.read_text().splitlines()[0] == "step,loss,noise,x"


def test_names_with_commas_quotes_and_newlines(log):
    name = 'a,"b"\nc'
    train(Evaluate(lambda s: {name: s.step}, 5), log(5))
    assert [row[name] for row in read(log.path)] == [5, 10]


def test_a_log_makes_its_folder(log):
    log.path = log.path.parent / "a" / "b" / log.path.name
    train(log(5))
    assert steps_of(log.path) == [5, 10]


def test_a_log_accepts_a_string(tmp_path):
    train(CSVLog(str(tmp_path / "a.csv"), 5), JSONLLog(str(tmp_path / "a.jsonl"), 5))
    assert steps_of(tmp_path / "a.csv") == steps_of(tmp_path / "a.jsonl") == [5, 10]


def test_a_log_is_on_disk_after_every_row(log):
    train(log(2), Evaluate(lambda s: {"rows": len(read(log.path))}, 2))
    assert len(read(log.path)) == 5


def test_an_existing_log_is_left_alone_by_a_fresh_run(log):
    log.path.write_text("step,loss\n1,2\n")
    with pytest.raises(
        FileExistsError, match=r"log\..* exists and this run starts anew; choose another path"
    ):
        train(log(2))
    assert log.path.read_text() == "step,loss\n1,2\n"


def test_a_log_cannot_be_used_by_two_fresh_runs(log):
    callback = log(5)
    train(callback)
    text = log.path.read_text()
    with pytest.raises(FileExistsError, match="exists"):
        train(callback)
    assert log.path.read_text() == text


def test_an_empty_log_does_not_stop_a_fresh_run(log):
    log.path.write_text("")
    train(log(5))
    assert steps_of(log.path) == [5, 10]


def test_a_run_that_ended_before_its_first_row_can_be_started_again(log):
    def fail(snapshot):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        train(log(5), Evaluate(fail, 2))
    train(log(5))
    assert steps_of(log.path) == [5, 10]


# Resumed runs.


def test_a_resumed_log_is_that_of_an_uninterrupted_run(log, tmp_path):
    evaluate = Evaluate(lambda s: {"x": s.step}, 4)
    train(evaluate, log(2), num_steps=12)
    expected = log.path.read_text()
    log.path.unlink()
    options = {"checkpoint_dir": tmp_path / "run", "checkpoint_every": 100}
    train(evaluate, log(2), num_steps=4, **options)
    result = train(evaluate, log(2), num_steps=12, **options)
    assert log.path.read_text() == expected
    assert [row["step"] for row in result.evaluations] == [4, 8, 12]


def test_a_resumed_log_keeps_the_row_that_ended_the_first_run(log, tmp_path):
    train(log(4), checkpoint_dir=tmp_path / "run", num_steps=6)
    result = train(log(4), checkpoint_dir=tmp_path / "run", num_steps=12)
    assert steps_of(log.path) == [4, 6, 8, 12]
    losses = result.history["loss"]
    windows = [(0, 4), (4, 6), (4, 8), (8, 12)]
    assert [row["loss"] for row in read(log.path)] == [losses[a:b].mean() for a, b in windows]


def test_rows_after_the_last_checkpoint_are_written_once(log, tmp_path):
    class InterruptionError(BaseException):
        """What ends a run without a word, as a crash does."""

    def interrupt(snapshot):
        raise InterruptionError

    evaluate = Evaluate(lambda s: {"x": s.step}, 3)
    options = {"checkpoint_dir": tmp_path / "run", "checkpoint_every": 4}
    with pytest.raises(InterruptionError):
        train(evaluate, log(1), Evaluate(interrupt, 7), **options)
    assert steps_of(log.path) == [1, 2, 3, 4, 5, 6, 7]
    recorder = Recorder(100)
    result = train(evaluate, log(1), recorder, **options)
    assert recorder.resumed == [4]
    assert steps_of(log.path) == list(range(1, 11))
    assert [row.get("x") for row in read(log.path)] == [None, None, 3, None, None, 6, None, None, 9, 10]
    assert [row["step"] for row in result.evaluations] == [3, 6, 9, 10]


def test_a_finished_run_that_is_called_again_adds_nothing(log, tmp_path):
    first = train(Evaluate(last_step, 4), log(4), checkpoint_dir=tmp_path / "run")
    text = log.path.read_text()
    again = train(Evaluate(last_step, 4), log(4), checkpoint_dir=tmp_path / "run")
    assert log.path.read_text() == text
    assert again.evaluations == first.evaluations
    np.testing.assert_array_equal(again.history["noise"], first.history["noise"])


def test_a_log_that_joins_a_resumed_run_starts_there(log, tmp_path):
    train(checkpoint_dir=tmp_path / "run", num_steps=4)
    train(log(2), checkpoint_dir=tmp_path / "run", num_steps=8)
    assert steps_of(log.path) == [6, 8]


def test_a_line_torn_by_a_kill_is_dropped(log, tmp_path):
    train(log(2), checkpoint_dir=tmp_path / "run", num_steps=4)
    with log.path.open("a") as file:
        file.write({".csv": "1", ".jsonl": '{"step": 1'}[log.path.suffix])  # of step 12, say
    train(log(2), checkpoint_dir=tmp_path / "run", num_steps=8)
    assert steps_of(log.path) == [2, 4, 6, 8]


def with_a_mark(path):
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def cut_in_a_number(path):
    path.write_bytes(path.read_bytes().rstrip()[:-2])


def torn_after_the_checkpoint(path):
    with path.open("a") as file:
        file.write({".csv": "6,5.0,0.1", ".jsonl": '{"step": 6, "lo'}[path.suffix])


@pytest.mark.parametrize(
    "change", [lambda path: path.unlink(), lambda path: path.write_text(""), with_a_mark, cut_in_a_number,
               torn_after_the_checkpoint],
    ids=["deleted", "emptied", "byte order mark", "cut", "torn"],
)  # fmt: skip
@pytest.mark.parametrize("every", [2, 3])
def test_a_log_goes_on_byte_for_byte_whatever_became_of_the_file(log, tmp_path, change, every):
    evaluate = Evaluate(lambda s: {"x, y": s.step / 3}, 4)
    expected_path = tmp_path / f"expected{log.path.suffix}"
    train(evaluate, LOGS[log.path.suffix[1:]](expected_path, every), num_steps=12)
    options = {"checkpoint_dir": tmp_path / "run", "checkpoint_every": 4}
    train(evaluate, log(every), Stop(4), num_steps=12, **options)
    change(log.path)
    train(evaluate, log(every), num_steps=12, **options)
    assert log.path.read_bytes() == expected_path.read_bytes()


class Stop:
    """Ends the run, as a kill does, without the rows that end a whole one."""

    def __init__(self, every):
        self.every = every

    def __call__(self, snapshot):
        raise StopTraining


def test_other_turns_keep_the_rows_of_the_first_run(log, tmp_path):
    options = {"checkpoint_dir": tmp_path / "run"}
    train(log(2), num_steps=4, **options)
    text = log.path.read_text()
    train(log(3), num_steps=9, **options)
    assert log.path.read_text().startswith(text)
    assert steps_of(log.path) == [2, 4, 6, 9]


def test_what_was_edited_is_kept_beside_the_log(log, tmp_path):
    train(log(2), num_steps=4, checkpoint_dir=tmp_path / "run")
    edited = log.path.read_text().replace("step", "iteration")
    log.path.write_text(edited)
    with pytest.warns(
        UserWarning, match=r"not as this run left it: it is kept as .*edited-1, and it goes on"
    ):
        train(log(2), num_steps=8, checkpoint_dir=tmp_path / "run")
    assert log.path.with_name(log.path.name + ".edited-1").read_text() == edited
    assert steps_of(log.path) == [2, 4, 6, 8]


def test_a_file_in_the_place_of_a_log_without_rows_is_kept(log, tmp_path):
    train(log(2), Stop(1), checkpoint_dir=tmp_path / "run")
    log.path.write_text("my notes\n")
    with pytest.warns(UserWarning, match="kept as"):
        train(log(2), checkpoint_dir=tmp_path / "run")
    assert log.path.with_name(log.path.name + ".edited-1").read_text() == "my notes\n"


def test_two_logs_in_one_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"two logs have the path .*/log; give each a file of its own"):
        train(CSVLog(tmp_path / "log"), JSONLLog(f"{tmp_path}/sub/../log"))
    assert not (tmp_path / "log").exists()


def test_an_evaluation_by_the_name_of_a_loss_leaves_the_loss_alone(log):
    with pytest.warns(UserWarning, match=r"evaluation measures loss, as training does; .* evaluation_loss"):
        result = train(Evaluate(lambda s: {"loss": 100.0}, 5), log(5))
    assert [row["loss"] for row in read(log.path)] == [2, 7]
    assert [row["evaluation_loss"] for row in read(log.path)] == [100, 100]
    assert [row["loss"] for row in result.evaluations] == [100, 100]


def test_a_log_that_cannot_be_written_is_named(log, tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "log"
    with pytest.raises(OSError, match=r"the log .*/file/log cannot be written \(.*or choose another path"):
        train(LOGS[log.path.suffix[1:]](path, 5))


def fails_once(step):
    """A loss that is NaN the first time that iteration `step` is seen."""
    seen = []

    def host_loss_fn(iteration):
        if iteration == step and not seen:
            seen.append(iteration)
            return np.nan
        return iteration

    return host_loss_fn


@pytest.mark.parametrize(("checkpoint_every", "goes_back_to"), [(4, 4), (100, 0)])
def test_rows_before_a_rollback_are_written_once(log, tmp_path, checkpoint_every, goes_back_to):
    options = {"checkpoint_dir": tmp_path / "run", "checkpoint_every": checkpoint_every}
    with pytest.warns(UserWarning, match=f"at iteration 6: back to iteration {goes_back_to}"):
        result = train(
            Evaluate(last_step, 2),
            log(1),
            method=Drift(fails_once(6)),
            on_divergence="rollback",
            **options,
        )
    assert steps_of(log.path) == list(range(1, 11))
    assert [row["step"] for row in result.evaluations] == [2, 4, 6, 8, 10]
    assert result.history["loss"].tolist() == list(range(10))


# TensorBoard.


def events(folder):
    """`(step, {tag: value})` of each point in the event files, oldest file first."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.summary.value:
                yield event.step, {value.tag: value.simple_value for value in event.summary.value}


def test_tensorboard_has_the_means(tmp_path):
    history = train(Evaluate(lambda s: {"x": s.step}, 10), TensorBoardLog(tmp_path / "tb", 5)).history
    found = {}
    for step, values in events(tmp_path / "tb"):
        found.setdefault(step, {}).update(values)
    assert set(found) == {5, 10}
    assert set(found[5]) == set(DriftInfo._fields)
    for name in DriftInfo._fields:
        np.testing.assert_allclose(found[10][name], history[name][5:].mean(), rtol=1e-6)
    assert found[10]["x"] == 10


def test_tensorboard_needs_tensorboardx(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"TensorBoardLog needs tensorboardX: pip install .*or use CSVLog"):
        TensorBoardLog(tmp_path / "tb")
    assert not (tmp_path / "tb").exists()


# The bar.


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_with_the_loss_goes_to_stderr(capsys):
    train(progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "10/10" in captured.err
    assert "loss=9" in captured.err


@pytest.mark.parametrize("progress", [None, False])
def test_there_is_no_bar_without_a_terminal_or_if_unwanted(capsys, progress):
    train(progress=progress)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("progress", "shows"), [(None, True), (True, True), (False, False)])
def test_there_is_a_bar_on_a_terminal(monkeypatch, progress, shows):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    train(progress=progress)
    assert ("10/10" in terminal.getvalue()) == shows


def test_the_bar_of_a_resumed_run_starts_where_it_left_off(capsys, tmp_path):
    train(num_steps=4, checkpoint_dir=tmp_path)
    train(num_steps=8, checkpoint_dir=tmp_path, progress=True)
    assert "4/8" in capsys.readouterr().err


# The record.


def test_history_has_the_scalars_of_info():
    history = train().history
    assert tuple(history) == DriftInfo._fields
    assert history["loss"].tolist() == list(range(NUM_STEPS))
    assert len(set(history["noise"].tolist())) == NUM_STEPS


@pytest.mark.parametrize(
    ("method", "posterior", "info"),
    [
        (BiSM(hypergradient=Unrolled(1)), GaussianPosterior(2), LatentInfo),
        (ScoreMatching(), None, EnergyInfo),
    ],
    ids=["BiSM", "ScoreMatching"],
)
def test_record_of_the_methods(method, posterior, info):
    recorder = Recorder(2)
    result = fit(GRBM(2), posterior, rows(), method=method, num_steps=3, batch_size=4, callbacks=[recorder])
    assert tuple(result.history) == info._fields
    for values in result.history.values():
        assert values.shape == (3,)
        assert np.isfinite(values).all()
    last = recorder.snapshots[-1]
    assert set(last.metrics) == set(info._fields)
    chex.assert_trees_all_equal((last.theta, last.phi), (result.theta, result.phi))


def test_history_of_a_resumed_run_is_whole(tmp_path):
    whole = train().history
    train(num_steps=3, checkpoint_dir=tmp_path)
    resumed = train(checkpoint_dir=tmp_path).history
    for name, values in whole.items():
        np.testing.assert_array_equal(resumed[name], values)


def test_no_steps_return_the_initial_parameters():
    theta = GRBM(2).init(jax.random.key(3), rows(4), np.zeros((4, 2), np.float32))
    recorder = Recorder(1)
    result = fit(
        GRBM(2),
        None,
        rows(),
        method=ScoreMatching(),
        init_params=(theta, None),
        num_steps=0,
        batch_size=4,
        ema_decay=0.9,
        callbacks=[recorder],
    )
    chex.assert_trees_all_equal(result.theta, theta)
    chex.assert_trees_all_equal(result.theta_ema, theta)
    assert result.phi is None
    assert result.evaluations == []
    assert recorder.snapshots == []


def test_fewer_steps_than_are_done_are_refused(tmp_path):
    train(num_steps=6, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"num_steps=3, but .* 6 iterations"):
        train(num_steps=3, checkpoint_dir=tmp_path)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (
            {"a": np.ones((2, 3))},
            r"Evaluate: fn must .* 'a' is an array of shape \(2, 3\); return one such as",
        ),
        ({"a": jax.numpy.ones(5)}, r"'a' is an array of shape \(5,\)"),
        ({"a": "high"}, r"'a' is 'high'"),
        ({"a": None}, r"'a' is None"),
        ({1: 2.0}, r"1 is 2\.0"),
        (3.0, r"mapping of names to numbers, not a float"),
    ],
)
def test_what_is_no_number_is_named(measured, message):
    with pytest.raises(TypeError, match=message):
        train(Evaluate(lambda _: measured, 5))


def test_numbers_of_every_kind_are_measured():
    kinds = {"int": 1, "bool": True, "numpy": np.float16(1), "jax": jax.numpy.ones((), jax.numpy.bfloat16)}
    assert train(Evaluate(lambda _: kinds, 10)).evaluations == [{"step": 10} | dict.fromkeys(kinds, 1.0)]


def test_the_path_of_a_log_is_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"the path of a log, .* is a folder; pass a file in it"):
        train(CSVLog(tmp_path))


# Files that are not this run's are kept.


def run_with(log, tmp_path, num_steps, *others):
    train(*others, *log, checkpoint_dir=tmp_path / "run", num_steps=num_steps, checkpoint_every=2)


def test_a_log_that_is_added_to_a_run_leaves_a_file_alone(log, tmp_path):
    run_with([], tmp_path, 4)
    log.path.write_text("name,age\nmine,3\n")
    with pytest.warns(UserWarning, match=r"is not as this run left it: it is kept as .*\.edited-1"):
        run_with([log(2)], tmp_path, 8)
    assert log.path.with_name(log.path.name + ".edited-1").read_text() == "name,age\nmine,3\n"
    assert steps_of(log.path) == [6, 8]


def test_the_log_of_another_run_is_kept_by_one_that_was_stopped_early(log, tmp_path):
    run_with([log(2)], tmp_path, 0)
    other = tmp_path / "other" / log.path.name
    other.parent.mkdir()
    train(LOGS[log.path.suffix[1:]](other, 1))
    text = other.read_text()
    with pytest.warns(UserWarning, match=r"is kept as"):
        run_with([LOGS[log.path.suffix[1:]](other, 2)], tmp_path, 4)
    assert other.with_name(other.name + ".edited-1").read_text() == text
    assert steps_of(other) == [2, 4]


def test_a_run_whose_folder_was_moved_goes_on_with_its_log(log, tmp_path, recwarn):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()

    def run(folder, num_steps):
        run_with([LOGS[log.path.suffix[1:]](folder / log.path.name, 2)], folder, num_steps)

    run(before, 4)
    before.rename(after)
    run(after, 8)
    assert steps_of(after / log.path.name) == [2, 4, 6, 8]
    assert not recwarn.list


def test_a_link_stays_one(log, tmp_path):
    target = tmp_path / "target"
    log.path.symlink_to(target)
    (tmp_path / f"{log.path.name}.tmp").write_text("mine")
    train(log(5))
    assert log.path.is_symlink()
    assert steps_of(log.path) == [5, 10]
    assert (tmp_path / f"{log.path.name}.tmp").read_text() == "mine"


class Keeps:
    every = 5

    def __init__(self, state):
        self._state = state

    def state(self):
        return self._state

    def __call__(self, snapshot):
        return None


def test_a_state_that_cannot_be_kept_names_its_callback(tmp_path):
    with pytest.raises(TypeError, match=r"callbacks: the state\(\) of Keeps cannot be kept"):
        train(Keeps({"x": np.float32(1)}), checkpoint_dir=tmp_path)


@pytest.mark.parametrize("returned", [1.0, [1, 2], "x", np.ones(3), 0])
def test_a_callback_returns_a_mapping_or_nothing(returned):
    class Returns:
        every = 5

        def __call__(self, snapshot):
            return returned

    with pytest.raises(TypeError, match=r"Returns must return a mapping of names to numbers, not a "):
        train(Returns())


def test_a_note_at_the_end_of_a_log_is_kept(log, tmp_path):
    run_with([log(2)], tmp_path, 4)
    with log.path.open("a") as file:
        file.write("a note of mine\n")
    text = log.path.read_text()
    with pytest.warns(UserWarning, match=r"is kept as .*edited-1, and it goes on"):
        run_with([log(2)], tmp_path, 8)
    assert log.path.with_name(log.path.name + ".edited-1").read_text() == text
    assert steps_of(log.path) == [2, 4, 6, 8]


@pytest.mark.parametrize("order", [[1], [1, 0]])
def test_logs_of_one_name_are_known_by_their_folders(order, log, tmp_path, recwarn):
    def make(index):
        (tmp_path / str(index)).mkdir(exist_ok=True)
        return LOGS[log.path.suffix[1:]](tmp_path / str(index) / log.path.name, index + 1)

    run_with([make(0), make(1)], tmp_path, 4)
    run_with([make(index) for index in order], tmp_path, 6)
    assert steps_of(tmp_path / "1" / log.path.name) == [2, 4, 6]
    assert not recwarn.list


def test_a_bucket_is_written_without_a_rename(log, tmp_path, monkeypatch):
    train(log(3))
    expected = log.path.read_bytes()
    log.path.unlink()
    monkeypatch.setattr("bism_jax.training.callbacks._text_files.is_local", lambda path: False)
    monkeypatch.setattr(type(epath.Path()), "replace", None)
    train(log(3))
    assert log.path.read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == [log.path.name]


@pytest.mark.parametrize("state", [None, 0, "", {}])
def test_a_state_that_is_nothing_is_given_back(state, tmp_path):
    class Takes(Keeps):
        def restore(self, state):
            self.taken = state

    train(Takes(state), checkpoint_dir=tmp_path, num_steps=5)
    again = Takes(state)
    train(again, checkpoint_dir=tmp_path)
    assert again.taken == state


def test_what_a_log_has_written_is_no_argument(log):
    made = type(log(2))
    assert list(inspect.signature(made).parameters) == ["path", "every"]
    with pytest.raises(TypeError, match="_text"):
        made(log.path, _text=[])


class Overrides(Callback):
    """A callback that notes what each hook is told."""

    every = 5

    def __init__(self):
        self.told = []

    def __call__(self, snapshot):
        self.told.append(("call", snapshot.step))

    def close(self):
        self.told.append(("close", None))

    def resume(self, step):
        self.told.append(("resume", step))


@pytest.mark.parametrize("make", [Overrides, type("Alone", (), dict(vars(Overrides)))])
def test_hooks_are_those_of_the_base_class_or_ones_own(make):
    callback = make()
    train(callback)
    assert callback.told == [("resume", 0), ("call", 5), ("call", 10), ("close", None)]


def test_a_hook_that_a_callback_gets_later_is_not_given_the_state_that_it_did_not_have(tmp_path):
    class Counts(Callback):
        every = 5

        def __call__(self, snapshot):
            return None

    class Takes(Counts):
        def state(self):
            return 1

        def restore(self, state):
            raise AssertionError(state)

    Takes.__name__ = "Counts"
    train(Counts(), checkpoint_dir=tmp_path, num_steps=5)
    train(Takes(), checkpoint_dir=tmp_path)


def test_a_callback_must_be_callable():
    with pytest.raises(TypeError, match="abstract"):
        Callback()
