"""What one checkpoint holds, and what a run takes from it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from bism_jax.training._checkpoints.carry_over import carry_over, first_misfit, outline, to_arrays
from bism_jax.training._checkpoints.description import Description
from bism_jax.training._checkpoints.differences import differences
from bism_jax.training._checkpoints.digests import digest, digest_of_arrays
from bism_jax.training._loop.history import History
from bism_jax.training._loop.state import LoopState


class Content(NamedTuple):
    """A checkpoint on disk.

    Attributes:
        run: everything but arrays, as JSON.
        leaves: those of the state, by their numbers.
        scalars: the record, `[iterations]` each.
    """

    run: dict[str, Any]
    leaves: dict[str, np.ndarray]
    scalars: dict[str, np.ndarray]

    def checksum(self) -> str:
        """A checksum of everything in it."""
        parts = (self.run, digest_of_arrays(self.leaves), digest_of_arrays(self.scalars))
        return digest(json.dumps(parts, sort_keys=True).encode())


class Restored(NamedTuple):
    """A checkpoint as a run continues it.

    Attributes:
        state: the loop's.
        source_position: the data source's, or None where it is of other data.
        callbacks: the states of the callbacks that keep one.
        turns_due: whether an error ended the run before the callbacks of its last iteration were done.
        new_parts: what of the state starts anew.
        changes: how the run that wrote it differs from this one.
        description: what the run was that wrote it.
    """

    state: LoopState
    source_position: Any
    callbacks: dict[str, Any]
    turns_due: bool
    new_parts: list[str]
    changes: list[str]
    description: Description


def content_of(
    state: LoopState,
    description: Description,
    source_position: Any,
    history: History,
    callbacks: dict[str, Any],
    turns_due: bool,
) -> Content:
    """What `CheckpointStore.save` writes, all of it JSON or NumPy arrays."""
    arrays, scalars = to_arrays(state), history.scalars()
    run = {
        "description": {**description, "structure": outline(arrays)},
        "source_position": source_position,
        "evaluations": history.evaluations(),
        "callbacks": callbacks,
        "turns_due": turns_due,
        "scalars": list(scalars),
    }
    # Named tuples come back from disk as lists and dicts; a flat dict comes back as it went. Its names
    # have five digits, and so sort as text in the order of the leaves.
    leaves = {f"{index:05d}": leaf for index, leaf in enumerate(arrays.values())}
    return Content(run, leaves, scalars)


def check_same_run(
    found: Description, description: Description, state: LoopState, directory: epath.Path
) -> None:
    """Raises ValueError where a checkpoint is of another run, with how they differ and what can be done."""
    if "iteration" not in found:
        raise ValueError(
            f"checkpoint_dir={directory} was written by version 0.1.0, which did not record what "
            "decides a run. Choose another checkpoint_dir, or pass resume='parameters' to go on from "
            "its parameters and optimiser states."
        )
    changes = differences(found, description)
    if not changes:
        return
    message = (
        f"checkpoint_dir={directory} is that of another run: {'; '.join(changes)}. Choose another "
        "checkpoint_dir, or continue that run as it was started"
    )
    # The advice must work: parameters that do not fit would be refused by resume='parameters' too.
    misfit = first_misfit(found.get("structure", {}), outline(to_arrays(state)))
    if misfit:
        raise ValueError(f"{message}: {misfit}, so its parameters are of no use here.")
    raise ValueError(
        f"{message}, or pass resume='parameters' to go on from its parameters under the new settings."
    )


def continued(
    content: Content, target: LoopState, description: Description, strictly: bool, directory: epath.Path
) -> Restored:
    """A checkpoint in a state like `target`.

    Raises:
        ValueError: where the parameters do not fit, or for this very run anything else.
    """
    run, found = content.run, content.run["description"]
    numbered = zip(found["structure"], sorted(content.leaves), strict=True)
    arrays = {path: content.leaves[number] for path, number in numbered}
    state, new_parts = carry_over(target, arrays, strictly)
    if strictly and new_parts:
        raise ValueError(
            f"checkpoint_dir={directory} is that of another run: its {', '.join(new_parts)} has "
            "another structure. Choose another checkpoint_dir."
        )
    is_same_data = found.get("data") == description.get("data")
    return Restored(
        state,
        run["source_position"] if is_same_data else None,
        run.get("callbacks") or {},
        run.get("turns_due", False),
        new_parts,
        differences(found, description) if "iteration" in found else [],
        found,
    )
