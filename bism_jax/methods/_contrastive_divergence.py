"""Contrastive divergence, from the data and with persistent chains."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, Int, Key, PyTree

from bism_jax.methods._common.algorithm import start_optimizer
from bism_jax.methods._common.chains import (
    CHAIN_WAYS,
    Chain,
    ChainState,
    Gibbs,
    check_chain_options,
    contrast,
    start_chains,
)
from bism_jax.methods._common.descent import descend_theta
from bism_jax.methods._common.method import BoundModel, TrainingMethod
from bism_jax.methods._common.optimizers import DEFAULT_OPTIMIZER
from bism_jax.methods._common.states import EnergyInfo, EnergyState, no_iterations
from bism_jax.typing import Algorithm, Params


@dataclass(frozen=True)
class ContrastiveDivergence(TrainingMethod):
    """CD-k: chains that start at the data stand in for samples of the model.

        gradient = mean_data grad_theta E - mean_chains grad_theta E

    with E the free energy where h can be summed out. The gradient approximates that of the negative
    log-likelihood; the loss reported, the difference of the two mean energies, does not approximate its
    value. (Hinton, Neural Computation 2002.) Under `pmap` each device draws its own chains' noise, so the
    result then depends on the number of devices.

    Attributes:
        k: steps of each chain.
        chain: `Gibbs()`, or `Langevin(step_size)` for a model without conditional samplers.
        optimizer: of theta.

    Raises:
        ValueError: where k is no integer of at least 1.
        TypeError: for what is no chain or no optimiser.
    """

    state_type = EnergyState
    ways = CHAIN_WAYS

    k: int = 1
    chain: Chain = Gibbs()
    optimizer: optax.GradientTransformation = DEFAULT_OPTIMIZER

    def __post_init__(self) -> None:
        check_chain_options(self.k, self.chain, self.optimizer)

    def _bind(self, model: BoundModel) -> Algorithm:
        chain, shard = self.chain.bind_chain(model.energy, self.k), model.shard

        def init(rng_key: Key[Array, ""], batch: Array) -> EnergyState:
            theta = chain.init(rng_key, batch, model.init_params)
            opt_state = start_optimizer("optimizer", self.optimizer, theta)
            return EnergyState(theta, opt_state, no_iterations())

        def step(rng_key: Key[Array, ""], state: EnergyState, batch: Array) -> tuple[EnergyState, EnergyInfo]:
            # A model's sampler takes a key and these rows, so noise cannot be drawn for the global batch.
            data_key, chain_key = jax.random.split(shard.own_key(rng_key))
            data = chain.complete(state.theta, data_key, batch)
            # Outside the loss: both phases hold their samples, and no chain is differentiated through.
            samples = chain.advance(state.theta, chain_key, data)
            loss_fn = functools.partial(contrast, chain=chain, data=data, samples=samples)
            return descend_theta(loss_fn, self.optimizer, state, shard)

        return Algorithm(init, step)


class PersistentState(NamedTuple):
    """What the next iteration of `PersistentContrastiveDivergence` needs.

    Attributes:
        theta: energy parameters.
        theta_opt_state: the optimiser's state.
        chains: where the chains are.
        iteration: the number of iterations done.
    """

    theta: Params
    theta_opt_state: PyTree
    chains: ChainState
    iteration: Int[Array, ""]


@dataclass(frozen=True)
class PersistentContrastiveDivergence(TrainingMethod):
    """PCD-k: as `ContrastiveDivergence`, with chains that go on from where the last iteration left them.

    They start at the first batch. (Younes, 1999; Tieleman, ICML 2008.) On several devices each runs all
    chains, so that the result does not depend on their number; but under `pmap` the latents of the data,
    where the model has no free energy, are drawn by each device for its own rows.

    Attributes:
        k: steps of each chain an iteration.
        num_chains: how many; None takes one a row of the batch.
        chain: `Gibbs()`, or `Langevin(step_size)` for a model without conditional samplers.
        optimizer: of theta.

    Raises:
        ValueError: where a count is no integer of at least 1.
        TypeError: for what is no chain or no optimiser.
    """

    state_type = PersistentState
    ways = CHAIN_WAYS

    k: int = 1
    num_chains: int | None = None
    chain: Chain = Gibbs()
    optimizer: optax.GradientTransformation = DEFAULT_OPTIMIZER

    def __post_init__(self) -> None:
        check_chain_options(self.k, self.chain, self.optimizer, self.num_chains)

    def _bind(self, model: BoundModel) -> Algorithm:
        chain, shard = self.chain.bind_chain(model.energy, self.k), model.shard

        def init(rng_key: Key[Array, ""], batch: Array) -> PersistentState:
            theta_key, chain_key = jax.random.split(rng_key)
            theta = chain.init(theta_key, batch, model.init_params)
            chains = start_chains(chain, theta, chain_key, batch, self.num_chains)
            opt_state = start_optimizer("optimizer", self.optimizer, theta)
            return PersistentState(theta, opt_state, chains, no_iterations())

        def step(
            rng_key: Key[Array, ""], state: PersistentState, batch: Array
        ) -> tuple[PersistentState, EnergyInfo]:
            data_key, chain_key = jax.random.split(rng_key)
            data = chain.complete(state.theta, shard.own_key(data_key), batch)
            # By a key that all devices share: they hold the same chains, and none need be gathered.
            chains = chain.advance(state.theta, chain_key, state.chains)
            loss_fn = functools.partial(contrast, chain=chain, data=data, samples=chains)
            return descend_theta(loss_fn, self.optimizer, state._replace(chains=chains), shard)

        return Algorithm(init, step)
