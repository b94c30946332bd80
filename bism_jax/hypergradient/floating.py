"""Splits a tree into leaves that can carry a gradient and leaves that cannot."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from bism_jax.jaxprs import is_floating


def split_floating(tree: PyTree) -> tuple[PyTree, PyTree]:
    """The floating leaves, and the integer and key leaves; each with None in place of the others."""
    floating = jax.tree.map(lambda leaf: leaf if is_floating(leaf) else None, tree)
    rest = jax.tree.map(lambda leaf: None if is_floating(leaf) else jnp.asarray(leaf), tree)
    return floating, rest


def join_floating(floating: PyTree, rest: PyTree) -> PyTree:
    """The inverse of `split_floating`."""
    return jax.tree.map(
        lambda left, right: right if left is None else left,
        floating,
        rest,
        is_leaf=lambda leaf: leaf is None,
    )
