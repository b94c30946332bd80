"""Malformed command lines of `experiments` and `benchmarks`: one line, and exit status 2.

python -m benchmarks.malformed.command_lines
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import runpy
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.malformed.campaign import Outcome

_RUNS = ("checkerboard", "consistency", "moving_latents", "compare", "ablation")
_COUNTS = {
    "experiments.checkerboard": "num_hidden batch_size evaluate_every checkpoint_every",
    "experiments.frey_face": "num_hidden batch_size",
    "experiments.compare": "num_seeds num_steps evaluate_every",
    "experiments.ablation": "num_steps num_draws",
    "experiments.consistency": "num_seeds num_steps batch_size unrolled_steps num_latent",
    "experiments.moving_latents": "num_steps num_rows batch_size",
    "experiments.images": "iterations batch_size checkpoint_every picture_every num_images network.channels",
    "benchmarks.throughput": "repeats batch_size",
    "benchmarks.memory": "num_steps",
    "benchmarks.image_step": "channels batch steps",
    "benchmarks.peers": "num_steps rounds channels batch threads",
    "benchmarks.start_up": "repeats",
    "benchmarks.defaults": "num_seeds num_steps",
}


@dataclass(frozen=True)
class Command:
    """A command line that its user got wrong.

    Attributes:
        module: what `python -m` runs.
        arguments: what follows.
        says: a part of the answer.
        environment: variables that are set.
    """

    module: str
    arguments: tuple[str, ...]
    says: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As it is typed, without where the files are."""
        words = [*(f"{name}={value}" for name, value in self.environment.items()), self.module]
        return " ".join([*words, *(word.rpartition("/")[2] for word in self.arguments)])


