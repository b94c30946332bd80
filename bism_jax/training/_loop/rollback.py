"""The way back from an iteration that stopped being finite."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jax
import numpy as np

from bism_jax._jax_switches import with_transfers
from bism_jax.errors import DivergenceError
from bism_jax.training._loop.chunk import CompiledChunks
from bism_jax.training._loop.divergence import divergence_error
from bism_jax.training._loop.history import History
from bism_jax.training._loop.state import LoopState

if TYPE_CHECKING:
    from bism_jax.training._checkpoints.store import CheckpointStore

# Where new noise helps, once or twice is enough; where a rate is too large, it never does.
_MAX_ROLLBACKS = 3


@dataclass
class Rollback:
    """Goes back to the last checkpoint, with new noise and a few times at most."""

    store: CheckpointStore | None
    chunks: CompiledChunks
    history: History
    is_wanted: bool
    _num_done: int = field(default=0, init=False)

    def after(self, step: int, infos: dict[str, float]) -> int:
        """The iteration to go on from, to which everything is set back but the callbacks.

        Raises:
            DivergenceError: where the run ends here.
        """
        error = self._error(step, infos)
        if not self.is_wanted or self.store is None or self._num_done == _MAX_ROLLBACKS:
            raise error
        self._num_done += 1
        try:
            restored = self.store.restore(self.chunks.host_state(), self.history)
        except ValueError:  # it is of the run that this one took its parameters from
            raise error from None
        if restored is None:
            raise error
        self.chunks.source.set_position(restored.source_position)
        self.chunks.set_state(self._with_new_noise(restored.state))
        step_back = int(restored.state.step)
        warnings.warn(
            f"{str(error).partition(';')[0]}: back to iteration {step_back} ({error.checkpoint}) with new "
            f"noise, {self._num_done} of {_MAX_ROLLBACKS} times.",
            stacklevel=2,
        )
        return step_back

    def _error(self, step: int, infos: dict[str, float]) -> DivergenceError:
        path = None
        if self.store is not None:
            self.store.wait()
            path = self.store.latest_path()
        theta = self.chunks.host_state().method_state.theta
        return divergence_error(step, infos, self.history.scalars(), theta, path, self.is_wanted)

    @with_transfers
    def _with_new_noise(self, state: LoopState) -> LoopState:
        # By the number of the attempt: a checkpoint that comes back twice has the same key both times.
        return state._replace(rng_key=jax.random.fold_in(state.rng_key, self._num_done))


def first_bad(infos: dict[str, np.ndarray]) -> int | None:
    """The first iteration of a chunk in which a scalar is not finite, or None."""
    any_bad = np.any([~np.isfinite(values) for values in infos.values()], axis=0)
    return int(np.argmax(any_bad)) if any_bad.any() else None
