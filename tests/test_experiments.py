"""The experiments write what they promise, and lose nothing."""

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bism_jax.models import GRBM
from experiments import ablation, checkerboard, compare, frey_face
from experiments.comparison.contenders import checkerboard_contenders
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


def test_a_run_can_be_made_longer_and_nothing_else(tmp_path):
    config = checkerboard.Config(method=TINY, num_steps=20)

    def open_folder(**changes):
        changed = dataclasses.replace(config, **changes)
        RunFolder("checkerboard", changed, tmp_path / "run", may_grow=("num_steps",))
        return json.loads((tmp_path / "run" / "config.json").read_text())["num_steps"]

    assert [open_folder(), open_folder(num_steps=30)] == [20, 30]
    with pytest.raises(FileExistsError, match=r"num_steps=30, not 20"):
        open_folder()
    faster = dataclasses.replace(TINY, learning_rate=0.5)
    with pytest.raises(FileExistsError, match=r"holds a run with method\.learning_rate=0\.001, not 0\.5"):
        open_folder(num_steps=40, method=faster)
    RunFolder("other", config, tmp_path / "other")
    with pytest.raises(FileExistsError, match=r"num_steps=20, not 30"):
        RunFolder("other", dataclasses.replace(config, num_steps=30), tmp_path / "other")


def test_a_comparison_reports_what_is_there_and_repeats_nothing(tmp_path, capsys):
    config = compare.Config(methods=("DSM", "NCE"), num_seeds=2, num_steps=40, output=tmp_path / "runs")
    folder = compare.run(config)
    assert "seed 1" in capsys.readouterr().out
    names = {"table.md", "table.csv", "curves.csv", "learning_curves.png", "why_unroll.png", "densities.png"}
    assert names <= {file.name for file in folder.iterdir()}
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["seed"]) for row in rows[::20]] == [
        ("NCE", "0"), ("NCE", "1"), ("DSM", "0"), ("DSM", "1"),
    ]  # fmt: skip
    seeds = [float(row["log_likelihood"]) for row in rows if row["method"] == "NCE" and row["step"] == "40"]
    with (folder / "table.csv").open() as file:
        table = {row["method"]: row for row in csv.DictReader(file)}
    assert float(table["NCE"]["log_likelihood"]) == pytest.approx(sum(seeds) / 2, rel=1e-4)
    assert float(table["NCE"]["log_likelihood_se"]) == pytest.approx(abs(seeds[0] - seeds[1]) / 2, rel=1e-3)

    compare.run(dataclasses.replace(config, methods=("NCE",), num_seeds=1))
    printed = capsys.readouterr().out
    assert "seed" not in printed.splitlines()[0]  # nothing was trained
    assert "| DSM | 2 |" in printed
    with pytest.raises(FileExistsError, match="num_steps=40, not 50"):
        compare.run(dataclasses.replace(config, num_steps=50))
    with pytest.raises(ValueError, match=r"methods \['CD'\] are unknown; choose among"):
        compare.run(dataclasses.replace(config, methods=("CD",)))


def test_every_contender_names_a_method_that_binds():
    for name, contender in checkerboard_contenders(100).items():
        assert callable(contender.method.bind(GRBM(4), contender.posterior_fn).step), name


@pytest.mark.slow
def test_an_ablation_covers_its_grid(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "COUNTS", (0, 1))
    config = ablation.Config(num_steps=20, num_draws=2, output=tmp_path / "runs")
    folder = ablation.run(config)
    with (folder / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["K"], row["N"]) for row in rows] == [("0", "1"), ("1", "0"), ("1", "1")]
    assert float(rows[2]["temporary_mib"]) > float(rows[1]["temporary_mib"]) > 0
    with (folder / "gradient_bias.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    assert {"training.png", "gradient_bias.png"} <= {file.name for file in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "experiments.checkerboard",
        "experiments.frey_face",
        "experiments.compare",
        "experiments.ablation",
        "experiments.consistency",
        "experiments.images",
        "experiments.sample",
        "experiments.evaluate",
        "benchmarks.throughput",
        "benchmarks.defaults",
        "benchmarks.memory",
        "benchmarks.image_step",
        "benchmarks.peers",
        "benchmarks.unroll_depth",
    ],
)
def test_command_lines_explain_themselves(module):
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=True)
    assert "--" in done.stdout


def test_a_full_disk_leaves_the_configuration(tmp_path, monkeypatch):
    config = checkerboard.Config(method=TINY, num_steps=20)
    RunFolder("checkerboard", config, tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    before, write = file.read_bytes(), Path.write_text

    def write_half(path, text, *args, **options):
        write(path, text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_half)
    RunFolder("checkerboard", config, tmp_path / "run")  # which has nothing to write
    with pytest.raises(OSError, match="No space"):
        RunFolder(
            "checkerboard",
            dataclasses.replace(config, num_steps=30),
            tmp_path / "run",
            may_grow=("num_steps",),
        )
    assert [path.name for path in file.parent.iterdir()] == ["config.json"]
    assert file.read_bytes() == before
