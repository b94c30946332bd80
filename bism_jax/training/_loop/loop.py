"""One run of the training loop: what happens between the calls of the compiled program."""

from __future__ import annotations

import contextlib
import signal
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bism_jax._jax_switches import with_transfers
from bism_jax.errors import DivergenceError
from bism_jax.training._loop import hosts
from bism_jax.training._loop.chunk import CompiledChunks
from bism_jax.training._loop.divergence import divergence_error
from bism_jax.training._loop.history import History
from bism_jax.training._loop.interruption import Interruption, StopTraining, leave
from bism_jax.training._loop.state import LoopState
from bism_jax.training._sources.source import DataSource
from bism_jax.training.callbacks._callback import Callback, Snapshot, type_name
from bism_jax.training.callbacks._measurements import numbers_of
from bism_jax.training.callbacks._states import states_of

if TYPE_CHECKING:
    from bism_jax.training._checkpoints.store import CheckpointStore

_SECONDS_PER_CALL = 0.25
_MAX_ROLLBACKS = 3


class TrainingLoop:
    """Runs an algorithm to its last iteration.

    Args:
        chunks: the compiled program with its state.
        source: where its batches come from.
        history: the record so far, which the run continues.
        callbacks: in the order of their turns.
        store: where checkpoints go, or None.
        checkpoint_every: iterations between checkpoints.
    """

    def __init__(
        self,
        chunks: CompiledChunks,
        source: DataSource,
        history: History,
        callbacks: Sequence[Callback],
        store: CheckpointStore | None,
        checkpoint_every: int,
    ) -> None:
        self._chunks, self._source, self._history = chunks, source, history
        self._callbacks, self._store, self._checkpoint_every = callbacks, store, checkpoint_every
        self._num_rollbacks = 0
        self._has_renamed = False

    def train(
        self,
        step: int,
        num_steps: int,
        steps_per_call: int | None,
        rollback: bool,
        progress: bool | None,
        interruption: Interruption,
        turns_due: bool = False,
    ) -> None:
        """Runs iterations `step .. num_steps - 1`, or as many as until a callback or a signal ends it.

        Where turns are due, an error ended the run before the callbacks of the last iteration were done.

        Raises:
            DivergenceError: where a scalar of `Info` is not finite.
            SystemExit: after SIGINT or SIGTERM.
            RuntimeError: where another process of the run is gone.
        """
        from tqdm.auto import tqdm

        if self._store is not None and self._store.latest_step() is None:
            # Before a log has rows: a run that is killed now is started again by the same call.
            self._save()
            self._store.wait()
        length, signum = steps_per_call or 1, 0
        disable = None if progress is None else not progress
        bar = tqdm(total=num_steps, initial=step, disable=disable, unit="it", desc="fit")
        with bar, hosts.expect_all(self._how_to_go_on):
            goes_on = not turns_due or self._stop_at(step, num_steps)
            while goes_on and step < num_steps:
                # Hosts may disagree on what they measure and on who was told to stop.
                length, signum = hosts.smallest_and_largest(length, interruption.signum)
                if signum:
                    break
                count = self._until_stop(step, num_steps, length)
                start = time.perf_counter()
                infos = self._iterate(step, count)
                seconds = time.perf_counter() - start
                bad = self._first_bad(infos)
                if bad is not None:
                    self._history.append({name: values[:bad] for name, values in infos.items()})
                    at_fault = {name: values[bad] for name, values in infos.items()}
                    new_step = self._roll_back(self._divergence(step + bad, at_fault, rollback), rollback)
                    bar.update(new_step - step)
                    step = new_step
                    continue
                self._history.append(infos)
                step += count
                bar.set_postfix(loss=f"{infos['loss'][-1]:.4g}", refresh=False)
                bar.update(count)
                if steps_per_call is None:
                    length = max(1, min(4 * length, int(count * _SECONDS_PER_CALL / seconds)))
                goes_on = self._stop_at(step, num_steps)
        if signum or interruption.signum:
            self._interrupted(signum or interruption.signum, step, num_steps)

    def _iterate(self, step: int, count: int) -> dict[str, np.ndarray]:
        """Iterations `step .. step + count - 1`; where the data fails, those before it are saved."""
        try:
            return self._chunks.run(step, count)
        except Exception as error:
            self._keep(error, turns_due=False)
            raise

    def _keep_before(self, error: Exception, step: int, states: dict[str, Any]) -> None:
        """Saves what was done before the callbacks of an iteration, which have their turn again."""
        for callback in self._callbacks:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                callback.rewind(step - 1)
        self._keep(error, turns_due=True, states=states)

    def _keep(self, error: Exception, turns_due: bool, states: dict[str, Any] | None = None) -> None:
        """Saves before an error ends the run, where that is still possible, and says how to go on."""
        if self._store is None or jax.process_count() > 1:  # the others do not know of it
            return
        with contextlib.suppress(Exception):  # the first error is the one to tell
            self._save(turns_due, states)
            self._store.wait()
        error.add_note(self._how_to_go_on())

    def _interrupted(self, signum: int, step: int, num_steps: int) -> None:
        """Saves, and leaves the process or returns to a prompt."""
        self._save()
        if self._store is not None:
            self._store.wait()
        name = signal.Signals(signum).name
        leave(signum, f"{name} after iteration {step:,} of {num_steps:,}. {self._how_to_go_on()}")

    def _how_to_go_on(self) -> str:
        path = None if self._store is None else self._store.latest_path()
        if path is None:
            return "There is no checkpoint; a run with a checkpoint_dir could be continued."
        return f"The last checkpoint is {path}; the same call continues from it."

    def _until_stop(self, step: int, num_steps: int, length: int) -> int:
        intervals = [callback.every for callback in self._callbacks]
        if self._store is not None:
            intervals.append(self._checkpoint_every)
        distances = [interval - step % interval for interval in intervals]
        return min(length, self._chunks.max_steps_per_call, num_steps - step, *distances)

    def _first_bad(self, infos: dict[str, np.ndarray]) -> int | None:
        any_bad = np.any([~np.isfinite(values) for values in infos.values()], axis=0)
        return int(np.argmax(any_bad)) if any_bad.any() else None

    def _divergence(self, step: int, infos: dict[str, float], rolls_back: bool) -> DivergenceError:
        if self._store is not None:
            self._store.wait()
        path = None if self._store is None else self._store.latest_path()
        theta = self._chunks.host_state().method_state.theta
        return divergence_error(step, infos, self._history.scalars(), theta, path, rolls_back)

    def _roll_back(self, error: DivergenceError, rollback: bool) -> int:
        if not rollback or self._store is None or self._num_rollbacks == _MAX_ROLLBACKS:
            raise error
        self._num_rollbacks += 1
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
            f"noise, {self._num_rollbacks} of {_MAX_ROLLBACKS} times.",
            stacklevel=2,
        )
        for callback in self._callbacks:
            callback.rewind(step_back)
        return step_back

    @with_transfers
    def _with_new_noise(self, state: LoopState) -> LoopState:
        return state._replace(rng_key=jax.random.fold_in(state.rng_key, self._num_rollbacks))

    def _stop_at(self, step: int, num_steps: int) -> bool:
        """The turns of callbacks and checkpoints that fall on this iteration; whether the run goes on."""
        is_last = step == num_steps
        due = [callback for callback in self._callbacks if is_last or step % callback.every == 0]
        goes_on = not due or self._call(due, step)
        if self._store is not None and (is_last or not goes_on or step % self._checkpoint_every == 0):
            self._save()
        return goes_on

    def _call(self, callbacks: Sequence[Callback], step: int) -> bool:
        state: Any = self._chunks.host_state()
        method_state = state.method_state
        measured: dict[str, float] = {}
        goes_on = True
        before = states_of(self._callbacks, of_rewindable=False)
        for callback in callbacks:
            start = (step - 1) // callback.every * callback.every
            means = self._history.mean(start, step)
            metrics = {**means, **self._beside(means, measured)}
            snapshot = Snapshot(
                step, method_state.theta, getattr(method_state, "phi", None), state.theta_ema, metrics
            )
            try:
                found = callback(snapshot)
                new = {} if found is None else numbers_of(type_name(callback), found)
            except StopTraining:
                goes_on = False
                continue
            except Exception as error:
                self._keep_before(error, step, before)
                raise
            measured.update({name: value for name, value in new.items() if name != "step"})
        if measured:
            self._history.add_evaluation(step, measured)
        _, stops = hosts.smallest_and_largest(0, int(not goes_on))  # one callback stops them all
        return not stops

    def _beside(self, means: dict[str, float], measured: dict[str, float]) -> dict[str, float]:
        """What was measured, by names that leave the scalars of training alone."""
        taken = sorted(means.keys() & measured.keys())
        if taken and not self._has_renamed:
            self._has_renamed = True
            warnings.warn(
                f"an evaluation measures {', '.join(taken)}, as training does; in the logs it is "
                f"{', '.join(f'evaluation_{name}' for name in taken)}. Give it another name.",
                stacklevel=2,
            )
        return {f"evaluation_{name}" if name in means else name: value for name, value in measured.items()}

    def _save(self, turns_due: bool = False, states: dict[str, Any] | None = None) -> None:
        if self._store is not None:
            callbacks = states_of(self._callbacks) | (states or {})
            state, position = self._chunks.host_state(), self._source.position()
            self._store.save(state, position, self._history, callbacks, turns_due)
