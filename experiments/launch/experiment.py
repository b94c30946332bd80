"""How an experiment starts from its command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from experiments.command_line import run_command
from experiments.launch.compilation_cache import enable_compilation_cache
from experiments.launch.distributed import initialize_from_environment

_Config = TypeVar("_Config")


def run_experiment(
    run: Callable[[_Config], object], parse: Callable[[], _Config], *, on_hosts: bool = False
) -> None:
    """The body of `python -m experiments.NAME`.

    Args:
        run: the experiment.
        parse: reads its configuration from the command line.
        on_hosts: whether several processes may run it together; they meet before anything else uses JAX.
    """

    def command() -> None:
        enable_compilation_cache()
        if on_hosts:
            initialize_from_environment()
        run(parse())

    run_command(command)
