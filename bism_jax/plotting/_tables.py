"""Tables as heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from bism_jax import checks
from bism_jax.plotting import _arguments as arguments
from bism_jax.plotting._figure import new_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_tables(
    tables: Mapping[str, Float[ArrayLike, "rows columns"]],
    row_labels: Sequence[object],
    column_labels: Sequence[object],
    ylabel: str,
    xlabel: str,
    *,
    columns: int = 3,
    log_colour: Sequence[str] = (),
) -> Figure:
    """Tables as heat maps with their numbers in the cells; a cell that is NaN stays empty.

    Args:
        tables: `[rows, columns]` by title, all of one shape.
        row_labels: one a row.
        column_labels: one a column.
        ylabel: what the rows are.
        xlabel: what the columns are.
        columns: heat maps in a row of the figure.
        log_colour: titles of the tables whose colours follow the logarithm; their numbers are positive.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: there is no table, the labels do not fit its shape, it has no finite number, or numbers
            that have no logarithm.
        ImportError: matplotlib is missing.
    """
    arguments.named("tables", tables, "table")
    row_labels = arguments.labels("row_labels", row_labels)
    column_labels = arguments.labels("column_labels", column_labels)
    for name, text in (("ylabel", ylabel), ("xlabel", xlabel)):
        checks.text(name, text, "what it is")
    checks.positive_int("columns", columns)
    for title in arguments.labels("log_colour", log_colour):
        checks.one_of("each of log_colour", title, tuple(tables))
    shape = (len(row_labels), len(column_labels))
    arrays = {
        title: _table(f"tables[{title!r}]", table, shape, title in log_colour)
        for title, table in tables.items()
    }

    figure, panels = new_panels(len(tables), columns, 0.75 * shape[1] + 1.0, 0.55 * shape[0] + 1.0)
    for panel, (title, table) in zip(panels, arrays.items(), strict=True):
        _draw_table(panel, table, np.log(table) if title in log_colour else table)
        panel.set_title(title, fontsize=10)
        panel.set_xticks(range(shape[1]), column_labels)
        panel.set_yticks(range(shape[0]), row_labels)
        panel.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def _draw_table(panel: Axes, values: np.ndarray, colours: np.ndarray) -> None:
    """Cells of the colours, with the values in white on dark ones and in black on light ones."""
    low, high = np.nanmin(colours), np.nanmax(colours)
    panel.imshow(colours, cmap="viridis", aspect="auto", vmin=low, vmax=high)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            # The lower half of viridis is dark.
            ink = "white" if colours[row, column] < 0.5 * (low + high) else "black"
            panel.text(column, row, f"{value:.3g}", ha="center", va="center", color=ink, fontsize=8)
    panel.tick_params(length=0, labelsize=9)
    panel.spines[:].set_visible(False)


def _table(name: str, value: ArrayLike, shape: tuple[int, int], is_log: bool) -> np.ndarray:
    table = arguments.reals(name, value, "[rows, columns]")
    if table.shape != shape:
        raise ValueError(
            f"{name} has shape {table.shape}, but the labels are for {shape}: row_labels by column_labels."
        )
    # One infinite number would take the whole scale of colours.
    if not np.isfinite(table).any() or np.isinf(table).any():
        raise ValueError(f"{name} has no finite number, or an infinite one; cells without a number are NaN.")
    if is_log and (table <= 0).any():
        raise ValueError(f"{name} holds numbers that are not above 0, so leave it out of log_colour.")
    return table
