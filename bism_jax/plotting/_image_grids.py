"""Images in rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Shaped

from bism_jax import checks
from bism_jax.plotting import _arguments as arguments
from bism_jax.plotting._figure import new_figure
from bism_jax.plotting._pixels import as_images, as_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_image_grid(
    images: Shaped[ArrayLike, "n height width *channels"],
    columns: int = 10,
    title: str | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
) -> Figure:
    """Images side by side, row by row.

    Args:
        images: `[n, height, width]`, or with 1 or 3 channels last; floats in [0, 1], clipped to it, booleans
            or uint8. NaN is drawn white.
        columns: images in a row.
        title: drawn above.
        row_labels: one label a row.
        column_labels: one label a column, above it.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: `images` has another shape or dtype, `columns` is not positive, or the labels are more or
            fewer than the rows or the columns.
        ImportError: matplotlib is missing.
    """
    arguments.optional_text("title", title)
    row_labels = None if row_labels is None else arguments.labels("row_labels", row_labels)
    column_labels = None if column_labels is None else arguments.labels("column_labels", column_labels)
    mosaic = image_mosaic(images, columns)
    number = np.shape(images)[0]
    # Fewer images than columns would leave blank cells, and labels to match.
    columns = min(columns, number)
    rows = -(-number // columns)
    _check_labels("row", row_labels, rows, columns)
    _check_labels("column", column_labels, columns, columns)

    titles = bool(title) + (column_labels is not None)
    figure = new_figure(*_mosaic_size(mosaic, columns, labelled=row_labels is not None, titles=titles))
    axes = figure.subplots()
    # Fixed limits: matplotlib would stretch each picture to its own least and greatest value.
    axes.imshow(mosaic, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.set_xticks(*_label_ticks(column_labels, mosaic.shape[1]))
    axes.set_yticks(*_label_ticks(row_labels, mosaic.shape[0]))
    if title:
        axes.set_title(title)
    return figure


def image_mosaic(
    images: Shaped[ArrayLike, "n height width *channels"], columns: int = 10
) -> Float[np.ndarray, "rows_height columns_width *channels"]:
    """Images in one, row by row, on white and with a white edge about each: a frame of an animation.

    Args:
        images: as `plot_image_grid` takes them.
        columns: images in a row.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: `images` has another shape or dtype, or `columns` is not positive.
    """
    pixels = as_pixels("images", images)
    checks.positive_int("columns", columns)
    columns = min(columns, len(pixels))
    return _mosaic(pixels, -(-len(pixels) // columns), columns)


def plot_film_strip(
    snapshots: Shaped[ArrayLike, "num_snapshots chains height width *channels"],
    column_labels: Sequence[object] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Markov chains on their way: a row a chain, a column a snapshot.

    Args:
        snapshots: `[num_snapshots, chains, height, width]`, or with 1 or 3 channels last; pixels are those of
            `plot_image_grid`.
        column_labels: one a snapshot, such as `schedule.snapshot_steps(num_snapshots)`.
        title: drawn above.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: `snapshots` has another shape or dtype, or `column_labels` another length.
        ImportError: matplotlib is missing.
    """
    array = as_images("snapshots", snapshots)
    if array.ndim not in (4, 5) or 0 in array.shape:
        raise ValueError(
            f"snapshots has shape {array.shape}; give [num_snapshots, chains, height, width] or 1 or 3 "
            "channels last, none of them 0."
        )
    # Chains first, as a grid is filled row by row.
    rows = as_pixels("snapshots", array.swapaxes(0, 1).reshape(-1, *array.shape[2:]))
    labels = None if column_labels is None else arguments.labels("column_labels", column_labels)
    return plot_image_grid(rows, len(array), title, column_labels=labels)


