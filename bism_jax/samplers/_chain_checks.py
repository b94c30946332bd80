"""Checks of the states of Markov chains and of their energies."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from bism_jax import checks
from bism_jax._tracing.compilation import call_compiled
from bism_jax.checks import as_numbers, called, is_finite, is_known, shown


def function(name: str, value: Any, signature: str) -> None:
    """Raises TypeError unless `value` is a pure function that can identify what was compiled for it."""
    if isinstance(value, type) or hasattr(value, "apply") or not callable(value):
        raise TypeError(
            f"{name} must be a pure function {signature}, not {type(value).__name__}; of a Flax module it is "
            "module.apply, and of its factored form models.factor(models.as_model('energy_fn', module))."
        )
    # jit finds its programs by a static argument's hash.
    if not isinstance(value, Hashable):
        raise TypeError(
            f"{name} of type {type(value).__name__} has no hash; pass a plain function {signature}."
        )


def callable_energy(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is a function of the states alone."""
    if isinstance(value, type) or hasattr(value, "apply") or not callable(value):
        raise TypeError(
            f"{name} must be a function x -> [chains], not {shown(value)}; of a Flax module it is lambda x: "
            "module.apply(theta, x)."
        )


def states(name: str, x: PyTree) -> PyTree:
    """Gives x as arrays.

    Raises:
        TypeError: for leaves that are no arrays of numbers.
        ValueError: unless it is a pytree of floating arrays with one leading axis, of chains.
    """
    x = _as_arrays(name, x)
    leaves = [
        (name + jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(x)
    ]
    if not leaves:
        raise ValueError(f"{name} is an empty tree; give at least one array [chains, ...].")
    for where, leaf in leaves:
        _check_floating(where, leaf)
    first, length = leaves[0][0], np.shape(leaves[0][1])[0]
    for where, leaf in leaves:
        if np.shape(leaf)[0] != length:
            raise ValueError(
                f"{where} has {np.shape(leaf)[0]} chains, but {first} has {length}; give as many."
            )
    # A dtype of its own drops the weak type, which would not survive a loop.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), x)


def finite(name: str, x: PyTree) -> None:
    """Raises ValueError where a known value of x is NaN or infinite; what is traced is not known."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        if not is_known(leaf):
            continue
        # A chain that starts at NaN stays there, and its samples look like a fault of the energy.
        bad = ~is_finite(leaf).reshape(len(leaf), -1).all(axis=1)
        if bad.any():
            where = name + jax.tree_util.keystr(path)
            raise ValueError(
                f"{where} holds NaN or infinite values, the first in chain {int(np.argmax(bad))}; start its "
                "chains from finite numbers."
            )


def same_chains(name: str, x: Array, other_name: str, other: Array) -> None:
    """Raises ValueError unless both have one row a chain."""
    if len(x) != len(other):
        raise ValueError(
            f"{name} has shape {x.shape}, {len(x)} rows, but {other_name} has {len(other)}; give one row a "
            f"chain, and repeat a row that several chains share: jnp.repeat({name}, count, axis=0)."
        )


def mask(name: str, value: Any, like_name: str, like: Array) -> Bool[Array, "..."]:
    """`value` as an array.

    Raises:
        ValueError: unless it holds booleans of the shape of `like`.
    """
    value = as_numbers(name, value, f"of booleans of the shape of {like_name}")
    if jnp.result_type(value) != jnp.bool_:
        raise ValueError(
            f"{name} has dtype {jnp.result_type(value)}, but a mask holds booleans, True where {like_name} "
            f"is known; compare first, such as {name} > 0.5."
        )
    if np.shape(value) != like.shape:
        raise ValueError(
            f"{name} has shape {np.shape(value)}, but {like_name} has {like.shape}; give one boolean an "
            f"entry, such as jnp.broadcast_to({name}, {like_name}.shape)."
        )
    return jnp.asarray(value)


def start(
    energy_fn: Callable[[PyTree], Float[Array, " chains"]], rng_key: Any, x: PyTree
) -> tuple[Array, PyTree]:
    """The key and the states that chains of `energy_fn` start from, as arrays.

    Raises:
        TypeError: for a wrong type of the key, or of a leaf of x.
        ValueError: where x is empty, not floating or not finite, or `energy_fn` does not return one energy a
            chain.
    """
    rng_key = checks.rng_key("rng_key", rng_key)
    x = states("x", x)
    finite("x", x)
    one_energy_a_chain("energy_fn", energy_fn, x)
    _unmixed("energy_fn", energy_fn, x)
    return rng_key, x


def one_energy_a_chain(
    name: str, energies_fn: Callable[[PyTree], Float[Array, " chains"]], x: PyTree
) -> None:
    """Raises ValueError unless `energies_fn(x)` is a floating vector with one entry a chain."""
    chains = jax.tree.leaves(x)[0].shape[0]
    # By shapes: the energy is not run, nor compiled.
    found = called(name, jax.eval_shape, energies_fn, x)
    if getattr(found, "shape", None) != (chains,) or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
            f"{name} must return one energy a chain, floating and of shape {(chains,)}, but returns {found}; "
            "sum over every axis but the first."
        )


def _unmixed(name: str, energies_fn: Callable[[PyTree], Float[Array, " chains"]], x: PyTree) -> None:
    """Raises ValueError where the energy of the first chain has a gradient in another."""
    if not all(map(is_known, jax.tree.leaves(x))):
        return
    # The first chain stands for all, since what mixes rows, such as a norm over the batch, mixes every one.
    gradients = call_compiled(jax.grad(lambda x: energies_fn(x)[0]), x)
    if any(np.any(np.abs(np.asarray(leaf)[1:]) > 0) for leaf in jax.tree.leaves(gradients)):
        raise ValueError(
            f"{name} gives a chain an energy that depends on the other chains, so no chain would have the "
            "law of its own energy; sum over every axis but the first, and leave out what mixes rows."
        )


def _check_floating(where: str, leaf: Any) -> None:
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{where} has dtype {dtype}, but Langevin steps need floating states; convert it.")
    if np.ndim(leaf) == 0:
        raise ValueError(f"{where} is a scalar; give one row a chain, [chains, ...].")
    if 0 in np.shape(leaf):
        raise ValueError(f"{where} has shape {np.shape(leaf)}, which is empty; give at least one chain.")


def _as_arrays(name: str, x: PyTree) -> PyTree:
    """What JAX takes for leaves as arrays; of other leaves it knows no dtype."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: as_numbers(name + jax.tree_util.keystr(path), leaf, "[chains, ...]"), x
    )
