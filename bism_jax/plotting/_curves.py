"""Lines told apart by colour and by dash."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Shaped

from bism_jax import checks
from bism_jax.plotting import _arguments as arguments
from bism_jax.plotting._figure import COLOURS, GREY, LINE_STYLES, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_learning_curves(
    curves: Mapping[
        str,
        tuple[Shaped[ArrayLike, "n"], Shaped[ArrayLike, "num_seeds n"], Shaped[ArrayLike, "num_seeds n"]],
    ],
    ylabel: str,
    reference: Mapping[str, float] | None = None,
    *,
    ylim: tuple[float, float] | None = None,
) -> Figure:
    """One measure against iterations and, beside it, against seconds of training.

    A line is the mean over seeds; its band is the standard error of the mean.

    Args:
        curves: `(steps[n], seconds[num_seeds, n], values[num_seeds, n])` by name.
        ylabel: what the values are, with their unit.
        reference: heights of horizontal lines by name.
        ylim: the range of values to show; None shows all.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: `curves` is empty, or the shapes of a curve do not fit.
        ImportError: matplotlib is missing.
    """
    arguments.named("curves", curves, "(steps, seconds, values)")
    checks.text("ylabel", ylabel, "what the values are")
    reference = arguments.references(reference)
    ylim = None if ylim is None else arguments.interval("ylim", ylim)
    arrays = {
        name: arguments.parts(f"curves[{name!r}]", curve, ("steps", "seconds", "values"))
        for name, curve in curves.items()
    }
    for name, (steps, seconds, values) in arrays.items():
        if (
            np.ndim(values) != 2
            or not np.size(values)
            or np.shape(seconds) != np.shape(values)
            or np.shape(values)[1:] != np.shape(steps)
        ):
            raise ValueError(
                f"curves[{name!r}] has shapes {np.shape(steps)}, {np.shape(seconds)} and {np.shape(values)}; "
                "give (n,), (num_seeds, n) and (num_seeds, n)."
            )

    figure = new_figure(12.0, 4.6)
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    line_styles = [style for style in LINE_STYLES for _ in COLOURS]
    styles = zip(cycle(COLOURS), cycle(line_styles), strict=False)
    for (name, (steps, seconds, values)), (colour, line_style) in zip(arrays.items(), styles, strict=False):
        mean, time = np.mean(values, axis=0), np.mean(seconds, axis=0)
        num_seeds = np.shape(values)[0]
        error = np.std(values, axis=0, ddof=min(1, num_seeds - 1)) / np.sqrt(num_seeds)
        for axes, x, label in ((by_step, np.asarray(steps), name), (by_time, time, None)):
            axes.plot(x, mean, color=colour, linestyle=line_style, linewidth=1.6, label=label)
            axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
    for axes, xlabel in ((by_step, "iteration"), (by_time, "seconds of training")):
        style(axes)
        for (name, height), line_style in zip(reference.items(), (":", "--", "-."), strict=False):
            label = name if axes is by_step else None
            axes.axhline(height, color=GREY, linestyle=line_style, linewidth=1.2, label=label, zorder=1)
        axes.set(xlabel=xlabel, ylim=ylim)
    by_step.set_ylabel(ylabel)
    by_time.set_xscale("log")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def plot_curves(
    curves: Mapping[str, tuple[Shaped[ArrayLike, "n"], Shaped[ArrayLike, "n"]]],
    xlabel: str,
    ylabel: str,
    reference: Mapping[str, float] | None = None,
    *,
    title: str | None = None,
    log_axes: bool = False,
) -> Figure:
    """Lines over one pair of axes, told apart by colour and by dash, with a legend.

    Args:
        curves: `(x, y)` by name, both `[n]`; NaN leaves a gap.
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.
        reference: heights of horizontal lines by name, such as a best possible value.
        title: drawn above.
        log_axes: whether both axes are logarithmic.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: `curves` is empty, or the x and the y of a curve differ in shape.
        ImportError: matplotlib is missing.
    """
    arguments.named("curves", curves, "(x, y)")
    for label, text in (("xlabel", xlabel), ("ylabel", ylabel)):
        checks.text(label, text, "what it is, with its unit")
    arguments.optional_text("title", title)
    checks.boolean("log_axes", log_axes)
    reference = arguments.references(reference)
    arrays = {name: arguments.parts(f"curves[{name!r}]", curve, ("x", "y")) for name, curve in curves.items()}
    for name, (x, y) in arrays.items():
        if np.ndim(x) != 1 or not np.size(x) or np.shape(x) != np.shape(y):
            raise ValueError(
                f"curves[{name!r}] has x of shape {np.shape(x)} and y of {np.shape(y)}; give two vectors of "
                "one length."
            )

    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    style(axes)
    styles = zip(cycle(COLOURS), cycle(LINE_STYLES), strict=False)
    for (name, (x, y)), (colour, line_style) in zip(arrays.items(), styles, strict=False):
        (line,) = axes.plot(np.asarray(x), np.asarray(y), label=name, linewidth=1.8, markersize=4)
        line.set(color=colour, linestyle=line_style, marker="o" if np.size(x) <= 20 else "")
    for (name, height), line_style in zip(reference.items(), cycle((":", "--", "-.")), strict=False):
        axes.axhline(height, color=GREY, linestyle=line_style, linewidth=1.2, label=name, zorder=1)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if log_axes:
        axes.set(xscale="log", yscale="log")
    if title:
        axes.set_title(title)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure
