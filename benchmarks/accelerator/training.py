"""`fit` with a deadline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import bism_jax
from bism_jax.training import Snapshot


class Trained(NamedTuple):
    """A model after its last iteration, or after the last one that there was time for.

    Attributes:
        theta: energy parameters.
        phi: posterior parameters.
        theta_ema: the moving average of theta.
        columns: of a row: iterations, and how many a second between calls of the compiled loop.
        is_whole: whether it was the last one.
    """

    theta: Any
    phi: Any
    theta_ema: Any
    columns: dict[str, Any]
    is_whole: bool


class _OutOfTimeError(Exception):
    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot


class _Watch:
    """A callback that stops a run after a deadline, and measures how fast it goes."""

    def __init__(self, deadline: float, every: int) -> None:
        self.every = every
        self._deadline = deadline
        self._first: tuple[float, int] | None = None
        self.rate: float | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        now = time.time()
        if self._first is None:
            self._first = (now, snapshot.step)  # the time before it is that of compilation
        elif now > self._first[0]:
            self.rate = (snapshot.step - self._first[1]) / (now - self._first[0])
        if now > self._deadline:
            raise _OutOfTimeError(snapshot)


def train_until(
    deadline: float,
    checkpoint_dir: Path,
    energy: Any,
    posterior: Any,
    data: Any,
    num_steps: int,
    **options: Any,
) -> Trained:
    """`fit` of `num_steps` iterations in all, continued from its checkpoints, and stopped at the deadline.

    Args:
        deadline: in seconds since 1970.
        checkpoint_dir: of the run.
        energy: as for `fit`.
        posterior: likewise.
        data: likewise.
        num_steps: likewise.
        **options: of `fit`.
    """
    watch = _Watch(deadline, max(1, num_steps // 100))
    try:
        last: Any = bism_jax.fit(
            energy,
            posterior,
            data,
            num_steps=num_steps,
            ema_decay=0.999,
            callbacks=[watch],
            checkpoint_dir=checkpoint_dir,
            checkpoint_every=max(1, num_steps // 10),
            progress=False,
            **options,
        )
        num_done = num_steps
    except _OutOfTimeError as stop:
        last = stop.snapshot
        num_done = last.step
    columns = {"iterations": num_done, "planned": num_steps, "iterations_per_s": watch.rate}
    return Trained(last.theta, last.phi, last.theta_ema, columns, num_done == num_steps)
