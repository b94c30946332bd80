"""What is said when a run stops being finite: where, and the likeliest cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bism_jax.errors import Cause, DivergenceError

_ADVICE: dict[Cause, str] = {
    "value": (
        "The loss itself is not finite in the first iteration. Either a derivative in it is infinite (that "
        "of a norm or a root at zero, or a logarithm or quotient, in the energy or the posterior: add a "
        "small number under the root; jax.config.update('jax_debug_nans', True) finds the place), or the "
        "lower level "
        "diverged within the steps of one iteration: lower the learning rate of phi or clip its gradients."
    ),
    "derivative": (
        "The loss is finite and its gradient is not, in the first iteration: a derivative is infinite where "
        "the value is finite, as that of a norm or a square root at zero, in the energy, the posterior or "
        "an optimiser of your own. Add a small number under the root, or take jnp.where around its operand; "
        "jax.config.update('jax_debug_nans', True) finds the place. A smaller learning rate would not help."
    ),
    "overflow": (
        "The last finite values are near the largest that {dtype} holds ({largest:.3g}), or {dtype} has too "
        "few digits to hold them. Compute in float32, or scale the data and the loss down."
    ),
    "growth": (
        "{name} had grown {factor:.2g}-fold over the last {count} iterations. Lower the learning rate or "
        "clip gradients (optax.chain(optax.clip_by_global_norm(...), optimizer))."
    ),
    "sudden": (
        "Nothing had grown before. Look at the batch of that iteration for values far from the others, and "
        "at logarithms, roots and quotients in the model; clipping gradients (optax.clip_by_global_norm) "
        "helps where it is the data."
    ),
}
# How many iterations are looked back on, and by what factor a scalar grows over them to be named. They choose
# between two pieces of advice, not whether the run ends.
_WINDOW = 100
_GROWTH = 100.0
_NEAR_OVERFLOW = 1e-2  # of the largest number: the next product or square is beyond it


def divergence_error(
    step: int,
    bad: Mapping[str, float],
    before: Mapping[str, np.ndarray],
    theta: Any,
    checkpoint: Path | None,
    rolls_back: bool = False,
) -> DivergenceError:
    """The error for an iteration whose scalars are not all finite.

    Args:
        step: the iteration, counted from 0.
        bad: every scalar of that iteration.
        before: the scalars of the iterations before it, `[iterations]` each.
        theta: the parameters, for their dtype.
        checkpoint: the last good checkpoint, or None.
        rolls_back: whether the run goes back to it by itself.
    """
    names = [name for name, value in bad.items() if not np.isfinite(value)]
    cause, facts = _cause(bad, names, before, theta)
    saved = f"the last good checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint"
    message = (
        f"{', '.join(names)} stopped being finite at iteration {step}; {saved}. "
        f"{_ADVICE[cause].format(**facts)}"
    )
    if not rolls_back and cause in ("growth", "sudden"):
        message += " on_divergence='rollback' with a checkpoint_dir would go back and draw new noise."
    return DivergenceError(message, step, checkpoint, cause)


def _cause(
    bad: Mapping[str, float], names: Sequence[str], before: Mapping[str, np.ndarray], theta: Any
) -> tuple[Cause, dict[str, Any]]:
    recent = {name: np.abs(values[-_WINDOW:]) for name, values in before.items() if len(values)}
    # The narrowest of several overflows first.
    dtype = min((leaf.dtype for leaf in jax.tree.leaves(theta)), key=lambda dtype: jnp.finfo(dtype).bits)
    largest = float(jnp.finfo(dtype).max)
    last = max((float(values[-1]) for values in recent.values()), default=0.0)
    facts = {"dtype": dtype.name, "largest": largest}
    has_few_digits = jnp.finfo(dtype).bits < 32
    if has_few_digits and (not recent or last > _NEAR_OVERFLOW * largest):
        return "overflow", facts
    if not recent:
        return ("derivative" if np.isfinite(bad["loss"]) else "value"), facts
    growth = {name: _growth(values) for name, values in recent.items()}
    name = max(growth, key=lambda name: growth[name], default="loss")
    if growth.get(name, 0.0) >= _GROWTH:
        count = min(_WINDOW, len(recent[name]))
        return "growth", {**facts, "name": name, "factor": growth[name], "count": count}
    return ("overflow" if last > _NEAR_OVERFLOW * largest else "sudden"), facts


def _growth(values: np.ndarray) -> float:
    """How many times the first of some absolute values above 0 the last is; 1 where it does not stand out."""
    last, median = float(values[-1]), float(np.median(values))
    if last <= 10 * median:
        return 1.0
    return last / float(values[values > 0][0])
