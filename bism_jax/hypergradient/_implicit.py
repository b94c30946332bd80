"""Implicit hypergradients: differentiate the optimality condition instead of the path to it."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, PyTree

from bism_jax import checks
from bism_jax.hypergradient._inexact import join_inexact, split_inexact
from bism_jax.hypergradient._loss_trace import trace_loss
from bism_jax.hypergradient._optimizer_trace import UpdateTrace
from bism_jax.hypergradient._problem import LowerProblem, check_problem
from bism_jax.hypergradient._solve import AbstractStrategy, Prepared
from bism_jax.hypergradient._steps import Steps
from bism_jax.hypergradient._stop_gradient import StopGradient


class AdjointSolution(NamedTuple):
    """The solution w of (H + damping I) w = u.

    Attributes:
        adjoint: w, a pytree like phi.
        residual: |(H + damping I) w - u| / |u|.
    """

    adjoint: PyTree
    residual: Float[Array, ""]


@dataclass(frozen=True)
class Implicit(AbstractStrategy):
    """The hypergradient of the implicit function theorem, linearised at phi^N with the last input.

        (H + damping I) w = u,   H = d^2G/dphi^2 at (phi^N, theta, x_N),   u = dJ/dphi
        dJ/dtheta (total) = dJ/dtheta - w^T d^2G/(dphi dtheta)

    Exact at a minimum of a strongly convex (or damped) lower level, whatever the optimiser; an estimator
    elsewhere. Memory does not depend on N. The minimum depends on neither phi^0 nor the optimiser's state and
    hyperparameters nor the inputs but the last, so those derivatives are zero by definition; an optimiser
    whose fixed point may be no minimum of the loss, such as one that decays weights, is refused. Derivatives
    of any order are exact at the minimum where `damping` is 0, by reverse mode: `jax.jvp`, `jax.jacfwd` and
    `jax.hessian` raise. A relative residual above `tolerance` makes the backward pass warn; `solve_adjoint`
    reports it. (Pedregosa, ICML 2016; Lorraine et al., AISTATS 2020, arXiv 1911.02590.)

    Attributes:
        num_steps: N, at least 1.
        solver: `"cg"` (H + damping I positive definite) or `"neumann"`
            (w = step_size * sum_k (I - step_size (H + damping I))^k u; converges where
            0 < step_size * eigenvalue < 2).
        solver_steps: the fixed number of conjugate gradient steps or Neumann terms.
        damping: added to the diagonal of H.
        step_size: of the Neumann series; CG does not use it.
        tolerance: the relative residual above which the backward pass warns.

    Raises:
        ValueError: on an unknown solver, and on counts or sizes that are not positive; from `solve`, for an
            optimiser whose steps depend on the parameters (weight decay, projections) or leave some alone.
    """

    solver: Literal["cg", "neumann"] = "cg"
    solver_steps: int = 20  # leaves an error of 0.019 on 200 unknowns in float64 (benchmarks/NOTES.md)
    damping: float = 0.0  # none, since it biases the hypergradient of a strongly convex lower level
    step_size: float = 0.1
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        checks.positive_int("num_steps", self.num_steps, alternative="StopGradient(0)")
        checks.one_of("solver", self.solver, ("cg", "neumann"))
        checks.positive_int("solver_steps", self.solver_steps)
        checks.non_negative("damping", self.damping)
        checks.positive("step_size", self.step_size)
        checks.positive("tolerance", self.tolerance)

    def _run(self, prepared: Prepared) -> Steps:
        _check_stationary(prepared.update)
        # One input: the mean loss over all N would cost N Hessian-vector products an iteration of the solver.
        last_input = jax.tree.map(lambda leaf: leaf[-1], prepared.inputs)
        # Integers and keys apart: a rule may return one None for them all instead of a `float0` zero each.
        inexact, rest = split_inexact((prepared.theta, last_input))
        # The rule below carries the whole derivative, and reverse mode would store every one of these steps.
        (phi, opt_state), losses = StopGradient(self.num_steps)._run(prepared)
        return (self._optimum(prepared.problem)(phi, inexact, rest), opt_state), losses

    def _optimum(self, problem: LowerProblem) -> Any:
        """`(phi, inexact, rest) -> phi`, the optimum as a function of theta and the input, split in two."""

        def react(phi: PyTree, inexact: PyTree, rest: PyTree) -> PyTree:
            return phi

        def backward(residuals: Any, cotangent: PyTree) -> tuple[PyTree, PyTree, None]:
            phi, inexact, rest = residuals
            # The optimum moves with theta in the linear system as well, which second derivatives see.
            moving = optimum(phi, inexact, rest)
            # The product with H averages over the devices, so all must solve for the same right-hand side.
            theta_bar = self._pull_back(problem, moving, inexact, rest, problem.mean(cotangent))
            return jax.tree.map(jnp.zeros_like, phi), theta_bar, None

        optimum = jax.custom_vjp(react)
        # By the decorated function, so that a derivative of the backward pass sees the optimum move as well.
        optimum.defvjp(lambda *args: (optimum(*args), args), backward)
        return optimum

    def solve_adjoint(
        self, problem: LowerProblem, phi: PyTree, theta: PyTree, input_k: PyTree, cotangent: PyTree
    ) -> AdjointSolution:
        """Solves (H + damping I) w = cotangent at (phi, theta, input_k) and reports the residual.

        Raises:
            ValueError: where `cotangent` is not like `phi`, or the loss cannot be evaluated.
            TypeError: where `problem` is no `LowerProblem`, or leaves are no arrays.
        """
        check_problem(problem)
        names = ("phi", "theta", "input_k", "cotangent")
        args = [checks.arrays(*pair) for pair in zip(names, (phi, theta, input_k, cotangent), strict=True)]
        checks.floating_tree("phi", args[0])
        _check_cotangent(args[-1], args[0])
        trace_loss(problem.loss_fn, *args[:-1])
        return self._solve_adjoint(problem, *args)

    def _solve_adjoint(
        self, problem: LowerProblem, phi: PyTree, theta: PyTree, input_k: PyTree, cotangent: PyTree
    ) -> AdjointSolution:
        gradient = jax.grad(problem.loss_fn)
        cotangent = _in_widest_precision(cotangent)

        def product(vector: PyTree) -> PyTree:
            tangent = _cast_like(vector, phi)
            # Forward over reverse: reverse over reverse would store what the gradient computes on its way.
            hessian_vector = jax.jvp(lambda p: gradient(p, theta, input_k), (phi,), (tangent,))[1]
            return _add_scaled(_cast_like(problem.mean(hessian_vector), vector), self.damping, vector)

        if self.solver == "cg":
            adjoint = self._conjugate_gradients(product, cotangent)
        else:
            adjoint = self._neumann(product, cotangent)
        # One more product: the residual that conjugate gradients carry along drifts from the true one.
        error = _norm(_add_scaled(product(adjoint), -1.0, cotangent))
        # J may not depend on phi; then w = 0 is exact, and 0 / 0 would be reported as a divergence.
        scale = _norm(cotangent)
        return AdjointSolution(_cast_like(adjoint, phi), error / jnp.where(scale == 0, 1, scale))

    def _conjugate_gradients(self, product: Any, cotangent: PyTree) -> PyTree:
        # Beyond rounding the residual of the recursion underflows, and its next step is 0 / 0: 1 % of small
        # ridge regressions were NaN after 20 steps. In units of the largest entry no square underflows first.
        leaves = jax.tree.leaves(cotangent)
        largest = functools.reduce(jnp.maximum, [jnp.abs(leaf).max(initial=0) for leaf in leaves])
        # The unit cancels in a linear solve, so its derivative is 0, and that of a maximum need not exist.
        unit = jax.lax.stop_gradient(jnp.where(largest == 0, 1, largest))
        rounding = max(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves)
        scaled = jax.tree.map(lambda leaf: leaf / unit.astype(leaf.real.dtype), cotangent)
        # JAX's default tolerance of 1e-5 would stop a float64 solve eleven digits short of rounding.
        adjoint, _ = cg(product, scaled, tol=rounding, maxiter=self.solver_steps)
        return jax.tree.map(lambda leaf: leaf * unit.astype(leaf.real.dtype), adjoint)

    def _neumann(self, product: Any, cotangent: PyTree) -> PyTree:
        def add_term(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
            term, total = carry
            term = _add_scaled(term, -self.step_size, product(term))
            return (term, _add_scaled(total, 1.0, term)), None

        # The first term of the series is u itself, without a product.
        start = (cotangent, cotangent)
        if self.solver_steps == 1:  # under `jax.disable_jit`, `lax.scan` refuses a length of zero
            total = cotangent
        else:
            (_, total), _ = jax.lax.scan(add_term, start, None, length=self.solver_steps - 1)
        return jax.tree.map(lambda leaf: self.step_size * leaf, total)

    def _pull_back(
        self, problem: LowerProblem, phi: PyTree, inexact: PyTree, rest: PyTree, cotangent: PyTree
    ) -> PyTree:
        theta, last_input = join_inexact(inexact, rest)
        adjoint, residual = self._solve_adjoint(problem, phi, theta, last_input, cotangent)
        _report(residual, self.tolerance)

        def stationarity(inexact: PyTree) -> PyTree:
            return jax.grad(problem.loss_fn)(phi, *join_inexact(inexact, rest))

        _, pull_back = jax.vjp(stationarity, inexact)
        return pull_back(jax.tree.map(jnp.negative, adjoint))[0]


def _check_cotangent(cotangent: PyTree, phi: PyTree) -> None:
    shapes, expected = (jax.tree.map(jnp.shape, tree) for tree in (cotangent, phi))
    if shapes != expected:
        raise ValueError(
            f"cotangent must be a tree like phi, of the shapes {expected}, not {shapes}; pass the derivative "
            "of the higher-level loss by phi."
        )
    checks.floating_tree("cotangent", cotangent)


def _check_stationary(update: UpdateTrace) -> None:
    """Raises ValueError where an optimiser may settle at another point than a minimum of the loss."""
    if update.depends_on_params():
        raise ValueError(
            "Implicit differentiates the minimum of loss_fn, but the steps of optimizer depend on the "
            "parameters, as with weight decay or a projection, so it may settle elsewhere. Put the decay "
            "into loss_fn as a penalty, take optax.sgd or optax.adam, or use Unrolled."
        )
    if not all(update.depends_on_gradients()):
        raise ValueError(
            "Implicit differentiates the minimum of loss_fn in all of phi, but optimizer leaves parameters "
            "alone whatever their gradient (set_to_zero, masked). Pass those in theta, or use Unrolled."
        )


def _report(residual: Float[Array, ""], tolerance: float) -> None:
    def warn(residual: Any) -> None:
        # In this direction, so that NaN, which compares as false, is reported.
        if residual <= tolerance:
            return
        text = (
            f"the linear solve left a relative residual of {float(residual):.2g}; the hypergradient is off "
            "by about as much. Raise solver_steps or damping, or use Unrolled."
        )
        if not np.isfinite(residual):
            text = (
                "the hypergradient is not finite: the lower level diverged, or its Hessian is not finite at "
                "phi^N. Lower the rate of its optimiser, or look at the losses of the solution."
            )
        warnings.warn(f"Implicit: {text}", stacklevel=2)

    # Known on the host only when the compiled program runs.
    jax.debug.callback(warn, jax.lax.stop_gradient(residual))


def _in_widest_precision(tree: PyTree) -> PyTree:
    """The leaves in the precision of the widest: a step of a linear solver mixes them in its scalars."""
    widest = jnp.result_type(*(jnp.finfo(leaf.dtype).dtype for leaf in jax.tree.leaves(tree)))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, widest)), tree)


def _cast_like(tree: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, other: leaf.astype(other.dtype), tree, like)


def _add_scaled(tree: PyTree, scale: float, other: PyTree) -> PyTree:
    return jax.tree.map(lambda left, right: left + scale * right, tree, other)


def _norm(tree: PyTree) -> Float[Array, ""]:
    return jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)))
