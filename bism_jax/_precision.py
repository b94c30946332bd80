"""The floating type that a run computes in."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def working_dtype(dtype: Any) -> np.dtype:
    """What numbers of a floating dtype are computed in: float32, and for float64 and beyond JAX's own float.

    Squares overflow beyond 256 in float16, whose largest number is 65,504; eight bits of bfloat16 lose an
    update of a thousandth; float8 has fewer. Every number of these is one of float32 too. JAX's own float is
    float64 under `jax_enable_x64`, otherwise float32.

    Modules draw their parameters in that of their input, so that the data decides: float32 data trains the
    same float32 model whether JAX is set to float64 or not.
    """
    return np.dtype(jnp.float32 if np.dtype(dtype).itemsize < 8 else jax.dtypes.canonicalize_dtype(float))


def is_floating_dtype(dtype: Any) -> bool:
    """Whether it is a real floating dtype, NumPy's or one of JAX's narrow ones."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):  # a key's, of which NumPy knows nothing
        return False
    return np.issubdtype(dtype, np.floating) or jnp.issubdtype(dtype, jnp.floating)


def as_working(leaf: Any) -> Any:
    """A floating array in its working dtype, and anything else as it is."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or not is_floating_dtype(dtype) or dtype == working_dtype(dtype):
        return leaf
    if isinstance(leaf, jax.Array):
        return leaf.astype(working_dtype(dtype))  # where it lies; NumPy would fetch it to the host
    with np.errstate(over="ignore"):  # what it cannot hold is infinite, for the caller to find
        return np.asarray(leaf, working_dtype(dtype))


def as_native(array: np.ndarray) -> np.ndarray:
    """An array in the byte order of this machine, the only one that JAX takes; FITS has the other."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
