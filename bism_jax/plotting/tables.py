"""Tables as heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from bism_jax.plotting.figure import new_figure

if TYPE_CHECKING:
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
        ValueError: there is no table, or the labels do not fit its shape.
        ImportError: matplotlib is missing.
    """
    if not tables:
        raise ValueError("tables is empty: give at least one.")
    shape = (len(row_labels), len(column_labels))
    for title, table in tables.items():
        if np.shape(table) != shape:
            raise ValueError(
                f"tables[{title!r}] has shape {np.shape(table)}, but the labels are for {shape}."
            )

    columns = min(columns, len(tables))
    rows = -(-len(tables) // columns)
    figure = new_figure((0.75 * shape[1] + 1.0) * columns, (0.55 * shape[0] + 1.0) * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (title, table) in zip(panels, tables.items(), strict=False):
        values = np.asarray(table, np.float64)
        colours = np.log(values) if title in log_colour else values
        image = panel.imshow(colours, cmap="viridis", aspect="auto")
        middle = 0.5 * (np.nanmin(colours) + np.nanmax(colours))
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                ink = "white" if colours[row, column] < middle else "black"
                panel.text(column, row, f"{value:.3g}", ha="center", va="center", color=ink, fontsize=8)
        image.set_clim(np.nanmin(colours), np.nanmax(colours))
        panel.set_title(title, fontsize=10)
        panel.set_xticks(range(shape[1]), [str(label) for label in column_labels])
        panel.set_yticks(range(shape[0]), [str(label) for label in row_labels])
        panel.set(xlabel=xlabel, ylabel=ylabel)
        panel.tick_params(length=0, labelsize=9)
        panel.spines[:].set_visible(False)
    for panel in panels[len(tables) :]:
        panel.remove()
    return figure
