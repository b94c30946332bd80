"""The functions that a model may have beside its energy, and what is said where one is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bism_jax._contract import Model
from bism_jax.errors import MissingCapability

_SIGNATURES = {
    "free_energy": "method free_energy(v)",
    "log_partition": "method log_partition()",
    "sample_h": "method sample_h(rng_key, v)",
    "sample_v": "method sample_v(rng_key, h)",
}


def require_functions(energy: Model, names: tuple[str, ...]) -> list[Callable[..., Any]]:
    """The model's functions of these names.

    Raises:
        MissingCapability: naming what is missing; the caller says what for.
    """
    missing = missing_functions(energy, names)
    if missing:
        listed = " and no ".join(_SIGNATURES[name] for name in missing)
        raise MissingCapability(f"energy_fn={energy.name} has no {listed}")
    return [function for name in names if (function := energy.method(name)) is not None]


def missing_functions(energy: Model, names: tuple[str, ...]) -> list[str]:
    """Which of the names the model has no function of."""
    return [name for name in names if energy.method(name) is None]


def marginal_model(energy: Model) -> Model:
    """The model with its free energy F(theta, v) in the place of its energy.

    Raises:
        MissingCapability: where it has none.
    """
    (free_energy,) = require_functions(energy, ("free_energy",))
    return replace(energy, apply=free_energy)
