"""One folder a run: its configuration, history, metrics, pictures and checkpoints."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


class RunFolder:
    """Creates the folder of a run, or opens that of the same run to continue it.

    Args:
        name: of the experiment.
        config: a dataclass; its fields `output`, `data_dir` and `progress` are not part of what a run is.
        output: the folder; `runs/NAME-DATE-TIME` where it is None.
        may_grow: the fields that may be larger than when the run was begun, which goes on for longer.

    Raises:
        FileExistsError: for a folder of another configuration, or one that is no run folder.
        ValueError: for a configuration that cannot be read.
        OSError: where nothing can be written there.
    """

    def __init__(self, name: str, config: Any, output: Path | None, may_grow: tuple[str, ...] = ()) -> None:
        self.path = output.expanduser() if output else Path("runs") / f"{name}-{_time_of_start()}"
        described = {"experiment": name, **json.loads(json.dumps(dataclasses.asdict(config), default=str))}
        for not_identity in ("output", "progress", "data_dir"):
            described.pop(not_identity, None)
        file = self.path / "config.json"
        if jax.process_index() > 0:  # the first of several hosts writes what they share
            return
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file, not a folder; choose another --output.")
        if file.exists():
            self._check(read_json(file), described, may_grow)
        elif self.path.exists() and any(self.path.iterdir()):
            raise FileExistsError(f"{self.path} exists and is no run folder; choose another --output.")
        make_folder(self.path)
        _write_json(file, described)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Writes the final numbers."""
        if jax.process_index() == 0:
            _write_json(self.path / "metrics.json", dict(metrics))

    def _check(
        self, found: Mapping[str, Any], expected: Mapping[str, Any], may_grow: tuple[str, ...]
    ) -> None:
        for name, old, new in _differences("", found, expected):
            if name in may_grow and isinstance(old, int) and old < new:
                continue
            raise FileExistsError(
                f"{self.path} holds a run with {name}={old!r}, not {new!r}; choose another --output, or "
                "continue that run with its own options."
            )


def _differences(name: str, found: Any, expected: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value of each option that differs."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for key, value in expected.items():
            yield from _differences(f"{name}.{key}" if name else key, found.get(key), value)
    elif found != expected:
        yield name, found, expected


def _time_of_start() -> str:
    """Date and time, which several hosts take from the first."""
    seconds = int(time.time())
    if jax.process_count() > 1:
        seconds = int(multihost_utils.broadcast_one_to_all(np.int32(seconds)))
    return time.strftime("%Y%m%d-%H%M%S", time.localtime(seconds))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file at once, unless it holds that already: a kill or a full disk leaves the old one."""
    text = json.dumps(content, indent=2) + "\n"
    if path.exists() and path.read_text() == text:
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Makes the folder of an `--output`; raises OSError, naming the option, where it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"--output {path} cannot be made: {error.strerror}; choose another folder.") from error
    if not os.access(path, os.W_OK):
        raise PermissionError(f"--output {path} cannot be written to; choose another folder.")


def read_json(path: Path) -> dict[str, Any]:
    """A file that an experiment wrote; raises ValueError where it was cut off or is none of named values."""
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it was cut off or edited. Restore it, or delete it and what "
            "was made with it."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} holds a {type(found).__name__}, not named values: it was edited. Restore it."
        )
    return found


def print_table(title: str, rows: Mapping[str, Any]) -> None:
    """Prints names and values in two columns."""
    width = max(len(name) for name in rows)
    print(f"\n{title}\n{'-' * len(title)}")
    for name, value in rows.items():
        print(f"{name:<{width}}  {value:.4f}" if isinstance(value, float) else f"{name:<{width}}  {value}")
