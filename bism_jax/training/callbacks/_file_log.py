"""What the logs that write one text file share."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etils import epath

from bism_jax import checks
from bism_jax._paths import as_path
from bism_jax.training._loop import hosts
from bism_jax.training.callbacks._callback import Callback
from bism_jax.training.callbacks._text_files import append_text, move_aside, read_text, replace_text


@dataclass(frozen=True)
class FileLog(Callback):
    """What the logs in one file share: they start anew, or continue, and lose nothing of another run.

    The text so far is part of a checkpoint, so that a resumed run goes on from it byte for byte, whatever
    became of the file. Of several hosts only the first writes.
    """

    path: str | Path
    every: int = 100
    # In parts, since a row a turn must not copy all rows before it.
    _text: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checks.positive_int("every", self.every)
        self._file  # noqa: B018 - refuses what is no path

    def resume(self, step: int) -> None:
        """Starts the file, or goes on after its rows up to `step`.

        Raises:
            FileExistsError: where the run starts anew and the file holds anything.
        """
        if not hosts.is_first():
            return
        file = self._file
        text = read_text(file)
        # An empty file is what a run leaves that ended before its first row: it can be started again.
        if step == 0 and text:
            raise FileExistsError(
                f"{file} exists and this run starts anew; choose another path, or resume the run that wrote "
                "it by its checkpoint_dir."
            )
        if step > 0 and text != "".join(self._text):  # no checkpoint has vouched for it
            self._keep_aside("it begins anew")
            text = ""
        self._set_text(self._up_to(text, step))
        self._write_all()

    def state(self) -> dict[str, str]:
        """The text so far, with the path that tells a log that was moved."""
        return {"path": str(self._file), "text": "".join(self._text)}

    def restore(self, state: Mapping[str, str]) -> None:
        """Goes on from the text of a checkpoint.

        Warns:
            UserWarning: where the file holds more than that text and rows that came after it; it is kept
                beside the log.
        """
        if not hosts.is_first():
            return
        is_moved = state["path"] != str(self._file)  # then rows alone do not show that it is that of this run
        if not self._is_as_left(read_text(self._file), state["text"], is_moved):
            self._keep_aside("it goes on from its checkpoint")
        self._set_text(state["text"])
        self._write_all()

    def rewind(self, step: int) -> None:
        """Drops what was written after `step`."""
        self._set_text(self._up_to("".join(self._text), step))
        self._write_all()

    @functools.cached_property
    def _file(self) -> epath.Path:
        return as_path("path", self.path)

    def _keep_aside(self, what_follows: str) -> None:
        """Leaves a file that this run cannot have written where its user finds it."""
        file = self._file
        warnings.warn(
            f"{file} is not as this run left it: it is kept as {move_aside(file)}, and {what_follows}.",
            stacklevel=2,
        )

    def _is_as_left(self, found: str, state: str, is_moved: bool) -> bool:
        """Whether the file is that of a checkpoint, cut or with rows that came after it."""
        if state == "":  # which any text begins with
            return found == "" or (not is_moved and self._up_to(found, sys.maxsize) != "")
        return state.startswith(found) or (
            found.startswith(state) and all(map(self._is_row, found[len(state) :].splitlines(keepends=True)))
        )

    def _is_row(self, line: str) -> bool:
        """Whether a line may be a row of this log, or what a kill left of one."""
        raise NotImplementedError

    def _up_to(self, text: str, step: int) -> str:
        """The whole rows of `text` up to `step`."""
        raise NotImplementedError

    def _set_text(self, text: str) -> None:
        self._text[:] = [text]

    def _append(self, text: str) -> None:
        self._text.append(text)
        if hosts.is_first() and not append_text(self._file, text):
            self._write_all()

    def _write_all(self) -> None:
        if hosts.is_first():
            replace_text(self._file, "".join(self._text))


def is_up_to(found: Any, step: int) -> bool:
    """Whether what stands in the place of a row's iteration is one, and none after `step`."""
    return str(found).isdecimal() and int(found) <= step
