"""Toy densities against their closed forms, and the Frey faces against the raw file."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.io
import scipy.stats

from bism_jax import data

NUM_SAMPLES = 50_000
CLOSED_FORM = [name for name, density in data.TOYS.items() if density.log_prob_fn is not None]

# Covariances by hand; every mean is zero but the checkerboard's (1/2, 1/2). The spiral's is an integral
# over r = t / 3, with t of density 2 t / (3 pi)^2 on [0, 3 pi].
SPIRAL_T = (np.arange(100_000) + 0.5) / 100_000 * 3 * math.pi
SPIRAL_DENSITY = 2 * SPIRAL_T / (3 * math.pi) ** 2 * (3 * math.pi / 100_000)
SPIRAL_ARM = SPIRAL_T / 3 * np.stack([np.cos(SPIRAL_T), np.sin(SPIRAL_T)])
COVARIANCE = {
    "checkerboard": [[1 / 12, 1 / 16], [1 / 16, 1 / 12]],
    "eight_gaussians": np.eye(2) * (8 / 2 + 0.125),
    "rings": np.eye(2) * ((0.75**2 + 1.5**2 + 2.25**2 + 3**2) / 8 + 0.08**2),
    # 2 (cos t, sin t) - (1, 1/2), t uniform on [0, pi], and its reflection.
    "two_moons": [
        [4 / 2 + 1 + 0.04, 0.5 - 4 / math.pi],
        [0.5 - 4 / math.pi, 4 / 2 - 4 / math.pi + 0.25 + 0.04],
    ],
    "pinwheel": np.eye(2) * 4 * (1 + 0.3**2 + 0.1**2) / 2,
    "two_spirals": (SPIRAL_ARM * SPIRAL_DENSITY) @ SPIRAL_ARM.T + 0.01 * np.eye(2),
}


@functools.cache
def sampler(name: str) -> Callable[[jax.Array, int], jax.Array]:
    return jax.jit(data.toy(name).sample, static_argnums=1)


def draw(name: str, seed: int = 0) -> np.ndarray:
    return np.asarray(sampler(name)(jax.random.key(seed), NUM_SAMPLES), np.float64)


@functools.cache
def density_on_grid(name: str) -> np.ndarray:
    """The density at the centres of 240 x 240 cells of its box."""
    centres = (np.arange(240) + 0.5) / 240
    x, y = (low + (high - low) * centres for low, high in data.toy(name).bounds)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    return np.exp(np.asarray(jax.jit(data.toy(name).log_prob)(grid), np.float64))


def radius_and_angle(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.hypot(*points.T), np.arctan2(points[:, 1], points[:, 0])


@pytest.mark.parametrize("name", data.TOYS)
def test_samples_have_the_moments_of_the_density(name: str) -> None:
    points = draw(name)
    assert points.shape == (NUM_SAMPLES, 2)
    mean = np.full(2, 0.5 if name == "checkerboard" else 0.0)
    covariance = np.asarray(COVARIANCE[name])
    scale = math.sqrt(covariance.trace())
    np.testing.assert_allclose(points.mean(0), mean, atol=4 * scale / math.sqrt(NUM_SAMPLES))
    np.testing.assert_allclose(np.cov(points.T), covariance, atol=0.015 * scale**2)


@pytest.mark.parametrize("name", data.TOYS)
def test_samples_depend_on_the_key_alone(name: str) -> None:
    np.testing.assert_array_equal(draw(name), draw(name))
    assert not (draw(name) == draw(name, seed=1)).all(axis=1).any()


@pytest.mark.parametrize("name", data.TOYS)
def test_the_bounds_hold_the_mass(name: str) -> None:
    low, high = np.asarray(data.toy(name).bounds).T
    outside = ~((draw(name) >= low) & (draw(name) <= high)).all(axis=1)
    assert outside.mean() < 1e-3


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_log_prob_integrates_to_one(name: str) -> None:
    density = density_on_grid(name)
    assert density.shape == (240, 240)
    area = np.prod(np.diff(data.toy(name).bounds))
    assert density.mean() * area == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_log_prob_is_that_of_the_samples(name: str) -> None:
    """Counts in a 12 x 12 grid against the integral of the density over each cell, by Pearson's test."""
    edges = [np.linspace(low, high, 13) for low, high in data.toy(name).bounds]
    counts = np.histogram2d(*draw(name).T, bins=edges)[0].ravel()
    cells = density_on_grid(name).reshape(12, 20, 12, 20).sum((1, 3)).ravel()
    expected = NUM_SAMPLES * cells / cells.sum()
    assert counts[expected < 1e-6].sum() == 0
    tested = expected > 5
    statistic = ((counts - expected)[tested] ** 2 / expected[tested]).sum()
    assert scipy.stats.chi2.sf(statistic, tested.sum() - 1) > 1e-3


