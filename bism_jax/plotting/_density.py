"""Densities in the plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.checks import as_numbers, finite_rows, not_empty
from bism_jax.plotting import _arguments as arguments
from bism_jax.plotting._figure import COLOURS, GREY, INK, new_figure, new_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_MAX_RESOLUTION = 10_000  # cells a side, more than a screen has pixels

Bounds: TypeAlias = tuple[tuple[float, float], tuple[float, float]]


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
        TypeError: an argument has the wrong type.
        ValueError: `data` or `samples` are not finite points of the plane, an option is out of range, or
            `log_density_fn` does not return one number a point, whose density is finite.
        ImportError: matplotlib is missing.
    """
    bounds = arguments.box("bounds", bounds)
    _check_resolution(resolution)
    checks.positive_int("max_points", max_points)
    (x_low, x_high), (y_low, y_high) = bounds
    points = {"Data": _points("data", data), "Samples": _points("samples", samples)}
    density = _density_on_grid("log_density_fn", log_density_fn, bounds, resolution)

    figure = new_figure(10.8, 3.7)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for panel, (title, scatter) in zip(axes, points.items(), strict=False):
        _draw_points(panel, scatter[:max_points])
        panel.set_title(title)
    heat_map = _draw_density(axes[2], density, bounds)
    axes[2].set_title("Model density")
    colour_bar = figure.colorbar(heat_map, ax=axes[2], fraction=0.046, pad=0.03)
    colour_bar.outline.set_visible(False)
    colour_bar.ax.tick_params(colors=INK, labelsize=9)
    colour_bar.ax.locator_params(nbins=5)
    for panel in axes:
        panel.set(xlim=(x_low, x_high), ylim=(y_low, y_high), aspect="equal", xlabel="$v_1$")
        panel.spines[:].set_color(GREY)
        panel.tick_params(colors=INK, labelsize=9)
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
        TypeError: an argument has the wrong type.
        ValueError: there is no model, an option is out of range, or a function does not return one number a
            point, whose density is finite.
        ImportError: matplotlib is missing.
    """
    arguments.named("log_density_fns", log_density_fns, "log density of a model")
    bounds = arguments.box("bounds", bounds)
    checks.positive_int("columns", columns)
    _check_resolution(resolution)
    if max_density is not None:
        checks.positive("max_density", max_density)
    densities = {
        name: _density_on_grid(f"log_density_fns[{name!r}]", fn, bounds, resolution)
        for name, fn in log_density_fns.items()
    }
    # One top for all, since panels that are scaled each by itself cannot be compared.
    top = max(density.max() for density in densities.values()) if max_density is None else max_density

    figure, panels = new_panels(len(densities), columns, 2.0, 2.15, margin=0.6)
    for panel, (name, density) in zip(panels, densities.items(), strict=True):
        heat_map = _draw_density(panel, density, bounds, top)
        panel.set_title(name, fontsize=10)
        panel.set(xticks=[], yticks=[])
    # The last panel's serves: all have one scale.
    colour_bar = figure.colorbar(heat_map, ax=panels, fraction=0.02, pad=0.01)
    colour_bar.outline.set_visible(False)
    return figure


def _points(name: str, points: ArrayLike) -> Float[np.ndarray, "n 2"]:
    array = np.asarray(as_numbers(name, points, "[n, 2]"))
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} has shape {array.shape}; give points of the plane, [n, 2].")
    not_empty(name, array, "[n, 2]")
    finite_rows(name, array)
    return array


def _check_resolution(resolution: int) -> None:
    checks.positive_int("resolution", resolution)
    if resolution > _MAX_RESOLUTION:
        raise ValueError(
            f"resolution must be at most {_MAX_RESOLUTION}, not {resolution}: no screen shows more."
        )


def _draw_points(panel: Axes, points: Float[np.ndarray, "n 2"]) -> None:
    # Points that overlap add up, so that fainter ones show the density of many.
    opacity = float(np.clip(1000 / max(len(points), 1), 0.35, 1.0))
    x, y = points.T
    # Rasterised: thousands of circles would make a PDF slow to open.
    panel.scatter(x, y, s=4, alpha=opacity, color=COLOURS[0], linewidths=0, rasterized=True)


def _draw_density(panel: Axes, density: np.ndarray, bounds: Bounds, top: float | None = None) -> AxesImage:
    extent = (*bounds[0], *bounds[1])
    # From 0 and with rows upwards, where matplotlib would start at the least value, and at the top.
    return panel.imshow(density, extent=extent, origin="lower", cmap="viridis", vmin=0.0, vmax=top)


def _density_on_grid(
    name: str,
    log_density_fn: Callable[[Float[Array, "n 2"]], Float[Array, "n"]],
    bounds: Bounds,
    resolution: int,
) -> Float[np.ndarray, "resolution resolution"]:
    """The density at the centres of the cells; the first axis is the second coordinate, as images have it."""
    # Centres, since `imshow` fills a cell with one value; a density may also jump at the bounds.
    centres = (np.arange(resolution) + 0.5) / resolution
    x, y = (low + (high - low) * centres for low, high in bounds)
    # `meshgrid` varies x fastest, so that a reshape gives rows of equal y.
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    log_density = arguments.values_at(name, log_density_fn, jnp.asarray(grid, float))
    with np.errstate(over="ignore"):  # what overflows is told below, by name
        density = np.exp(log_density)
    if not np.isfinite(density).all():
        raise ValueError(
            f"{name} returned log densities of up to {log_density.max():.3g}, whose density is no "
            "finite number; it must return a normalised log density in nats."
        )
    return density.reshape(resolution, resolution)
