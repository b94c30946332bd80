"""How far the unrolled hypergradient is from the exact gradient, by the numbers of steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

from bism_jax import checks
from bism_jax._contract import LatentSample, Model, as_model, factor
from bism_jax._contract.guarded_calls import check_parameters
from bism_jax._contract.model_checks import check_latent_model
from bism_jax._jax_switches import with_transfers
from bism_jax.checks import floating_rows
from bism_jax.errors import MissingCapability
from bism_jax.hypergradient import LowerProblem, StopGradient, Unrolled
from bism_jax.methods import BilevelProblem, LevelNoise
from bism_jax.methods._common.algorithm import check_divergence
from bism_jax.methods._common.density_checks import check_higher_density, check_lower_density
from bism_jax.objectives import Divergence, Objective, latent_score, marginal_score
from bism_jax.typing import Params, ScoreFn

ScoreAt = Callable[[Params, Array, Array], ScoreFn]


class GradientBias(NamedTuple):
    """The bias of the hypergradient, a row for each K and a column for each N.

    A bias is told from Monte Carlo noise where its norm is well above the standard error.

    Attributes:
        lower_steps: the K of the rows.
        num_steps: the N of the columns.
        norm: |mean hypergradient - mean exact gradient|, in units of the gradient.
        relative_norm: the same over the norm of the exact gradient.
        angle: between the two means, in degrees.
        standard_error: the norm that the noise of the draws alone would give, in units of the gradient: the
            root of the summed variances of the mean's entries.
        exact_gradient: the mean exact gradient, a tree like theta.
    """

    lower_steps: Int[np.ndarray, " lower_steps"]
    num_steps: Int[np.ndarray, " num_steps"]
    norm: Float[Array, "lower_steps num_steps"]
    relative_norm: Float[Array, "lower_steps num_steps"]
    angle: Float[Array, "lower_steps num_steps"]
    standard_error: Float[Array, "lower_steps num_steps"]
    exact_gradient: Params


@with_transfers
def gradient_bias(
    energy_fn: Any,
    posterior_fn: Any,
    theta: Params,
    phi: Params,
    v: Float[Array | np.ndarray, "rows *visible"],
    rng_key: Key[Array, ""],
    *,
    objective: Objective,
    divergence: Divergence,
    optimizer: optax.GradientTransformation,
    num_steps: Sequence[int] = (0, 1, 2, 5, 10),
    lower_steps: Sequence[int] = (0, 1, 5),
    num_draws: int = 100,
) -> GradientBias:
    """Compares the hypergradient of BiSM with the exact gradient, for each K and N.

        bias(K, N) = E [d/dtheta J(theta, phi^N(theta))] - d/dtheta J*(theta)
        J*(theta) = mean_b F(grad_v log p(v; theta), noise_b, v_b)

    phi^N(theta) is N differentiated lower-level steps after K that are not, from `phi`; N = 0 leaves the
    direct term. Each draw has fresh noise in every lower-level step and in J; J and J* share the visible
    noise, whose variance so cancels. The marginal score comes from `free_energy`, or from the exact
    `posterior`: grad_v [-E(v, h) - log p(h | v)], for any h. (Theorem 2 and figure 1 of Bao et al., NeurIPS
    2020, arXiv 2010.07856.)

    The optimiser starts afresh at K = 0. Adam's first step is then the sign of the gradient, which has no
    derivative, so that N = 1 is as biased as N = 0 there; an optimiser like SGD shows the theorem.

    Args:
        energy_fn: a model with `free_energy` or `posterior`, such as `GRBM`.
        posterior_fn: q(h | v; phi).
        theta: energy parameters.
        phi: posterior parameters before the K steps.
        v: the batch, used whole.
        rng_key: key.
        objective: F.
        divergence: D.
        optimizer: of the lower level.
        num_steps: the N, increasing.
        lower_steps: the K, increasing.
        num_draws: draws of all noise, at least 2, one after the other.

    Raises:
        TypeError: where an argument is of another kind.
        ValueError: where the model has no exact marginal or breaks the contract of an energy or a posterior,
            the parameters or v hold NaN, or a count is out of range.
    """
    checks.instance("objective", objective, Objective, "DSM(noise_std=0.1)")
    check_divergence(divergence)
    checks.optimizer("optimizer", optimizer)
    _check_counts(num_steps, lower_steps, num_draws)
    energy, posterior = as_model("energy_fn", energy_fn), as_model("posterior_fn", posterior_fn)
    score_at = _exact_score(energy)
    check_parameters("theta", theta, "energy_fn", energy_fn)
    check_parameters("phi", phi, "posterior_fn", posterior_fn)
    rng_key = checks.rng_key("rng_key", rng_key)
    theta, phi, batch = jax.tree.map(jnp.asarray, (theta, phi, floating_rows("v", v)))
    # Before the table is compiled, which a density without a finite loss would waste.
    check_latent_model(energy, posterior, theta, phi, batch)
    check_lower_density(posterior, phi, batch, divergence)
    check_higher_density(posterior, phi, batch, objective)

    problem = BilevelProblem(factor(energy), posterior.apply, objective, divergence)
    comparison = _Comparison(problem, optimizer, score_at, tuple(lower_steps), tuple(num_steps))
    keys = jax.random.split(rng_key, num_draws)
    # One program for the whole table: all K and N of a draw share its noise and its exact gradient.
    moments: _Moments = jax.jit(comparison.moments)(theta, phi, batch, keys)
    exact_gradient = ravel_pytree(theta)[1](moments.exact)
    return GradientBias(np.array(lower_steps), np.array(num_steps), *moments.summary(), exact_gradient)


class _Moments(NamedTuple):
    """Of the draws so far: means, and the summed squared deviations of the bias from its mean."""

    num_draws: Float[Array, ""]
    exact: Float[Array, " size"]
    bias: Float[Array, "lower_steps num_steps size"]
    squared_deviations: Float[Array, "lower_steps num_steps"]

    def add(self, exact: Array, bias: Array) -> _Moments:
        """One more draw. (Welford 1962: a difference of sums of squares would lose the digits.)"""
        num_draws = self.num_draws + 1
        before = bias - self.bias
        mean = self.bias + before / num_draws
        return _Moments(
            num_draws,
            self.exact + (exact - self.exact) / num_draws,
            mean,
            self.squared_deviations + (before * (bias - mean)).sum(axis=-1),
        )

    def summary(self) -> tuple[Array, Array, Array, Array]:
        """The norm of the bias, the relative norm, the angle and the standard error."""
        norm = jnp.linalg.norm(self.bias, axis=-1)
        relative_norm = norm / jnp.linalg.norm(self.exact)
        angle = _angle(self.bias + self.exact[None, None], self.exact)
        # n - 1 for the variance of a draw, n for that of the mean of n.
        standard_error = jnp.sqrt(self.squared_deviations / (self.num_draws * (self.num_draws - 1)))
        return norm, relative_norm, angle, standard_error


@dataclass(frozen=True)
class _Comparison:
    """Both gradients as functions of one draw of the noise, flattened to `[size]`."""

    problem: BilevelProblem
    optimizer: optax.GradientTransformation
    score_at: ScoreAt
    lower_steps: tuple[int, ...]
    num_steps: tuple[int, ...]

    def moments(self, theta: Params, phi: Params, v: Array, keys: Key[Array, " draws"]) -> _Moments:
        """Over all draws, in a loop, which needs the memory of one."""

        def add_draw(moments: _Moments, key: Array) -> tuple[_Moments, None]:
            exact, hypergradients = self._draw(theta, phi, v, key)
            return moments.add(exact, hypergradients - exact[None, None]), None

        zero = jnp.zeros_like(ravel_pytree(theta)[0])
        table = jnp.zeros((len(self.lower_steps), len(self.num_steps)), zero.dtype)
        # The count is a float: strict promotion refuses a quotient of a float and an integer.
        start = _Moments(jnp.zeros((), zero.dtype), zero, table[..., None] * zero[None, None], table)
        return jax.lax.scan(add_draw, start, keys)[0]

    def _draw(self, theta: Params, phi: Params, v: Array, key: Array) -> tuple[Array, Array]:
        """The exact gradient `[size]`, and the hypergradient of each K and N."""
        first_key, unrolled_key, higher_key, score_key = jax.random.split(key, 4)
        # Noise of the largest K and N, of which the smaller take the first slices: common random numbers
        # cancel from the differences within the table.
        first = self._lower_inputs(first_key, phi, v, self.lower_steps[-1])
        unrolled = self._lower_inputs(unrolled_key, phi, v, self.num_steps[-1])
        higher = self.problem.draw_noise(higher_key, phi, v, ())
        starts = self._starts(theta, phi, first)
        # A Python loop: N is the length of one that reverse mode goes through, so the trace has to know it.
        columns = [self._hypergradients(n, theta, starts, v, unrolled, higher) for n in self.num_steps]

        def exact_loss(theta: Params) -> Float[Array, ""]:
            points = self.problem.objective.perturb(v, higher.visible)
            score_fn = self.score_at(theta, points, score_key)
            return self.problem.objective.loss(score_fn, v, higher.visible).mean()

        return ravel_pytree(jax.grad(exact_loss)(theta))[0], jnp.stack(columns, axis=1)

    def _lower_inputs(self, key: Array, phi: Params, v: Array, num_steps: int) -> PyTree:
        """What `num_steps` lower-level steps see, one slice a step."""
        if num_steps == 0:
            return None
        return self.problem.lower_inputs(v, self.problem.draw_noise(key, phi, v, (num_steps,)))

    @property
    def _lower_problem(self) -> LowerProblem:
        return LowerProblem(self.problem.lower_loss, self.optimizer)

    def _starts(self, theta: Params, phi: Params, inputs: PyTree) -> PyTree:
        """The parameters and the optimiser's state after each K, stacked."""
        states, done, opt_state = [], 0, self.optimizer.init(phi)
        # Each K goes on from the one before, with the optimiser's state: an Adam that starts again would
        # take other steps.
        for count in self.lower_steps:
            slices = jax.tree.map(lambda leaf, done=done, count=count: leaf[done:count], inputs)
            solution = StopGradient(count - done).solve(self._lower_problem, phi, theta, slices, opt_state)
            phi, opt_state, done = solution.phi, solution.opt_state, count
            states.append((phi, opt_state))
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def _hypergradients(
        self, num_steps: int, theta: Params, starts: PyTree, v: Array, inputs: PyTree, higher: LevelNoise
    ) -> Float[Array, "lower_steps size"]:
        """One N at each K; a loop over K, so that each N is compiled once."""
        slices = jax.tree.map(lambda leaf: leaf[:num_steps], inputs)
        strategy, lower = Unrolled(num_steps), self._lower_problem

        def from_start(start: PyTree) -> Float[Array, " size"]:
            grad_fn = jax.grad(self.problem.unrolled_loss, has_aux=True)
            gradient, _ = grad_fn(theta, start[0], v, higher, strategy, lower, slices, start[1])
            return ravel_pytree(gradient)[0]

        return jax.lax.map(from_start, starts)


