"""Stages for tests of `benchmarks.accelerator`: what they do is written in a file of the work folder."""

import dataclasses
import os
import time

from benchmarks.accelerator import stages, worker
from benchmarks.accelerator.cases import Case, UnavailableError
from benchmarks.accelerator.options import Options
from benchmarks.accelerator.rows import Rows
from benchmarks.accelerator.stages import Stage


def run(stage, *args):
    """`worker.work` with this module as every stage."""
    stages.STAGES.update({name: Stage(__name__, 1.0) for name in stages.STAGES})
    worker.work(stage, *args)


def hang(stage, options, deadline, start_of_call):
    """A stage without JAX, of which the second case does not end."""
    rows = Rows(options.output)
    rows.put(stage, "one", "done", quick=options.quick)
    rows.announce(stage, ["one", "hangs", "two"], quick=options.quick)
    rows.put(stage, "hangs", "running", quick=options.quick)
    time.sleep(600)


def device():
    return os.environ.get("FAKE_DEVICE", "fake")


def cases(context):
    def case(name):
        def measure():
            with (context.folder("tried") / "log").open("a") as log:
                log.write(name + "\n")
            return ACTIONS.get(name, lambda _: {"value": len(name)})(context)

        return Case(name, measure)

    return [case(name) for name in (context.options.work / "cases").read_text().split()]


def fail(_):
    raise ValueError("a | b")


def lack(_):
    raise UnavailableError("no such thing")


def hang_once(context):
    if not (context.options.work / "freed").exists():
        time.sleep(600)
    return {}


ACTIONS = {
    "fails": fail,
    "lacks": lack,
    "crashes": lambda _: os._exit(3),
    "hangs-once": hang_once,
    "partial": lambda _: {"status": "partial", "error": "half of it"},
}


def options(folder, names, **changes):
    """Of a call with such cases."""
    (folder / "work").mkdir(parents=True, exist_ok=True)
    (folder / "work" / "cases").write_text(" ".join(names))
    given = Options(5.0, folder, folder / "work", None, ("parity",), True)
    return dataclasses.replace(given, **changes)


def tried(folder):
    return (folder / "work" / "tried" / "log").read_text().split()
