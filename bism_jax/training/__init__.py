"""The training loop: `fit`, checkpoints, callbacks and devices."""

from bism_jax.compilation import clear_programs
from bism_jax.training.callbacks import Callback, CSVLog, Evaluate, JSONLLog, Snapshot, TensorBoardLog
from bism_jax.training.divergence import DivergenceError
from bism_jax.training.fit import FitResult, fit
from bism_jax.training.flops import count_flops
from bism_jax.training.interruption import StopTraining
from bism_jax.training.memory import release_freed_memory
from bism_jax.training.plan import Plan, PlannedStrategy, plan

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
