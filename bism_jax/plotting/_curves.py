"""Lines told apart by colour and by dash."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Shaped

from bism_jax import checks
from bism_jax.plotting import _arguments as arguments
from bism_jax.plotting._figure import COLOURS, LINE_STYLES, add_legend, draw_references, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_MARKED = 20  # points of a curve; more markers than these hide its line


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
        TypeError: an argument has the wrong type.
        ValueError: `curves` is empty, or the shapes of a curve do not fit.
        ImportError: matplotlib is missing.
    """
    arguments.named("curves", curves, "(steps, seconds, values)")
    checks.text("ylabel", ylabel, "what the values are")
    reference = arguments.references(reference)
    ylim = None if ylim is None else arguments.interval("ylim", ylim)
    arrays = {name: _learning_curve(f"curves[{name!r}]", curve) for name, curve in curves.items()}

    # After the checks, so that a wrong argument is told of without matplotlib too.
    figure = new_figure(12.0, 4.6)
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    # Each dash in all colours before the next, so that up to seven lines are solid.
    styles = cycle((colour, dash) for dash in LINE_STYLES for colour in COLOURS)
    for (name, (steps, seconds, values)), (colour, dash) in zip(arrays.items(), styles, strict=False):
        _draw_mean(by_step, steps, values, color=colour, linestyle=dash, label=name)
        _draw_mean(by_time, np.mean(seconds, axis=0), values, color=colour, linestyle=dash)
    for axes, xlabel in ((by_step, "iteration"), (by_time, "seconds of training")):
        style(axes)
        # Of one panel alone: a figure's legend lists what each of its axes has.
        draw_references(axes, reference, labelled=axes is by_step)
        axes.set(xlabel=xlabel, ylim=ylim)
    by_step.set_ylabel(ylabel)
    # Methods differ by a factor of twenty: 0.015 ms an iteration of KSD, 0.31 of BiDVL on the checkerboard.
    by_time.set_xscale("log")
    add_legend(figure)
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
        TypeError: an argument has the wrong type.
        ValueError: `curves` is empty, or the x and the y of a curve differ in shape.
        ImportError: matplotlib is missing.
    """
    arguments.named("curves", curves, "(x, y)")
    for label, text in (("xlabel", xlabel), ("ylabel", ylabel)):
        checks.text(label, text, "what it is, with its unit")
    arguments.optional_text("title", title)
    checks.boolean("log_axes", log_axes)
    reference = arguments.references(reference)
    arrays = {name: _curve(f"curves[{name!r}]", curve) for name, curve in curves.items()}

    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    style(axes)
    # Seven colours and four dashes have no common divisor, so that 28 lines differ.
    styles = zip(cycle(COLOURS), cycle(LINE_STYLES), strict=False)
    for (name, (x, y)), (colour, line_style) in zip(arrays.items(), styles, strict=False):
        (line,) = axes.plot(x, y, label=name, linewidth=1.8, markersize=4)
        line.set(color=colour, linestyle=line_style, marker="o" if x.size <= _MAX_MARKED else "")
    draw_references(axes, reference)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if log_axes:
        axes.set(xscale="log", yscale="log")
    if title:
        axes.set_title(title)
    add_legend(figure)
    return figure


def _learning_curve(name: str, curve: Any) -> tuple[np.ndarray, ...]:
    steps, seconds, values = arguments.parts(name, curve, ("steps", "seconds", "values"))
    fits = values.ndim == 2 and seconds.shape == values.shape and values.shape[1:] == steps.shape
    if not fits or not values.size:
        raise ValueError(
            f"{name} has shapes {steps.shape}, {seconds.shape} and {values.shape}; give (n,), (num_seeds, n) "
            "and (num_seeds, n)."
        )
    return steps, seconds, values


def _curve(name: str, curve: Any) -> tuple[np.ndarray, ...]:
    x, y = arguments.parts(name, curve, ("x", "y"))
    if x.ndim != 1 or not x.size or x.shape != y.shape:
        raise ValueError(
            f"{name} has x of shape {x.shape} and y of {y.shape}; give two vectors of one length."
        )
    return x, y


def _draw_mean(axes: Axes, x: np.ndarray, values: Float[np.ndarray, "seeds n"], **line: Any) -> None:
    """The mean over seeds, in a band of its standard error."""
    mean, num_seeds = values.mean(axis=0), len(values)
    # One seed has no spread: 0 draws a line without a band, where NaN would be warned of.
    error = values.std(axis=0, ddof=min(1, num_seeds - 1)) / np.sqrt(num_seeds)
    axes.plot(x, mean, linewidth=1.6, **line)
    axes.fill_between(x, mean - error, mean + error, color=line["color"], alpha=0.2, linewidth=0)
