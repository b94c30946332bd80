"""The training loop: `fit`, checkpoints, callbacks and devices."""

from bism_jax._tracing.compilation import clear_programs
from bism_jax.errors import DivergenceError
from bism_jax.training._fit import FitResult, fit
from bism_jax.training._flops import count_flops
from bism_jax.training._freed_memory import release_freed_memory
from bism_jax.training._loop.interruption import StopTraining
from bism_jax.training._plan import Plan, PlannedStrategy, plan
from bism_jax.training.callbacks import (
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
    "DivergenceError",
    "Evaluate",
    "FitResult",
    "JSONLLog",
    "Plan",
    "PlannedStrategy",
    "Snapshot",
    "StopTraining",
    "TensorBoardLog",
    "clear_programs",
    "count_flops",
    "fit",
    "plan",
    "release_freed_memory",
]
