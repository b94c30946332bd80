"""How two runs differ, in the words of who started them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bism_jax.training._checkpoints.description import Description
from bism_jax.training._checkpoints.digests import digest

# The parts that decide. The others, which name what a difference comes from, may differ where these agree: a
# function that was renamed, or a list that a closure fills, changes no number.
_DECISIVE = (
    "iteration",
    "data",
    "batch_size",
    "rng_key",
    "ema_decay",
    "init_params",
    "initial_state",
    "settings",
)
# Another processor rounds an initial state otherwise, in the last of seven digits.
_SAME_INITIAL_STATE = 1e-5
_INITIAL = "initial state"
# A deep model differs in all of its layers, and a message has to end: differences, and characters of a value.
_MAX_NAMED = 8
_MAX_LENGTH = 60
# How optax nests what a user wrote: of method.optimizer.update.update_fns[1].tx.update.step_size they know
# method.optimizer.step_size.
_OPTAX_PARTS = re.compile(r"\.(update|init|update_fns\[\d+\]|init_fns\[\d+\]|tx)(?=\.)")


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What differs between two descriptions of runs, `name: old → new` each; empty for the same run.

    `found` may lack parts, as one that an earlier version wrote does.
    """
    start, expected_start = found.get("initial_state"), expected.get("initial_state")
    found = {**found, "initial_state": _as_expected(start, expected_start)}
    if all(found.get(name) == expected.get(name) for name in _DECISIVE):
        return []
    named = [*_compare("", _without_iteration(found), _without_iteration(expected))]
    causes = [text for text in named if not text.startswith(_INITIAL)]
    if found.get("iteration") == expected.get("iteration") and found["initial_state"] == expected_start:
        return [text for text in causes if text.startswith(_DECISIVE)]  # nothing else decides
    return (
        causes
        or _shortened(named)
        or [_difference_of_iterations(found.get("iteration") or {}, expected["iteration"])]
    )


def _shortened(texts: list[str]) -> list[str]:
    more = len(texts) - _MAX_NAMED
    return texts if more <= 0 else [*texts[:_MAX_NAMED], f"and {more} more"]


def _as_expected(found: Any, expected: Any) -> Any:
    """The initial state that was found, where it is the expected one but for rounding as that one."""
    if not isinstance(found, Mapping) or not isinstance(expected, Mapping) or found.keys() != expected.keys():
        return found
    return {
        path: expected[path] if _is_same_leaf(leaf, expected[path]) else leaf for path, leaf in found.items()
    }


def _is_same_leaf(found: list[float], expected: list[float]) -> bool:
    # Both within a tolerance of the norm: a projection may cancel to nearly 0.
    same_codes = found[2:] == expected[2:]
    return same_codes and np.allclose(found[:2], expected[:2], 0, _SAME_INITIAL_STATE * expected[0])


def _without_iteration(description: Mapping[str, Any]) -> Description:
    return {name: value for name, value in description.items() if name not in ("iteration", "structure")}


def _difference_of_iterations(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    if found.get("operations") != expected["operations"]:
        return (
            "the iteration has other operations: the code of the energy, the posterior, an optimiser or this "
            "library, or a setting of JAX, has changed"
        )
    pairs = zip(found["constants"], expected["constants"], strict=True)
    changed = list(dict.fromkeys(f"{old} → {new}" for old, new in pairs if old != new))
    more = f" and {len(changed) - _MAX_NAMED} more" if len(changed) > _MAX_NAMED else ""
    return f"constants of the iteration: {', '.join(changed[:_MAX_NAMED])}{more}"


def _compare(name: str, found: Any, expected: Any) -> Iterator[str]:
    if found == expected:
        return
    if isinstance(found, Mapping) and isinstance(expected, Mapping) and _type(found) == _type(expected):
        for key in sorted({*found, *expected}):
            yield from _compare(f"{name}.{key}" if name else key, found.get(key), expected.get(key))
    elif name.startswith("initial_state."):
        part = name.partition(".")[2]
        # A scalar, of which the norm is the projection's absolute value, can be shown.
        old, new = (
            f"{of[1]:g}" if of and of[0] == abs(of[1]) else "other values" for of in (found, expected)
        )
        yield f"{_INITIAL}: {part}: {old} → {new}" if old != new else f"{_INITIAL}: {part} has {new}"
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (old, new) in enumerate(zip(found, expected, strict=True)):
            yield from _compare(f"{name}[{index}]", old, new)
    else:
        old, new = _brief(found), _brief(expected)
        if old == new:  # two long values may be cut to the same text
            old, new = f"{old} {digest(str(found).encode())}", f"{new} {digest(str(expected).encode())}"
        yield f"{_OPTAX_PARTS.sub('', name)}: {old} → {new}"


def _type(description: Mapping[str, Any]) -> Any:
    return description.get("type")


def _brief(value: Any) -> str:
    """A value in a message; of a part with many parts of its own, what it is."""
    if isinstance(value, Mapping):
        parts = ", ".join(f"{name}={_brief(part)}" for name, part in value.items() if name != "type")
        kind = value.get("type", "")
        return f"{kind}({parts if len(parts) <= _MAX_LENGTH else '...'})"
    if isinstance(value, list):
        parts = ", ".join(map(_brief, value))
        return f"[{parts if len(parts) <= _MAX_LENGTH else '...'}]"
    return str(value)
