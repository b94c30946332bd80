"""Protocols and aliases of the library.

Throughout, B is the batch, P the number of particles, `visible` and `latent` the shapes of one v and one
h, and the energy is minus the unnormalised log density: p(v, h; theta) = exp(-E(v, h; theta)) / Z(theta).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key

# Pytrees of arrays; jaxtyping's PyTree is a value to a type checker.
Params = Any
Noise = Any
EnergyFn = Callable[[Params, Array, Array], Float[Array, " batch"]]
FreeEnergyFn = Callable[[Params, Array], Float[Array, " batch"]]
ScoreFn = Callable[[Array], Array]


class Posterior(Protocol):
    """q(h | v; phi) for a batch: a numpyro distribution, or anything with these two methods.

    The batch shape is `(B,)` and the event shape is `latent` (numpyro: `.to_event(k)`).
    """

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Reparameterised samples, `[*sample_shape, B, *latent]`."""
        ...

    def log_prob(self, value: Array) -> Float[Array, " batch"]:
        """The log-probability log q of `[B, *latent]`."""
        ...


PosteriorFn = Callable[[Params, Array], Any]


@runtime_checkable
class NoisePosterior(Protocol):
    """A posterior whose noise can be given, so that a sample is a deterministic function of it."""

    def draw_noise(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Noise:
        """Noise for `sample_shape` samples, with leading axes `[*sample_shape, B]`."""
        ...

    def transform(self, noise: Noise) -> tuple[Array, Any]:
        """The sample, and intermediates that make `log_prob(sample, intermediates)` accurate."""
        ...


InitFn = Callable[[Key[Array, ""], Array], Any]
IterationFn = Callable[[Key[Array, ""], Any, Array], tuple[Any, Any]]


class Algorithm(NamedTuple):
    """A training method bound to a model: a pair of pure functions.

    Attributes:
        init: `(rng_key, batch) -> State`, where `State` has at least `theta`, and `phi` if there is one.
        step: `(rng_key, state, batch) -> (State, Info)`; `Info` is a NamedTuple of scalars.
    """

    init: InitFn
    step: IterationFn


class Method(Protocol):
    """A frozen dataclass of choices that binds to a model."""

    def bind(
        self,
        energy_fn: Any,
        posterior_fn: Any = None,
        *,
        init_params: tuple[Params, Params] | None = None,
        axis_name: str | None = None,
    ) -> Algorithm:
        """The method on this model.

        Args:
            energy_fn: a Flax module or a pure function.
            posterior_fn: a Flax module or a pure function; None for a method that fits no posterior.
            init_params: `(theta, phi)`, required for pure functions.
            axis_name: the mapped axis under `pmap`, over which gradients are averaged.
        """
        ...
