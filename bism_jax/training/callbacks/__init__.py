"""What happens every so many iterations of a run: evaluations and logs."""

from bism_jax.training.callbacks._callback import Callback, Snapshot
from bism_jax.training.callbacks._csv_log import CSVLog
from bism_jax.training.callbacks._evaluate import Evaluate
from bism_jax.training.callbacks._jsonl_log import JSONLLog
from bism_jax.training.callbacks._tensorboard_log import TensorBoardLog

__all__ = [
    "CSVLog",
    "Callback",
    "Evaluate",
    "JSONLLog",
    "Snapshot",
    "TensorBoardLog",
]
