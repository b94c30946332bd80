"""Bi-level doubly variational learning of a marginal energy with a decoupled posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import optax
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._contract import Model, as_model, draw_latents
from bism_jax._contract.capabilities import marginal_model
from bism_jax._contract.initialisation import given_params, init_free_energy, init_module
from bism_jax.hypergradient import LowerSolution, StopGradient, Strategy
from bism_jax.methods._common.algorithm import start_optimizers
from bism_jax.methods._common.descent import descend_both
from bism_jax.methods._common.lower_level import lower_problem
from bism_jax.methods._common.method import BoundModel, TrainingMethod, Way
from bism_jax.methods._common.optimizers import Optimizers
from bism_jax.methods._common.pickling import picklable
from bism_jax.methods._common.states import LatentInfo, LatentState, no_iterations
from bism_jax.methods.losses._codec import CodecLosses, CodecNoise, CodecParams
from bism_jax.typing import Algorithm, Params

# Rates and decays of the authors' code; eps_root keeps the derivative of Adam's root finite at a moment of 0.
_DEFAULT_OPTIMIZERS = Optimizers(
    picklable(optax.adam, 1e-4, b1=0.0, b2=0.9, eps_root=1e-16),
    picklable(optax.adam, 3e-4, b1=0.0, b2=0.9, eps_root=1e-16),
)


@dataclass(frozen=True)
class BiDVL(TrainingMethod):
    """Learns p(v; theta) = exp(-E(v; theta)) / Z together with an encoder q(h | v) and a decoder g(h).

        higher level:  min_theta  mean_data E(v) - mean_h E(g(h)),   h ~ N(0, I)
        lower level:   min_phi  mean_h [E(g(h)) + |mu(g(h)) - h|^2 / m]
                                + lambda mean_data [|g(h_v) - v|^2 + KL(q(h|v) || N(0, I))],   h_v ~ q(h|v)

    with mu the encoder's mean, whose parameters are held in the first term. They are constants of the
    hypergradient too: with three or more unrolled steps, what the encoder's own moves change in the first
    term is not differentiated. `fit` takes the encoder as
    `posterior_fn` and returns (encoder, decoder) as `phi`. (Kan et al., CVPR 2022, arXiv 2203.14702.)

    Attributes:
        decoder: g, a Flax module or a function `(params, h[B, *latent]) -> v[B, *visible]`.
        reconstruction_weight: lambda.
        hypergradient: the strategy, which holds the number of lower-level steps an iteration; all are kept.
            `StopGradient(1)` is the authors' choice, N = 0.
        optimizers: of theta and phi. Schedules of both count iterations.

    Raises:
        ValueError: where the weight is not above 0, or the strategy takes no step.
        TypeError: for what is no decoder, no strategy or no pair of optimisers.
    """

    state_type = LatentState
    ways = (Way(("free_energy",)),)
    fits_posterior = True

    decoder: Any
    reconstruction_weight: float = 0.05
    hypergradient: Strategy = StopGradient(num_steps=1)
    optimizers: Optimizers = _DEFAULT_OPTIMIZERS

    def __post_init__(self) -> None:
        as_model("decoder", self.decoder)
        checks.positive("reconstruction_weight", self.reconstruction_weight)
        checks.instance("hypergradient", self.hypergradient, Strategy, "StopGradient(num_steps=1)")
        # With no step phi would never move, since there are no K others as in `BiSM`.
        checks.positive_int("hypergradient.num_steps", self.hypergradient.num_steps)
        checks.optimizer_pair("optimizers", self.optimizers)

    def _bind(self, model: BoundModel) -> Algorithm:
        marginal, encoder = marginal_model(model.energy), model.posterior
        decoder = as_model("decoder", self.decoder)
        losses = CodecLosses(marginal, encoder, decoder, self.reconstruction_weight, model.shard)

        def init(rng_key: Key[Array, ""], batch: Array) -> LatentState:
            theta_key, *phi_keys = jax.random.split(rng_key, 4)
            phi = _init_phi(encoder, decoder, phi_keys, batch, model.init_params)
            theta = init_free_energy(marginal, theta_key, batch, model.init_params)
            # Parameters that are given may be those of a decoder of other latents.
            losses.check(phi, batch)
            opt_states = start_optimizers(self.optimizers, theta, phi)
            return LatentState(theta, phi, *opt_states, no_iterations())

        def step(rng_key: Key[Array, ""], state: LatentState, batch: Array) -> tuple[LatentState, LatentInfo]:
            return self.update(losses, state, batch, self.draw_noise(losses, rng_key, state.phi, batch))

        return Algorithm(init, step)

    def draw_noise(
        self, losses: CodecLosses, rng_key: Key[Array, ""], phi: CodecParams, v: Array
    ) -> CodecNoise:
        """All noise of an iteration: of each lower-level step, and last of the higher-level loss."""
        return losses.draw_noise(rng_key, phi, v, self.hypergradient.num_steps + 1)

    def update(
        self, losses: CodecLosses, state: LatentState, v: Array, noise: CodecNoise
    ) -> tuple[LatentState, LatentInfo]:
        """One iteration as a deterministic function of its noise."""
        inputs = jax.tree.map(lambda leaf: leaf[:-1], noise)
        lower_loss = lambda phi, theta, noise: losses.lower_loss(phi, theta, v, noise)  # noqa: E731
        problem = lower_problem(lower_loss, self.optimizers.phi, state, losses.shard)

        def loss_fn(theta: Params) -> tuple[Float[Array, ""], LowerSolution]:
            # Within the loss, so that its gradient in theta holds the reaction of phi^N.
            lower = self.hypergradient.solve(problem, state.phi, theta, inputs, state.phi_opt_state)
            return losses.higher_loss(theta, lower.phi, v, noise.h[-1]), lower

        return descend_both(loss_fn, self.optimizers.theta, state, losses.shard)


def _init_phi(
    encoder: Model,
    decoder: Model,
    keys: list[Key[Array, ""]],
    batch: Array,
    init_params: tuple[Params, Params] | None,
) -> CodecParams:
    if init_params is not None:
        phi = given_params(init_params)[1]
        if not isinstance(phi, tuple) or len(phi) != 2:
            raise ValueError("init_params: phi must be the pair (encoder, decoder) of parameters.")
        return CodecParams(*phi)
    encoder_key, sample_key, decoder_key = keys
    encoder_params = init_module(encoder, "posterior_fn", encoder_key, batch)
    # A decoder infers its sizes from a latent, whose shape the encoder alone knows.
    h = draw_latents(encoder.apply(encoder_params, batch), sample_key)
    return CodecParams(encoder_params, init_module(decoder, "decoder", decoder_key, h))
