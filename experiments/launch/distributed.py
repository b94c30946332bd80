"""Joins the processes of one run."""

from __future__ import annotations

import os

import jax

# How long the others wait for a process that is gone: JAX's 100 seconds and 5 minutes are machines that idle.
_HEARTBEAT_SECONDS, _SHUTDOWN_SECONDS = 10, 20


def initialize_from_environment() -> None:
    """Calls `jax.distributed.initialize` where a launch script asks for it, and nothing otherwise.

    `BISM_JAX_DISTRIBUTED=auto` lets JAX find the processes by itself (TPU pods, SLURM);
    `HOST:PORT,COUNT,INDEX` names the coordinator, the number of processes and this one's index.

    Raises:
        ValueError: for any other value.
    """
    setting = os.environ.get("BISM_JAX_DISTRIBUTED")
    if setting is None:
        return
    if setting == "auto":
        jax.distributed.initialize(
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS, shutdown_timeout_seconds=_SHUTDOWN_SECONDS
        )
        return
    parts = setting.split(",")
    if len(parts) != 3:
        raise ValueError(f"BISM_JAX_DISTRIBUTED={setting!r} must be 'auto' or 'HOST:PORT,COUNT,INDEX'.")
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        parts[0],
        int(parts[1]),
        int(parts[2]),
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
