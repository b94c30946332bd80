"""Checks of trees of arrays, such as parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from bism_jax._precision import as_working
from bism_jax.checks._arrays import is_finite, is_known


def arrays(name: str, tree: PyTree) -> PyTree:
    """The leaves of `tree` as arrays.

    Raises:
        TypeError: for a leaf that cannot be one, such as a string.
    """

    def convert(path: Any, leaf: Any) -> Array:
        try:
            if isinstance(leaf, (str, bytes)):  # NumPy may take it for the name of a dtype
                raise TypeError("a text")
            return jnp.asarray(leaf)
        except (TypeError, ValueError, OverflowError) as error:  # the last for integers beyond 64 bits
            where = name + jax.tree_util.keystr(path)
            raise TypeError(
                f"{where} is a {type(leaf).__name__}, which is no array of numbers ({error}); pass arrays, "
                "and what is none in a closure."
            ) from error

    return jax.tree_util.tree_map_with_path(convert, tree)


def floating_tree(name: str, tree: PyTree) -> None:
    """Raises ValueError unless `tree` has leaves and all of them are real floating arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise ValueError(f"{name} has no parameters: it is an empty tree.")
    for path, leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            where = name + jax.tree_util.keystr(path)
            is_complex = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
            advice = "pass its real and imaginary parts" if is_complex else "use a floating dtype"
            raise ValueError(
                f"{where} has dtype {leaf.dtype}, which cannot be optimised; {advice}, or pass it in theta "
                "or inputs."
            )


def parameters(name: str, tree: PyTree) -> None:
    """Raises ValueError unless `tree` has leaves and all of them are finite floating arrays."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float)):
            where = name + jax.tree_util.keystr(path)
            raise ValueError(f"{where} is a {type(leaf).__name__}; parameters are floating arrays.")
    floating_tree(name, jax.tree.map(lambda leaf: jnp.asarray(as_working(leaf)), tree))
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if is_known(leaf) and not is_finite(leaf).all():
            raise ValueError(f"{name}{jax.tree_util.keystr(path)} holds NaN or infinite values.")


def leading_axis(name: str, tree: PyTree, length: int) -> None:
    """Raises ValueError unless each leaf has a leading axis of `length`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if leaf.ndim == 0 or leaf.shape[0] != length:
            where = name + jax.tree_util.keystr(path)
            raise ValueError(
                f"{where} has shape {leaf.shape}, but needs a leading axis of num_steps={length}: one "
                "slice a lower-level step. Pass what does not change in theta."
            )
