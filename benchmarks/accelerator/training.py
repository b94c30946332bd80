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


class _OutOfTime(Exception):
    pass


class _Watch:
    """A callback that stops a run after a deadline, and keeps where it was and how fast it went."""

    def __init__(self, deadline: float, every: int) -> None:
        self.every = every
        self._deadline = deadline
        self.snapshot: Any = None
        self._first: tuple[float, int] | None = None
        self.rate: float | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        now = time.time()
        self.snapshot = snapshot
        if self._first is None:
            self._first = (now, snapshot.step)  # the time before it is that of compilation
        elif now > self._first[0]:
            self.rate = (snapshot.step - self._first[1]) / (now - self._first[0])
        if now > self._deadline:
            raise _OutOfTime


def train_until(
    deadline: float, checkpoint_dir: Path, energy: Any, posterior: Any, data: Any, num_steps: int, **options: Any
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
        bism_jax.fit(
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
    except _OutOfTime:
        pass
    last = watch.snapshot
    columns = {"iterations": last.step, "planned": num_steps, "iterations_per_s": watch.rate}
    return Trained(last.theta, last.phi, last.theta_ema, columns, last.step == num_steps)
