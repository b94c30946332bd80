"""What all figures share: how one is made and saved, its colours and its axes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, safe for colour blindness, without its yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")
INK, GREY = "#333333", "#777777"


def save(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Writes a figure; its format follows the suffix of `path`, and folders that are missing are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
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
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def style(axes: Axes) -> None:
    """Gives axes of curves a faint grid and two spines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
