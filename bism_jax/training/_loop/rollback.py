"""The way back from an iteration that stopped being finite."""

from __future__ import annotations

import warnings

import jax
import numpy as np

from bism_jax._jax_switches import with_transfers
from bism_jax.training._checkpoints.store import CheckpointStore
from bism_jax.training._loop.chunk import CompiledChunks
from bism_jax.training._loop.divergence import DivergenceError, divergence_error
from bism_jax.training._loop.history import History
from bism_jax.training._loop.state import LoopState
from bism_jax.training._sources.source import DataSource

# Where new noise helps, once or twice is enough; where a rate is too large, it never does.
_MAX_ROLLBACKS = 3


class Rollback:
    """Goes back to the last checkpoint, with new noise and a few times at most.

    Args:
        store: where checkpoints are, or None.
        chunks: the compiled program with its state.
        source: where its batches come from.
        history: the record.
        is_wanted: whether to go back rather than to end the run.
    """

    def __init__(
        self,
        store: CheckpointStore | None,
        chunks: CompiledChunks,
        source: DataSource,
        history: History,
        is_wanted: bool,
    ) -> None:
        self._store, self._chunks, self._source, self._history = store, chunks, source, history
        self._is_wanted, self._num_done = is_wanted, 0

    def after(self, step: int, infos: dict[str, float]) -> int:
        """The iteration to go on from, to which everything is set back but the callbacks.

        Raises:
            DivergenceError: where the run ends here.
        """
        error = self._error(step, infos)
        if not self._is_wanted or self._store is None or self._num_done == _MAX_ROLLBACKS:
            raise error
        self._num_done += 1
        try:
            restored = self._store.restore(self._chunks.host_state(), self._history)
        except ValueError:  # it is of the run that this one took its parameters from
            raise error from None
        if restored is None:
            raise error
        self._source.set_position(restored.source_position)
        self._chunks.set_state(self._with_new_noise(restored.state))
        step_back = int(restored.state.step)
        warnings.warn(
            f"{str(error).partition(';')[0]}: back to iteration {step_back} ({error.checkpoint}) with new "
            f"noise, {self._num_done} of {_MAX_ROLLBACKS} times.",
            stacklevel=2,
        )
        return step_back

    def _error(self, step: int, infos: dict[str, float]) -> DivergenceError:
        path = None
        if self._store is not None:
            self._store.wait()
            path = self._store.latest_path()
        theta = self._chunks.host_state().method_state.theta
        return divergence_error(step, infos, self._history.scalars(), theta, path, self._is_wanted)

    @with_transfers
    def _with_new_noise(self, state: LoopState) -> LoopState:
        return state._replace(rng_key=jax.random.fold_in(state.rng_key, self._num_done))


def first_bad(infos: dict[str, np.ndarray]) -> int | None:
    """The first iteration of a chunk in which a scalar is not finite, or None."""
    any_bad = np.any([~np.isfinite(values) for values in infos.values()], axis=0)
    return int(np.argmax(any_bad)) if any_bad.any() else None
