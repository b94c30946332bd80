"""One of the processes of a run; test_hosts.py starts them. Prints JSON lines of what it saw."""

import importlib.metadata
import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np

from bism_jax import DSM, ScoreMatching, fit
from bism_jax.models import GRBM
from bism_jax.training import CSVLog, Evaluate, StopTraining

DATA = np.random.default_rng(0).normal(size=(64, 3))
DISAGREEMENTS = {
    "batch_size": {"batch_size": 32},
    "rng_key": {"rng_key": 1},
    "noise_std": {"method": ScoreMatching(DSM(0.4))},
    "data": {"data": DATA + 1},
    "num_steps": {"num_steps": 40},
    "checkpoint_dir": {"checkpoint_dir": "other"},
    "model": {"energy": GRBM(3)},
    "parallel": {"parallel": "pmap"},
    "callbacks": {"callbacks": [Evaluate(lambda s: {}, 7)]},
    "ema_decay": {"ema_decay": 0.9},
    "a bad option": {"batch_size": -3},
    "versions": {},
}


def train(folder, **options):
    arguments = {
        "energy": GRBM(2),
        "data": DATA,
        "method": ScoreMatching(DSM(0.3)),
        "batch_size": 16,
        "num_steps": 20,
        "checkpoint_dir": folder / "run",
        "checkpoint_every": 5,
        "progress": False,
        **options,
    }
    return fit(arguments.pop("energy"), None, arguments.pop("data"), **arguments)


def say(**what):
    print(json.dumps({"process": jax.process_index(), **what}), flush=True)


def is_odd():
    """Whether this process is the one that differs, fails or dies: the last."""
    return jax.process_index() == jax.process_count() - 1


def disagree(folder):
    """Every disagreement, one after the other; the last process is the one that differs."""
    version = importlib.metadata.version
    for name, options in DISAGREEMENTS.items():
        if is_odd() and name == "versions":
            importlib.metadata.version = lambda package: "9.9" if package == "jax" else version(package)
        mine = {"checkpoint_dir": folder / "other"} if name == "checkpoint_dir" else options
        start = time.monotonic()
        try:
            train(folder, **(mine if is_odd() else {}))
        except ValueError as error:
            say(name=name, error=str(error), seconds=time.monotonic() - start)
        importlib.metadata.version = version
    say(files=sorted(os.listdir(folder)))


def report(result, name):
    leaves = jax.tree.leaves((result.theta, result.history))
    say(name=name, values=np.concatenate([np.ravel(leaf) for leaf in leaves]).tolist())


def go_on(folder, parallel):
    """Trains to the end, from wherever the folder is."""
    logs = [CSVLog(folder / "log.csv", 2), Evaluate(lambda s: {"x": s.step}, 4)]
    report(train(folder, callbacks=logs, parallel=parallel), "end")


def go_half_way(folder, parallel):
    logs = [CSVLog(folder / "log.csv", 2), Evaluate(lambda s: {"x": s.step}, 4)]

    class Stop:
        every = 10

        def __call__(self, snapshot):
            raise StopTraining

    report(train(folder, callbacks=[*logs, Stop()], parallel=parallel), "half")


def die(folder, number):
    """The last process gets a signal in the middle of the run."""

    def kill(snapshot):
        if is_odd() and snapshot.step == 12:
            while number == signal.SIGKILL and not (folder / "run" / "10").exists():
                time.sleep(0.01)  # the checkpoint that the other process is to name
            os.kill(os.getpid(), number)
        return {}

    try:
        train(folder, num_steps=10**6, callbacks=[Evaluate(kill, 1)])
    except BaseException as error:
        say(error=f"{type(error).__name__}: {error}", time=time.time())
        raise


def main():
    jax.config.update("jax_enable_x64", True)
    from experiments.launch.distributed import initialize_from_environment

    initialize_from_environment()
    folder, task, parallel = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if task == "disagree":
        disagree(folder)
    elif task in ("kill", "terminate"):
        die(folder, signal.SIGKILL if task == "kill" else signal.SIGTERM)
    else:
        {"go on": go_on, "go half way": go_half_way}[task](folder, parallel)


if __name__ == "__main__":
    main()
