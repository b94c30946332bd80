"""Metrics for TensorBoard."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from bism_jax import checks
from bism_jax._paths import as_path
from bism_jax.training._loop import hosts
from bism_jax.training.callbacks._callback import Callback, Snapshot


class TensorBoardLog(Callback):
    """Writes the metrics for TensorBoard, by way of tensorboardX.

    Args:
        log_dir: the folder of event files; each run adds one.
        every: the number of iterations that a point averages over.

    Raises:
        ImportError: where tensorboardX is not installed.
    """

    def __init__(self, log_dir: str | Path, every: int = 100) -> None:
        checks.positive_int("every", every)
        self.every = every
        self._log_dir = as_path("log_dir", log_dir)
        self._writer: Any = None
        # Here and not at the first point, which may come after hours.
        if importlib.util.find_spec("tensorboardX") is None:
            raise ImportError("TensorBoardLog needs tensorboardX: pip install tensorboardX, or use CSVLog.")

    def resume(self, step: int) -> None:
        """Starts a file, which hides the points of others in the folder after `step`."""
        if hosts.is_first():
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(self._log_dir), purge_step=step + 1 if step else None)

    def __call__(self, snapshot: Snapshot) -> None:
        """Adds a point to each curve."""
        if self._writer is not None:
            for name, value in snapshot.metrics.items():
                self._writer.add_scalar(name, value, snapshot.step)
            self._writer.flush()  # which tensorboardX does every 120 s by itself

    def close(self) -> None:
        """Writes what is still in the queue."""
        if self._writer is not None:
            self._writer.close()
