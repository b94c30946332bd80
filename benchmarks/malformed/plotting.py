"""Malformed calls of `bism_jax.plotting`."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.malformed.campaign import Call
from benchmarks.malformed.values import scratch_folder
from bism_jax import plotting

PACKAGE = "bism_jax.plotting"
EXEMPT = {"Bounds": "a type"}
_IMAGES = np.random.default_rng(0).uniform(size=(4, 5, 6)).astype(np.float32)
_POINTS = np.random.default_rng(0).uniform(size=(6, 2))
_CHANNELS = {"one column more": "images of another size", "one axis more": "one channel"}
_CLIPPED = {"NaN": "drawn white", "infinite": "clipped"}


def log_density(points: Any) -> Any:
    """Of the unit square."""
    return 0 * points[:, 0]


def _broken(*args: Any) -> Any:
    raise KeyError("a fault of the function's own")


def _allow(name: str, *reasons: dict[str, str]) -> dict[str, str]:
    return {f"{name}: {value}": reason for part in reasons for value, reason in part.items()}


def calls() -> dict[str, Call]:
    """One valid call for each public name."""
    return {**_of_images(), **_of_curves(), **_of_densities(), **_of_files()}


def _of_images() -> dict[str, Call]:
    shown = {"title": "title"}
    title = {"title": "text"}
    allowed = _allow("images", _CLIPPED, _CHANNELS, {"booleans": "black and white"})
    labels = {"row_labels": ["a", "b"], "column_labels": ["c", "d"]}
    scaled = (
        {"images": 255 * _IMAGES},
        {"images": (255 * _IMAGES).astype(int)},
        {"images": np.zeros((4, 5, 6, 2))},
    )
    pair = {"originals": _IMAGES, "reconstructions": _IMAGES}
    mask = _IMAGES > 0.5
    snapshots = _IMAGES.reshape(2, 2, 5, 6)
    return {
        "plot_image_grid": Call(
            plotting.plot_image_grid,
            {"images": _IMAGES, "columns": 2, **shown, **labels},
            {"images": "rows", "columns": "count", **title, **dict.fromkeys(labels, "names")},
            (*scaled, {"row_labels": ["a"]}),
            allowed,
        ),
        "image_mosaic": Call(
            plotting.image_mosaic,
            {"images": _IMAGES, "columns": 2},
            {"images": "rows", "columns": "count"},
            scaled,
            {**allowed, "columns: huge": "as many as there are"},
        ),
        "plot_film_strip": Call(
            plotting.plot_film_strip,
            {"snapshots": snapshots, "column_labels": [1, 2], **shown},
            {"snapshots": "rows", "column_labels": "names", **title},
            ({"snapshots": 255 * snapshots}, {"column_labels": [1]}),
            _allow("snapshots", _CLIPPED, _CHANNELS, {"booleans": "black and white"}),
        ),
        "plot_reconstructions": Call(
            plotting.plot_reconstructions,
            {**pair, **shown},
            {**dict.fromkeys(pair, "rows"), **title},
            ({"originals": 255 * _IMAGES}, {"reconstructions": _IMAGES[:2]}),
            {
                key: reason
                for name in pair
                for key, reason in _allow(name, _CLIPPED, {"booleans": "black and white"}).items()
            }
            | {f"{name}: one axis more": "one channel, of the same images" for name in pair},
        ),
        "plot_inpainting": Call(
            plotting.plot_inpainting,
            {"originals": _IMAGES, "observed": mask, "completed": _IMAGES, **shown},
            {"originals": "rows", "observed": "mask", "completed": "rows", **title},
            ({"originals": 255 * _IMAGES}, {"completed": _IMAGES[:2]}),
            _allow("originals", _CLIPPED, {"booleans": "black and white"})
            | _allow("completed", _CLIPPED, {"booleans": "black and white"}),
        ),
    }


def _of_curves() -> dict[str, Call]:
    steps, values = np.arange(4), np.random.default_rng(0).normal(size=(2, 4))
    curve = {
        "curves": {"a": (steps, values[0])},
        "xlabel": "x",
        "ylabel": "y",
        "title": "t",
        "log_axes": False,
    }
    learning = {"curves": {"a": (steps, values**2, values)}, "ylabel": "nats", "ylim": (0.0, 1.0)}
    reference = {"reference": {"truth": 0.7}}
    table: dict[str, Any] = {
        "tables": {"ms": np.abs(values)},
        "row_labels": ["a", "b"],
        "column_labels": [1, 2, 3, 4],
    }
    table |= {"ylabel": "K", "xlabel": "N", "columns": 2, "log_colour": ("ms",)}
    wrong: tuple[dict[str, Any], ...] = (
        {"reference": {"truth": "0.7"}},
        {"reference": {"truth": np.nan}},
        {"reference": {0: 0.7}},
        {"reference": 0.7},
        *({"curves": {"a": value}} for value in (1, None, "ab", (steps, "values"), (steps,), steps)),
        {"curves": {0: (steps, values[0])}},
    )
    no_reference = {"reference: empty": "no lines"}
    return {
        "plot_curves": Call(
            plotting.plot_curves,
            {**curve, **reference},
            {"curves": "mapping", "xlabel": "text", "ylabel": "text", "title": "text", "log_axes": "flag"}
            | {"reference": "mapping"},
            (*wrong, {"curves": {"a": (steps, values[0][:2])}}, {"curves": {"a": (steps[:0], steps[:0])}}),
            no_reference,
        ),
        "plot_learning_curves": Call(
            plotting.plot_learning_curves,
            {**learning, **reference},
            {"curves": "mapping", "ylabel": "text", "ylim": "interval", "reference": "mapping"},
            (
                *wrong,
                {"curves": {"a": (steps, values, values[0])}},
                {"curves": {"a": (steps, values, values[:, :2])}},
            ),
            no_reference,
        ),
        "plot_history": Call(
            plotting.plot_history,
            {"history": {"loss": values[0]}, "steps": steps, "window": 2, "columns": 1, "max_points": 100},
            {
                "history": "mapping",
                "steps": "steps",
                "window": "count",
                "columns": "count",
                "max_points": "count",
            },
            (
                *(
                    {"history": {"loss": value}}
                    for value in (1, None, "ab", values, steps[:0], values[0] * 1j)
                ),
                {"history": {0: values[0]}},
            ),
            {
                "window: huge": "the whole curve",
                "columns: huge": "as many as there are",
                "max_points: huge": "all of them",
            },
        ),
        "plot_tables": Call(
            plotting.plot_tables,
            table,
            {
                "tables": "mapping",
                "row_labels": "names",
                "column_labels": "names",
                "ylabel": "text",
                "xlabel": "text",
            }
            | {"columns": "count", "log_colour": "names"},
            (
                *(
                    {"tables": {"ms": value}}
                    for value in (1, None, "ab", values[0], values[:, :2], values * np.nan)
                ),
                {"tables": {"ms": values * np.inf}},
                {"tables": {"ms": -np.abs(values)}},
                {"log_colour": ["seconds"]},
                {"row_labels": ["a"]},
            ),
            {"columns: huge": "as many as there are"},
        ),
    }


def _of_densities() -> dict[str, Call]:
    wrong = (
        _broken,
        lambda v: v,
        lambda v: 0.0,
        lambda v: "p",
        lambda v: np.nan * v[:, 0],
        lambda v: 1e6 + v[:, 0],
    )
    return {
        "plot_density": Call(
            plotting.plot_density,
            {
                "data": _POINTS,
                "samples": _POINTS,
                "log_density_fn": log_density,
                "bounds": ((0.0, 1.0), (0.0, 1.0)),
            }
            | {"resolution": 3, "max_points": 4},
            {"data": "features", "samples": "features", "log_density_fn": "function", "bounds": "box"}
            | {"resolution": "count", "max_points": "count"},
            tuple({"log_density_fn": fn} for fn in wrong),
            {"max_points: huge": "all of them"},
        ),
        "plot_density_grid": Call(
            plotting.plot_density_grid,
            {"log_density_fns": {"a": log_density}, "bounds": ((0.0, 1.0), (0.0, 1.0)), "columns": 2}
            | {"resolution": 3, "max_density": 1.0},
            {"log_density_fns": "mapping", "bounds": "box", "columns": "count", "resolution": "count"}
            | {"max_density": "positive"},
            (
                *({"log_density_fns": {"a": fn}} for fn in (*wrong, 3, None, "f")),
                {"log_density_fns": {0: log_density}},
            ),
            {"columns: huge": "as many as there are"},
        ),
    }


def _of_files() -> dict[str, Call]:
    folder = scratch_folder()
    (folder / "file").write_text("")
    figure = plotting.plot_curves({"a": (np.arange(2), np.arange(2))}, "x", "y")
    paths = tuple({"path": path} for path in (folder, folder / "a.xyz", folder / "a", folder / "file" / "a"))
    inside = ({"path": folder / "file" / "a.gif"}, {"path": folder / "file" / "b" / "a.gif"})
    return {
        "save": Call(
            plotting.save,
            {"figure": figure, "path": folder / "a.png", "dpi": 30},
            {"figure": "instance", "path": "path", "dpi": "count"},
            (*paths, {"path": folder / "file" / "a.png"}),
        ),
        "save_animation": Call(
            plotting.save_animation,
            {"frames": _IMAGES, "path": folder / "a.gif", "frames_per_second": 10.0, "scale": 1},
            {"frames": "rows", "path": "path", "frames_per_second": "positive", "scale": "count"},
            (
                *paths,
                *inside,
                {"frames": 255 * _IMAGES},
                {"frames": [_IMAGES[0], _IMAGES[0, :2]]},
                {"frames": [_IMAGES[0], "b"]},
                {"frames_per_second": 101},
            ),
            _allow("frames", _CLIPPED, _CHANNELS, {"booleans": "black and white"}),
        ),
    }