def test_the_checkerboard_is_the_two_diagonal_squares() -> None:
    points = draw("checkerboard")
    assert points.min() >= 0 and points.max() < 1
    upper = points >= 0.5
    np.testing.assert_array_equal(upper[:, 0], upper[:, 1])
    assert upper[:, 0].mean() == pytest.approx(0.5, abs=0.01)
    corners = np.array([[0.2, 0.3], [0.7, 0.9], [0.2, 0.7], [0.7, 0.2], [-0.1, 0.2], [0.7, 1.1]])
    log_prob = np.asarray(data.checkerboard.log_prob(corners))
    np.testing.assert_allclose(log_prob, [math.log(2)] * 2 + [-math.inf] * 4, rtol=1e-6)


def test_the_gaussians_have_eight_centres() -> None:
    radius, angle = radius_and_angle(draw("eight_gaussians"))
    share = np.bincount(np.round(angle / (math.pi / 4)).astype(int) % 8, minlength=8) / NUM_SAMPLES
    np.testing.assert_allclose(share, 1 / 8, atol=0.008)
    assert abs(radius - math.sqrt(8)).max() < 6 * math.sqrt(0.125)


def test_the_rings_lie_at_their_radii() -> None:
    radius, _ = radius_and_angle(draw("rings"))
    ring = np.round(radius / 0.75).astype(int)
    np.testing.assert_allclose(np.bincount(ring)[1:5] / NUM_SAMPLES, 1 / 4, atol=0.01)
    assert (radius - 0.75 * ring).std() == pytest.approx(0.08, rel=0.02)


def test_the_moons_are_half_circles() -> None:
    points = draw("two_moons")
    distances = []
    for sign in (1, -1):
        radius, angle = radius_and_angle(sign * points + [1, 0.5])
        distances.append(np.where(angle > 0, abs(radius - 2), np.inf))
    # Points that the noise moved past the end of an arc are on neither.
    on_an_arc = np.minimum(*distances)
    assert np.isinf(on_an_arc).mean() < 0.05
    assert np.mean(on_an_arc < 5 * 0.2) > 0.95


def test_the_pinwheel_straightens_to_five_arms() -> None:
    radius, angle = radius_and_angle(draw("pinwheel") / 2)
    straight = angle - 0.25 * np.exp(radius)
    off_arm = np.mod(straight * 5 + math.pi, 2 * math.pi) - math.pi
    assert np.mean(abs(off_arm / 5)[radius > 0.7] < 0.3) > 0.98
    arm = np.round(straight * 5 / (2 * math.pi)).astype(int) % 5
    np.testing.assert_allclose(np.bincount(arm) / NUM_SAMPLES, 1 / 5, atol=0.01)


