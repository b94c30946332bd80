"""Pictures: what is drawn is what was given, and what cannot be drawn is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from bism_jax import data, plotting

RNG = np.random.default_rng(0)

checkerboard_log_prob = jax.jit(data.checkerboard.log_prob)


def test_density_panels_show_data_samples_and_density() -> None:
    points = RNG.uniform(size=(50, 2))
    figure = plotting.plot_density(points, 1 - points, checkerboard_log_prob, resolution=8)
    panels = figure.axes[:3]
    assert [panel.get_title() for panel in panels] == ["Data", "Samples", "Model density"]
    np.testing.assert_allclose(panels[0].collections[0].get_offsets(), points)
    np.testing.assert_allclose(panels[1].collections[0].get_offsets(), 1 - points)
    square = np.kron(np.eye(2), np.full((4, 4), 2.0))
    np.testing.assert_allclose(panels[2].images[0].get_array(), square, rtol=1e-6)
    assert all(panel.get_aspect() == 1 for panel in panels)


def test_density_is_not_transposed_or_flipped() -> None:
    """A density that grows along the first coordinate alone, over a box that is no square."""
    figure = plotting.plot_density(
        np.zeros((1, 2)), np.zeros((1, 2)), lambda v: v[:, 0], ((0.0, 2.0), (-1.0, 0.0)), resolution=4
    )
    heat_map = figure.axes[2].images[0]
    assert heat_map.get_extent() == [0, 2, -1, 0] and heat_map.origin == "lower"
    centres = np.array([0.25, 0.75, 1.25, 1.75])
    np.testing.assert_allclose(heat_map.get_array(), np.tile(np.exp(centres), (4, 1)), rtol=1e-6)


def test_density_draws_at_most_max_points() -> None:
    points = RNG.uniform(size=(30, 2))
    figure = plotting.plot_density(points, points, lambda v: v[:, 0], resolution=2, max_points=10)
    assert len(figure.axes[0].collections[0].get_offsets()) == 10


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((np.zeros((3, 3)), np.zeros((3, 2)), lambda v: v[:, 0]), r"data has shape \(3, 3\)"),
        ((np.zeros((3, 2)), np.zeros(2), lambda v: v[:, 0]), r"samples has shape \(2,\)"),
        ((np.zeros((3, 2)), np.zeros((3, 2)), lambda v: v), "log_density_fn returned .*one log density"),
    ],
)
def test_density_refuses_other_shapes(arguments: tuple, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        plotting.plot_density(*arguments)


def test_history_has_a_raw_curve_and_its_running_mean() -> None:
    values = np.array([0.0, 3.0, 0.0, 3.0, 6.0, 9.0])
    figure = plotting.plot_history({"loss": values, "norm": values}, np.arange(10, 70, 10), window=3)
    assert [panel.get_title() for panel in figure.axes] == ["loss", "norm"]
    raw, mean = figure.axes[0].lines
    np.testing.assert_array_equal(raw.get_xdata(), np.arange(10, 70, 10))
    np.testing.assert_array_equal(raw.get_ydata(), values)
    np.testing.assert_allclose(mean.get_ydata(), [1.5, 1, 2, 3, 6, 7.5])


def test_history_ignores_what_is_not_finite() -> None:
    values = np.array([1.0, np.nan, 3.0, np.inf, 5.0])
    figure = plotting.plot_history({"loss": values, "broken": values * np.nan}, window=3)
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [1, 2, 3, 4, 5])
    assert not figure.axes[1].lines and figure.axes[1].texts[0].get_text() == "no finite value"


def test_a_long_history_is_thinned_and_keeps_its_spike() -> None:
    values = RNG.normal(size=1_000_000)
    values[123_456] = 50.0
    figure = plotting.plot_history({"loss": values}, max_points=500)
    raw, mean = figure.axes[0].lines
    assert len(raw.get_xdata()) <= 500 and len(mean.get_xdata()) <= 500
    assert raw.get_ydata().max() == 50 and raw.get_ydata().min() == values.min()
    assert abs(mean.get_ydata()).max() < 0.05
    # The spike is drawn but does not set the range.
    assert figure.axes[0].get_ylim()[1] < 5


def test_a_running_mean_survives_large_values() -> None:
    values = 1e12 + np.tile([0.0, 1.0], 500)
    figure = plotting.plot_history({"loss": values}, window=101)
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata()[60:-60] - 1e12, 0.5, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (({},), "history is empty"),
        (({"loss": np.zeros((4, 2))},), r"history\['loss'\] has shape \(4, 2\).*one scalar a step"),
        (({"loss": np.zeros(4)}, np.arange(5)), r"history\['loss'\] has shape \(4,\), but steps has \(5,\)"),
        (({"loss": np.zeros(0)},), r"history\['loss'\] has shape \(0,\)"),
    ],
)
def test_history_refuses_what_is_no_scalar_curve(arguments: tuple, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        plotting.plot_history(*arguments)


def test_history_refuses_an_empty_window() -> None:
    with pytest.raises(ValueError, match="window must be an integer of at least 1"):
        plotting.plot_history({"loss": np.zeros(4)}, window=0)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_image_grid_puts_images_row_by_row(channels: tuple[int, ...]) -> None:
    images = RNG.uniform(size=(5, 4, 3, *channels))
    figure = plotting.plot_image_grid(images, 3, "Faces", ["first", "second"])
    mosaic = figure.axes[0].images[0].get_array()
    assert mosaic.shape == (12, 15, *([3] if channels == (3,) else []))
    for index, image in enumerate(images):
        row, column = divmod(index, 3)
        shown = mosaic[6 * row + 1 : 6 * row + 5, 5 * column + 1 : 5 * column + 4]
        np.testing.assert_allclose(shown, image[..., 0] if channels == (1,) else image)
    assert (mosaic[6:, 10:] == 1).all()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["first", "second"]
    np.testing.assert_allclose(figure.axes[0].get_yticks(), [2.5, 8.5])
    assert figure.axes[0].get_title() == "Faces"


def test_images_are_scaled_from_bytes_and_clipped_from_floats() -> None:
    for images, expected in (
        (np.array([[[0, 51]]], np.uint8), [0.0, 0.2]),
        (np.array([[[-1.0, 2.0]]]), [0.0, 1.0]),
    ):
        mosaic = plotting.plot_image_grid(images).axes[0].images[0].get_array()
        np.testing.assert_allclose(mosaic[1, 1:3], expected)


def test_image_grid_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"images has shape \(4, 560\); give \[n, height, width\]"):
        plotting.plot_image_grid(np.zeros((4, 560)))
    with pytest.raises(ValueError, match="row_labels has 1 entries for 2 rows"):
        plotting.plot_image_grid(np.zeros((4, 2, 2)), 2, row_labels=["one"])
    with pytest.raises(ValueError, match="columns must be an integer of at least 1"):
        plotting.plot_image_grid(np.zeros((4, 2, 2)), 0)


def test_image_grid_names_its_columns() -> None:
    axes = plotting.plot_image_grid(np.zeros((4, 2, 2)), 2, column_labels=["0", "1"]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]
    np.testing.assert_allclose(axes.get_xticks(), [1.5, 5.5])
    assert axes.xaxis.get_tick_params()["labeltop"] and not axes.xaxis.get_tick_params()["labelbottom"]
    with pytest.raises(ValueError, match="column_labels has 1 entries for 2 columns; give one a column"):
        plotting.plot_image_grid(np.zeros((4, 2, 2)), 2, column_labels=["one"])


def test_pixels_of_chains_that_diverged_are_white_and_other_dtypes_are_refused() -> None:
    for images, expected in (
        (np.array([[[np.nan, -np.inf, np.inf]]]), [1, 0, 1]),
        (np.array([[[True, False, True]]]), [1, 0, 1]),
        (jnp.array([[[0.5, 0.25, 1.0]]], jnp.bfloat16), [0.5, 0.25, 1]),
    ):
        np.testing.assert_array_equal(plotting.image_mosaic(images)[1, 1:4], expected)
    for dtype in (int, complex, str):
        with pytest.raises(
            ValueError, match=r"images has dtype .*; give floats in \[0, 1\], booleans or uint8"
        ):
            plotting.image_mosaic(np.zeros((1, 2, 2), dtype))


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_film_strip_has_a_row_a_chain_and_a_column_a_snapshot(channels: tuple[int, ...]) -> None:
    snapshots = RNG.uniform(size=(3, 2, 4, 5, *channels))
    axes = plotting.plot_film_strip(snapshots, [10, 20, 30], title="On the way").axes[0]
    mosaic = axes.images[0].get_array()
    assert mosaic.shape[:2] == (2 * 6, 3 * 7)
    for snapshot, chain in np.ndindex(3, 2):
        shown = mosaic[6 * chain + 1 : 6 * chain + 5, 7 * snapshot + 1 : 7 * snapshot + 6]
        image = snapshots[snapshot, chain]
        np.testing.assert_allclose(shown, image[..., 0] if channels == (1,) else image)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "20", "30"]


@pytest.mark.parametrize(
    ("snapshots", "labels", "message"),
    [
        (np.zeros((3, 4, 5)), None, r"snapshots has shape \(3, 4, 5\); give \[num_snapshots, chains"),
        (np.zeros((0, 2, 4, 5)), None, r"snapshots has shape \(0, 2, 4, 5\)"),
        (np.zeros((3, 2, 4, 5), int), None, "snapshots has dtype int"),
        (np.zeros((3, 2, 4, 5)), [1, 2], "column_labels has 2 entries for 3 columns"),
    ],
)
def test_film_strip_refuses_other_shapes(snapshots: np.ndarray, labels: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plotting.plot_film_strip(snapshots, labels)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_inpainting_shows_what_was_observed_its_completion_and_the_original(
    channels: tuple[int, ...],
) -> None:
    originals, completed = RNG.uniform(size=(2, 2, 3, 4, *channels))
    observed = RNG.uniform(size=originals.shape) < 0.5
    axes = plotting.plot_inpainting(originals, observed, completed).axes[0]
    mosaic = axes.images[0].get_array()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Observed", "Completed", "Original"]
    for row, images in enumerate((np.where(observed, originals, 0.5), completed, originals)):
        for column, image in enumerate(images):
            shown = mosaic[5 * row + 1 : 5 * row + 4, 6 * column + 1 : 6 * column + 5]
            np.testing.assert_allclose(shown, image[..., 0] if channels == (1,) else image)


def test_inpainting_refuses_what_does_not_fit() -> None:
    images, observed = np.zeros((2, 3, 4)), np.ones((2, 3, 4), bool)
    with pytest.raises(ValueError, match=r"observed has dtype float64; give booleans"):
        plotting.plot_inpainting(images, observed * 1.0, images)
    with pytest.raises(ValueError, match=r"observed has shape \(1, 3, 4\), but originals has \(2, 3, 4\)"):
        plotting.plot_inpainting(images, observed[:1], images)
    with pytest.raises(ValueError, match=r"completed has shape \(1, 3, 4\)"):
        plotting.plot_inpainting(images, observed, images[:1])


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_an_animation_holds_its_frames(tmp_path: Path, channels: tuple[int, ...], as_list: bool) -> None:
    """Read back by pillow. Frames of few colours keep them exactly."""
    frames = RNG.choice([0.0, 0.2, 1.0, 1.7], size=(4, 5, 6, *channels))
    path = tmp_path / "new" / "chains.gif"
    found = plotting.save_animation(list(frames) if as_list else frames, path, frames_per_second=20, scale=3)
    assert found == path
    with PIL.Image.open(path) as picture:
        assert picture.n_frames == 4 and picture.size == (18, 15) and picture.info["loop"] == 0
        for index, frame in enumerate(frames):
            picture.seek(index)
            assert picture.info["duration"] == 50
            expected = np.broadcast_to(frame.reshape(5, 6, -1), (5, 6, 3)).clip(0, 1) * 255
            shown = np.asarray(picture.convert("RGB"))
            np.testing.assert_array_equal(shown[1::3, 1::3], expected)
            np.testing.assert_array_equal(shown, shown[1::3, 1::3].repeat(3, 0).repeat(3, 1))


def test_snapshots_become_an_animation_by_mosaics(tmp_path: Path) -> None:
    snapshots = RNG.uniform(size=(3, 4, 5, 6))
    frames = [plotting.image_mosaic(images, 2) for images in snapshots]
    assert frames[0].shape == (14, 16)
    with PIL.Image.open(plotting.save_animation(frames, tmp_path / "chains.gif", scale=1)) as picture:
        assert picture.n_frames == 3 and picture.size == (16, 14)


@pytest.mark.parametrize(
    ("frames", "path", "options", "message"),
    [
        (np.zeros((2, 3, 4)), "a.png", {}, r"path must end in \.gif.*not 'a\.png'"),
        (np.zeros((3, 4)), "a.gif", {}, r"frames has shape \(3, 4\)"),
        (np.zeros((0, 3, 4)), "a.gif", {}, r"frames has shape \(0, 3, 4\)"),
        (np.zeros((2, 3, 4), int), "a.gif", {}, "frames has dtype int"),
        ([np.zeros((3, 4)), np.zeros((4, 3))], "a.gif", {}, r"shapes \[\(3, 4\), \(4, 3\)\]"),
        ([], "a.gif", {}, "give at least one"),
        (np.zeros((2, 3, 4)), "a.gif", {"frames_per_second": 0}, "frames_per_second must be .* above 0"),
        (np.zeros((2, 3, 4)), "a.gif", {"frames_per_second": 101}, "frames_per_second must be at most 100"),
        (np.zeros((2, 3, 4)), "a.gif", {"scale": 0}, "scale must be an integer of at least 1"),
    ],
)
def test_animations_refuse_what_is_no_film(
    frames: np.ndarray | list, path: str, options: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        plotting.save_animation(frames, tmp_path / path, **options)


def test_reconstructions_lie_under_their_originals() -> None:
    originals, reconstructions = np.full((3, 2, 2), 0.25), np.full((3, 2, 2), 0.75)
    axes = plotting.plot_reconstructions(originals, reconstructions).axes[0]
    mosaic = axes.images[0].get_array()
    assert mosaic.shape == (8, 12)
    assert mosaic[1, 1] == 0.25 and mosaic[5, 1] == 0.75
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Original", "Reconstruction"]
    with pytest.raises(ValueError, match=r"has shape \(2, 2, 2\), but originals has \(3, 2, 2\)"):
        plotting.plot_reconstructions(originals, reconstructions[:2])


def test_curves_are_told_apart_and_listed_with_their_references() -> None:
    x = np.arange(30.0)
    curves = {name: (x, scale * x) for scale, name in enumerate(["BiDSM", "DSM", "CD-5"])}
    figure = plotting.plot_curves(curves, "Iteration", "Log-likelihood (nats)", {"log 2": 0.693})
    axes = figure.axes[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["BiDSM", "DSM", "CD-5", "log 2"]
    for line, (given_x, given_y) in zip(axes.lines, curves.values(), strict=False):
        np.testing.assert_array_equal(line.get_xdata(), given_x)
        np.testing.assert_array_equal(line.get_ydata(), given_y)
    assert list(axes.lines[3].get_ydata()) == [0.693, 0.693]
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 4
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Iteration", "Log-likelihood (nats)")


def test_curves_refuse_nothing_and_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="curves is empty"):
        plotting.plot_curves({}, "x", "y")
    with pytest.raises(ValueError, match=r"curves\['a'\] has x of shape \(3,\) and y of \(2,\)"):
        plotting.plot_curves({"a": (np.zeros(3), np.zeros(2))}, "x", "y")


def test_density_grid_shares_one_colour_scale() -> None:
    densities = {"board": checkerboard_log_prob, "flat": lambda points: 0 * points[:, 0]}
    figure = plotting.plot_density_grid(densities, columns=2, resolution=10)
    board, flat = (panel.images[0] for panel in figure.axes[:2])
    assert board.get_clim() == flat.get_clim() == (0, 2)
    assert board.get_array()[2, 2] == pytest.approx(2)
    assert board.get_array()[2, 7] == 0
    np.testing.assert_allclose(flat.get_array(), 1)
    assert [panel.get_title() for panel in figure.axes[:2]] == ["board", "flat"]
    with pytest.raises(ValueError, match="log_density_fns is empty"):
        plotting.plot_density_grid({})


def test_learning_curves_show_means_and_errors_by_iteration_and_by_time() -> None:
    steps, values = np.array([10.0, 20.0]), np.array([[1.0, 2.0], [3.0, 6.0]])
    seconds = np.array([[1.0, 2.0], [3.0, 4.0]])
    figure = plotting.plot_learning_curves({"DSM": (steps, seconds, values)}, "nats", {"truth": 0.7})
    by_step, by_time = figure.axes
    for axes, x in ((by_step, steps), (by_time, [2.0, 3.0])):
        np.testing.assert_allclose(axes.lines[0].get_xdata(), x)
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [2, 4])
        band = axes.collections[0].get_paths()[0].vertices
        assert band[:, 1].min() == pytest.approx(1)  # 2 - sqrt(2) / sqrt(2)
        assert band[:, 1].max() == pytest.approx(6)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["DSM", "truth"]
    with pytest.raises(ValueError, match="curves is empty"):
        plotting.plot_learning_curves({}, "nats")
    with pytest.raises(ValueError, match=r"curves\['DSM'\] has shapes \(2,\), \(2, 2\) and \(2,\)"):
        plotting.plot_learning_curves({"DSM": (steps, seconds, values[0])}, "nats")


def test_tables_write_their_numbers_and_leave_missing_cells_empty() -> None:
    table = np.array([[1.0, 100.0], [np.nan, 10.0]])
    figure = plotting.plot_tables({"ms": table}, (0, 5), (1, 2), "K", "N", log_colour=["ms"])
    (axes,) = figure.axes
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "1", (1, 0): "100", (1, 1): "10"}
    np.testing.assert_allclose(axes.images[0].get_array()[0], np.log([1, 100]))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0", "5"]
    with pytest.raises(ValueError, match="tables is empty"):
        plotting.plot_tables({}, (), (), "K", "N")
    with pytest.raises(ValueError, match=r"tables\['ms'\] has shape \(2, 2\), but .* \(1, 2\)"):
        plotting.plot_tables({"ms": table}, (0,), (1, 2), "K", "N")


def test_save_makes_the_folders_and_writes_the_picture(tmp_path: Path) -> None:
    figure = plotting.plot_image_grid(np.zeros((2, 4, 4)), title="Black", row_labels=["row"])
    path = plotting.save(figure, tmp_path / "new" / "folder" / "black.png", dpi=50)
    width, height = figure.get_size_inches()
    picture = matplotlib.image.imread(path)
    assert picture.shape[:2] == (int(height * 50), int(width * 50))
    assert picture[..., :3].min() < 0.1 and picture[..., :3].max() == 1


def test_no_label_is_cut_at_the_edge(tmp_path: Path) -> None:
    images = np.zeros((10, 32, 32, 1))
    figure = plotting.plot_inpainting(images, np.ones(images.shape, bool), images)
    picture = matplotlib.image.imread(plotting.save(figure, tmp_path / "inpainting.png"))
    assert picture[:, 0, :3].min() == 1


def test_every_figure_can_be_written(tmp_path: Path) -> None:
    points = RNG.uniform(size=(20, 2))
    figures: list[Figure] = [
        plotting.plot_density(points, points, checkerboard_log_prob, resolution=8),
        plotting.plot_history({name: RNG.normal(size=100) for name in "abcde"}),
        plotting.plot_curves({"a": (np.arange(3), np.arange(3))}, "x", "y", title="Curves"),
    ]
    for index, figure in enumerate(figures):
        assert plotting.save(figure, tmp_path / f"{index}.png", dpi=40).stat().st_size > 1000


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "bism-jax\[experiments\]"'):
        plotting.plot_history({"loss": np.zeros(3)})


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    """`data` and `plotting` by themselves, under an empty package in place of the library's own."""
    code = f"""
import sys, types
sys.modules["bism_jax"] = types.ModuleType("bism_jax")
sys.modules["bism_jax"].__path__ = [{str(Path(plotting.__file__).parents[1])!r}]
import bism_jax.data, bism_jax.plotting
print(*sorted({{"flax", "matplotlib", "tensorflow_datasets"}} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
