"""What callbacks measure, as numbers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from bism_jax._paths import is_unicode


def numbers_of(source: str, measured: Any) -> dict[str, float]:
    """What `source` measured.

    Raises:
        TypeError: for anything but a mapping of names to numbers, naming what does not fit.
    """
    if not isinstance(measured, Mapping):
        raise TypeError(
            f"{source} must return a mapping of names to numbers, not a {type(measured).__name__}."
        )
    for name, value in measured.items():
        # Half of a surrogate pair in a name could not be written to a log as UTF-8.
        if not isinstance(name, str) or not is_unicode(name) or not _is_number(value):
            what = f"an array of shape {np.shape(value)}" if np.ndim(value) else repr(value)
            raise TypeError(
                f"{source} must return numbers by name, but {name!r} is {what}; return one such as "
                f"{{'{name}': float(value.mean())}}."
            )
    return {name: float(value) for name, value in measured.items()}


def _is_number(value: Any) -> bool:
    dtype = np.asarray(value).dtype
    # NumPy's kind of bfloat16 is "V", so JAX is asked too.
    return np.ndim(value) == 0 and (dtype.kind in "biuf" or jnp.issubdtype(dtype, jnp.floating))
