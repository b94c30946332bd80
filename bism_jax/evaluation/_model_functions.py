"""Asks a model for what an evaluation needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from bism_jax._contract.guarded_calls import check_parameters, guarded_model, one_value_a_row
from bism_jax.checks import floating_rows, shown
from bism_jax.errors import MissingCapability, ModelError
from bism_jax.typing import Params


def capability_of(caller: str, energy_fn: Any, name: str) -> Callable[..., Any]:
    """The model's function `name`, in its pure form, which names its arguments where it cannot be evaluated.

    Raises:
        MissingCapability: where the model lacks it.
    """
    model = guarded_model("energy_fn", energy_fn)
    function = model.method(name)
    if function is None:
        raise MissingCapability(
            f"{caller} needs {name}, which energy_fn={model.name} lacks; add it as a method."
        )
    # The other functions draw or have one value a model, so that their shapes follow no rule.
    return _a_value_each(f"energy_fn={model.name}: {name}", function) if name == "free_energy" else function


def energy_of(energy_fn: Any) -> Callable[..., Any]:
    """The energy `(theta, v, h) -> [B]` in its pure form; errors name its arguments too."""
    model = guarded_model("energy_fn", energy_fn)
    return _a_value_each(f"energy_fn={model.name}", model.apply)


def posterior_of(posterior_fn: Any) -> Callable[..., Any]:
    """The posterior `(phi, v) -> distribution` in its pure form; errors name its arguments too."""
    model = guarded_model("posterior_fn", posterior_fn)

    def checked(phi: Params, v: Array) -> Any:
        posterior = model.apply(phi, v)
        # What functions return by mistake, such as (mean, std): a user's distribution need not be numpyro's.
        if isinstance(
            posterior, (jax.Array, np.ndarray, np.generic, float, int, tuple, list, dict, str, type(None))
        ):
            raise ModelError(
                f"posterior_fn={model.name} must return a distribution, such as "
                f"dist.Normal(mean, std).to_event(1), not {shown(posterior)}."
            )
        return posterior

    return checked


def checked_rows(energy_fn: Any, theta: Params, v: Any) -> Array | np.ndarray:
    """Checks parameters for a model, and gives its points as an array.

    Raises:
        TypeError: where either has the wrong type.
        ValueError: where either holds NaN, or v is empty or not floating.
    """
    # Parameters of another model often fit in part, and fail deep inside or give a number.
    check_parameters("theta", theta, "energy_fn", energy_fn)
    return floating_rows("v", v)


def _a_value_each(name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    def checked(theta: Params, v: Array, *args: Array) -> Array:
        values = fn(theta, v, *args)
        one_value_a_row(name, values, v.shape[0])
        return values

    return checked