def run(command: Command) -> Outcome:
    """Runs a command line in this process."""
    err, code = io.StringIO(), None
    environment = {"JAX_COMPILATION_CACHE_DIR": "", **command.environment}
    argv = [command.module, *command.arguments]
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stderr(err),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            runpy.run_module(command.module, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code
        except Exception as error:
            return Outcome(command.label, "raw", f"{type(error).__name__}: {error}", 0.0)
    answer = " ".join(err.getvalue().replace("│", " ").split())
    is_said = command.says.replace("_", "-") in answer.replace("_", "-")
    is_clear = code == 2 and is_said and "Traceback" not in answer
    return Outcome(command.label, "clear" if is_clear else "wrong", f"[{code}] {answer}", 0.0)


def commands(folder: Path) -> list[Command]:
    """All of them; `folder` is empty, for what they find."""
    made = _Files(folder)
    of_runs = [*_outputs(made), *_runs(made), *_places(made)]
    return [*of_runs, *_numbers(), *_of_benchmarks(made), *_distributed()]


class _Files:
    """Files and folders that are none of a run, or of one that was spoilt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "file"
        self.file.write_text("x")
        self.foreign = self._run("foreign", None)
        (self.foreign / "thesis.txt").write_text("mine")
        self.cut = self._run("cut", '{"experiment": "ima')
        self.empty = self._run("empty", "")
        self.list = self._run("list", "[1]")
        self.binary = self._run("binary", None)
        (self.binary / "config.json").write_bytes(b"\xff\xfe\x00")
        self.other = self._run("other", '{"experiment": "other"}')

    def edited(self) -> list[Path]:
        """Run folders of `experiments.images` whose configuration was edited."""
        from experiments.imaging.config import preset

        whole = {"experiment": "images", **json.loads(json.dumps(_fields(preset("mnist", "smoke"))))}
        network = whole["network"]
        edits: dict[str, Any] = {
            "unknown network": {"network": {**network, "energy": "perceptron"}},
            "no channels": {"network": {**network, "channels": 0}},
            "a missing option": {"network": {"energy": "paper"}},
            "an option too many": {"network": {**network, "depth": 3}},
            "a list": {"training": []},
            "widths": {"network": {**network, "widths": "wide"}},
            "unknown data": {"data": "svhn"},
            "iterations": {"iterations": "many"},
        }
        found = []
        for name, edit in edits.items():
            run = self._run(name.replace(" ", "-"), json.dumps({**whole, **edit}))
            (run / "weights.npz").write_bytes(b"PK")
            found.append(run)
        return found

    def weightless(self) -> Path:
        """A run folder whose weights were cut off."""
        from experiments.imaging.config import preset

        config = {"experiment": "images", **_fields(preset("mnist", "smoke"))}
        run = self._run("weightless", json.dumps(config))
        (run / "weights.npz").write_bytes(b"PK\x03\x04")
        return run

    def _run(self, name: str, config: str | None) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        if config is not None:
            (path / "config.json").write_text(config)
        return path


def _fields(config: Any) -> dict[str, Any]:
    found = dataclasses.asdict(config)
    return {name: value for name, value in found.items() if name not in ("output", "data_dir", "progress")}


def _outputs(made: _Files) -> list[Command]:
    wrong = {
        "is a file": made.file,
        "is no run folder": made.foreign,
        "cut off": made.cut,
        "cannot be read": made.empty,
        "not named values": made.list,
        "config.json": made.binary,
        "holds a run with experiment='other'": made.other,
        "cannot be made": made.file / "below",
    }
    return [
        Command(f"experiments.{name}", ("--output", str(path)), says)
        for name in _RUNS
        for says, path in wrong.items()
    ]


def _numbers() -> list[Command]:
    counts = [
        Command(module, (f"--{name.replace('_', '-')}", value), name.rpartition(".")[2])
        for module, names in _COUNTS.items()
        for name in names.split()
        for value in ("-1", "0", "many")
        if (name, value) != ("num_steps", "many") or module != "benchmarks.peers"
    ]
    module = "experiments.checkerboard"
    return [
        *counts,
        Command(module, ("--ema-decay", "1.5"), "ema_decay"),
        Command(module, ("--seed", str(2**33)), "seed"),
        Command(module, ("--method.noise-std", "-1"), "noise_std"),
        Command(module, ("--method.learning-rate", "nan"), "learning_rate"),
        Command(module, ("--method.name", "magic"), "magic"),
        Command(module, ("--method.num-steps", "0", "--method.lower-steps", "0"), "phi would never move"),
        Command(module, ("--no-such-option", "3"), "no-such-option"),
        Command("experiments.consistency", ("--num-latent", "5"), "num_latent"),
        Command("experiments.consistency", ("--sizes",), "sizes"),
        Command("experiments.moving_latents", ("--batch-size", "30000"), "batch_size"),
        Command("experiments.compare", ("--methods", "DSM", "magic"), "magic"),
        Command("experiments.images", ("--training.min-std", "0"), "min_std"),
        Command("experiments.images", ("--preset", "huge"), "huge"),
        Command("experiments.images", ("--sampling.hot-steps", "-1"), "hot_steps"),
    ]


def _runs(made: _Files) -> list[Command]:
    spoilt = [made.foreign, made.cut, made.file, made.folder / "absent", made.weightless(), *made.edited()]
    given = [
        Command(f"experiments.{name}", ("--run", str(path)), "")
        for name in ("sample", "evaluate")
        for path in spoilt
    ]
    return [
        *given,
        Command("experiments.sample", (), "run"),
        Command("experiments.sample", ("--run", str(made.foreign), "--num-samples", "0"), "num_samples"),
        Command("experiments.evaluate", ("--run", str(made.foreign), "--batch-size", "-2"), "batch_size"),
    ]


def _places(made: _Files) -> list[Command]:
    places = {"which is no folder": made.folder / "absent", "no folder": made.file}
    modules = {"frey_face": (), "images": (), "compare": ("--data", "frey_face")}
    modules["ablation"] = ("--data", "frey_face")
    found = [
        Command(f"experiments.{name}", (*options, "--data-dir", str(path)), says)
        for name, options in modules.items()
        for says, path in places.items()
    ]
    empty = Command("experiments.images", ("--data-dir", str(made.folder)), "nothing is there")
    unset = Command("experiments.frey_face", (), "BISM_JAX_DATA", {"BISM_JAX_DATA": str(made.file)})
    return [*found, empty, unset]


def _of_benchmarks(made: _Files) -> list[Command]:
    lines = made.folder / "lines.jsonl"
    lines.write_text('{"variant": 1')
    file, folder, absent = str(made.file), str(made.folder), str(made.folder / "absent")
    accelerator = "benchmarks.accelerator"
    return [
        Command("benchmarks.unroll_depth", ("--output", file), "cannot be made"),
        Command("benchmarks.unroll_depth", ("--models", "magic"), "magic"),
        Command("benchmarks.unroll_depth", ("--strategies", "magic"), "magic"),
        Command("benchmarks.unroll_depth", ("--depths", "-1"), "depths"),
        Command("benchmarks.unroll_depth", ("--seconds", "0"), "seconds"),
        Command("benchmarks.defaults", ("--output", folder), "is a folder"),
        Command("benchmarks.defaults", ("--output", str(lines)), "cut off"),
        Command("benchmarks.throughput", ("--model", "magic"), "magic"),
        Command("benchmarks.peers", ("--seconds", "-1"), "seconds"),
        Command("benchmarks.peers", ("--lower-steps", "-1"), "lower_steps"),
        Command(accelerator, (), "--output"),
        Command(accelerator, ("--output", file), "is a file"),
        Command(accelerator, ("--output", absent, "--minutes", "-1"), "minutes"),
        Command(accelerator, ("--output", absent, "--minutes", "nan"), "minutes"),
        Command(accelerator, ("--output", absent, "--arrays", absent), "arrays"),
        Command(accelerator, ("--output", absent, "--stages", "magic"), "magic"),
        Command(f"{accelerator}.arrays", ("--output", absent, "--data-dir", absent), "no folder"),
        Command(f"{accelerator}.arrays", (), "--output"),
    ]


def _distributed() -> list[Command]:
    name = "BISM_JAX_DISTRIBUTED"
    places = ("", "host:1234", "host:1234,2", "host,2,0", "host:port,2,0", "host:0,2,0", "host:99999,2,0")
    indices = ("host:1234,2,2", "host:1234,2,-1", "host:1234,two,0", "host:1234,2.0,0", "host:1234,0,0")
    return [
        Command("experiments.checkerboard", (), name, {name: setting})
        for setting in (*places, *indices, "AUTO")
    ]


def main() -> int:
    """Runs all, prints the faults and the counts, and returns the number of faults."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = [run(command) for command in commands(Path(folder))]
    faults = [one for one in outcomes if one.kind != "clear"]
    for one in faults:
        print(f"{one.kind}: {one.label}: {one.detail[:300]}")
    print(dict(Counter(one.kind for one in outcomes)))
    return len(faults)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
