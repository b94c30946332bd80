"""The turns of callbacks after an iteration."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bism_jax.training._loop import hosts
from bism_jax.training._loop.history import History
from bism_jax.training._loop.interruption import StopTraining
from bism_jax.training._loop.saving import Saver
from bism_jax.training._loop.state import LoopState
from bism_jax.training.callbacks._callback import Callback, Snapshot, type_name
from bism_jax.training.callbacks._measurements import numbers_of
from bism_jax.training.callbacks._states import states_of


@dataclass
class Turns:
    """Calls callbacks when they are due."""

    callbacks: Sequence[Callback]
    history: History
    saver: Saver
    _has_renamed: bool = field(default=False, init=False)

    def take(self, callbacks: Sequence[Callback], state: LoopState) -> bool:
        """Calls some of them on a host copy of the state; whether the run goes on."""
        measured: dict[str, float] = {}
        goes_on = True
        # Copies, for those that cannot go back by themselves where another one fails.
        step, before = int(state.step), states_of(self.callbacks, of_rewindable=False)
        for callback in callbacks:
            try:
                found = callback(self._snapshot(callback, state, measured))
                new = {} if found is None else numbers_of(type_name(callback), found)
            except StopTraining:
                # The run ends after the iteration, so the callbacks after this one still have their turn.
                goes_on = False
                continue
            except Exception as error:
                self._keep_before(error, step, before)
                raise
            # It would take the place of the iteration in a row of a log.
            measured.update({name: value for name, value in new.items() if name != "step"})
        if measured:
            self.history.add_evaluation(step, measured)
        _, stops = hosts.smallest_and_largest(0, int(not goes_on))  # one callback stops them all
        return not stops

    def rewind(self, step: int) -> None:
        """Tells them of a rollback."""
        for callback in self.callbacks:
            callback.rewind(step)

    def _snapshot(self, callback: Callback, state: LoopState, measured: dict[str, float]) -> Snapshot:
        step, method_state = int(state.step), state.method_state
        means = self.history.mean((step - 1) // callback.every * callback.every, step)
        metrics = {**means, **self._beside(means, measured)}
        return Snapshot(
            step, method_state.theta, getattr(method_state, "phi", None), state.theta_ema, metrics
        )

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

    def _keep_before(self, error: Exception, step: int, states: dict[str, Any]) -> None:
        """Saves what was done before the callbacks of an iteration, which have their turn again."""
        for callback in self.callbacks:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                callback.rewind(step - 1)
        self.saver.keep(error, turns_due=True, states=states)