def test_the_spirals_have_two_arms() -> None:
    points = draw("two_spirals")
    radius, angle = radius_and_angle(points)
    off_arm = np.mod(3 * radius - angle + math.pi / 2, math.pi) - math.pi / 2
    # A radius off by 0.5 is an angle off by 1.5, half the way to the other arm.
    assert np.mean(abs(off_arm[radius > 1]) < 1.2) > 0.99
    on_first = np.cos(3 * radius - angle) > 0
    assert on_first.mean() == pytest.approx(0.5, abs=0.01)
    assert radius.max() < math.pi + 6 * 0.1


@pytest.mark.parametrize("name", [name for name in data.TOYS if name not in CLOSED_FORM])
def test_a_density_without_closed_form_says_so(name: str) -> None:
    with pytest.raises(NotImplementedError, match=f"'{name}' has no closed form.*checkerboard"):
        data.toy(name).log_prob(np.zeros((1, 2)))


def test_an_unknown_toy_lists_the_names() -> None:
    with pytest.raises(ValueError, match=r"no toy density 'moon'.*checkerboard.*two_moons.*two_spirals"):
        data.toy("moon")


@functools.cache
def splits_in_mode(enable_x64: bool) -> data.Splits:
    with jax.enable_x64(enable_x64):
        return data.checkerboard_splits(jax.random.key(0))


def test_checkerboard_splits_are_disjoint_draws() -> None:
    splits = splits_in_mode(False)
    assert [part.shape for part in splits] == [(50_000, 2), (10_000, 2), (10_000, 2)]
    assert all(isinstance(part, np.ndarray) and part.dtype == np.float32 for part in splits)
    log_prob_fn = jax.jit(data.checkerboard.log_prob)
    for part in splits:
        assert np.isfinite(log_prob_fn(part)).all()
        np.testing.assert_allclose(part.mean(0), 0.5, atol=0.015)
    assert len(np.unique(np.concatenate(splits) @ [1, 1j])) > 69_990


def test_checkerboard_splits_ignore_the_64_bit_mode() -> None:
    for single, double in zip(splits_in_mode(False), splits_in_mode(True), strict=True):
        np.testing.assert_array_equal(single, double)


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BISM_JAX_DATA", raising=False)


def test_the_argument_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("given", "environment"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("BISM_JAX_DATA", str(tmp_path / "environment"))
    assert data.data_directory() == tmp_path / "environment"
    assert data.data_directory(str(tmp_path / "given")) == tmp_path / "given"


@pytest.mark.usefixtures("no_environment")
def test_no_data_folder_says_what_to_set() -> None:
    with pytest.raises(FileNotFoundError, match=r"pass data_dir, or set .* BISM_JAX_DATA"):
        data.data_directory()


def test_a_missing_data_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BISM_JAX_DATA", str(tmp_path / "unset"))
    with pytest.raises(FileNotFoundError, match=r"data_dir names '.*absent'"):
        data.data_directory(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"BISM_JAX_DATA names '.*unset'"):
        data.data_directory()


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail), ("", pytest.skip)])
@pytest.mark.usefixtures("no_environment")
def test_tests_without_real_data_skip_or_fail(
    ci: str, outcome: type, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome.Exception, match="BISM_JAX_DATA"):
        request.getfixturevalue("real_data_dir")


@pytest.fixture(scope="module")
def fake_faces() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1965, 28, 20), dtype=np.uint8)


def frey_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "frey_face"
    folder.mkdir()
    return folder


def assert_faces(splits: data.Splits, raw: np.ndarray) -> None:
    assert [len(part) for part in splits] == [1400, 300, 265]
    assert all(part.dtype == np.float32 for part in splits)
    pixels = np.concatenate(splits)
    np.testing.assert_array_equal(pixels, (raw / 255).astype(np.float32).reshape(pixels.shape))


@pytest.mark.parametrize("flatten", [True, False])
def test_faces_from_npz(tmp_path: Path, fake_faces: np.ndarray, flatten: bool) -> None:
    np.savez(frey_folder(tmp_path) / "frey_face.npz", images=fake_faces)
    splits = data.load_frey_face(tmp_path, flatten=flatten)
    assert splits.train.shape[1:] == ((560,) if flatten else (28, 20))
    assert_faces(splits, fake_faces)


