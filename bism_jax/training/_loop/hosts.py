"""Several processes that train one model together, or refuse to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

_Result = TypeVar("_Result")
_CONSEQUENCES = ("iteration", "initial_state")  # of other differences, which are what to tell
# The type of an error between processes differs by what carries their messages; these words tell it.
_TRANSPORTS = ("Gloo", "NCCL", "UNAVAILABLE", "heartbeat")


class HostGoneError(RuntimeError):
    """Another process of the run is gone, so that nothing may wait for it."""


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def together(prepare: Callable[[], _Result]) -> _Result:
    """`prepare()`, and an error on every process where it fails on one.

    The others would wait for the one that is gone.

    Raises:
        Exception: what `prepare` raised here.
        ValueError: naming the process and the reason, where it failed elsewhere.
    """
    if jax.process_count() == 1:
        return prepare()
    try:
        result = prepare()
    except Exception as error:
        _gather(f"{type(error).__name__}: {error}")
        raise
    failures = {index: text for index, text in enumerate(_gather("")) if text}
    if failures:
        listed = "; ".join(f"process {index}: {text}" for index, text in failures.items())
        raise ValueError(f"this run was refused by another of its {jax.process_count()} processes: {listed}")
    return result


def check_agreement(settings: dict[str, Any]) -> None:
    """Raises ValueError, on every process, where the processes do not have the same settings."""
    if jax.process_count() == 1:
        return
    everyone = [_flatten(json.loads(text)) for text in _gather(json.dumps(settings))]
    names = sorted({name for each in everyone for name in each})
    differing = [name for name in names if len({str(each.get(name)) for each in everyone}) > 1]
    causes = [name for name in differing if not name.startswith(_CONSEQUENCES)]
    differing = causes or differing
    if differing:
        listed = "; ".join(
            f"{name} is " + ", ".join(f"{each.get(name)} on process {i}" for i, each in enumerate(everyone))
            for name in differing
        )
        raise ValueError(
            f"the {len(everyone)} processes of this run disagree: {listed}. Start all of them by the same "
            "call, with the same versions."
        )


@contextlib.contextmanager
def expect_all(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Says what has happened where a process waits for one that is gone.

    Raises:
        HostGoneError: in place of an error of the transport between the processes.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or not is_of_transport(error):
            raise
        reason = str(error).partition("\n")[0]
        raise HostGoneError(
            f"the {jax.process_count()} processes could not go on together, most likely because one of them "
            f"is gone ({reason}). {how_to_go_on()}"
        ) from None


def is_of_transport(error: Exception) -> bool:
    """Whether an error comes from the way between the processes."""
    return isinstance(error, jax.errors.JaxRuntimeError) or any(name in str(error) for name in _TRANSPORTS)


def wait(what: str) -> None:
    """Returns when every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def smallest_and_largest(smallest: int, largest: int) -> tuple[int, int]:
    """The smallest of one number and the largest of another over the processes."""
    if jax.process_count() == 1:
        return smallest, largest
    numbers = np.asarray(multihost_utils.process_allgather(np.array([smallest, largest], np.int32)))
    return int(numbers[:, 0].min()), int(numbers[:, 1].max())


def _gather(text: str) -> list[str]:
    """The text of every process."""
    raw = np.frombuffer(text.encode(), np.uint8)
    # First how long each is: `process_allgather` takes arrays of one shape.
    lengths = np.asarray(multihost_utils.process_allgather(np.array([raw.size], np.int32))).ravel()
    padded = np.zeros(max(1, int(lengths.max())), np.uint8)
    padded[: raw.size] = raw
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]


def _flatten(settings: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict):
        return {name: settings}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flatten(value, f"{name}.{key}" if name else key)
    return found
