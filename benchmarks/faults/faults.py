"""What is done to a run, one function a fault: each returns when the run has ended, with what it saw."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults import run

_NOBODY = 65534
_BY_THE_CLOCK = 0.4  # of the moments
_HOST_LIMIT_S = 30.0
_NO_WRITE, _ALL = 0o555, 0o777
# A process is forked from one that has imported everything: most of what a start takes.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["benchmarks.faults.run"])


class FaultError(AssertionError):
    """A run did not behave as it must."""


def start(folder: Path, user: int | None = None) -> multiprocessing.process.BaseProcess:
    """A run in a process of its own."""
    process = _CONTEXT.Process(target=run.train_in_silence, args=(folder, errors_of(folder), user))
    process.start()
    return process


def finish(folder: Path, user: int | None = None) -> None:
    """Starts the same call and lets it come to its end."""
    process = start(folder, user)
    process.join(300)
    require(
        process.exitcode == 0, f"started again, it ended with status {process.exitcode}: {errors(folder)}"
    )


def errors_of(folder: Path) -> Path:
    """The file of what a run prints, beside its folder, which may be full."""
    return folder.with_name(f"{folder.name}.errors")


def errors(folder: Path) -> str:
    """The last line that a run has printed, with what an error was noted to mean for the next call."""
    path = errors_of(folder)
    lines = path.read_text().strip().splitlines() if path.exists() else []
    has_note = bool(lines) and lines[-1].startswith("The last checkpoint is")
    return " ".join(lines[-2:] if has_note else lines[-1:])


def require(condition: bool, message: str) -> None:
    """Raises FaultError unless the condition holds."""
    if not condition:
        raise FaultError(message)


def kill_any_moment(folder: Path, chance: random.Random, duration: float) -> str:
    """SIGKILL at a moment drawn from the whole run, its start and its compilation included."""
    process = start(folder)
    _wait_for_any_moment(folder, chance, duration, process)
    return _kill(process, folder)


def kill_before_first_checkpoint(folder: Path, chance: random.Random, duration: float) -> str:
    """SIGKILL as soon as the run has made its folder, or a little later."""
    process = start(folder)
    _wait_for((folder / "checkpoints").exists, process)
    time.sleep(chance.uniform(0, 0.3 * duration))
    return _kill(process, folder)


def kill_during_save(folder: Path, chance: random.Random, duration: float) -> str:
    """SIGKILL while a checkpoint is being written."""
    process = start(folder)
    skipped = chance.randrange(10)

    def is_saving() -> bool:
        checkpoints = folder / "checkpoints"
        names = os.listdir(checkpoints) if checkpoints.exists() else []
        whole = sum(name.isdigit() for name in names)
        return (whole >= min(3, skipped)) and any("tmp" in name for name in names)

    _wait_for(is_saving, process)
    time.sleep(chance.uniform(0, 0.02))
    return _kill(process, folder)


def terminate(folder: Path, chance: random.Random, duration: float) -> str:
    """SIGTERM at any moment: a run that has begun saves, says so and ends with status 143."""
    process = start(folder)
    _wait_for_any_moment(folder, chance, duration, process)
    if process.exitcode is None:
        os.kill(process.pid or 0, signal.SIGTERM)
    process.join(60)
    require(process.exitcode in (0, 143, -signal.SIGTERM), f"SIGTERM gave status {process.exitcode}")
    if process.exitcode == 143:
        require("the same call continues" in errors(folder), f"SIGTERM said {errors(folder)!r}")
    return _moment(folder)


def fill_disk(folder: Path, chance: random.Random, duration: float) -> str:
    """A file system that is full after some checkpoints: the error names the folder; then it has room."""
    size_kib = chance.randrange(150, 400)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", folder], check=True)
    process = start(folder)
    process.join(120)
    said = errors(folder)
    require(process.exitcode == 1, f"a full disk gave status {process.exitcode}")
    require("written" in said and str(folder) in said, f"a full disk said {said!r}")
    subprocess.run(["mount", "-o", "remount,size=100m", folder], check=True)
    return _moment(folder)


def take_rights(folder: Path, chance: random.Random, duration: float) -> str:
    """Another user than root, who may not write in the folder; then they may."""
    errors_of(folder).touch()
    errors_of(folder).chmod(0o666)
    folder.chmod(_NO_WRITE)
    process = start(folder, _NOBODY)
    process.join(60)
    said = errors(folder)
    require(process.exitcode == 1, f"a folder that may not be written to gave status {process.exitcode}")
    require("cannot be written to" in said and str(folder) in said, f"it said {said!r}")
    folder.chmod(_ALL)
    return _moment(folder)


def two_processes(folder: Path, chance: random.Random, duration: float) -> str:
    """A second process on the same folder is refused, and the first one comes to its end."""
    first = start(folder)
    _wait_for((folder / "checkpoints" / "0").exists, first)
    second = start(folder)
    second.join(60)
    said = errors(folder)
    first.join(120)
    require(second.exitcode == 1 and "in use by another run" in said, f"{second.exitcode}: {said!r}")
    require(first.exitcode == 0, f"the first ended with status {first.exitcode}")
    return "in the run"


def _run_in_two_threads(folder: Path) -> None:
    folders = (folder, folder / "other")
    folders[1].mkdir(exist_ok=True)
    threads = [threading.Thread(target=run.train_and_report, args=(each,)) for each in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def two_threads(folder: Path, chance: random.Random, duration: float) -> str:
    """Two threads with a folder each; the process is killed half of the time."""
    process = _CONTEXT.Process(target=_run_in_two_threads, args=(folder,))
    process.start()
    process.join(chance.uniform(0.5, 1.5) * duration)
    moment = _kill(process, folder)
    again = _CONTEXT.Process(target=_run_in_two_threads, args=(folder,))
    again.start()
    again.join(300)
    found = [(each / "fingerprint").read_text() for each in (folder, folder / "other")]
    require(found[0] == found[1], "two threads gave two results")
    return moment


def start_hosts(folder: Path) -> list[subprocess.Popen[str]]:
    """Two processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.faults.run", str(folder)],
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
                "BISM_JAX_DISTRIBUTED": f"{address},2,{index}",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]


