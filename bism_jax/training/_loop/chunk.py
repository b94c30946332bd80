"""The compiled program: several iterations a call, without a host round trip."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.compilation import compiled_once
from bism_jax.training._loop.prepared_run import PreparedRun
from bism_jax.training._loop.program import make_program
from bism_jax.training._loop.state import LoopState

# What goes to the devices with every call, however few iterations it runs: so many batches, or their indices.
_MAX_STEPS_PER_CALL = 1024
_MAX_CHUNK_BYTES = 2**26


class CompiledChunks:
    """Runs an algorithm from a data source on a layout of devices.

    Args:
        run: what is compiled.
        state: where it starts, which may be that of a checkpoint.

    Attributes:
        max_steps_per_call: the most iterations that one call can run.
        state: the current state, on the devices.
        source: where its batches come from.
    """

    def __init__(self, run: PreparedRun, state: LoopState) -> None:
        self.source, self._layout = run.source, run.layout
        self.state = run.layout.replicate(state)
        self._data = None if run.source.resident is None else run.layout.replicate(run.source.resident)
        self.max_steps_per_call = 1 if run.one_step_a_call else self._count_steps_per_call()
        selection = self._select(self._example_selection(1), self.max_steps_per_call)
        # The count is an argument: calls of every length are one program, and so give the same bits.
        args = (self.state, self._data, selection, run.layout.replicate(np.int32(0)))

        def compile_program() -> Callable[..., Any]:
            is_loop = not run.one_step_a_call
            program = make_program(run.step_fn, run.layout, run.ema_decay, self.max_steps_per_call, is_loop)
            return run.layout.compile(program, *args)

        key = ("loop", run.iteration_key, run.layout.key, run.ema_decay, run.one_step_a_call, _outline(args))
        self._call = compiled_once(None if run.iteration_key is None else key, compile_program)

    def run(self, step: int, num_steps: int) -> dict[str, np.ndarray]:
        """Runs iterations `step .. step + num_steps - 1`; returns each scalar of Info, `[num_steps]`."""
        selection = self._select(self.source.take(step, num_steps), self.max_steps_per_call)
        count = self._layout.replicate(np.int32(num_steps))
        self.state, infos = self._call(self.state, self._data, selection, count)
        host = self._layout.to_host(infos)._asdict()
        return {name: values[:num_steps] for name, values in host.items()}

    def host_state(self) -> LoopState:
        """A copy of the state as NumPy arrays and keys."""
        return self._layout.to_host(self.state)

    @with_transfers  # a key lives on a device, also that of a checkpoint
    def set_state(self, state: LoopState) -> None:
        """Continues from a host copy of a state."""
        self.state = self._layout.replicate(state)

    def _count_steps_per_call(self) -> int:
        size = self._example_selection(1).nbytes
        return int(np.clip(_MAX_CHUNK_BYTES // size, 1, _MAX_STEPS_PER_CALL))

    def _example_selection(self, num_steps: int) -> np.ndarray:
        if self.source.resident is not None:
            return np.zeros((num_steps, self.source.batch_size), np.int32)
        example = self.source.example()[: self.source.batch_size // jax.process_count()]
        return np.broadcast_to(example, (num_steps, *example.shape))

    def _select(self, selection: np.ndarray, length: int) -> Array:
        """On the devices, padded to the length that the program was compiled for."""
        padding = [(0, length - len(selection)), *[(0, 0)] * (selection.ndim - 1)]
        padded = np.pad(selection, padding)
        if self.source.resident is not None:
            return self._layout.split_indices(padded)
        return self._layout.split_batches(padded)


def _outline(args: Any) -> Hashable:
    """What a program is compiled for: structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(args)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
