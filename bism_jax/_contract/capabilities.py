"""What a method asks of a model, and which methods a model supports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bism_jax._contract import Model, as_model

_POSTERIOR = "a posterior_fn"
_CHAINS = (
    (("sample_h", "sample_v"), ""),
    (("free_energy",), "chain=Langevin()"),
    ((), "chain=Langevin(latent_shape=...)"),
)

# The ways to use a method: the functions of the model that it needs, and what it wants beside the model.
_WAYS: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "BiSM": (((), _POSTERIOR),),
    "VaGES": (((), _POSTERIOR),),
    "VNCE": (((), _POSTERIOR),),
    "ScoreMatching": (
        (("free_energy",), ""),
        ((), "free_energy=UniformBinary(...) for binary latents"),
    ),
    "NCE": ((("free_energy",), ""),),
    "BiDVL": ((("free_energy",), _POSTERIOR),),
    "ContrastiveDivergence": _CHAINS,
    "PersistentContrastiveDivergence": _CHAINS,
    "PersistentVI": _CHAINS,
}
_SIGNATURES = {
    "free_energy": "method free_energy(v)",
    "sample_h": "method sample_h(rng_key, v)",
    "sample_v": "method sample_v(rng_key, h)",
}


def supported_methods(energy_fn: Any) -> dict[str, str]:
    """The methods that can train a model.

    Args:
        energy_fn: a Flax module or a function.

    Returns:
        For each method its condition: `""` where the model is enough, `"a posterior_fn"`, or the option
        of the method to choose.
    """
    return _supported_methods(as_model("energy_fn", energy_fn))


def require(method: str, energy: Model, names: tuple[str, ...]) -> list[Callable[..., Any]]:
    """The model's functions of these names.

    Raises:
        ValueError: naming what is missing, and the methods that the model does support.
    """
    missing = _missing(energy, names)
    if missing:
        listed = " and no ".join(_SIGNATURES[name] for name in missing)
        supported = _supported_methods(energy).items()
        methods = ", ".join(f"{name} (with {extra})" if extra else name for name, extra in supported)
        raise ValueError(
            f"{method} needs more of the model: energy_fn={energy.name} has no {listed}. Add it where it has "
            f"a closed form, or train by what the model supports: {methods}."
        )
    return [function for name in names if (function := energy.method(name)) is not None]


def require_posterior(method: str, posterior_fn: Any) -> Model:
    """The posterior as a model.

    Raises:
        ValueError: where there is none.
    """
    if posterior_fn is None:
        raise ValueError(
            f"{method} needs a posterior_fn, since it fits q(h|v; phi). Pass one, for instance "
            "GaussianPosterior(num_hidden=8), or train a free energy by ScoreMatching."
        )
    return as_model("posterior_fn", posterior_fn)


def refuse_posterior(method: str, posterior_fn: Any) -> None:
    """Raises ValueError where a posterior is given to a method that has no use for one."""
    if posterior_fn is not None:
        raise ValueError(
            f"{method} takes no posterior_fn: pass None, or train by BiSM, VaGES, VNCE or BiDVL."
        )


def marginal_model(method: str, energy_fn: Any) -> Model:
    """The model with its free energy F(theta, v) in the place of its energy.

    Raises:
        ValueError: where it has none.
    """
    energy = as_model("energy_fn", energy_fn)
    (free_energy,) = require(method, energy, ("free_energy",))
    return replace(energy, apply=free_energy)


def _supported_methods(energy: Model) -> dict[str, str]:
    supported = {}
    for method, ways in _WAYS.items():
        conditions = [condition for names, condition in ways if not _missing(energy, names)]
        if conditions:
            supported[method] = conditions[0]
    return supported


def _missing(energy: Model, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if energy.method(name) is None]