def kill_host(folder: Path, chance: random.Random, duration: float) -> str:
    """SIGKILL to the second of two hosts: the first ends within seconds and names the last checkpoint."""
    first, second = start_hosts(folder)
    while not (folder / "checkpoints" / str(run.CHECKPOINT_EVERY)).exists() and second.poll() is None:
        time.sleep(0.02)
    second.kill()
    gone = time.monotonic()
    said = first.communicate(timeout=300)[1]
    second.communicate()
    seconds = time.monotonic() - gone
    require("The last checkpoint is" in said, f"the first host said {said[-500:]!r}")
    require(seconds < _HOST_LIMIT_S, f"the first host took {seconds:.0f} s to end")
    finish_hosts(folder)
    return f"in the run; noticed and ended in {seconds:.0f} s"


def finish_hosts(folder: Path) -> None:
    """Starts both hosts and lets them come to their end."""
    for process in start_hosts(folder):
        said = process.communicate(timeout=300)[1]
        require(process.returncode == 0, f"started again, a host said {said[-500:]!r}")


def _wait_for_any_moment(
    folder: Path, chance: random.Random, duration: float, process: multiprocessing.process.BaseProcess
) -> None:
    """Until a moment by the clock, or, as most of that is the start, until soon after a checkpoint."""
    if chance.random() < _BY_THE_CLOCK:
        process.join(chance.uniform(0.05, duration))
        return
    step = chance.randrange(0, run.NUM_STEPS, run.CHECKPOINT_EVERY)
    _wait_for(lambda: max(_steps(folder), default=-1) >= step, process)
    process.join(chance.uniform(0, 0.05))


def _steps(folder: Path) -> list[int]:
    """The iterations of the checkpoints."""
    checkpoints = folder / "checkpoints"
    names = os.listdir(checkpoints) if checkpoints.exists() else []
    return [int(name) for name in names if name.isdigit()]


def _wait_for(condition: Callable[[], bool], process: multiprocessing.process.BaseProcess) -> None:
    while process.exitcode is None and not condition():
        time.sleep(0.002)


def _kill(process: multiprocessing.process.BaseProcess, folder: Path) -> str:
    moment = _moment(folder) if process.exitcode is None else "after its end"
    process.kill()
    process.join()
    return moment


def _moment(folder: Path) -> str:
    """How far a run has come."""
    checkpoints = folder / "checkpoints"
    names = os.listdir(checkpoints) if checkpoints.exists() else []
    if any("tmp" in name for name in names):
        return "during a save"
    steps = _steps(folder)
    if not steps:
        return "before checkpoint 0"
    return "before its first row" if max(steps) == 0 else "in the run"
