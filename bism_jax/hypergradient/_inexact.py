"""Splits a tree into leaves that can carry a gradient and leaves that cannot."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from bism_jax._tracing.jaxprs import is_inexact


def split_inexact(tree: PyTree) -> tuple[PyTree, PyTree]:
    """The real and complex leaves, and the integer and key leaves; each with None in place of the others."""
    inexact = jax.tree.map(lambda leaf: leaf if is_inexact(leaf) else None, tree)
    rest = jax.tree.map(lambda leaf: None if is_inexact(leaf) else jnp.asarray(leaf), tree)
    return inexact, rest


def join_inexact(inexact: PyTree, rest: PyTree) -> PyTree:
    """The inverse of `split_inexact`."""
    return jax.tree.map(
        lambda left, right: right if left is None else left,
        inexact,
        rest,
        # A None is no leaf to JAX, so that without this the two trees would differ in structure.
        is_leaf=lambda leaf: leaf is None,
    )
