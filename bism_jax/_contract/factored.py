"""Energies whose costly part does not depend on the latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float, PyTree

from bism_jax import checks
from bism_jax._contract.adapters import Model
from bism_jax.typing import EnergyFn, Params


@dataclass(frozen=True)
class FactoredEnergy:
    """E(v, h) = head(v, features(v), h): a method that evaluates many h at one v computes the features once.

    Attributes:
        features: `(theta, v) -> f`, a pytree of `[B, ...]`.
        head: `(theta, v, f, h) -> [B]`.

    Raises:
        TypeError: where one of them is no function.
    """

    features: Callable[[Params, Array], PyTree]
    head: Callable[[Params, Array, PyTree, Array], Float[Array, " batch"]]

    def __post_init__(self) -> None:
        checks.function("features", self.features, "(theta, v) -> f")
        checks.function("head", self.head, "(theta, v, f, h) -> [B]")

    def __call__(self, theta: Params, v: Array, h: Array) -> Float[Array, " batch"]:
        """The plain energy, `[B]`."""
        return self.head(theta, v, self.features(theta, v), h)


def is_factored(energy: Model) -> bool:
    """Whether a model has `features` and `head` of its own; raises TypeError for anything but a `Model`."""
    _check_model(energy)
    return energy.method("features") is not None and energy.method("head") is not None


def factor(energy: Model) -> FactoredEnergy:
    """The factored form of a model: its own `features` and `head`, or no features at all.

    Raises:
        TypeError: for anything but a `Model`.
    """
    _check_model(energy)
    features, head = energy.method("features"), energy.method("head")
    if features is None or head is None:
        return without_features(energy.apply)
    return FactoredEnergy(features, head)


def without_features(energy_fn: EnergyFn) -> FactoredEnergy:
    """Any energy as a head of its own; raises TypeError for anything but a function."""
    checks.function("energy_fn", energy_fn, "(theta, v, h) -> [B]")
    return FactoredEnergy(_no_features, lambda theta, v, features, h: energy_fn(theta, v, h))


def _check_model(energy: Any) -> None:
    if not isinstance(energy, Model):
        raise TypeError(f"energy must be a Model, as_model('energy_fn', energy_fn), not {energy!r:.200}.")


def _no_features(theta: Params, v: Array) -> tuple[Any, ...]:
    # No leaves, so that loops, `vmap` and `vjp` carry it at no cost.
    return ()
