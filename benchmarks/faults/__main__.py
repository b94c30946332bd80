"""`python -m benchmarks.faults --output DIR`: the campaign, as a table of what became of the runs."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tyro

from benchmarks.faults import faults
from benchmarks.faults.run import LOGS

# Of 200 trials; the shares are kept for other numbers, with at least one of each.
_TRIALS = {
    faults.kill_any_moment: 110,
    faults.kill_during_save: 30,
    faults.kill_before_first_checkpoint: 15,
    faults.terminate: 20,
    faults.fill_disk: 8,
    faults.take_rights: 2,
    faults.two_processes: 5,
    faults.two_threads: 6,
    faults.kill_host: 4,
}
_KILLED_AGAIN = 0.3  # of the runs that were started again
_NEED_ROOT = (faults.fill_disk, faults.take_rights)
_ONE_KILL = (faults.take_rights, faults.kill_host)  # whose run is another user's, or two processes
Fault = Callable[[Path, random.Random, float], str]


@dataclass(frozen=True)
class Options:
    """Options of the campaign.

    Attributes:
        output: where `faults.csv` and `faults.md` go.
        trials: runs that something is done to.
        seed: of the moments.
        workers: runs at a time.
    """

    output: Path
    trials: int = 200
    seed: int = 0
    workers: int = 2


class Trial(NamedTuple):
    """One run and what became of it."""

    fault: str
    moment: str
    kills: int
    starts_again: bool
    same_parameters: bool
    same_logs: bool
    problem: str


def main(options: Options) -> int:
    """Runs the campaign; the number of trials that did not end as the run that nothing was done to."""
    chance = random.Random(options.seed)
    # Most of what a start takes, after the imports that the fork server has done.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "faults-cache"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    root.chmod(0o755)
    expected, duration = _reference(root)
    expected_of_hosts = _reference_of_hosts(root)
    trials = [(fault, chance.randrange(2**32)) for fault in _faults(options.trials)]
    chance.shuffle(trials)

    def run(numbered: tuple[int, tuple[Fault, int]]) -> Trial:
        number, (fault, seed) = numbered
        found = expected_of_hosts if fault is faults.kill_host else expected
        trial = _try(fault, root / str(number), random.Random(seed), duration, found)
        print(f"{number + 1:4d} of {len(trials)}  {trial.fault}: {trial.problem or 'identical'}", flush=True)
        return trial

    with ThreadPoolExecutor(options.workers) as pool:
        done = list(pool.map(run, enumerate(trials)))
    shutil.rmtree(root, ignore_errors=True)
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "faults.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([Trial._fields, *done])
    (options.output / "faults.md").write_text(_markdown(done))
    print(_markdown(done))
    return sum(bool(trial.problem) for trial in done)


def _faults(trials: int) -> Iterator[Fault]:
    total = sum(_TRIALS.values())
    for fault, count in _TRIALS.items():
        if fault in _NEED_ROOT and os.geteuid() != 0:
            print(f"{fault.__name__} is left out: it needs root")
            continue
        yield from [fault] * max(1, round(count * trials / total))


def _reference(root: Path) -> tuple[dict[str, str], float]:
    """What an undisturbed run leaves, and the seconds that it takes with compiled programs at hand."""
    for name in ("first", "second"):
        (root / name).mkdir()
        start = time.monotonic()
        faults.finish(root / name)
        duration = time.monotonic() - start
    return _fingerprint(root / "second"), duration


def _reference_of_hosts(root: Path) -> dict[str, str]:
    (root / "hosts").mkdir()
    faults.finish_hosts(root / "hosts")
    return _fingerprint(root / "hosts")


def _fingerprint(folder: Path) -> dict[str, str]:
    words = (folder / "fingerprint").read_text().split()
    return dict(zip(words[::2], words[1::2], strict=True))


def _try(
    fault: Fault, folder: Path, chance: random.Random, duration: float, expected: dict[str, str]
) -> Trial:
    folder.mkdir()
    moment, kills, starts_again = "", 1, False
    found: dict[str, str] = {}
    problem = ""
    try:
        moment = fault(folder, chance, duration)
        while (
            fault not in _ONE_KILL
            and not (folder / "fingerprint").exists()
            and chance.random() < _KILLED_AGAIN
        ):
            faults.kill_any_moment(folder, chance, duration)
            kills += 1
        if not (folder / "fingerprint").exists():
            faults.finish(folder, user=65534 if fault is faults.take_rights else None)
        starts_again = True
        found = _fingerprint(folder)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    finally:
        with contextlib.suppress(OSError):
            if fault is faults.fill_disk:
                subprocess.run(["umount", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)
        faults.errors_of(folder).unlink(missing_ok=True)
    same_parameters = found.get("parameters") == expected["parameters"]
    same_logs = all(found.get(name) == expected[name] for name in LOGS)
    if not problem and not (same_parameters and same_logs):
        problem = "other parameters" if not same_parameters else "other logs"
    return Trial(fault.__name__, moment, kills, starts_again, same_parameters, same_logs, problem)


def _markdown(trials: list[Trial]) -> str:
    rows = [
        "| fault | runs | kills | started again | same parameters, to the bit | same logs, byte for byte |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in [*dict.fromkeys(trial.fault for trial in trials), "all"]:
        of = [trial for trial in trials if name in (trial.fault, "all")]
        counts = (
            len(of),
            sum(trial.kills for trial in of),
            sum(trial.starts_again for trial in of),
            sum(trial.same_parameters for trial in of),
            sum(trial.same_logs for trial in of),
        )
        rows.append(f"| {name.replace('_', ' ')} | {' | '.join(map(str, counts))} |")
    moments = Counter(trial.moment.partition(";")[0] for trial in trials)
    rows += ["", "| moment of the first fault | runs |", "|---|---:|"]
    rows += [f"| {moment or 'unknown'} | {count} |" for moment, count in moments.most_common()]
    problems = [trial for trial in trials if trial.problem]
    rows += ["", *(f"- {trial.fault} ({trial.moment}): {trial.problem}" for trial in problems)]
    return "\n".join(rows).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(1 if main(tyro.cli(Options, description=__doc__)) else 0)