def test_faces_from_the_matlab_file(tmp_path: Path, fake_faces: np.ndarray) -> None:
    scipy.io.savemat(frey_folder(tmp_path) / "frey_rawface.mat", {"ff": fake_faces.reshape(1965, 560).T})
    assert_faces(data.load_frey_face(tmp_path, flatten=False), fake_faces)


def test_the_npz_goes_before_the_matlab_file(tmp_path: Path, fake_faces: np.ndarray) -> None:
    folder = frey_folder(tmp_path)
    scipy.io.savemat(folder / "frey_rawface.mat", {"ff": np.zeros((560, 1965), np.uint8)})
    np.savez(folder / "frey_face.npz", images=fake_faces)
    assert_faces(data.load_frey_face(tmp_path), fake_faces)


def test_real_faces_are_the_raw_file_in_order(real_data_dir: Path) -> None:
    splits = data.load_frey_face(real_data_dir)
    with np.load(real_data_dir / "frey_face" / "frey_face.npz") as archive:
        assert_faces(splits, archive["images"])
    assert all(part.min() >= 0 and part.max() <= 1 for part in splits)
    # Consecutive frames of a film are alike: a check on the order and on the axes of the raw file itself.
    faces = splits.train.reshape(-1, 28, 20)
    assert abs(np.diff(faces, axis=0)).mean() < 0.5 * abs(faces - faces[::-1]).mean()
    assert abs(np.diff(faces, axis=2)).mean() < 0.8 * faces.std()


def test_missing_faces_say_what_to_get_and_where_to_put_it(tmp_path: Path) -> None:
    wanted = r"frey_face\.npz.*frey_rawface\.mat.*Get the Frey face.*Roweis.*NYU.*put it in '.*frey_face'"
    with pytest.raises(FileNotFoundError, match=wanted):
        data.load_frey_face(tmp_path)


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({"faces": np.zeros((1965, 28, 20), np.uint8)}, "key 'images', but holds 'faces'"),
        ({"images": np.zeros((1965, 20, 28), np.uint8)}, r"shape \(1965, 20, 28\) and dtype uint8; .*28, 20"),
        ({"images": np.zeros((1965, 28, 20), np.float32)}, "dtype float32; .*dtype uint8"),
    ],
)
def test_another_npz_is_refused(tmp_path: Path, contents: dict[str, np.ndarray], reason: str) -> None:
    np.savez(frey_folder(tmp_path) / "frey_face.npz", **contents)
    with pytest.raises(ValueError, match=reason) as error:
        data.load_frey_face(tmp_path)
    assert "frey_face.npz" in str(error.value)


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({"images": np.zeros((560, 1965), np.uint8)}, "key 'ff', but holds 'images'"),
        ({"ff": np.zeros((1965, 560), np.uint8)}, r"shape \(1965, 560\).*\(560, 1965\)"),
    ],
)
def test_another_matlab_file_is_refused(tmp_path: Path, contents: dict[str, np.ndarray], reason: str) -> None:
    scipy.io.savemat(frey_folder(tmp_path) / "frey_rawface.mat", contents)
    with pytest.raises(ValueError, match=f"frey_rawface.*{reason}|{reason}.*frey_rawface"):
        data.load_frey_face(tmp_path)


@pytest.mark.parametrize("file", ["frey_face.npz", "frey_rawface.mat"])
@pytest.mark.parametrize("content", [b"", b"no such format" * 20], ids=["empty", "text"])
def test_a_broken_file_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    (frey_folder(tmp_path) / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{file}' cannot be read"):
        data.load_frey_face(tmp_path)


def test_every_public_toy_is_found_by_its_name():
    public = [value for name in data.__all__ if isinstance(value := getattr(data, name), data.ToyDensity)]
    assert public
    assert [data.toy(density.name) for density in public] == public
