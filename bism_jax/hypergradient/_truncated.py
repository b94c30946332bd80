"""Truncated unrolling: differentiate through the last steps only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bism_jax import checks
from bism_jax.hypergradient._optimizer_trace import passed_on
from bism_jax.hypergradient._solve import AbstractStrategy, Prepared
from bism_jax.hypergradient._steps import Steps
from bism_jax.hypergradient._stop_gradient import StopGradient
from bism_jax.hypergradient._trusted_rules import check_trusted
from bism_jax.hypergradient._unrolled import Unrolled


@dataclass(frozen=True)
class Truncated(AbstractStrategy):
    """Reverse mode through the last T of N steps; the first N - T take theta as a constant.

    An estimator, whose bias falls geometrically in T on a strongly convex lower level (Shaban et al.,
    AISTATS 2019, arXiv 1810.10667). The optimiser's state carries over from the head to the tail, so the
    primal result is that of `Unrolled`. Derivatives through the head, and so with respect to phi^0, the
    head's `inputs` and the moments in `opt_state`, are zero by definition where T < N, to every order; a
    hyperparameter of the optimiser, closed over or injected, is seen in the tail alone, as theta is.

    Attributes:
        num_steps: N.
        last: T, from 1 to N.
        mixed_mode: as in `Unrolled`.
        trusted: as in `Unrolled`.

    Raises:
        ValueError: on a negative `num_steps` or a `last` outside of 1 to N.
        TypeError: where `trusted` is no tuple of functions and primitives, or holds a custom_vjp, which has
            no forward mode.
    """

    last: int
    mixed_mode: bool = True
    trusted: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.boolean("mixed_mode", self.mixed_mode)
        check_trusted(self.trusted)
        checks.positive_int("last", self.last, alternative="StopGradient(num_steps)")
        if self.last > self.num_steps:
            raise ValueError(
                f"Truncated(num_steps={self.num_steps}, last={self.last}): last counts the "
                "differentiated steps and cannot exceed num_steps; use Unrolled to differentiate all."
            )

    def _run(self, prepared: Prepared) -> Steps:
        head_steps = self.num_steps - self.last
        tail = Unrolled(self.last, mixed_mode=self.mixed_mode, trusted=self.trusted)
        # All N steps: the derivatives by phi^0 and the moments are there as well.
        if head_steps == 0:
            return tail._run(prepared)
        head_inputs = jax.tree.map(lambda leaf: leaf[:head_steps], prepared.inputs)
        tail_inputs = jax.tree.map(lambda leaf: leaf[head_steps:], prepared.inputs)
        # Cut between two steps: a second solve from phi alone would restart Adam and change phi^N.
        (phi, opt_state), head_losses = StopGradient(head_steps)._run(prepared._replace(inputs=head_inputs))
        # What no step changes, such as an injected learning rate, acts in the tail as theta does.
        leaves, structure = jax.tree.flatten(opt_state)
        constants = zip(leaves, jax.tree.leaves(prepared.opt_state), passed_on(prepared.update), strict=True)
        opt_state = jax.tree.unflatten(structure, [new if same else old for old, new, same in constants])
        carry, tail_losses = tail._run(prepared._replace(phi=phi, inputs=tail_inputs, opt_state=opt_state))
        return carry, jnp.concatenate([head_losses, tail_losses])
