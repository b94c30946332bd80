"""Differentiation through an inner optimisation; usable on its own for any bilevel problem.

`Unrolled` is the recommended strategy. `Unrolled(N, segment="sqrt")` saves memory on long lower levels;
`Truncated` saves time where only the last steps matter; `Implicit` suits a strongly convex lower level
that is solved to its optimum; `StopGradient` drops the reaction of phi altogether.
"""

from bism_jax.hypergradient._implicit import AdjointSolution, Implicit
from bism_jax.hypergradient._problem import LowerProblem, LowerSolution, Strategy
from bism_jax.hypergradient._stop_gradient import StopGradient
from bism_jax.hypergradient._truncated import Truncated
from bism_jax.hypergradient._unrolled import Unrolled

__all__ = [
    "AdjointSolution",
    "Implicit",
    "LowerProblem",
    "LowerSolution",
    "StopGradient",
    "Strategy",
    "Truncated",
    "Unrolled",
]
