"""Where an iterator is, in a form that a checkpoint can keep."""

from __future__ import annotations

import base64
import copy
from typing import Any


class ListIterator:
    """The items of a list, with a position that can be set."""

    def __init__(self, items: list[Any]) -> None:
        self._items, self._index = items, 0

    def __iter__(self) -> ListIterator:
        return self

    def __next__(self) -> Any:
        if self._index >= len(self._items):
            raise StopIteration
        self._index += 1
        return self._items[self._index - 1]

    def get_state(self) -> int:
        """The index of the next item."""
        return self._index

    def set_state(self, state: int) -> None:
        """Goes to an index."""
        self._index = state


def keeps_state(iterator: Any) -> bool:
    """Whether it can be set back."""
    return hasattr(iterator, "get_state") and hasattr(iterator, "set_state")


def state_of(iterator: Any) -> dict[str, Any]:
    """As JSON.

    Raises:
        TypeError: where the iterator's state is neither bytes nor comes back from JSON as it went.
    """
    state = copy.deepcopy(iterator.get_state())  # some return the dict that they go on changing
    if isinstance(state, (bytes, bytearray)):
        return {"base64": base64.b64encode(state).decode()}
    if not _is_json(state):
        raise TypeError(
            f"data: get_state() returns {state!r}, which a checkpoint cannot keep; return bytes, or "
            "numbers, text, lists and dicts with text for keys."
        )
    return {"json": state}


def set_state(iterator: Any, position: dict[str, Any]) -> None:
    """Returns to what `state_of` gave."""
    state = base64.b64decode(position["base64"]) if "base64" in position else position["json"]
    iterator.set_state(copy.deepcopy(state))


def _is_json(value: Any) -> bool:
    """Whether it comes back from JSON as it went."""
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_json, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    # Exactly: a float64 of NumPy is a float, and would come back as Python's.
    return value is None or type(value) in (bool, int, float, str)
