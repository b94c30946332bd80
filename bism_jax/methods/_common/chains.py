"""Markov chains that draw from the current model: the negative phase of contrastive methods."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._contract import Model
from bism_jax._contract.capabilities import marginal_model, require_functions
from bism_jax._contract.initialisation import given_theta, init_free_energy, init_joint_energy
from bism_jax._contract.model_checks import check_conditionals
from bism_jax.errors import ModelError
from bism_jax.methods._common.method import Way
from bism_jax.samplers import gibbs, langevin
from bism_jax.typing import Params

_CONDITIONALS = ("sample_h", "sample_v")
CHAIN_WAYS = (
    Way(_CONDITIONALS),
    Way(("free_energy",), "chain=Langevin()"),
    Way((), "chain=Langevin(latent_shape=...)"),
)


class ChainState(NamedTuple):
    """Where chains are.

    Attributes:
        v: `[chains, *visible]`.
        h: `[chains, *latent]`, or None where the latents are summed out.
    """

    v: Float[Array, "chains *visible"]
    h: Array | None = None


class BoundChain(NamedTuple):
    """Chains on a model, as pure functions.

    Attributes:
        init: `(rng_key, batch, init_params) -> theta`, with the model checked on the batch.
        complete: `(theta, rng_key, v) -> ChainState`, data with latents from the model's posterior.
        advance: `(theta, rng_key, state) -> ChainState`, k steps of every chain.
        energy: `(theta, state) -> [chains]`, of which a phase takes the mean gradient in theta.
    """

    init: Callable[..., Params]
    complete: Callable[..., ChainState]
    advance: Callable[..., ChainState]
    energy: Callable[..., Float[Array, " chains"]]


_Functions = tuple[Callable[..., Params], Callable[..., ChainState], Callable[..., Float[Array, " chains"]]]


class Chain(Protocol):
    """How chains move: a frozen dataclass of choices."""

    def bind_chain(self, energy: Model, num_steps: int) -> BoundChain:
        """Chains that take `num_steps` steps a call.

        Raises:
            MissingCapability: where the model lacks a function that they need.
        """
        ...


@dataclass(frozen=True)
class Gibbs:
    """Block Gibbs sampling, h ~ p(h | v) and v ~ p(v | h), of a model with `sample_h` and `sample_v`.

    Where the model has a free energy, both phases take the gradient of F(v), in which h is summed out;
    otherwise that of E(v, h) at the sampled h.
    """

    def bind_chain(self, energy: Model, num_steps: int) -> BoundChain:
        """See `Chain`."""
        sample_h, sample_v = require_functions(energy, _CONDITIONALS)
        free_energy = energy.method("free_energy")

        def init(rng_key: Key[Array, ""], batch: Array, init_params: Any) -> Params:
            if free_energy is not None:
                theta = init_free_energy(marginal_model(energy), rng_key, batch, init_params)
            else:
                h = _latents_of_model(energy, sample_h, rng_key, batch, init_params)
                theta = init_joint_energy(energy, rng_key, batch, h, init_params)
            check_conditionals(energy, sample_h, sample_v, theta, batch)
            return theta

        def complete(theta: Params, rng_key: Key[Array, ""], v: Array) -> ChainState:
            # The gradient of F is the mean over h of that of E, so a phase has less variance without latents.
            return ChainState(v, None if free_energy else sample_h(theta, rng_key, v))

        def advance(theta: Params, rng_key: Key[Array, ""], state: ChainState) -> ChainState:
            v, h = gibbs(sample_h, sample_v, theta, rng_key, state.v, num_steps)
            return ChainState(v, None if free_energy else h)

        def phase_energy(theta: Params, state: ChainState) -> Float[Array, " chains"]:
            if free_energy is not None:
                return free_energy(theta, state.v)
            return energy.apply(theta, state.v, state.h)

        return BoundChain(init, complete, advance, phase_energy)


@dataclass(frozen=True)
class Langevin:
    """Unadjusted Langevin dynamics of any differentiable energy.

    With `latent_shape=None` the chains move v on the free energy F(v). With a shape they move (v, h)
    together on E(v, h), and the latents of the data start from N(0, I) and take `latent_steps` on E(v, .);
    too few of them leave the latents near N(0, I), and the gradient is biased.

    Attributes:
        step_size: the standard deviation of a step's noise, in units of v and h; see `samplers.langevin`.
        latent_shape: the shape of one h, continuous; None where the free energy is known.
        latent_steps: steps of the latents of the data.

    Raises:
        ValueError: where the step size is not above 0, or the shape is no tuple of positive integers.
    """

    step_size: float = 0.1
    latent_shape: tuple[int, ...] | None = None
    latent_steps: int = 20

    def __post_init__(self) -> None:
        checks.positive("step_size", self.step_size)
        checks.positive_int("latent_steps", self.latent_steps)
        if self.latent_shape is not None:
            checks.widths("latent_shape", self.latent_shape)

    def bind_chain(self, energy: Model, num_steps: int) -> BoundChain:
        """See `Chain`."""
        if self.latent_shape is None:
            init, complete, phase_energy = _on_free_energy(marginal_model(energy))
        else:
            init, complete, phase_energy = self._on_joint_energy(energy, self.latent_shape)

        def advance(theta: Params, rng_key: Key[Array, ""], state: ChainState) -> ChainState:
            return langevin(lambda s: phase_energy(theta, s), rng_key, state, num_steps, self.step_size)

        return BoundChain(init, complete, advance, phase_energy)

    def _on_joint_energy(self, energy: Model, latent_shape: tuple[int, ...]) -> _Functions:
        def init(rng_key: Key[Array, ""], batch: Array, init_params: Any) -> Params:
            h = jnp.zeros((batch.shape[0], *latent_shape), batch.dtype)
            return init_joint_energy(energy, rng_key, batch, h, init_params)

        def complete(theta: Params, rng_key: Key[Array, ""], v: Array) -> ChainState:
            # From N(0, I) each time: unlike chains, the latents of a minibatch have no last state.
            start_key, move_key = jax.random.split(rng_key)
            h = jax.random.normal(start_key, (v.shape[0], *latent_shape), v.dtype)
            conditional = lambda h: energy.apply(theta, v, h)  # noqa: E731
            return ChainState(v, langevin(conditional, move_key, h, self.latent_steps, self.step_size))

        return init, complete, lambda theta, state: energy.apply(theta, state.v, state.h)


def _on_free_energy(marginal: Model) -> _Functions:
    return (
        functools.partial(init_free_energy, marginal),
        lambda theta, rng_key, v: ChainState(v),
        lambda theta, state: marginal.apply(theta, state.v),
    )


def contrast(theta: Params, chain: BoundChain, data: ChainState, samples: ChainState) -> Float[Array, ""]:
    """mean_data E - mean_samples E, whose gradient in theta is that of the negative log-likelihood."""
    return chain.energy(theta, data).mean() - chain.energy(theta, samples).mean()


def start_chains(
    chain: BoundChain, theta: Params, rng_key: Key[Array, ""], batch: Array, num_chains: int | None
) -> ChainState:
    """Chains at the rows of a batch, which repeat where there are more chains than rows."""
    rows = batch if num_chains is None else jnp.resize(batch, (num_chains, *batch.shape[1:]))
    # Copies: `fit` donates the state's buffers, and without latents the chains are the batch itself.
    return jax.tree.map(jnp.array, chain.complete(theta, rng_key, rows))


def check_chain_options(k: int, chain: Any, optimizer: Any, num_chains: int | None = None) -> None:
    """Checks what methods with chains have in common: k steps of each, moved by `chain`.

    Raises:
        TypeError: where the chain or the optimiser is of another kind.
        ValueError: for a count below 1.
    """
    checks.positive_int("k", k)
    checks.instance("chain", chain, Chain, "Gibbs() or Langevin(step_size=0.1)")
    checks.optimizer("optimizer", optimizer)
    if num_chains is not None:
        checks.positive_int("num_chains", num_chains, alternative="None")


def _latents_of_model(
    energy: Model, sample_h: Callable[..., Array], rng_key: Key[Array, ""], batch: Array, init_params: Any
) -> Array:
    """Zeros of the shape of the latents, which the model alone knows."""
    init = energy.init
    if init is None or init_params is not None:
        given = given_theta(energy, init_params)
        # Given parameters stand in for `init`, which a plain function lacks and which would draw others.
        init = lambda *args, method: given  # noqa: E731

    def sample(rng_key: Key[Array, ""], batch: Array) -> Array:
        return sample_h(init(rng_key, rng_key, batch, method="sample_h"), rng_key, batch)

    try:
        # A trace: the parameters that it makes are there to ask for a shape alone.
        shape = jax.eval_shape(sample, rng_key, batch)
    # It names the argument and the reason already.
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"energy_fn={energy.name}: sample_h cannot be evaluated on what the model initialises through "
            f"it: {type(error).__name__}: {error}. Pass init_params=(theta, None), or define the parameters "
            "in setup()."
        ) from error
    return jnp.zeros(shape.shape, shape.dtype)
