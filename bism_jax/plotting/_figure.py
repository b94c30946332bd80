"""What all figures share: how one is made and saved, its colours and its axes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from bism_jax import checks
from bism_jax.checks import shown
from bism_jax.plotting import _arguments as arguments

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, safe for colour blindness, without its yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")
_MAX_DPI = 5000  # 12 inches of it are 60,000 pixels, beyond what any screen shows
INK, GREY = "#333333", "#777777"


def save(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Writes a figure; its format follows the suffix of `path`, and folders that are missing are made.

    Raises:
        TypeError: where `figure` is no figure of matplotlib, or `path` no path.
        ValueError: for a suffix of no format that matplotlib writes, a folder, or a `dpi` out of range.
    """
    # By what is used, so that matplotlib need not be imported for the check.
    if not hasattr(figure, "savefig") or not hasattr(figure, "canvas"):
        raise TypeError(
            f"figure must be one of matplotlib, such as a plot of this module, not {shown(figure)}."
        )
    checks.positive_int("dpi", dpi)
    if dpi > _MAX_DPI:
        raise ValueError(f"dpi must be at most {_MAX_DPI}, not {dpi}.")
    # By suffix, since matplotlib would write a name without one under another, name.png.
    path = arguments.file(path, [f".{suffix}" for suffix in figure.canvas.get_supported_filetypes()])
    figure.draw_without_rendering()  # the layout takes a second pass to make room for long labels
    figure.savefig(path, dpi=dpi)
    return path


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'bism_jax.plotting needs matplotlib, which is not installed: pip install "bism-jax[experiments]".'
        ) from error
    # Figure itself: pyplot would choose a backend and keep each figure until it is closed.
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def new_panels(
    number: int, columns: int, width: float, height: float, *, margin: float = 0.0, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `number` panels of a size in inches, at most `columns` in a row."""
    columns = min(columns, number)
    rows = -(-number // columns)
    figure = new_figure(width * columns + margin, height * rows)
    # Not squeezed: of one panel matplotlib would return an axes instead of an array.
    panels = figure.subplots(rows, columns, squeeze=False, sharex=sharex).ravel()
    for panel in panels[number:]:
        panel.remove()
    return figure, list(panels[:number])


def draw_references(axes: Axes, reference: Mapping[str, float], *, labelled: bool = True) -> None:
    """Horizontal lines at heights of interest."""
    for (name, height), dash in zip(reference.items(), cycle((":", "--", "-.")), strict=False):
        label = name if labelled else None
        axes.axhline(height, color=GREY, linestyle=dash, linewidth=1.2, label=label, zorder=1)


def add_legend(figure: Figure) -> None:
    """A legend of all labelled lines, beside the panels."""
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)


def style(axes: Axes) -> None:
    """Gives axes of curves a faint grid and two spines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color="#E6E6E6", linewidth=0.7)
    # matplotlib's default draws the grid over filled areas.
    axes.set_axisbelow(True)
