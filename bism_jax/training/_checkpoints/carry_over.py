"""The state of a run as arrays by path, and back: into this run's, as far as its parts fit."""

from __future__ import annotations

import jax
import numpy as np

from bism_jax._jax_switches import with_transfers
from bism_jax.training._loop.state import LoopState, as_data, like

_PARAMETERS = (".method_state.theta", ".method_state.phi")
_KEY = ".key_data"  # the name on disk of the run's key, since version 0.1.0

Arrays = dict[str, np.ndarray]


@with_transfers
def to_arrays(state: LoopState) -> Arrays:
    """Each leaf by its path, in the order of the tree; keys by their data, since only that can go to disk."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {_on_disk(jax.tree_util.keystr(path)): np.asarray(as_data(leaf)) for path, leaf in leaves}


def _on_disk(path: str) -> str:
    return _KEY if path == ".rng_key" else path


def outline(arrays: Arrays) -> dict[str, str]:
    """Dtype and shape of each."""
    return {path: f"{array.dtype}{list(array.shape)}" for path, array in arrays.items()}


@with_transfers
def carry_over(target: LoopState, found: Arrays, strictly: bool) -> tuple[LoopState, list[str]]:
    """`target` with the parts of a checkpoint that fit it, and the names of those that do not.

    Another run, for which `strictly` is False, keeps its own key and hyperparameters.

    Raises:
        ValueError: where the parameters do not fit.
    """
    arrays = to_arrays(target)
    taken, new_parts = dict(arrays), []
    for part in sorted({_part_of(path) for path in [*arrays, *found]}):
        own, saved = _within(arrays, part), _within(found, part)
        if outline(own) == outline(saved):
            # The hyperparameters that optax.inject_hyperparams keeps in a state are settings.
            taken |= {path: leaf for path, leaf in saved.items() if ".hyperparams[" not in path or strictly}
        elif own:
            new_parts.append(part.removeprefix(".method_state").removeprefix("."))
            if part in _PARAMETERS:
                raise ValueError(_misfit(new_parts[-1], own, saved))
    if not strictly:
        taken[_KEY] = arrays[_KEY]
    if "theta_ema" in new_parts:
        # An average that starts now starts at the parameters taken, not at this run's random ones.
        average = _within(arrays, ".theta_ema")
        taken |= {path: taken[path.replace(".theta_ema", ".method_state.theta", 1)] for path in average}
    leaves, structure = jax.tree.flatten(target)
    # In the order of the leaves, since `|=` leaves a key where it is.
    return jax.tree.unflatten(structure, map(like, leaves, taken.values())), new_parts


def first_misfit(found: dict[str, str], expected: dict[str, str]) -> str:
    """The first parameter of another shape or dtype, or an empty text."""
    there, here = (
        {path: leaf for path, leaf in structure.items() if _part_of(path) in _PARAMETERS}
        for structure in (found, expected)
    )
    return "" if there == here else _first_difference(there, here)


def _part_of(path: str) -> str:
    """The attribute of the method's state that a leaf is in, or of the loop's."""
    names = path.partition("[")[0].split(".")
    return ".".join(names[:3] if names[1] == "method_state" else names[:2])


def _within(arrays: Arrays, part: str) -> Arrays:
    return {path: leaf for path, leaf in arrays.items() if _part_of(path) == part}


def _misfit(name: str, own: Arrays, saved: Arrays) -> str:
    return (
        f"checkpoint_dir: the {name} of its checkpoint does not fit the model: "
        f"{_first_difference(outline(saved), outline(own))}. Pass the same model, or choose another "
        "checkpoint_dir."
    )


def _first_difference(there: dict[str, str], here: dict[str, str]) -> str:
    path = next(path for path in sorted({*here, *there}) if here.get(path) != there.get(path))
    old, new = there.get(path, "nothing"), here.get(path, "nothing")
    return f"{path.removeprefix('.method_state.')} is {old} there and {new} here"
