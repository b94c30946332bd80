"""What the derivatives of a posterior's log-density can bear, told before the first iteration is compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bism_jax._contract import Model, draw_latent_noise, sample_latents
from bism_jax._tracing.compilation import call_compiled
from bism_jax._tracing.jax_internals import JaxprEqn, Literal, is_traced
from bism_jax._tracing.jaxprs import dependent_equations, has_gradient
from bism_jax.objectives import Divergence, Fisher, Objective
from bism_jax.typing import Params

# The tail of one latent is then 40 draws, from which Hill's estimate has an error of 1 / sqrt(40), 16 %.
_ROWS, _DRAWS = 4, 1024
_TAIL = 0.01  # of the draws, from which the tail is estimated
_RANKS = 5  # that a draw is moved up by, among all draws of a latent
# Of the changes between draws nearby, what the derivatives there do not explain: 0.0 for Normal, StudentT(3),
# Logistic and Gumbel, 1.0 for Laplace and AsymmetricLaplace.
_MAX_MISSED = 0.1
# Primitives whose value jumps, or that choose between values; eq does where it stands for a maximum.
_JUMPS = frozenset(
    {"sign", "floor", "ceil", "round", "lt", "le", "gt", "ge", "eq", "argmax", "argmin", "sort", "top_k"}
)


def check_lower_density(
    posterior: Model, phi: Params, batch: Float[Array, "batch *visible"], divergence: Divergence
) -> None:
    """Checks that `Fisher`, where it is the divergence, can have the posterior's log-density.

    It takes the mean of |grad_h log q|^2 over draws. That is infinite where the density rises or falls at the
    edge of its support as a small power of the distance, as that of relaxed binary latents does, whose draws
    round to the edge besides.

    Raises:
        ValueError: for a density that is flat in h, or whose squared score at its own draws is not finite or
            has no finite mean.

    Warns:
        UserWarning: where grad_h log q jumps.
    """
    if not isinstance(divergence, Fisher) or is_traced(phi, batch):
        return
    probe = _Probe(posterior, phi, np.asarray(batch)[:_ROWS])
    name = f"divergence={divergence!r} with posterior_fn={posterior.name}"
    if not has_gradient(lambda h: probe.distribution(phi).log_prob(h), 0, probe.shape_of_h()):
        raise ValueError(
            f"{name}: log q(h | v) is flat in h, so its part of the Fisher divergence is 0 and nothing would "
            "keep q from collapsing. Use KL(), or a density with a slope such as Normal."
        )
    _check_edges(name, probe)
    if probe.jumps(probe.latent_score):
        _warn_of_jump(f"{name}: grad_h log q(h | v)", "the divergence 0")


def check_higher_density(
    posterior: Model, phi: Params, batch: Float[Array, "batch *visible"], objective: Objective
) -> None:
    """Says where grad_v log q(h | v; phi), a part of the score estimate, jumps as h moves.

    Where grad_v E does not jump with it, the estimate differs between latents whatever q is. The gradient in
    phi is right where a draw's side of the jump does not depend on phi, as for a Laplace density, and off
    where it does: by a quarter for an asymmetric one. Jumps of a network as v moves are not looked for: with
    ReLUs the gradient in phi is off by a twentieth, that in theta is right.

    Warns:
        UserWarning: where it jumps.
    """
    if is_traced(phi, batch):
        return
    probe = _Probe(posterior, phi, np.asarray(batch)[:_ROWS])
    if probe.jumps(probe.visible_score):
        name = f"objective={objective!r} with posterior_fn={posterior.name}: grad_v log q(h | v)"
        _warn_of_jump(name, "the score estimate the same for every h")


def _warn_of_jump(what: str, optimum: str) -> None:
    warnings.warn(
        f"{what} jumps as h moves, since the log-density has a kink (as that of Laplace), an absolute value "
        f"or a maximum. Where the energy's does not jump with it, no q makes {optimum}; and where a draw's "
        "side of the kink depends on phi (as that of AsymmetricLaplace), the gradient in phi misses it. Use "
        "a smooth density such as Normal or StudentT.",
        stacklevel=5,
    )


class _Probe:
    """A few rows with many draws of their latents, `[draws, rows, *latent]`, for functions of a draw h."""

    def __init__(self, posterior: Model, phi: Params, v: np.ndarray) -> None:
        self._posterior, self._phi, self._v = posterior, phi, v

    def distribution(self, phi: Params) -> Any:
        """q(h | v; phi) of the rows."""
        return self._posterior.apply(phi, self._v)

    def draw(self, phi: Params, seed: int, num_draws: int) -> Array:
        """Draws of h."""
        distribution = self.distribution(phi)
        # Seeded, so that a model is refused at every start or at none.
        noise = draw_latent_noise(jax.random.key(seed), distribution, (num_draws,))
        return jax.vmap(lambda noise: sample_latents(distribution, noise).h)(noise)

    def shape_of_h(self) -> Any:
        """The shape and dtype of one draw."""
        return jax.eval_shape(lambda phi: self.draw(phi, 0, 1)[0], self._phi)

    def captured(self) -> Any:
        """The distribution with tracers for values: its classes and constants are what is looked at."""
        found: list[Any] = []
        jax.eval_shape(lambda phi: found.append(self.distribution(phi)), self._phi)
        return found.pop()

    def latent_score(self, phi: Params, h: Array) -> Array:
        """grad_h log q, as `Fisher` takes it: from h alone."""
        distribution = self.distribution(phi)
        return jax.grad(lambda h: distribution.log_prob(h).sum())(h)

    def visible_score(self, phi: Params, h: Array) -> Array:
        """grad_v log q with h held, as the score estimate takes it."""
        return jax.grad(lambda v: self._posterior.apply(phi, v).log_prob(h).sum())(self._v)

    def at_draws(self, fn: Callable[[Params, Array], Array]) -> np.ndarray:
        """The function at each draw, in float64."""

        def run(phi: Params) -> Array:
            return jax.vmap(lambda h: fn(phi, h))(self.draw(phi, 0, _DRAWS))

        return np.asarray(call_compiled(run, self._phi), np.float64)

    def jumps(self, fn: Callable[[Params, Array], Array]) -> bool:
        """Whether the function jumps as h moves: by its trace whether it can, then by values whether it does.

        Most densities end at the trace, so that nothing is compiled for them.
        """
        return _can_jump(fn, self.shape_of_h(), self._phi) and self._missed(fn) > _MAX_MISSED

    def _missed(self, fn: Callable[[Params, Array], Array]) -> float:
        """The part of the changes along small moves of h that exceeds the derivatives at both ends.

        By the mean value theorem a smooth function exceeds them where its slope is largest in between, hence
        by little, as moves are to one of the next larger draws: small in the bulk, the tails and at edges.
        """

        def run(phi: Params) -> tuple[Array, Array]:
            h = self.draw(phi, 0, _DRAWS)
            ranks = h.argsort(axis=0).argsort(axis=0)
            larger = jnp.minimum(ranks + _RANKS, _DRAWS - 1)
            moved = jnp.take_along_axis(jnp.sort(h, axis=0), larger, axis=0)

            def at(h: Array, step: Array) -> tuple[Array, Array]:
                return jax.jvp(jax.vmap(lambda h: fn(phi, h)), (h,), (step,))

            (start, start_slope), (stop, stop_slope) = at(h, moved - h), at(moved, moved - h)
            return jnp.abs(stop - start), jnp.maximum(jnp.abs(start_slope), jnp.abs(stop_slope))

        change, slope = (np.asarray(part, np.float64) for part in call_compiled(run, self._phi))
        # A draw at an edge may have an infinite score, which is no jump.
        finite = np.isfinite(change) & np.isfinite(slope)
        # Half as much again for a slope that is steeper between the ends than at either.
        excess = np.maximum(change[finite] - 1.5 * slope[finite], 0).sum()
        return float(excess / max(change[finite].sum(), np.finfo(float).tiny))


def _can_jump(fn: Callable[[Params, Array], Array], h: Any, phi: Params) -> bool:
    """Whether a primitive of the traced function that can jump depends on h."""
    found: list[JaxprEqn] = []

    def visit(eqn: JaxprEqn) -> None:
        if eqn.primitive.name in _JUMPS and not _is_null(eqn):
            found.append(eqn)

    jaxpr = jax.make_jaxpr(lambda h, phi: fn(phi, h))(h, phi).jaxpr
    dependent_equations(jaxpr, [index == 0 for index in range(len(jaxpr.invars))], visit)
    return bool(found)


def _is_null(eqn: JaxprEqn) -> bool:
    """Whether an equality chooses at single points only, such as infinity, or nowhere, such as NaN."""
    is_constant = any(isinstance(atom, Literal) for atom in eqn.invars)
    return eqn.primitive.name == "eq" and (is_constant or eqn.invars[0] is eqn.invars[1])


def _check_edges(name: str, probe: _Probe) -> None:
    distribution = probe.captured()
    # By closed form first: near a temperature of 2 an estimate from draws would be in doubt.
    _check_concrete(name, distribution)
    # Without an edge scores seldom run away: even the Cauchy density's is bounded.
    if _is_whole_space(getattr(distribution, "support", None)):
        return
    squares = probe.at_draws(probe.latent_score) ** 2
    with np.errstate(over="ignore"):
        # In the precision of the loss: float32 overflows at squares that float64 still holds.
        finite = np.isfinite(squares.astype(jnp.result_type(float)))
    if not finite.all():
        raise ValueError(
            f"{name}: grad_h log q is not finite at {100 * (1 - finite.mean()):.2g} % of the draws of "
            f"{_describe(distribution)}, which round to the edge of its support. {_EDGE_ADVICE}"
        )
    index = _tail_index(squares)
    # Where P(x > t) falls as t^-a, x has a mean for a > 1 alone.
    if index < 1:
        raise ValueError(
            f"{name}: |grad_h log q|^2 has no finite mean over the draws of {_describe(distribution)} (a "
            f"tail index of {index:.2g}), whose density changes too fast at the edge of its support: a few "
            f"draws would make up the loss. {_EDGE_ADVICE}"
        )


_EDGE_ADVICE = "Use KL(), or latents on the whole real line such as Normal."


def _check_concrete(name: str, distribution: Any) -> None:
    # Here, so that `import bism_jax` loads neither the models nor numpyro.
    from bism_jax.models import RelaxedBernoulli

    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    if isinstance(distribution, RelaxedBernoulli) and distribution.density == "concrete":
        temperature = distribution.temperature
        # The squared score goes as 1 / h^2, and P(h < e) as e^temperature: a tail index of temperature / 2.
        if is_traced(temperature) or not np.all(np.asarray(temperature) > 2):
            raise ValueError(
                f"{name}: at the edges the Concrete density goes as h^(temperature - 1), so |grad_h log q|^2 "
                "has an infinite mean at temperatures up to 2, and h rounds to 0 and 1, where it is NaN. "
                "Use KL(), or density='bernoulli'."
            )


def _is_whole_space(support: Any) -> bool:
    from numpyro.distributions import constraints

    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    # numpyro names the instance; its class is private.
    return isinstance(support, type(constraints.real))


def _describe(distribution: Any) -> str:
    names = [type(distribution).__name__]
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
        names.append(type(distribution).__name__)
    return " of ".join(names)


def _tail_index(squares: Float[np.ndarray, "draws ..."]) -> float:
    """Hill's estimate of the a in P(x > t) ~ t^-a, of each latent's squares in units of their median."""
    squares = squares.reshape(len(squares), -1)
    # In units of the median, so that latents of any scales share one tail; tiny, as most scores may be 0.
    scaled = np.sort((squares / np.maximum(np.median(squares, axis=0), np.finfo(float).tiny)).ravel())
    # At least 20, where a batch of one row would leave 10.
    count = max(20, int(_TAIL * scaled.size))
    tail = np.maximum(scaled[-count - 1 :], np.finfo(float).tiny)
    spread = np.log(tail[1:] / tail[0]).mean()
    return float("inf") if spread == 0 else float(1 / spread)