def plot_reconstructions(
    originals: Shaped[ArrayLike, "n height width *channels"],
    reconstructions: Shaped[ArrayLike, "n height width *channels"],
    *,
    title: str | None = None,
) -> Figure:
    """Two rows: the originals, and under each its reconstruction.

    Args:
        originals: `[n, height, width]`, or with 1 or 3 channels last; floats in [0, 1] or uint8.
        reconstructions: of the same shape.
        title: drawn above.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the shapes differ, or are not those of images.
        ImportError: matplotlib is missing.
    """
    top, bottom = as_pixels("originals", originals), as_pixels("reconstructions", reconstructions)
    if top.shape != bottom.shape:
        raise ValueError(
            f"reconstructions has shape {np.shape(reconstructions)}, but originals has "
            f"{np.shape(originals)}; give one reconstruction of each original."
        )
    return plot_image_grid(np.concatenate([top, bottom]), len(top), title, ("Original", "Reconstruction"))


def plot_inpainting(
    originals: Shaped[ArrayLike, "n height width *channels"],
    observed: Shaped[ArrayLike, "n height width *channels"],
    completed: Shaped[ArrayLike, "n height width *channels"],
    *,
    title: str | None = None,
) -> Figure:
    """Three rows: what was observed, with the rest in grey, its completion, and the original.

    Args:
        originals: `[n, height, width]`, or with 1 or 3 channels last; pixels are those of `plot_image_grid`.
        observed: booleans, True where a pixel is known, of the same shape.
        completed: of the same shape.
        title: drawn above.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the shapes differ or are not those of images, or `observed` is not of booleans.
        ImportError: matplotlib is missing.
    """
    originals, observed, completed = (
        as_images(name, images)
        for name, images in (("originals", originals), ("observed", observed), ("completed", completed))
    )
    # A mask of 0 and 1 is as likely to mark what is missing.
    if observed.dtype != bool:
        raise ValueError(f"observed has dtype {observed.dtype}; give booleans, True where known.")
    for name, other in (("observed", observed), ("completed", completed)):
        if np.shape(other) != np.shape(originals):
            raise ValueError(
                f"{name} has shape {np.shape(other)}, but originals has {np.shape(originals)}; give one of "
                "each original."
            )
    bottom, middle = as_pixels("originals", originals), as_pixels("completed", completed)
    # Grey, which neither black strokes nor white paper is; reshaped, as a channel of 1 is dropped.
    top = np.where(np.asarray(observed).reshape(bottom.shape), bottom, 0.5)
    labels = ("Observed", "Completed", "Original")
    return plot_image_grid(np.concatenate([top, middle, bottom]), len(top), title, labels)


def _check_labels(kind: str, labels: Sequence[str] | None, number: int, columns: int) -> None:
    if labels is not None and len(labels) != number:
        raise ValueError(
            f"{kind}_labels has {len(labels)} entries for {number} {kind}s; give one a {kind} "
            f"(columns={columns})."
        )


def _label_ticks(labels: Sequence[str] | None, length: int) -> tuple[Sequence[float], Sequence[str]]:
    """The middles of the cells along one side of a mosaic, in pixels, and their labels."""
    if labels is None:
        return (), ()
    pitch = length / len(labels)
    # `imshow` has the middle of the first pixel at 0.
    return [(index + 0.5) * pitch - 0.5 for index in range(len(labels))], labels


def _mosaic(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The images in one, on white, with a white edge about each."""
    missing = rows * columns - len(pixels)
    no_padding = ((0, 0),) * (pixels.ndim - 3)
    # White edges and white blanks, so that black images do not run into one.
    padded = np.pad(pixels, ((0, missing), (1, 1), (1, 1), *no_padding), constant_values=1.0)
    height, width, *channels = padded.shape[1:]
    cells = padded.reshape(rows, columns, height, width, *channels).swapaxes(1, 2)
    return cells.reshape(rows * height, columns * width, *channels)


def _mosaic_size(mosaic: np.ndarray, columns: int, *, labelled: bool, titles: int) -> tuple[float, float]:
    """Width and height of the figure in inches."""
    width = float(np.clip(0.7 * columns, 3.0, 10.0))
    height = width * mosaic.shape[0] / mosaic.shape[1]
    return width + 1.2 * labelled, height + 0.2 + 0.35 * titles
