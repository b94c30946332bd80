"""Asks a model for what an evaluation needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bism_jax.models import as_model


def require(caller: str, energy_fn: Any, name: str) -> Callable[..., Any]:
    """The model's function `name`, in its pure form.

    Raises:
        ValueError: where the model lacks it.
    """
    model = as_model("energy_fn", energy_fn)
    function = model.method(name)
    if function is None:
        raise ValueError(f"{caller} needs {name}, which energy_fn={model.name} lacks; add it as a method.")
    return function
