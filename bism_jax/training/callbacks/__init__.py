"""What happens every so many iterations of a run: evaluations and logs."""

from bism_jax.training.callbacks._callbacks import (
    Callback,
    CSVLog,
    Evaluate,
    JSONLLog,
    Snapshot,
    TensorBoardLog,
)

__all__ = [
    "CSVLog",
    "Callback",
    "Evaluate",
    "JSONLLog",
    "Snapshot",
    "TensorBoardLog",
]
