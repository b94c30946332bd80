"""The options of a run, and the checks of them that need neither a model nor data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from etils import epath

from bism_jax import checks
from bism_jax._paths import as_path
from bism_jax._tracing.jax_internals import is_traced
from bism_jax._tracing.jaxprs import is_within_jit
from bism_jax.training.callbacks._callback import Callback, as_callback, type_name
from bism_jax.training.callbacks._file_log import FileLog


class Options(NamedTuple):
    """What `fit` is told of how to run, by the names of its arguments; `check` makes them uniform."""

    num_steps: int
    batch_size: int
    callbacks: Any
    checkpoint_dir: Any
    checkpoint_every: int
    ema_decay: float | None
    parallel: str | None
    steps_per_call: int | None
    on_divergence: str
    resume: str

    def check(self) -> Options:
        """The same with a list of `Callback` and a folder of `epath`.

        Raises:
            TypeError: for what is of another type.
            ValueError: for a value out of range, two logs in one file, or options that do not go together.
        """
        checks.non_negative_int("num_steps", self.num_steps)
        checks.positive_int("checkpoint_every", self.checkpoint_every)
        if self.steps_per_call is not None:
            checks.positive_int("steps_per_call", self.steps_per_call, alternative="None")
        if self.ema_decay is not None:
            checks.fraction("ema_decay", self.ema_decay)
        callbacks = _check_callbacks(self.callbacks)
        return self._replace(callbacks=callbacks, checkpoint_dir=self._check_directory())

    def in_words(self) -> dict[str, Any]:
        """As JSON, for a comparison with those of other processes."""
        folder = None if self.checkpoint_dir is None else str(self.checkpoint_dir)
        callbacks = [[type_name(callback), callback.every] for callback in self.callbacks]
        return self._replace(checkpoint_dir=folder, callbacks=callbacks)._asdict()

    def _check_directory(self) -> epath.Path | None:
        checks.one_of("on_divergence", self.on_divergence, ("raise", "rollback"))
        checks.one_of("resume", self.resume, ("strict", "parameters"))
        if self.checkpoint_dir is None:
            if self.on_divergence == "rollback":
                raise ValueError("on_divergence='rollback' needs a checkpoint_dir to go back to.")
            if self.resume == "parameters":
                raise ValueError("resume='parameters' needs a checkpoint_dir to continue from.")
            return None
        folder = as_path("checkpoint_dir", self.checkpoint_dir)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"checkpoint_dir={folder} is a file; pass a folder.")
        return folder


def check_untraced(*arguments: Any) -> None:
    """Raises TypeError inside a transformation, where there are no values to train on."""
    if is_within_jit() or is_traced(arguments):
        raise TypeError(
            "fit is called inside jax.jit, vmap or grad, where data, init_params and rng_key have no values; "
            "call it outside, or bind a method and trace its own step: "
            "algorithm = method.bind(energy_fn, posterior_fn), algorithm.init, algorithm.step."
        )


def _check_callbacks(callbacks: Any) -> list[Callback]:
    """With all their hooks; raises TypeError or ValueError for what is none, or for two logs in one file."""
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a sequence of callbacks, not {callbacks!r}; pass a list.")
    callbacks = list(callbacks)  # a generator would be used up by the checks
    for callback in callbacks:
        checks.callback(callback)
    paths = [as_path("path", callback.path) for callback in callbacks if isinstance(callback, FileLog)]
    for path in paths:
        if path.is_dir():
            raise ValueError(f"callbacks: the path of a log, {path}, is a folder; pass a file in it.")
        if paths.count(path) > 1:
            raise ValueError(f"callbacks: two logs have the path {path}; give each a file of its own.")
    return [as_callback(callback) for callback in callbacks]
