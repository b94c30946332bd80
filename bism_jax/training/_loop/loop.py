"""The training loop: what happens between the calls of the compiled program."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import numpy as np

from bism_jax.training._loop import hosts
from bism_jax.training._loop.chunk import CompiledChunks
from bism_jax.training._loop.history import History
from bism_jax.training._loop.interruption import Interruption, leave
from bism_jax.training._loop.options import Options
from bism_jax.training._loop.rollback import Rollback, first_bad
from bism_jax.training._loop.saving import Saver
from bism_jax.training._loop.turns import Turns

if TYPE_CHECKING:
    from bism_jax.training._checkpoints.store import CheckpointStore

# A call costs 0.7 ms beside its iterations (GRBM, two cores), so 0.3 % of this. Between two calls a signal is
# heeded and the bar moves.
_SECONDS_PER_CALL = 0.25
_MAX_GROWTH = 4  # of a call's iterations, so that one lucky measurement makes no call of seconds


class TrainingLoop:
    """Runs an algorithm to its last iteration.

    Args:
        chunks: the compiled program with its state and data.
        history: the record so far, which the run continues.
        store: where checkpoints go, or None.
        options: of the run.
    """

    def __init__(
        self,
        chunks: CompiledChunks,
        history: History,
        store: CheckpointStore | None,
        options: Options,
    ) -> None:
        self._chunks, self._history, self._options = chunks, history, options
        self._saver = Saver(store, chunks, history, options.callbacks)
        self._turns = Turns(options.callbacks, history, self._saver)
        self._rollback = Rollback(store, chunks, history, options.on_divergence == "rollback")
        self._length = options.steps_per_call or 1  # which is timed, and grows

    def train(self, step: int, turns_due: bool, progress: bool | None, interruption: Interruption) -> None:
        """Runs iterations `step .. num_steps - 1`, or as many as until a callback or a signal ends it.

        Where turns are due, an error ended the run before the callbacks of the last iteration were done.

        Raises:
            DivergenceError: where a scalar of `Info` is not finite.
            SystemExit: after SIGINT or SIGTERM.
            RuntimeError: where another process of the run is gone.
        """
        from tqdm.auto import tqdm

        self._saver.save_first()
        num_steps, signum = self._options.num_steps, 0
        disable = None if progress is None else not progress
        bar = tqdm(total=num_steps, initial=step, disable=disable, unit="it", desc="fit")
        with bar, hosts.expect_all(self._saver.how_to_go_on):
            goes_on = not turns_due or self._stop_at(step)
            while goes_on and step < num_steps:
                # Hosts may disagree on what they measure and on who was told to stop.
                self._length, signum = hosts.smallest_and_largest(self._length, interruption.signum)
                if signum:
                    break
                new_step, infos = self._advance(step)
                if infos is not None:
                    # `update` draws, at most ten times a second; `set_postfix` by itself would at every call.
                    bar.set_postfix(loss=f"{infos['loss'][-1]:.4g}", refresh=False)
                bar.update(new_step - step)
                step = new_step
                goes_on = infos is None or self._stop_at(step)
        # Also where it came in the last call, after which no process asks the others.
        if signum or interruption.signum:
            self._interrupted(signum or interruption.signum, step)

    def _advance(self, step: int) -> tuple[int, dict[str, np.ndarray] | None]:
        """One call of the program; the iteration after it, and its scalars, or None after a rollback."""
        count = self._until_stop(step)
        start = time.perf_counter()
        try:
            infos = self._chunks.run(step, count)
        except Exception as error:  # of the data: what came before it is kept
            self._saver.keep(error, turns_due=False)
            raise
        seconds = time.perf_counter() - start
        bad = first_bad(infos)
        # What follows the first bad iteration in the same call came out of it.
        self._history.append({name: values[:bad] for name, values in infos.items()})
        if bad is not None:
            at_fault = {name: values[bad] for name, values in infos.items()}
            step_back = self._rollback.after(step + bad, at_fault)
            self._turns.rewind(step_back)
            return step_back, None
        if self._options.steps_per_call is None:
            fitting = int(count * _SECONDS_PER_CALL / seconds)
            self._length = max(1, min(_MAX_GROWTH * self._length, fitting))
        return step + count, infos

    def _until_stop(self, step: int) -> int:
        """How many iterations the next call has, which ends before a turn or a checkpoint is due."""
        intervals = [callback.every for callback in self._options.callbacks]
        if self._saver.store is not None:
            intervals.append(self._options.checkpoint_every)
        distances = [interval - step % interval for interval in intervals]
        return min(self._length, self._chunks.max_steps_per_call, self._options.num_steps - step, *distances)

    def _stop_at(self, step: int) -> bool:
        """The turns of callbacks and checkpoints that fall on this iteration; whether the run goes on."""
        is_last = step == self._options.num_steps
        due = [callback for callback in self._options.callbacks if is_last or step % callback.every == 0]
        goes_on = not due or self._turns.take(due, self._chunks.host_state())
        if is_last or not goes_on or step % self._options.checkpoint_every == 0:
            self._saver.save()
        return goes_on

    def _interrupted(self, signum: int, step: int) -> None:
        """Saves, and leaves the process or returns to a prompt."""
        self._saver.save()
        self._saver.wait()
        name, num_steps = signal.Signals(signum).name, self._options.num_steps
        leave(signum, f"{name} after iteration {step:,} of {num_steps:,}. {self._saver.how_to_go_on()}")
