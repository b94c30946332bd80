"""The benchmarks run, continue, and know what they measure."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import start_up, unroll_depth
from benchmarks.depth import report
from benchmarks.depth.measure import Bench, Measurement
from benchmarks.rivals.ours import BismJax
from benchmarks.rivals.plain_jax import PlainJax
from benchmarks.rivals.task import make_task

OPTIONS = unroll_depth.Options(models=("checkerboard",), strategies=("mixed",), depths=(2,), seconds=0.01)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"models": ("mlp", "transformer")}, "models 'transformer' is unknown; choose from: checkerboard"),
        ({"strategies": ("magic",)}, "strategies 'magic' is unknown; choose from: plain scan"),
        ({"depths": (-1,)}, "depths must be"),
    ],
)
def test_unknown_choices_are_named(changes, match, tmp_path):
    with pytest.raises(SystemExit, match=match):
        unroll_depth.main(dataclasses.replace(OPTIONS, output=tmp_path, **changes))


def test_measurements_survive_their_file(tmp_path):
    rows = [
        Measurement("mlp", "mixed", 5, 1.5, 1.0, 2.0, 3.0, 0.5, 7.0, 1e-7),
        Measurement("mlp", "N = 0", 0, 0.5, 0.4, 0.6, 1.0, 0.1, 2.0, float("nan")),
    ]
    for one in rows:
        report.append_csv(tmp_path / "measurements.csv", one)
    found = report.read_csv(tmp_path / "measurements.csv")
    assert found[0] == rows[0]
    np.testing.assert_equal(found[1], rows[1])
    table = report.markdown(found)
    assert table.splitlines()[-2].startswith("| N = 0 | 0 |")  # by N, whatever came first
    assert table.splitlines()[-2].endswith("| 2.0 |  |")
    assert table.splitlines()[-1] == "| mixed | 5 | 1.5 (1 to 2) | 3.0 | 0.50 | 7.0 | 1.0e-07 |"


def test_without_errors_there_is_no_figure_of_them(tmp_path):
    report.draw([Measurement("mlp", "mixed", n, *[1.0] * 6, float("nan")) for n in (1, 2)], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mlp-median.png", "mlp-temporary.png"}


@pytest.mark.slow
def test_exact_strategies_are_exact_and_the_others_are_not():
    bench = Bench("checkerboard", 0.01)
    errors = {name: bench.measure(name, 4).error for name in ("mixed, segments", "not differentiated")}
    assert errors["mixed, segments"] < 1e-5 < errors["not differentiated"]
    assert np.isnan(bench.measure("N = 0", 0).error)


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path):
    options = dataclasses.replace(OPTIONS, output=tmp_path, depths=(0, 2))
    report.append_csv(tmp_path / "measurements.csv", Measurement("checkerboard", "N = 0", 0, *[1.0] * 7))
    unroll_depth.main(options)
    rows = report.read_csv(tmp_path / "measurements.csv")
    assert [(one.strategy, one.num_steps) for one in rows] == [("N = 0", 0), ("mixed", 2)]
    names = {path.name for path in Path(tmp_path).iterdir()}
    assert names >= {"table.md", "machine.json", "checkerboard-median.png", "checkerboard-temporary.png"}


def gradient_differences(task, others):
    noise = task.draw_noise(0)
    expected = PlainJax(task).hypergradient(noise)
    gradients = [other.hypergradient(noise) for other in others]
    return [np.linalg.norm(found - expected) / np.linalg.norm(expected) for found in gradients]


@pytest.mark.slow
def test_plain_jax_has_the_same_hypergradient():
    task = make_task("checkerboard", num_steps=2, lower_steps=1, channels=1, batch=4)
    (difference,) = gradient_differences(task, [BismJax(task, "fresh")])
    assert difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), [("checkerboard", 1e-4), ("image", 1e-2)])
@pytest.mark.parametrize(
    ("rival", "needs"), [("Eager", "torch"), ("Higher", "higher"), ("TorchOpt", "torchopt")]
)
def test_pytorch_has_the_same_hypergradient(name, tolerance, rival, needs):
    for library in ("torch", needs):
        pytest.importorskip(library)
    from benchmarks.rivals import torch_rivals

    task = make_task(name, num_steps=2, lower_steps=1, channels=1, batch=4)
    (difference,) = gradient_differences(task, [getattr(torch_rivals, rival)(task, "cpu")])
    assert difference < tolerance


@pytest.mark.slow
def test_pytorch_has_the_same_gradient_without_unrolling():
    pytest.importorskip("torch")
    from benchmarks.rivals.torch_rivals import Eager

    task = make_task("checkerboard", num_steps=0, lower_steps=1, channels=1, batch=4)
    (difference,) = gradient_differences(task, [Eager(task, "cpu")])
    assert difference < 1e-4


def test_a_cost_counts_what_is_compiled():
    constant = np.random.default_rng().normal()  # which no earlier test run has kept
    program = jax.jit(lambda x: x * constant)
    meter = start_up._Meter()
    x = jax.device_put(np.ones(3, np.float32))
    assert meter.cost(lambda: program(x)).num_programs == 1
    assert meter.cost(lambda: program(x)).num_programs == 0


def test_every_figure_of_the_start_has_a_row():
    found = dict.fromkeys(start_up.FIGURES, "1.00 s")
    rows = start_up._table(found).splitlines()[2:]
    assert len(rows) == len(start_up.FIGURES)
    assert all("| 1.00 s |" in row for row in rows)
