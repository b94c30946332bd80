"""Checksums of arrays and of text."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


def digest_of_arrays(tree: PyTree) -> str:
    """A checksum of the values, shapes and dtypes of a tree."""
    return digest(*(part for leaf in jax.tree.leaves(tree) for part in array_parts(np.asarray(leaf))))


def digest(*parts: Any) -> str:
    """A short checksum of bytes or of arrays of bytes."""
    # 64 bits: enough against accidents, and short in a message.
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def array_parts(array: np.ndarray) -> tuple[bytes, Any]:
    """What an array is told by: dtype and shape, and its bytes, or the text of objects."""
    outline = f"{array.dtype}{array.shape}".encode()
    if array.dtype.kind == "O":  # whose bytes are addresses
        return outline, str(array).encode()
    # A view, as `tobytes` would copy all of a large data set.
    return outline, np.ascontiguousarray(array).reshape(-1).view(np.uint8)
