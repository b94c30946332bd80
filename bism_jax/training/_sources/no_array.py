"""What is said of an item that is not one array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bism_jax.training._sources.arrays import has_axes

_LISTED = 4  # items of an error, among which labels and images are seen


def no_array(item: Any, kind: str, place: str, other_reading: str = "") -> TypeError:
    """The error for an item that is not one array; its advice can be followed as it is written."""
    name = type(item).__name__
    if isinstance(item, Mapping):
        found, part = f"{name}s with the keys {sorted(item, key=str)}", f"{kind}[{_main_key(item)!r}]"
    elif isinstance(item, (list, tuple)) and any(has_axes(value) for value in item):
        values = dict(enumerate(item))
        listed = ", ".join([_described(value) for value in item[:_LISTED]] + ["..."] * (len(item) > _LISTED))
        found, part = f"{name}s of {len(item)} items ({listed})", f"{kind}[{_main_key(values)}]"
    else:
        found, part = f"{name}s", f"np.asarray({kind})"
    if not isinstance(item, (Mapping, list, tuple)):
        advice = ""
    elif kind == "batch":
        advice = f": [{part} for batch in data], or for an endless loader the same in parentheses"
    else:
        advice = f": np.stack([{part} for row in (data[i] for i in range(len(data)))])"
    return TypeError(
        f"data yields {found}{place}, but one array is trained on; wrap it in a source whose items are the "
        f"arrays to train on{advice}{other_reading}."
    )


def _main_key(values: Mapping[Any, Any]) -> Any:
    """That of the first floating array, or else of the first array, or else the first."""
    arrays = [key for key, value in values.items() if has_axes(value)]
    floating = [key for key in arrays if "float" in str(getattr(values[key], "dtype", ""))]
    return next(iter(floating + arrays + list(values)), 0)


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return type(value).__name__
    return f"{getattr(value, 'dtype', type(value).__name__)} {tuple(shape)}"
