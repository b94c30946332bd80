"""The gradient of the lower-level loss with a backward pass by forward-over-reverse differentiation.

For g(phi, theta, x) = grad_phi G and a cotangent u, reverse mode needs u^T dg/d(phi, theta, x). Second
derivatives are symmetric, so this is the derivative of grad_(phi, theta, x) G along u in phi: one `jvp`,
which stores nothing but (phi, theta, x). (Kemaev et al., "Scalable Meta-Learning via Mixed-Mode
Differentiation", ICML 2025, arXiv 2505.00793.)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from bism_jax.hypergradient._inexact import join_inexact, split_inexact
from bism_jax.hypergradient._problem import LossFn, LowerGradient
from bism_jax.hypergradient._trusted_rules import find_untrusted_rule, has_forward_mode


def lower_gradient(
    loss_fn: LossFn,
    phi: PyTree,
    theta: PyTree,
    input_k: PyTree,
    *,
    mixed_mode: bool,
    trusted: Sequence[Any] = (),
) -> LowerGradient:
    """`(phi, theta, input_k) -> (loss, grad_phi loss)`, in mixed mode where that is exact.

    The loss it returns carries no gradient in mixed mode. Where `loss_fn` holds a rule that may not be
    a true derivative, plain reverse mode is used instead, and a warning says so once a place.

    Args:
        loss_fn: `(phi, theta, input_k) -> scalar`.
        phi: parameters as `loss_fn` will get them; only shapes and dtypes are read.
        theta: the same.
        input_k: the same, the input of one step.
        mixed_mode: whether to try.
        trusted: functions and primitives whose derivatives a user vouches for.
    """
    # Without a rule of its own, since a `custom_vjp` has no forward mode, which this option is there for.
    if not mixed_mode:
        return jax.value_and_grad(loss_fn)
    # Traced again, with what the loss closed over as arguments: a rule on the way from those counts too.
    rule = find_untrusted_rule(loss_fn, phi, theta, input_k, trusted=trusted)
    if rule is not None:
        other = "rewrite it as a custom_jvp and pass trusted=(the function,)"
        if has_forward_mode(rule):
            other = "pass trusted=(the function,) where its derivative is true"
        warnings.warn(
            f"the lower-level loss contains {rule}, which may not be a true derivative, so mixed mode would "
            "not be exact: plain reverse mode is used, which takes more memory. Pass mixed_mode=False to "
            f"choose it, or {other}.",
            stacklevel=2,
        )
        return jax.value_and_grad(loss_fn)
    return mixed_mode_gradient(loss_fn)


def mixed_mode_gradient(loss_fn: LossFn) -> LowerGradient:
    """`jax.value_and_grad(loss_fn)` with the mixed-mode rule, for a loss of true derivatives only."""

    def value_and_grad(phi: PyTree, inexact: PyTree, rest: PyTree) -> tuple[Float[Array, ""], PyTree]:
        return jax.value_and_grad(_restricted(loss_fn, rest))(phi, inexact)

    def backward(residuals: Any, cotangents: Any) -> tuple[PyTree, PyTree, None]:
        phi, inexact, rest = residuals
        # By theta and the input at once; an input left out would have a derivative of zero without an error.
        gradient = jax.grad(_restricted(loss_fn, rest), argnums=(0, 1))
        # The loss's own cotangent is zero: `make_step` stops the gradient of the losses.
        _, tangents = jax.jvp(lambda p: gradient(p, inexact), (phi,), (cotangents[1],))
        return (*tangents, None)

    rule = jax.custom_vjp(value_and_grad)
    # The forward pass calls the undecorated function: through the decorated one, second derivatives
    # of a scan come out wrong without an error.
    rule.defvjp(lambda *args: (value_and_grad(*args), args), backward)

    def gradient_fn(phi: PyTree, theta: PyTree, input_k: PyTree) -> tuple[Float[Array, ""], PyTree]:
        return rule(phi, *split_inexact((theta, input_k)))

    return gradient_fn


def _restricted(loss_fn: LossFn, rest: PyTree) -> Any:
    def of_inexact(phi: PyTree, inexact: PyTree) -> Float[Array, ""]:
        theta, input_k = join_inexact(inexact, rest)
        return loss_fn(phi, theta, input_k)

    return of_inexact
