"""What the lists share: reasons for those of the calls that meet them, and loaders of what is not there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.malformed.values import MALFORMED


def of_kinds(kinds: Mapping[str, str], reasons: Mapping[str, str]) -> dict[str, str]:
    """The reasons, by `"argument: name of the value"`, whose argument is of a kind with such a value."""
    met = {f"{argument}: {bad.name}" for argument, kind in kinds.items() for bad in MALFORMED[kind]}
    return {what: reason for what, reason in reasons.items() if what in met}


def but_for(loader: Callable[..., Any], valid: Mapping[str, Any]) -> Callable[..., Any]:
    """`loader`, which reads nothing for the arguments of the valid call: the files are not there."""

    @functools.wraps(loader)
    def load(**arguments: Any) -> Any:
        is_valid = all(arguments.get(name) is value for name, value in valid.items())
        return None if is_valid else loader(**arguments)

    return load
