"""Pictures of fits: densities, training curves and images, each returned as a matplotlib figure.

Figures are made without pyplot: there is no global state, no backend to choose, and nothing to close.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from bism_jax import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bounds: TypeAlias = tuple[tuple[float, float], tuple[float, float]]

# Okabe and Ito's palette, safe for colour blindness, without its yellow, which is too pale for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_LINE_STYLES = ("-", "--", "-.", ":")
_INK, _GREY = "#333333", "#777777"


def plot_density(
    data: Float[ArrayLike, "num_data 2"],
    samples: Float[ArrayLike, "num_samples 2"],
    log_density_fn: Callable[[Float[Array, "n 2"]], Float[Array, "n"]],
    bounds: Bounds = ((0.0, 1.0), (0.0, 1.0)),
    *,
    resolution: int = 200,
    max_points: int = 5000,
) -> Figure:
    """Three panels over one box: the data, the samples of a model, and the density exp(log p) of the model.

    Args:
        data: points `[num_data, 2]`; the first `max_points` are drawn.
        samples: points `[num_samples, 2]`; the first `max_points` are drawn.
        log_density_fn: `[n, 2] -> [n]`, the normalised log density in nats.
        bounds: the box, `((x_low, x_high), (y_low, y_high))`.
        resolution: cells along each side of the heat map; the density is taken at their centres.
        max_points: the most points a scatter shows.

    Raises:
        ValueError: `data` or `samples` are not points of the plane, or `log_density_fn` does not return
            one number a point.
        ImportError: matplotlib is missing.
    """
    (x_low, x_high), (y_low, y_high) = bounds
    points = {"data": _points("data", data), "samples": _points("samples", samples)}
    density = _density_on_grid(log_density_fn, bounds, resolution)

    figure = _new_figure(10.8, 3.7)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for panel, (title, scatter) in zip(axes, points.items(), strict=False):
        shown = scatter[:max_points]
        panel.scatter(
            *shown.T, s=4, alpha=_point_opacity(len(shown)), color=_COLOURS[0], linewidths=0, rasterized=True
        )
        panel.set_title(title.capitalize())
    heat_map = axes[2].imshow(
        density, extent=(x_low, x_high, y_low, y_high), origin="lower", cmap="viridis", vmin=0.0
    )
    axes[2].set_title("Model density")
    colour_bar = figure.colorbar(heat_map, ax=axes[2], fraction=0.046, pad=0.03)
    colour_bar.outline.set_visible(False)
    colour_bar.ax.tick_params(colors=_INK, labelsize=9)
    colour_bar.ax.locator_params(nbins=5)
    for panel in axes:
        panel.set(xlim=(x_low, x_high), ylim=(y_low, y_high), aspect="equal", xlabel="$v_1$")
        panel.spines[:].set_color(_GREY)
        panel.tick_params(colors=_INK, labelsize=9)
        panel.locator_params(nbins=5)
    axes[0].set_ylabel("$v_2$")
    return figure


def plot_density_grid(
    log_density_fns: Mapping[str, Callable[[Float[Array, "n 2"]], Float[Array, "n"]]],
    bounds: Bounds = ((0.0, 1.0), (0.0, 1.0)),
    *,
    columns: int = 5,
    resolution: int = 100,
    max_density: float | None = None,
) -> Figure:
    """The densities of several models in small panels of one colour scale.

    Args:
        log_density_fns: `[n, 2] -> [n]` by name, normalised log densities in nats.
        bounds: the box, `((x_low, x_high), (y_low, y_high))`.
        columns: panels in a row.
        resolution: cells along each side.
        max_density: the top of the colour scale; None takes the largest density drawn.

    Raises:
        ValueError: there is no model, `columns` is not positive, or a function does not return one number
            a point.
        ImportError: matplotlib is missing.
    """
    if not log_density_fns:
        raise ValueError("log_density_fns is empty: give at least one model.")
    checks.positive_int("columns", columns)
    densities = {name: _density_on_grid(fn, bounds, resolution) for name, fn in log_density_fns.items()}
    top = max(density.max() for density in densities.values()) if max_density is None else max_density

    columns = min(columns, len(densities))
    rows = -(-len(densities) // columns)
    figure = _new_figure(2.0 * columns + 0.6, 2.15 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    (x_low, x_high), (y_low, y_high) = bounds
    for panel, (name, density) in zip(panels, densities.items(), strict=False):
        extent = (x_low, x_high, y_low, y_high)
        image = panel.imshow(density, extent=extent, origin="lower", cmap="viridis", vmin=0.0, vmax=top)
        panel.set_title(name, fontsize=10)
        panel.set(xticks=[], yticks=[])
    for panel in panels[len(densities) :]:
        panel.remove()
    colour_bar = figure.colorbar(image, ax=list(panels[: len(densities)]), fraction=0.02, pad=0.01)
    colour_bar.outline.set_visible(False)
    return figure


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
    figure = _new_figure((0.75 * shape[1] + 1.0) * columns, (0.55 * shape[0] + 1.0) * rows)
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
        ValueError: `curves` is empty, or the shapes of a curve do not fit.
        ImportError: matplotlib is missing.
    """
    if not curves:
        raise ValueError("curves is empty: give at least one (steps, seconds, values).")
    for name, (steps, seconds, values) in curves.items():
        if (
            np.ndim(values) != 2
            or np.shape(seconds) != np.shape(values)
            or np.shape(values)[1:] != np.shape(steps)
        ):
            raise ValueError(
                f"curves[{name!r}] has shapes {np.shape(steps)}, {np.shape(seconds)} and {np.shape(values)}; "
                "give (n,), (num_seeds, n) and (num_seeds, n)."
            )

    figure = _new_figure(12.0, 4.6)
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    line_styles = [style for style in _LINE_STYLES for _ in _COLOURS]
    styles = zip(cycle(_COLOURS), cycle(line_styles), strict=False)
    for (name, (steps, seconds, values)), (colour, line_style) in zip(curves.items(), styles, strict=False):
        mean, time = np.mean(values, axis=0), np.mean(seconds, axis=0)
        num_seeds = np.shape(values)[0]
        error = np.std(values, axis=0, ddof=min(1, num_seeds - 1)) / np.sqrt(num_seeds)
        for axes, x, label in ((by_step, np.asarray(steps), name), (by_time, time, None)):
            axes.plot(x, mean, color=colour, linestyle=line_style, linewidth=1.6, label=label)
            axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
    for axes, xlabel in ((by_step, "iteration"), (by_time, "seconds of training")):
        _style(axes)
        for (name, height), line_style in zip((reference or {}).items(), (":", "--", "-."), strict=False):
            label = name if axes is by_step else None
            axes.axhline(height, color=_GREY, linestyle=line_style, linewidth=1.2, label=label, zorder=1)
        axes.set(xlabel=xlabel, ylim=ylim)
    by_step.set_ylabel(ylabel)
    by_time.set_xscale("log")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


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
        ValueError: `history` is empty, a curve is not of the shape `[num_steps]`, or `window` or `columns`
            is not positive.
        ImportError: matplotlib is missing.
    """
    if not history:
        raise ValueError("history is empty: give at least one scalar curve.")
    curves = {name: np.asarray(values, np.float64) for name, values in history.items()}
    at = np.arange(len(next(iter(curves.values())))) if steps is None else np.asarray(steps)
    for name, values in curves.items():
        if values.shape != at.shape or values.ndim != 1 or not len(values):
            raise ValueError(
                f"history[{name!r}] has shape {values.shape}, but steps has {at.shape}; a curve needs one "
                "scalar a step, so plot the entries of a vector as curves of their own."
            )

    checks.positive_int("columns", columns)
    window = max(5, len(at) // 50) if window is None else window
    checks.positive_int("window", window)

    columns = min(columns, len(curves))
    rows = -(-len(curves) // columns)
    figure = _new_figure(4.0 * columns, 2.6 * rows)
    from matplotlib.ticker import EngFormatter

    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for panel, (name, values) in zip(panels, curves.items(), strict=False):
        _draw_history(panel, at, values, window, max_points)
        panel.set_title(name, fontsize=11)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    for panel in panels[len(curves) :]:
        panel.remove()
    for index in range(max(0, len(curves) - columns), len(curves)):
        panels[index].set_xlabel("Iteration")
        panels[index].tick_params(labelbottom=True)
    return figure


def plot_image_grid(
    images: Shaped[ArrayLike, "n height width *channels"],
    columns: int = 10,
    title: str | None = None,
    row_labels: Sequence[str] | None = None,
) -> Figure:
    """Images side by side, row by row.

    Args:
        images: `[n, height, width]`, or with 1 or 3 channels last; floats in [0, 1], clipped to it, or uint8.
        columns: images in a row.
        title: drawn above.
        row_labels: one label a row.

    Raises:
        ValueError: `images` has another shape, `columns` is not positive, or `row_labels` has another
            length than there are rows.
        ImportError: matplotlib is missing.
    """
    pixels = _pixels("images", images)
    checks.positive_int("columns", columns)
    columns = min(columns, len(pixels))
    rows = -(-len(pixels) // columns)
    if row_labels is not None and len(row_labels) != rows:
        raise ValueError(f"row_labels has {len(row_labels)} entries for {rows} rows; give one a row.")
    mosaic = _mosaic(pixels, rows, columns)

    figure = _new_figure(*_mosaic_size(mosaic, columns, labelled=row_labels is not None, titled=bool(title)))
    axes = figure.subplots()
    axes.imshow(mosaic, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])
    pitch = mosaic.shape[0] / rows
    axes.set_yticks([] if row_labels is None else [(row + 0.5) * pitch - 0.5 for row in range(rows)])
    if row_labels is not None:
        axes.set_yticklabels(row_labels)
    if title:
        axes.set_title(title)
    return figure


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
        ValueError: the shapes differ, or are not those of images.
        ImportError: matplotlib is missing.
    """
    top, bottom = _pixels("originals", originals), _pixels("reconstructions", reconstructions)
    if top.shape != bottom.shape:
        raise ValueError(
            f"reconstructions has shape {np.shape(reconstructions)}, but originals has "
            f"{np.shape(originals)}; give one reconstruction of each original."
        )
    return plot_image_grid(np.concatenate([top, bottom]), len(top), title, ("Original", "Reconstruction"))


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
        curves: `(x, y)` by name, both `[n]`.
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.
        reference: heights of horizontal lines by name, such as a best possible value.
        title: drawn above.
        log_axes: whether both axes are logarithmic.

    Raises:
        ValueError: `curves` is empty, or the x and the y of a curve differ in shape.
        ImportError: matplotlib is missing.
    """
    if not curves:
        raise ValueError("curves is empty: give at least one (x, y).")
    for name, (x, y) in curves.items():
        if np.ndim(x) != 1 or np.shape(x) != np.shape(y):
            raise ValueError(
                f"curves[{name!r}] has x of shape {np.shape(x)} and y of {np.shape(y)}; give two vectors of "
                "one length."
            )

    figure = _new_figure(6.4, 4.0)
    axes = figure.subplots()
    _style(axes)
    styles = zip(cycle(_COLOURS), cycle(_LINE_STYLES), strict=False)
    for (name, (x, y)), (colour, line_style) in zip(curves.items(), styles, strict=False):
        (line,) = axes.plot(np.asarray(x), np.asarray(y), label=name, linewidth=1.8, markersize=4)
        line.set(color=colour, linestyle=line_style, marker="o" if np.size(x) <= 20 else "")
    for (name, height), line_style in zip((reference or {}).items(), cycle((":", "--", "-.")), strict=False):
        axes.axhline(height, color=_GREY, linestyle=line_style, linewidth=1.2, label=name, zorder=1)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if log_axes:
        axes.set(xscale="log", yscale="log")
    if title:
        axes.set_title(title)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def save(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Writes a figure; its format follows the suffix of `path`, and folders that are missing are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)
    return path


def _new_figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'bism_jax.plotting needs matplotlib, which is not installed: pip install "bism-jax[experiments]".'
        ) from error
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.grid(color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)


def _points(name: str, points: ArrayLike) -> Float[np.ndarray, "n 2"]:
    array = np.asarray(points)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} has shape {array.shape}; give points of the plane, [n, 2].")
    return array


def _point_opacity(num_points: int) -> float:
    return float(np.clip(1000 / max(num_points, 1), 0.35, 1.0))


def _density_on_grid(
    log_density_fn: Callable[[Float[Array, "n 2"]], Float[Array, "n"]], bounds: Bounds, resolution: int
) -> Float[np.ndarray, "resolution resolution"]:
    """The density at the centres of the cells; the first axis is the second coordinate, as images have it."""
    import jax.numpy as jnp

    centres = (np.arange(resolution) + 0.5) / resolution
    x, y = (low + (high - low) * centres for low, high in bounds)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    log_density = np.asarray(log_density_fn(jnp.asarray(grid, float)))
    if log_density.shape != (resolution**2,):
        raise ValueError(
            f"log_density_fn returned shape {log_density.shape} for {resolution**2} points; it must return "
            "one log density a point, [n, 2] -> [n]."
        )
    return np.exp(log_density).reshape(resolution, resolution)


def _draw_history(axes: Axes, steps: np.ndarray, values: np.ndarray, window: int, max_points: int) -> None:
    _style(axes)
    finite = values[np.isfinite(values)]
    if not len(finite):
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=_GREY)
        axes.set_yticks([])
        return
    mean = _running_mean(values, window)
    thinned = np.linspace(0, len(values) - 1, min(len(values), max_points)).astype(int)
    if window > 1:
        axes.plot(*_envelope(steps, values, max_points), color=_COLOURS[0], alpha=0.3, linewidth=0.7)
    axes.plot(steps[thinned], mean[thinned], color=_COLOURS[0], linewidth=1.8)
    typical = np.append(np.quantile(finite, (0.005, 0.995)), mean[np.isfinite(mean)])
    low, high = typical.min(), typical.max()
    margin = 0.06 * (high - low) or 0.06 * max(abs(high), 1e-3)
    axes.set_ylim(low - margin, high + margin)


def _running_mean(values: Float[np.ndarray, "n"], window: int) -> Float[np.ndarray, "n"]:
    """The mean of the finite values within half a window on either side; windows shrink at the two ends."""
    finite = np.isfinite(values)
    # Sums of deviations from the median: a difference of two sums of large values would lose digits.
    offset = np.median(values[finite])
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
    starts = np.linspace(0, len(values), max_points // 2, endpoint=False).astype(int)
    extremes = np.stack([np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)], axis=1)
    return np.repeat(steps[starts], 2), extremes.ravel()


def _pixels(name: str, images: ArrayLike) -> Float[np.ndarray, "n height width *channels"]:
    """Images as floats in [0, 1]: `[n, height, width]`, or `[n, height, width, 3]`."""
    array = np.asarray(images)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    is_image = array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3)
    if not is_image or not len(array):
        raise ValueError(
            f"{name} has shape {np.shape(images)}; give [n, height, width] or 1 or 3 channels last, n > 0."
        )
    scale = 255.0 if array.dtype == np.uint8 else 1.0
    return np.clip(array / scale, 0.0, 1.0)


def _mosaic(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The images in one, on white, with a white edge about each."""
    missing = rows * columns - len(pixels)
    no_padding = ((0, 0),) * (pixels.ndim - 3)
    padded = np.pad(pixels, ((0, missing), (1, 1), (1, 1), *no_padding), constant_values=1.0)
    height, width, *channels = padded.shape[1:]
    cells = padded.reshape(rows, columns, height, width, *channels).swapaxes(1, 2)
    return cells.reshape(rows * height, columns * width, *channels)


def _mosaic_size(mosaic: np.ndarray, columns: int, *, labelled: bool, titled: bool) -> tuple[float, float]:
    """Width and height of the figure in inches."""
    width = float(np.clip(0.7 * columns, 3.0, 10.0))
    height = width * mosaic.shape[0] / mosaic.shape[1]
    return width + 1.2 * labelled, height + 0.2 + 0.35 * titled
