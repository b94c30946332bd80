"""The benchmark of accelerators: it keeps to its budget, survives being cut off, and repeats nothing."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time

import chex
import numpy as np
import pytest

from benchmarks.accelerator.__main__ import parse
from benchmarks.accelerator.arrays import read_arrays, scikit_digits, write_arrays
from benchmarks.accelerator.budget import allot
from benchmarks.accelerator.paper_networks import configuration, settings
from benchmarks.accelerator.rows import Rows
from benchmarks.accelerator.stages import STAGES
from benchmarks.accelerator.supervise import supervise
from bism_jax.models import ResidualEnergy
from experiments.imaging.networks import make_energy
from tests import accelerator_stage
from tests.accelerator_stage import options, tried

SUPERVISE = """
import sys
from pathlib import Path
from benchmarks.accelerator.supervise import supervise
from tests import accelerator_stage
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    sys.exit(supervise(accelerator_stage.options(folder, sys.argv[2:]), accelerator_stage.run))
"""


def statuses(folder):
    return {row["case"]: row["status"] for row in Rows(folder).all()}


def test_what_a_stage_leaves_over_goes_to_the_later_ones():
    assert allot(100, [0.2, 0.3, 0.5]) == pytest.approx(20)
    assert allot(95, [0.3, 0.5]) == pytest.approx(95 * 3 / 8)
    assert allot(7, [0.5]) == 7
    assert allot(-1, [0.5, 0.5]) == 0


def test_rows_are_the_same_in_all_three_files(tmp_path):
    rows = Rows(tmp_path)
    rows.announce("networks", ["a", "b"], quick=True)
    rows.put("networks", "a", "done", quick=True, ms=np.float32(1.5), peak=math.nan, device="X")
    rows.put("seeds", "a", "failed", quick=True, error="x | y\nz")
    rows.announce("networks", ["a", "b", "c"], quick=True)
    found = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["stage"], row["case"], row["status"]) for row in found] == [
        ("networks", "a", "done"),
        ("networks", "b", "waiting"),
        ("seeds", "a", "failed"),
        ("networks", "c", "waiting"),
    ]
    assert found[0]["ms"] == 1.5 and found[0]["peak"] is None
    with (tmp_path / "rows.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["ms"] for row in table] == ["1.5", "", "", ""]
    assert table[2]["error"] == "x | y\nz"
    text = (tmp_path / "rows.md").read_text()
    assert text.startswith("Device: X\n") and "| a | 1.5 | done |" in text
    assert "| a | failed: x / y z |" in text


def test_rows_stay_whole_when_their_writer_is_killed(tmp_path):
    """At any instruction: what was read before is there still, and every file is complete."""
    loop = (
        "import sys; from pathlib import Path; from benchmarks.accelerator.rows import Rows\n"
        "rows = Rows(Path(sys.argv[1])); start = len(rows.all()); print(flush=True)\n"
        "for i in range(start, 10**9): rows.put('s', str(i), 'done', value=i)"
    )
    number = 0
    for delay in (0.01, 0.03, 0.1):
        process = subprocess.Popen([sys.executable, "-c", loop, str(tmp_path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.communicate()
        found = Rows(tmp_path).all()
        assert [row["value"] for row in found] == list(range(len(found))) and len(found) >= number
        number = len(found)
    assert number > 0
    Rows(tmp_path).put("s", "last", "done")
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == number + 2


def test_errors_and_crashes_are_rows_and_the_rest_goes_on(tmp_path):
    names = ["one", "fails", "crashes", "lacks", "partial", "two"]
    assert supervise(options(tmp_path, names), accelerator_stage.run) == 1
    assert tried(tmp_path) == names  # each once, though the crash took the process
    rows = {row["case"]: row for row in Rows(tmp_path).all()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "one": "done",
        "fails": "failed",
        "crashes": "failed",
        "lacks": "unavailable",
        "partial": "partial",
        "two": "done",
    }
    assert rows["fails"]["error"] == "ValueError: a | b"
    assert "code 3" in rows["crashes"]["error"] and rows["lacks"]["error"] == "no such thing"
    # The next call repeats what is not done, and only that.
    supervise(options(tmp_path, names), accelerator_stage.run)
    assert tried(tmp_path)[len(names) :] == ["fails", "crashes", "lacks", "partial"]


def test_a_stage_that_hangs_costs_its_share_only(tmp_path):
    given = options(tmp_path, [], minutes=0.15, stages=("parity", "seeds"))
    assert supervise(given, accelerator_stage.hang) == 0
    found = {(row["stage"], row["case"]): row for row in Rows(tmp_path).all()}
    for stage in given.stages:
        assert [found[stage, name]["status"] for name in ("one", "hangs", "two")] == [
            "done",
            "cut off",
            "waiting",
        ]
        assert "time was over" in found[stage, "hangs"]["error"]


def wait_until(condition, process=None):
    while not condition():
        assert process is None or process.poll() is None
        time.sleep(0.05)


def test_a_call_that_was_killed_goes_on(tmp_path):
    """By SIGKILL, which nobody can catch: its measuring process ends too, and nothing is measured twice."""
    command = [sys.executable, "-c", SUPERVISE, str(tmp_path), "one", "hangs-once", "two"]
    process = subprocess.Popen(command)
    wait_until(lambda: statuses(tmp_path).get("hangs-once") == "running", process)
    process.kill()
    process.wait()
    (tmp_path / "work" / "freed").touch()
    assert subprocess.run(command, check=False).returncode == 0
    assert statuses(tmp_path) == {"one": "done", "hangs-once": "done", "two": "done"}
    assert tried(tmp_path) == ["one", "hangs-once", "hangs-once", "two"]
    assert subprocess.run(command, check=False).returncode == 0
    assert len(tried(tmp_path)) == 4


def test_a_row_of_another_device_is_measured_again(tmp_path, monkeypatch):
    for device in ("fake", "other", "other"):
        monkeypatch.setenv("FAKE_DEVICE", device)
        supervise(options(tmp_path, ["one"]), accelerator_stage.run)
    assert tried(tmp_path) == ["one", "one"]
    assert [row["device"] for row in Rows(tmp_path).all()] == ["other"]


def test_a_stage_that_does_not_start_says_why(tmp_path):
    given = options(tmp_path, ["one"])
    (given.work / "cases").unlink()
    assert supervise(given, accelerator_stage.run) == 1
    (row,) = Rows(tmp_path).all()
    assert row["case"] == "start" and "FileNotFoundError" in row["error"]
    assert supervise(options(tmp_path, ["one"]), accelerator_stage.run) == 0
    assert statuses(tmp_path) == {"one": "done"}


def test_tiny_sizes_do_not_pass_for_full_ones(tmp_path):
    Rows(tmp_path).put("parity", "one", "done", quick=True)
    with pytest.raises(SystemExit, match="holds rows of a call with --quick; choose another folder"):
        supervise(options(tmp_path, ["one"], quick=False), accelerator_stage.run)


def test_the_command_line_names_what_is_wrong(tmp_path, capsys):
    assert parse(["--output", "x"]).stages == tuple(STAGES)
    for arguments, message in (
        (["--minutes", "0"], "--minutes must be positive, not 0.0"),
        (
            ["--arrays", str(tmp_path / "no.npz")],
            "is no file; make one by python -m benchmarks.accelerator.arrays",
        ),
        (["--stages", "magic"], "invalid choice: 'magic'"),
    ):
        with pytest.raises(SystemExit):
            parse(["--output", "x", *arguments])
        assert message in capsys.readouterr().err


def test_the_supervisor_never_imports_jax():
    """Its process must hold no memory of the accelerator, and start at once."""
    code = "import sys, benchmarks.accelerator.__main__; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_stages_come_to_their_cases_without_extras(tmp_path):
    """What an experiment or a comparison needs beside the library may be missing."""
    code = """