def _exact_score(energy: Model) -> ScoreAt:
    """The marginal score as a function of theta, of the points at which h is drawn, and of a key.

    Raises:
        MissingCapability: where the model has neither `free_energy` nor `posterior`.
    """
    free_energy, posterior = energy.method("free_energy"), energy.method("posterior")
    if free_energy is not None:
        return lambda theta, points, key: marginal_score(free_energy, theta)
    if posterior is None:
        raise MissingCapability(
            f"gradient_bias needs free_energy or posterior, which energy_fn={energy.name} lacks; add either "
            "where it has a closed form, or measure on a model that has it, such as GRBM or LinearGaussian."
        )

    def by_posterior(theta: Params, points: Array, key: Array) -> ScoreFn:
        # The identity holds for every h, so h needs no derivative, which binary draws lack; numpyro's are
        # integers.
        h = jax.lax.stop_gradient(posterior(theta, points).sample(key)).astype(points.dtype)
        # The exact posterior has the energy's parameters, so theta stands in for phi too.
        return latent_score(energy.apply, posterior, theta, theta, LatentSample(h))

    return by_posterior


def _check_counts(num_steps: Sequence[int], lower_steps: Sequence[int], num_draws: int) -> None:
    _check_increasing("num_steps", num_steps)
    _check_increasing("lower_steps", lower_steps)
    checks.loop_count("num_draws", num_draws)
    if num_draws == 1:
        raise ValueError("num_draws=1 has no standard error; take num_draws=2 or more.")


def _check_increasing(name: str, counts: Sequence[int]) -> None:
    is_sequence = isinstance(counts, (tuple, list)) and len(counts) > 0
    for count in counts if is_sequence else ():
        checks.non_negative_int(f"each of {name}", count)
    if not is_sequence or any(low >= high for low, high in itertools.pairwise(counts)):
        raise ValueError(f"{name} must be a tuple of increasing counts, such as (0, 1, 5), not {counts!r}.")


def _angle(gradient: Float[Array, "*table size"], exact: Float[Array, " size"]) -> Float[Array, "*table"]:
    """In degrees; accurate near 0 and 180, unlike the inverse cosine."""
    direction = exact / jnp.linalg.norm(exact)
    along = gradient @ direction
    across = jnp.linalg.norm(gradient - jnp.outer(along, direction).reshape(gradient.shape), axis=-1)
    return jnp.degrees(jnp.arctan2(across, along))
