"""The scalars of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Shaped

from bism_jax import checks
from bism_jax.plotting import _arguments as arguments
from bism_jax.plotting._figure import COLOURS, GREY, new_panels, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_history(
    history: Mapping[str, Shaped[ArrayLike, "num_steps"]],
    steps: Shaped[ArrayLike, "num_steps"] | None = None,
    *,
    window: int | None = None,
    columns: int = 3,
    max_points: int = 2000,
) -> Figure:
    """One small panel a scalar: the raw curve drawn lightly, its running mean over it.

    A long raw curve is drawn as the least and the greatest value of each of `max_points / 2` stretches,
    so that no spike is lost. The vertical range leaves out the most extreme 1 % of the raw values.

    Args:
        history: scalar curves `[num_steps]` by name.
        steps: the iteration of each entry; None counts from 0.
        window: how many entries a mean is taken over, half of them on either side; None takes a fiftieth
            of the curve, and at least 5.
        columns: panels in a row, at most.
        max_points: the most points a drawn curve has.

    Raises:
        TypeError: `history` is no mapping of names to arrays of numbers.
        ValueError: `history` is empty, a curve is not of the shape `[num_steps]`, or `window` or `columns`
            is not positive.
        ImportError: matplotlib is missing.
    """
    arguments.named("history", history, "scalar curve")
    curves = {
        name: arguments.reals(f"history[{name!r}]", values, "[num_steps]") for name, values in history.items()
    }
    at = _checked_steps(steps, curves)
    checks.positive_int("columns", columns)
    # Fifty windows side by side; fewer than 5 entries hardly smooth the noise of a batch.
    window = max(5, len(at) // 50) if window is None else window
    checks.positive_int("window", window)
    checks.positive_int("max_points", max_points)
    if max_points < 2:
        raise ValueError("max_points must be at least 2: the least and the greatest value of a stretch.")

    figure, panels = new_panels(len(curves), columns, 4.0, 2.6, sharex=True)
    # After `new_figure`, which says what to install where matplotlib is missing.
    from matplotlib.ticker import EngFormatter

    for panel, (name, values) in zip(panels, curves.items(), strict=True):
        _draw_history(panel, at, values, window, max_points)
        panel.set_title(name, fontsize=11)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    # The lowest of each column: where the last row is short, `sharex` has hidden labels in the one above.
    for panel in panels[-columns:]:
        panel.set_xlabel("Iteration")
        panel.tick_params(labelbottom=True)
    return figure


def _checked_steps(steps: ArrayLike | None, curves: Mapping[str, np.ndarray]) -> Float[np.ndarray, "n"]:
    """The iteration of each entry; raises ValueError where the curves have another length."""
    if steps is None:
        # A curve that is one number has no length; its shape is refused below, by name.
        at = np.arange(len(np.atleast_1d(next(iter(curves.values())))))
    else:
        at = arguments.reals("steps", steps, "[num_steps]")
    if not np.isfinite(at).all():
        raise ValueError("steps holds NaN or infinite values; give the iteration of each entry.")
    for name, values in curves.items():
        if values.shape != at.shape or values.ndim != 1 or not len(values):
            raise ValueError(
                f"history[{name!r}] has shape {values.shape}, but steps has {at.shape}; a curve needs one "
                "scalar a step, so plot the entries of a vector as curves of their own."
            )
    return at


def _draw_history(axes: Axes, steps: np.ndarray, values: np.ndarray, window: int, max_points: int) -> None:
    style(axes)
    finite = values[np.isfinite(values)]
    if not len(finite):
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=GREY)
        axes.set_yticks([])
        return
    mean = _running_mean(values, window)
    # A mean over a window is smooth, so that its points may be picked; the raw curve needs its extremes.
    thinned = np.linspace(0, len(values) - 1, min(len(values), max_points)).astype(int)
    if window > 1:
        axes.plot(*_envelope(steps, values, max_points), color=COLOURS[0], alpha=0.3, linewidth=0.7)
    axes.plot(steps[thinned], mean[thinned], color=COLOURS[0], linewidth=1.8)
    # Of the raw curve without its spikes, but of all of the mean, so that its line never leaves the panel.
    typical = np.append(np.quantile(finite, (0.005, 0.995)), mean[np.isfinite(mean)])
    low, high = typical.min(), typical.max()
    # Above 0 for a constant curve too, of whose equal limits matplotlib warns.
    margin = 0.06 * (high - low) or 0.06 * max(abs(high), 1e-3)
    axes.set_ylim(low - margin, high + margin)


def _running_mean(values: Float[np.ndarray, "n"], window: int) -> Float[np.ndarray, "n"]:
    """The mean of the finite values within half a window on either side; windows shrink at the two ends."""
    finite = np.isfinite(values)
    # Sums of deviations from the median: a difference of two sums of large values would lose digits.
    offset = np.median(values[finite])
    # Cumulative sums make the cost independent of the window.
    sums = np.append(0.0, np.cumsum(np.where(finite, values - offset, 0.0)))
    counts = np.append(0, np.cumsum(finite))
    index = np.arange(len(values))
    half = window // 2
    start, stop = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    number = counts[stop] - counts[start]
    mean = np.full(len(values), np.nan)
    np.divide(sums[stop] - sums[start], number, out=mean, where=number > 0)
    return mean + offset


def _envelope(steps: np.ndarray, values: np.ndarray, max_points: int) -> tuple[np.ndarray, np.ndarray]:
    """A curve of at most `max_points` points through the extremes of each stretch of a longer one."""
    if len(values) <= max_points:
        return steps, values
    # More than two entries apart, and so distinct, as `reduceat` gives a single entry for equal ones.
    starts = np.linspace(0, len(values), max_points // 2, endpoint=False).astype(int)
    # `fmin` and `fmax` pass over NaN, of which one would blank its stretch.
    extremes = np.stack([np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)], axis=1)
    return np.repeat(steps[starts], 2), extremes.ravel()