import importlib, sys, time
from pathlib import Path
extras = "tyro matplotlib sklearn PIL tensorflow_datasets array_record torch higher torchopt tensorboardX"
sys.modules.update(dict.fromkeys(extras.split()))
from benchmarks.accelerator.__main__ import parse
from benchmarks.accelerator.cases import Context, UnavailableError
from benchmarks.accelerator.rows import Rows
from benchmarks.accelerator.stages import STAGES
options = parse(["--output", sys.argv[1]])
for name, stage in STAGES.items():
    cases = importlib.import_module(stage.module).cases(Context(options, Rows(options.output), time.time()))
    assert len({case.name for case in cases}) == len(cases) > 3, name
    if name in ("pytorch", "paper"):
        try:
            cases[0].run()
        except UnavailableError as reason:
            print(reason)
"""
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
    )
    missing, images = found.stdout.splitlines()
    assert missing == "torch is not installed" and "pass --arrays FILE" in images


def test_images_survive_their_file(tmp_path):
    digits = scikit_digits()
    write_arrays(tmp_path / "digits.npz", {"train": digits.train, "test": digits.test})
    found = read_arrays(tmp_path / "digits.npz")
    assert found.train.images.shape == (1200, 32, 32, 1) and found.test.labels.dtype == np.int32
    np.testing.assert_allclose(found.train.images, digits.train.images, atol=0.5 / 255)
    np.testing.assert_array_equal(found.test.labels, digits.test.labels)


def test_the_networks_are_the_papers():
    energies = {}
    for setting in settings(quick=False):
        config = configuration(setting, quick=False)
        energy = make_energy(config)
        assert isinstance(energy, ResidualEnergy) and config.training.lower_steps == 5
        assert (energy.dtype is not None) == (setting.precision == "bfloat16")
        energies[setting.data] = (energy.num_blocks, energy.channels, energy.num_hidden, config.batch_size)
    assert energies == {"mnist": (6, 64, 50, 100), "cifar10": (9, 128, 50, 100)}
    assert {setting.num_steps for setting in settings(quick=False)} == {0, 1, 5, 20}


@pytest.mark.parametrize(
    ("errors", "precision", "fault"),
    [
        ({"a": 1e-12, "b": 1e-8}, "float64", "b: off by more than 1e-09"),
        ({"a": float("nan")}, "float32", "a: off by more than 0.001"),
        ({"a": 1e-12}, "float64", None),
        ({"a": 0.1}, "TF32", None),
    ],
)
def test_errors_beyond_their_limit_fail(errors, precision, fault):
    from benchmarks.accelerator.stages.parity import _judged

    columns = _judged(errors, precision)
    assert columns.get("error") == fault and (columns.get("status") == "failed") == (fault is not None)


def test_a_run_is_stopped_at_its_deadline_and_goes_on(tmp_path):
    from benchmarks.accelerator.training import train_until
    from tests.helpers import Drift, rows

    def train(deadline):
        return train_until(deadline, tmp_path, None, None, rows(), 200, method=Drift(), batch_size=10)

    stopped = train(0.0)
    assert not stopped.is_whole and 0 < stopped.columns["iterations"] < 200
    for _ in range(2):  # the second finds the run at its end
        whole = train(math.inf)
        assert whole.is_whole and whole.columns["iterations"] == 200
    straight = train_until(math.inf, tmp_path / "x", None, None, rows(), 200, method=Drift(), batch_size=10)
    chex.assert_trees_all_equal(whole.theta, straight.theta)


@pytest.mark.slow
def test_every_stage_runs_on_a_cpu(tmp_path):
    """To its end, though the first call is killed on the way."""
    command = [sys.executable, "-m", "benchmarks.accelerator", "--quick", "--minutes", "60"]
    command += ["--output", str(tmp_path)]
    process = subprocess.Popen(command, env={**os.environ, "JAX_COMPILATION_CACHE_DIR": ""})
    wait_until(
        lambda: statuses(tmp_path).get("exact strategies, checkerboard, float64") == "running", process
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    before = {row["case"]: row for row in Rows(tmp_path).all() if row["status"] == "done"}
    assert "machine" in before
    assert subprocess.run(command, check=False).returncode == 0
    rows = Rows(tmp_path).all()
    assert {row["stage"] for row in rows} == set(STAGES)
    assert {row["status"] for row in rows} <= {"done", "unavailable"}
    assert all(
        row["stage"] == "pytorch" or "golden" in row["case"] for row in rows if row["status"] != "done"
    )
    assert all(row == before[row["case"]] for row in rows if row["case"] in before)
    found = {(row["stage"], row["case"]): row for row in rows}
    assert found["parity", "exact strategies, checkerboard, float64"]["mixed_segments"] < 1e-12
    assert found["parity", "fit on the checkerboard"]["iterations"] == 300
    assert found["paper", "N = 1, training"]["iterations"] == 6
    assert (tmp_path / "samples-N1.png").stat().st_size > 1000
