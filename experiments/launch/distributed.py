"""Joins the processes of one run."""

from __future__ import annotations

import os
import re

import jax

# How long the others wait for a process that is gone: JAX's 100 seconds and 5 minutes are machines that idle.
_HEARTBEAT_SECONDS, _SHUTDOWN_SECONDS = 10, 20


def initialize_from_environment() -> None:
    """Calls `jax.distributed.initialize` where a launch script asks for it, and nothing otherwise.

    `BISM_JAX_DISTRIBUTED=auto` lets JAX find the processes by itself (TPU pods, SLURM);
    `HOST:PORT,COUNT,INDEX` names the coordinator, the number of processes and this one's index.

    Raises:
        ValueError: for any other value, or where JAX finds no processes for `auto`.
    """
    setting = os.environ.get("BISM_JAX_DISTRIBUTED")
    if setting is None:
        return
    if setting == "auto":
        try:
            jax.distributed.initialize(
                heartbeat_timeout_seconds=_HEARTBEAT_SECONDS, shutdown_timeout_seconds=_SHUTDOWN_SECONDS
            )
        except ValueError as error:
            raise ValueError(
                f"BISM_JAX_DISTRIBUTED='auto', but JAX finds no TPU pod and no cluster here ({error}); set "
                "'HOST:PORT,COUNT,INDEX', or unset it for one process."
            ) from error
        return
    coordinator, count, index = _parse(setting)
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator,
        count,
        index,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )


def _parse(setting: str) -> tuple[str, int, int]:
    """The coordinator, the number of processes and this one's index."""
    match = re.fullmatch(r"([^\s,]+:(\d+)),(\d+),(\d+)", setting)
    if match is None:
        raise ValueError(
            f"BISM_JAX_DISTRIBUTED={setting!r} must be 'auto' or 'HOST:PORT,COUNT,INDEX', such as "
            "'10.0.0.1:1234,2,0' on the first of two hosts."
        )
    coordinator, (port, count, index) = match[1], map(int, match.groups()[1:])
    if not 0 < port < 2**16 or not index < count:
        raise ValueError(
            f"BISM_JAX_DISTRIBUTED={setting!r}: PORT must be from 1 to 65535, and INDEX from 0 to COUNT - 1."
        )
    return coordinator, count, index
