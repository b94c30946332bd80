"""The experiments write what they promise, and lose nothing."""

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import checkerboard, frey_face
from experiments.methods import MethodConfig
from experiments.run_folder import RunFolder

TINY = MethodConfig(num_steps=1, lower_steps=1)
PICTURES = {
    checkerboard: {"density.png", "history.png", "log_likelihood.png"},
    frey_face: {"samples.png", "reconstructions.png", "history.png", "evaluations.png"},
}


def assert_run_folder(path, module):
    names = {file.name for file in path.iterdir()}
    assert names >= {"config.json", "history.csv", "metrics.json", "checkpoints"} | PICTURES[module]
    assert all((path / name).stat().st_size > 5000 for name in PICTURES[module])


def test_checkerboard_writes_a_run_folder_and_continues_it(tmp_path, capsys):
    config = checkerboard.Config(method=TINY, num_steps=20, evaluate_every=10, output=tmp_path / "run")
    metrics = checkerboard.run(config)
    assert_run_folder(tmp_path / "run", checkerboard)
    assert metrics["log-likelihood of the truth"] == pytest.approx(0.6931, abs=1e-4)
    assert metrics["test log-likelihood"] < metrics["log-likelihood of the truth"]
    printed = capsys.readouterr().out
    assert "test log-likelihood" in printed
    assert "0.6931" in printed
    again = checkerboard.run(config)
    assert again["test log-likelihood"] == metrics["test log-likelihood"]
    with (tmp_path / "run" / "history.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 20
    with pytest.raises(FileExistsError, match="seed=0, not 1"):
        checkerboard.run(dataclasses.replace(config, seed=1))


def test_frey_face_on_real_images(tmp_path, real_data_dir):
    config = frey_face.Config(
        method=dataclasses.replace(TINY, noise_std=0.3, learning_rate=2e-4),
        num_hidden=5,
        num_steps=3,
        data_dir=real_data_dir,
        output=tmp_path / "run",
    )
    metrics = frey_face.run(config)
    assert_run_folder(tmp_path / "run", frey_face)
    assert metrics["test reconstruction error"] > 0


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is no run folder"):
        RunFolder("checkerboard", checkerboard.Config(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_config_is_written(tmp_path):
    config = checkerboard.Config(method=TINY, output=tmp_path / "run")
    RunFolder("checkerboard", config, config.output)
    found = json.loads((tmp_path / "run" / "config.json").read_text())
    assert found["experiment"] == "checkerboard"
    assert found["method"]["num_steps"] == 1
    assert "output" not in found


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "experiments.checkerboard",
        "experiments.frey_face",
        "benchmarks.throughput",
        "benchmarks.defaults",
        "benchmarks.memory",
    ],
)
def test_command_lines_explain_themselves(module):
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=True)
    assert "--" in done.stdout
