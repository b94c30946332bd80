"""What methods have in common: a name, what they need of a model, and how they are bound to one."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from bism_jax._contract import Model, as_model
from bism_jax._contract.capabilities import missing_functions
from bism_jax.errors import MissingCapability
from bism_jax.methods._common.algorithm import checked_algorithm
from bism_jax.methods._common.pickling import PicklableMethod
from bism_jax.methods._common.shards import BatchShard
from bism_jax.typing import Algorithm, Params


class Way(NamedTuple):
    """One way to use a method.

    Attributes:
        functions: of the model, beside its energy, that it needs.
        option: of the method, to choose for it; `""` for the default.
    """

    functions: tuple[str, ...] = ()
    option: str = ""


class BoundModel(NamedTuple):
    """What a method is bound to.

    Attributes:
        energy: the user's energy.
        posterior: the user's posterior; None for a method that fits none.
        init_params: `(theta, phi)`, or None for the model's own.
        shard: the part of a batch that a device sees.
    """

    energy: Model
    posterior: Any
    init_params: tuple[Params, Params] | None
    shard: BatchShard


class TrainingMethod(PicklableMethod):
    """A frozen dataclass of choices. A subclass is known to `supported_methods`, and says of itself:

    Attributes:
        state_type: the NamedTuple that its `init` and `step` return.
        ways: how it can be used, the default first.
        fits_posterior: whether it takes a posterior, which it then needs.
    """

    state_type: ClassVar[type]
    ways: ClassVar[tuple[Way, ...]] = (Way(),)
    fits_posterior: ClassVar[bool] = False

    def bind(
        self,
        energy_fn: Any,
        posterior_fn: Any = None,
        *,
        init_params: tuple[Params, Params] | None = None,
        axis_name: str | None = None,
    ) -> Algorithm:
        """The algorithm on a model; see `bism_jax.typing.Method.bind`.

        Raises:
            MissingCapability: where the model lacks a function that the method needs.
            ValueError: where a posterior is missing or has no use; from `init`, a `ModelError` where the
                model breaks its contract.
        """
        energy, posterior = as_model("energy_fn", energy_fn), self._posterior(posterior_fn)
        try:
            algorithm = self._bind(BoundModel(energy, posterior, init_params, BatchShard(axis_name)))
        # This type alone: where a model breaks its contract, no other method is a remedy.
        except MissingCapability as missing:
            supported = _supported_methods(energy).items()
            methods = ", ".join(f"{name} (with {extra})" if extra else name for name, extra in supported)
            raise MissingCapability(
                f"{type(self).__name__} needs more of the model: {missing}. Add it where it has a closed "
                f"form, or train by what the model supports: {methods}."
            ) from missing
        return checked_algorithm(self.state_type, *algorithm)

    def _bind(self, model: BoundModel) -> Algorithm:
        """`init` and `step`, whose arguments are checked already."""
        raise NotImplementedError

    def _posterior(self, posterior_fn: Any) -> Model | None:
        name = type(self).__name__
        if self.fits_posterior and posterior_fn is None:
            raise ValueError(
                f"{name} needs a posterior_fn, since it fits q(h|v; phi). Pass one, for instance "
                "GaussianPosterior(num_hidden=8), or train a free energy by ScoreMatching."
            )
        if not self.fits_posterior and posterior_fn is not None:
            raise ValueError(
                f"{name} takes no posterior_fn: pass None, or train by BiSM, VaGES, VNCE or BiDVL."
            )
        return as_model("posterior_fn", posterior_fn) if self.fits_posterior else None


def supported_methods(energy_fn: Any) -> dict[str, str]:
    """The methods that can train a model.

    Args:
        energy_fn: a Flax module or a function.

    Returns:
        For each method its condition: `""` where the model is enough, `"a posterior_fn"`, or the option
        of the method to choose.
    """
    return _supported_methods(as_model("energy_fn", energy_fn))


def _supported_methods(energy: Model) -> dict[str, str]:
    supported = {}
    for method in TrainingMethod.__subclasses__():
        if not method.__module__.startswith("bism_jax."):  # a method of the user's own, who knows of it
            continue
        options = [way.option for way in method.ways if not missing_functions(energy, way.functions)]
        if options:
            supported[method.__name__] = options[0] or ("a posterior_fn" if method.fits_posterior else "")
    return supported
