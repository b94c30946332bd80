"""Variational inference over the parameters of an undirected model, with persistent Markov chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from bism_jax import checks
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
from bism_jax.methods._common.descent import descend
from bism_jax.methods._common.method import BoundModel, TrainingMethod
from bism_jax.methods._common.optimizers import DEFAULT_OPTIMIZER
from bism_jax.methods._common.states import EnergyInfo, no_iterations
from bism_jax.methods.losses._weight_priors import GaussianPrior, Prior
from bism_jax.typing import Algorithm, Params

_START_LOG_STD = -3.0  # a standard deviation of 0.05, so that the first draws lie near the mean


class Variational(NamedTuple):
    """A factorised Gaussian over the variables x of a prior.

    Attributes:
        mean: mu, like x.
        log_std: log s, like x.
    """

    mean: PyTree
    log_std: PyTree


class PersistentVIState(NamedTuple):
    """What the next iteration of `PersistentVI` needs.

    Attributes:
        theta: the parameters at the variational mean.
        phi: the variational parameters.
        phi_opt_state: the optimiser's state.
        chains: where the chains are.
        iteration: the number of iterations done.
    """

    theta: Params
    phi: Variational
    phi_opt_state: PyTree
    chains: ChainState
    iteration: Int[Array, ""]


@dataclass(frozen=True)
class PersistentVI(TrainingMethod):
    """Bayesian learning of an undirected model: q(x) = N(mu, diag s^2) over its parameters theta(x).

        max_{mu, s} E_q[log p(D | theta) + log p(x)] + H[q],   x = mu + s xi
        grad_theta log p(D | theta) = n (mean_data grad_theta [-E] - mean_chains grad_theta [-E])

    for one draw of x an iteration, with persistent chains that are advanced under the drawn theta, and E
    the free energy where h can be summed out. `fit` returns theta(mu) as `theta` and (mu, log s) as `phi`;
    `draw_theta` draws from q. The loss is the negative bound over n, without the log-partition of theta.
    (Ingraham and Marks, ICML 2017.)

    Attributes:
        num_data: n, the number of data points, to which a minibatch is scaled.
        prior: `GaussianPrior()`, or `Fadeout()` for sparsity.
        k: steps of each chain an iteration.
        num_chains: how many; None takes one a row of the batch.
        chain: `Gibbs()`, or `Langevin(step_size)` for a model without conditional samplers.
        optimizer: of mu and log s.

    Raises:
        ValueError: where a count is no integer of at least 1.
        TypeError: for what is no prior, no chain or no optimiser.
    """

    state_type = PersistentVIState
    ways = CHAIN_WAYS

    num_data: int
    prior: Prior = GaussianPrior()
    k: int = 1
    num_chains: int | None = None
    chain: Chain = Gibbs()
    optimizer: optax.GradientTransformation = DEFAULT_OPTIMIZER

    def __post_init__(self) -> None:
        checks.positive_int("num_data", self.num_data)
        checks.instance("prior", self.prior, Prior, "GaussianPrior() or Fadeout()")
        check_chain_options(self.k, self.chain, self.optimizer, self.num_chains)

    def _bind(self, model: BoundModel) -> Algorithm:
        chain, shard = self.chain.bind_chain(model.energy, self.k), model.shard

        def init(rng_key: Key[Array, ""], batch: Array) -> PersistentVIState:
            self._check_batch(batch)
            theta_key, chain_key = jax.random.split(rng_key)
            theta = chain.init(theta_key, batch, model.init_params)
            mean = self.prior.start(theta)
            phi = Variational(mean, jax.tree.map(lambda leaf: jnp.full_like(leaf, _START_LOG_STD), mean))
            chains = start_chains(chain, theta, chain_key, batch, self.num_chains)
            opt_state = start_optimizer("optimizer", self.optimizer, phi)
            return PersistentVIState(theta, phi, opt_state, chains, no_iterations())

        def step(
            rng_key: Key[Array, ""], state: PersistentVIState, batch: Array
        ) -> tuple[PersistentVIState, EnergyInfo]:
            noise_key, data_key, chain_key = jax.random.split(rng_key, 3)
            # By the shared key: all devices draw one theta, whose gradient is then averaged over their rows.
            xi = _normal_like(noise_key, state.phi.mean)
            theta = self.prior.theta(_draw(state.phi, xi))
            data = chain.complete(theta, shard.own_key(data_key), batch)
            chains = chain.advance(theta, chain_key, state.chains)

            # theta once more, from the same xi: here phi is differentiated through it, but through no chain.
            def loss_fn(phi: Variational) -> Float[Array, ""]:
                theta = self.prior.theta(_draw(phi, xi))
                return contrast(theta, chain, data, chains) + self.complexity(phi, xi)

            phi, opt_state, loss, grads, _ = descend(
                loss_fn, self.optimizer, state.phi, state.phi_opt_state, shard
            )
            info = EnergyInfo(loss, optax.tree.norm(grads))
            theta = self.prior.theta(phi.mean)
            return PersistentVIState(theta, phi, opt_state, chains, state.iteration + 1), info

        return Algorithm(init, step)

    def check_num_rows(self, num_rows: int) -> None:
        """Raises ValueError unless the data has `num_data` rows; `fit` asks where it knows their number."""
        if num_rows != self.num_data:
            raise ValueError(
                f"num_data={self.num_data}, but data has num_rows={num_rows}: the likelihood would be "
                f"weighed as that of {self.num_data}; pass PersistentVI(num_data={num_rows})."
            )

    def _check_batch(self, batch: Array) -> None:
        if self.num_data < batch.shape[0]:
            raise ValueError(
                f"num_data={self.num_data}, but a batch has {batch.shape[0]} rows; pass the number of rows "
                "of the whole data, to which a batch is scaled."
            )

    def complexity(self, phi: Variational, xi: PyTree) -> Float[Array, ""]:
        """-(log p(x) + H[q]) / n at x = mu + s xi, up to a constant."""
        # The entropy in closed form, so that the draw adds noise to the prior's part alone.
        entropy = optax.tree.sum(phi.log_std)
        return -(self.prior.log_prior(_draw(phi, xi)) + entropy) / self.num_data

    def draw_theta(self, phi: Variational, rng_key: Key[Array, ""], num_samples: int) -> Params:
        """Parameters theta(x), x ~ q, with a leading axis of `num_samples`.

        Raises:
            TypeError: where phi is not the `Variational` that `fit` returns, or `rng_key` not a key.
            ValueError: where `rng_key` holds several keys, or `num_samples` is below 1.
        """
        if not isinstance(phi, Variational):
            raise TypeError(f"phi must be the Variational(mean, log_std) that fit returns, not {phi!r:.200}.")
        rng_key = checks.rng_key("rng_key", rng_key)
        checks.positive_int("num_samples", num_samples)

        def draw(key: Key[Array, ""]) -> Params:
            return self.prior.theta(_draw(phi, _normal_like(key, phi.mean)))

        return jax.vmap(draw)(jax.random.split(rng_key, num_samples))


def _draw(phi: Variational, xi: PyTree) -> PyTree:
    # By its logarithm a standard deviation stays above 0 at any step of the optimiser.
    return jax.tree.map(lambda mean, log_std, z: mean + jnp.exp(log_std) * z, phi.mean, phi.log_std, xi)


def _normal_like(rng_key: Key[Array, ""], tree: PyTree) -> PyTree:
    return optax.tree.random_like(rng_key, tree, sampler=jax.random.normal)
