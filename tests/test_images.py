"""The image sets against published counts, tensorflow-datasets' own reading and hand-made files."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import socket
import sys
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from bism_jax import data
from bism_jax.data import (
    _free_memory as memory,
)
from bism_jax.data import (
    _image_folder as image_folder,
)
from bism_jax.data import (
    _image_sets as image_sets,
)

MNIST_TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 7, 3, 4


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, and no folder of data but what a test names."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tensorflow_datasets"))


@pytest.fixture
def tiny(monkeypatch):
    """Sets whose last three training images validate."""
    for name, image_set in image_sets.IMAGE_SETS.items():
        if image_set.num_validation is not None:
            small = dataclasses.replace(image_set, num_validation=NUM_VALIDATION)
            monkeypatch.setitem(image_sets.IMAGE_SETS, name, small)


def random_bytes(num_rows, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_rows, *shape), np.uint8)


def archive_arrays(*shape):
    rows = NUM_TRAIN + NUM_VALIDATION
    return {
        "x_train": random_bytes(rows, *shape),
        "y_train": np.arange(rows, dtype=np.uint8) % 10,
        "x_test": random_bytes(NUM_TEST, *shape, seed=1),
        "y_test": np.arange(NUM_TEST, dtype=np.uint8)[::-1],
    }


def write_archive(folder, name="mnist", shape=(28, 28), **changes):
    arrays = archive_arrays(*shape) | changes
    np.savez(folder / f"{name}.npz", **{key: x for key, x in arrays.items() if x is not None})
    return folder


def prepare(folder, set_name, shape, pictures, labels=None):
    """A set of the given PNG files by split, prepared by tensorflow-datasets itself."""
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=shape)}
    features |= {"attributes": {"Smiling": np.bool_}} if labels is None else {}
    features |= {} if labels is None else {"label": tfds.features.ClassLabel(num_classes=10)}

    def generate(split):
        for row, picture in enumerate(pictures[split]):
            example = {"image": io.BytesIO(picture)}
            example |= {"attributes": {"Smiling": True}} if labels is None else {"label": labels[split][row]}
            yield row, example

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        __module__ = "tiny"  # for a module in a package it would look up importlib_resources
        name = set_name
        VERSION = tfds.core.Version("3.0.1")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {split: generate(split) for split in pictures}

        def _generate_examples(self):
            raise NotImplementedError

    tfds.disable_progress_bar()
    Tiny(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder / set_name / "3.0.1"


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tensorflow-datasets folder with tiny sets `mnist` and `celeb_a`."""
    folder = tmp_path_factory.mktemp("prepared")
    arrays = archive_arrays(28, 28)
    splits = ("train", "test")
    pictures = {split: [png(x) for x in arrays[f"x_{split}"]] for split in splits}
    prepare(folder, "mnist", (28, 28, 1), pictures, {split: arrays[f"y_{split}"] for split in splits})
    faces = {split: faces_of(split) for split in image_sets.SPLITS}
    prepare(folder, "celeb_a", (218, 178, 3), {split: [png(x) for x in faces[split]] for split in faces})
    return folder


def faces_of(split):
    """Two pictures with smooth noise."""
    seed = image_sets.SPLITS.index(split)
    blocks = random_bytes(2, 28, 23, 3, seed=seed)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :218, :178]


def triangle_weights(size_in, size_out):
    """A linear interpolation that averages: row i weighs pixels by their distance to its centre."""
    scale = size_in / size_out
    centres = (np.arange(size_out) + 0.5) * scale
    distance = np.abs(np.arange(size_in) + 0.5 - centres[:, None]) / scale
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def assert_splits_match(images, arrays, padding=0):
    train = slice(None, NUM_TRAIN), slice(NUM_TRAIN, None)
    expected = [(arrays["x_train"][rows], arrays["y_train"][rows]) for rows in train]
    expected.append((arrays["x_test"], arrays["y_test"]))
    for found, (pixels, labels) in zip(images, expected, strict=True):
        rows, height, width = pixels.shape[:3]
        padded = np.zeros((rows, height + 2 * padding, width + 2 * padding, pixels[0, 0, 0].size))
        inside = slice(padding, padding + height)
        padded[:, inside, inside] = pixels.reshape(rows, height, width, -1)
        assert found.images.dtype == np.float32 and found.labels.dtype == np.int32
        np.testing.assert_allclose(found.images, padded / 255, rtol=1e-6)
        np.testing.assert_array_equal(found.labels, labels.ravel())
        data.check_images("images", found.images)


# The real sets.


def test_the_mnist_test_split_is_the_published_one(real_data_dir):
    images, labels = data.load_image_split("mnist", "test", real_data_dir)
    assert images.shape == (10_000, 32, 32, 1) and images.dtype == np.float32
    np.testing.assert_array_equal(np.bincount(labels), MNIST_TEST_COUNTS)
    assert images[:, 2:-2, 2:-2].mean(dtype=np.float64) == pytest.approx(0.1325, abs=1e-4)
    border = images.copy()
    border[:, 2:-2, 2:-2] = 0
    assert images.min() == 0 and images.max() == 1 and not border.any()


def test_the_fashion_test_split_reads_alone_and_balanced(real_data_dir):
    images, labels = data.load_image_split("fashion_mnist", "test", real_data_dir)
    assert images.shape == (10_000, 32, 32, 1)
    np.testing.assert_array_equal(np.bincount(labels), [1_000] * 10)


@pytest.mark.parametrize(("name", "sizes"), [("mnist", (50_000, 10_000)), ("cifar10", (40_000, 10_000))])
def test_the_last_training_images_validate(real_data_dir, name, sizes):
    """Against single images that tensorflow-datasets decodes itself."""
    import tensorflow_datasets as tfds

    (folder,) = (real_data_dir / "tfds" / name).iterdir()
    source = tfds.builder_from_directory(folder).as_data_source("train")
    images, labels = data.load_image_split(name, "validation", real_data_dir)
    assert len(source) == sum(sizes) and len(images) == sizes[1]
    margin = (32 - source[0]["image"].shape[0]) // 2
    inside = slice(margin, 32 - margin)
    for row in (0, 1, 2_345, 9_999):
        record = source[sizes[0] + row]
        np.testing.assert_allclose(images[row, inside, inside], record["image"] / 255, rtol=1e-6)
        assert labels[row] == record["label"]


@pytest.mark.slow
def test_mnist_has_the_published_mean_and_deviation(real_data_dir):
    images = data.load_images("mnist", real_data_dir)
    assert [len(split.images) for split in images] == [50_000, 10_000, 10_000]
    pixels = np.concatenate([images.train.images, images.validation.images])[:, 2:-2, 2:-2]
    assert pixels.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std(dtype=np.float64) == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.slow
def test_cifar10_has_the_published_means(real_data_dir):
    images = data.load_images("cifar10", real_data_dir)
    assert [split.images.shape for split in images] == [(n, 32, 32, 3) for n in (40_000, 10_000, 10_000)]
    np.testing.assert_array_equal(np.bincount(images.test.labels), [1_000] * 10)
    total = sum(split.images.sum((0, 1, 2), dtype=np.float64) for split in images[:2])
    np.testing.assert_allclose(total / (50_000 * 32 * 32), [0.4914, 0.4822, 0.4465], atol=5e-5)


# Prepared sets.


@pytest.mark.parametrize("layout", ["itself", "tfds", "variable", "default"])
def test_a_prepared_set_is_found(prepared, tiny, tmp_path, monkeypatch, layout):
    monkeypatch.delenv("BISM_JAX_DATA", raising=False)
    given = None
    if layout == "itself":
        given = prepared
    elif layout == "tfds":
        (tmp_path / "tfds").symlink_to(prepared)
        given = tmp_path
    else:
        monkeypatch.setenv({"variable": "BISM_JAX_DATA", "default": "TFDS_DATA_DIR"}[layout], str(prepared))
    assert_splits_match(data.load_images("mnist", given), archive_arrays(28, 28), padding=2)


def test_celeba_is_cropped_and_resized_and_has_no_labels(prepared):
    images = data.load_images("celeba", prepared)
    weights = triangle_weights(140, 32)
    for split in image_sets.SPLITS:
        found, labels = getattr(images, split)
        square = faces_of(split)[:, 39:179, 19:159] / 255
        expected = np.einsum("ih,jw,nhwc->nijc", weights, weights, square, optimize=True)
        assert labels is None and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1.01 / 255)
        assert np.abs(found - expected).mean() < 0.4 / 255
        data.check_images("images", found)


def test_the_latest_version_is_read(prepared, tiny, tmp_path):
    for version in ("3.0.1", "3.0.10", "3.0.9"):
        shutil.copytree(prepared / "mnist" / "3.0.1", tmp_path / "mnist" / version)
    for version in ("3.0.1", "3.0.9"):
        (tmp_path / "mnist" / version / "dataset_info.json").write_text("{")
    assert len(data.load_image_split("mnist", "test", tmp_path).images) == NUM_TEST


def copy_with_info(prepared, folder, change_fn):
    copy = folder / "mnist" / "3.0.1"
    shutil.copytree(prepared / "mnist" / "3.0.1", copy)
    info = json.loads((copy / "dataset_info.json").read_text())
    change_fn(info)
    (copy / "dataset_info.json").write_text(json.dumps(info))
    return copy


def without_train(info):
    info["splits"] = [split for split in info["splits"] if split["name"] != "train"]


def test_a_missing_split_is_named_with_those_that_exist(prepared, tiny, tmp_path):
    copy_with_info(prepared, tmp_path, without_train)
    assert len(data.load_image_split("mnist", "test", tmp_path).images) == NUM_TEST
    for split in ("train", "validation"):
        with pytest.raises(ValueError, match=r"split train of mnist is missing: .*holds the splits test\. "):
            data.load_image_split("mnist", split, tmp_path)


def test_an_archive_gives_the_split_that_a_prepared_set_lacks(prepared, tiny, tmp_path):
    copy_with_info(prepared, tmp_path, without_train)
    write_archive(tmp_path)
    assert_splits_match(data.load_images("mnist", tmp_path), archive_arrays(28, 28), padding=2)


def test_a_set_in_another_format_is_refused(prepared, tmp_path):
    copy_with_info(prepared, tmp_path, lambda info: info.update(fileFormat="tfrecord"))
    with pytest.raises(ValueError, match=r"without random access; .*file_format='array_record'"):
        data.load_image_split("mnist", "test", tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut", "info"])
def test_a_damaged_prepared_set_is_named(prepared, tmp_path, damage):
    copy = copy_with_info(prepared, tmp_path, lambda info: None)
    (records,) = copy.glob("*test*")
    if damage == "missing":
        records.unlink()
    elif damage == "cut":
        records.write_bytes(records.read_bytes()[:-70_000])
    else:
        (copy / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match=f"{re.escape(str(copy))}' cannot be read as a prepared set"):
        data.load_image_split("mnist", "test", tmp_path)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (b"\x89PNG\r\n\x1a\n broken", "One of its images is damaged"),
        (png(random_bytes(1, 28, 28)[0])[:-40], "One of its images is damaged"),
        (png(random_bytes(1, 30, 28)[0]), "an image of 30 x 28 pixels; mnist has 28 x 28"),
    ],
)
def test_a_damaged_prepared_image_is_refused(tmp_path, picture, message):
    # A feature without a shape takes any bytes.
    prepare(tmp_path, "mnist", (None, None, 1), {"test": [picture]}, {"test": [0]})
    with pytest.raises(ValueError, match=message):
        data.load_image_split("mnist", "test", tmp_path)


@pytest.mark.parametrize("module", ["tensorflow_datasets", "array_record"])
def test_without_the_extra_it_says_what_to_install(prepared, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {module}.*pip install 'bism-jax\[data\]'"):
        data.load_image_split("mnist", "test", prepared)


# Archives.


@pytest.mark.parametrize(
    ("name", "shape", "padding"),
    [("fashion_mnist", (28, 28), 2), ("mnist", (28, 28, 1), 2), ("cifar10", (32, 32, 3), 0)],
)
def test_an_archive_is_read(tiny, tmp_path, name, shape, padding):
    write_archive(tmp_path, name, shape)
    assert_splits_match(data.load_images(name, str(tmp_path)), archive_arrays(*shape), padding)


def test_an_archive_in_a_folder_of_its_own_with_labels_in_a_column(tiny, tmp_path):
    (tmp_path / "cifar10").mkdir()
    arrays = archive_arrays(32, 32, 3)
    columns = {key: arrays[key][:, None].astype(np.int64) for key in ("y_train", "y_test")}
    write_archive(tmp_path / "cifar10", "cifar10", (32, 32, 3), **columns)
    assert_splits_match(data.load_images("cifar10", tmp_path), arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, r"holds the keys x_train, y_train, x_test, but the key y_test is missing"),
        (
            {"x_test": None},
            r"split test of mnist is missing: .*mnist.npz' holds the keys x_train, y_train, y_test\.",
        ),
        ({"x_test": np.zeros((4, 28, 28))}, "'x_test' in .* has dtype float64; .*original bytes, uint8"),
        (
            {"x_test": np.zeros((4, 1, 28, 28), np.uint8)},
            r"mnist has \[rows, 28, 28\]\. Its channels come first.*moveaxis",
        ),
        ({"x_test": np.zeros((4, 32, 32), np.uint8)}, r"shape \(4, 32, 32\); mnist has \[rows, 28, 28\]"),
        ({"x_test": np.zeros((4, 784), np.uint8)}, r"shape \(4, 784\); mnist has \[rows, 28, 28\]"),
        ({"x_test": np.zeros((4, 28, 28), object)}, "cannot be read as an npz archive"),
        ({"x_test": np.zeros((0, 28, 28), np.uint8), "y_test": np.zeros(0, int)}, "too few images in test"),
        ({"y_test": np.zeros(3, int)}, r"'y_test' in .* has shape \(3,\), but there are 4 images"),
        ({"y_test": np.zeros((4, 10), int)}, r"has shape \(4, 10\), but there are 4 images"),
        ({"y_test": np.zeros(4)}, "has dtype float64; labels are integers"),
        ({"y_test": np.array([1, 2, 3, 10])}, r"labels from 1 to 10; mnist has the classes 0 \.\.\. 9"),
        ({"y_test": np.array([-1, 2, 3, 9])}, "labels from -1 to 9"),
    ],
)
def test_an_archive_with_something_else_is_refused(tmp_path, changes, message):
    write_archive(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        data.load_image_split("mnist", "test", tmp_path)


def test_channels_first_colour_is_named(tmp_path):
    write_archive(tmp_path, "cifar10", (3, 32, 32))
    with pytest.raises(ValueError, match=r"cifar10 has \[rows, 32, 32, 3\]\. Its channels come first"):
        data.load_image_split("cifar10", "test", tmp_path)


@pytest.mark.parametrize("num_validation", [NUM_TRAIN + NUM_VALIDATION, 10_000])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_training_set_that_is_cut_short_is_refused(tmp_path, monkeypatch, num_validation, split):
    mnist = dataclasses.replace(image_sets.IMAGE_SETS["mnist"], num_validation=num_validation)
    monkeypatch.setitem(image_sets.IMAGE_SETS, "mnist", mnist)
    write_archive(tmp_path)
    if split == "validation" and num_validation < 100:
        assert len(data.load_image_split("mnist", split, tmp_path).images) == num_validation
        return
    with pytest.raises(ValueError, match=f"too few images in train for the split {split} of mnist"):
        data.load_image_split("mnist", split, tmp_path)


@pytest.mark.parametrize("damage", ["text", "cut", "flipped"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    path = write_archive(tmp_path) / "mnist.npz"
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = b"not a zip file"
    elif damage == "cut":
        content = content[: len(content) // 2]
    else:
        start = content.index(archive_arrays(28, 28)["x_test"].tobytes())
        content[start + 100] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mnist.npz' cannot be read as an npz archive"):
        data.load_image_split("mnist", "test", tmp_path)


# Nothing there.


@pytest.mark.parametrize(("name", "prepared_name"), [("mnist", "mnist"), ("celeba", "celeb_a")])
def test_a_set_that_is_not_there_says_what_to_run(tmp_path, name, prepared_name):
    command = (
        f"tfds.builder('{prepared_name}', data_dir='{tmp_path}/tfds', file_format='array_record').download"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(command)) as raised:
        data.load_images(name, tmp_path)
    assert f"{tmp_path}/tfds/{prepared_name}" in str(raised.value)
    assert ("mnist.npz" in str(raised.value)) == (name == "mnist")
    assert "tensorflow_datasets/mnist" not in str(raised.value)


def test_without_any_folder_it_says_where_it_may_be_given(monkeypatch):
    monkeypatch.delenv("BISM_JAX_DATA", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"tensorflow_datasets/mnist'.* pass data_dir or set BISM_JAX_DATA"
    ):
        data.load_images("mnist")


def test_names_and_folders_are_checked(tmp_path):
    with pytest.raises(
        ValueError,
        match="name='svhn' is unknown; choose one of 'mnist', 'fashion_mnist', 'cifar10', 'celeba'",
    ):
        data.load_images("svhn", tmp_path)
    with pytest.raises(
        ValueError, match="split='valid' is unknown; choose one of 'train', 'validation', 'test'"
    ):
        data.load_image_split("mnist", "valid", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data_dir names .*nowhere"):
        data.load_images("mnist", tmp_path / "nowhere")


# Folders of pictures.


def save_pictures(folder, **pictures):
    for name, pixels in pictures.items():
        path = folder / name.replace("__", "/").replace("_png", ".png").replace("_JPG", ".JPG")
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels).save(path)


def test_sub_folders_are_the_classes(tmp_path):
    pixels = random_bytes(4, 6, 6, 3)
    save_pictures(
        tmp_path, dog__b_png=pixels[2], cat__x_png=pixels[0], cat__deep__y_png=pixels[1], dog__a_png=pixels[3]
    )
    (tmp_path / "dog" / "notes.txt").write_text("no picture")
    (tmp_path / "dog" / "._b.png").write_bytes(b"left by another system")
    with pytest.warns(UserWarning, match=r"1 of the 5 files .* left out.*dog/notes.txt'"):
        images, labels = data.load_image_folder(tmp_path, 6)
    order = [1, 0, 3, 2]  # cat/deep/y, cat/x, dog/a, dog/b
    np.testing.assert_allclose(images, pixels[order] / 255, rtol=1e-6)
    np.testing.assert_array_equal(labels, [0, 0, 1, 1])
    assert images.dtype == np.float32 and labels.dtype == np.int32


def test_a_flat_folder_is_cropped_resized_and_has_no_labels(tmp_path):
    pixels = random_bytes(2, 20, 15, 3)
    save_pictures(tmp_path, a_png=pixels[0], b_png=pixels[1])
    for crop, side in ((None, 15), (9, 9)):
        images, labels = data.load_image_folder(str(tmp_path), 5, crop=crop)
        top, left = (20 - side) // 2, (15 - side) // 2
        square = pixels[:, top : top + side, left : left + side] / 255
        weights = triangle_weights(side, 5)
        expected = np.einsum("ih,jw,nhwc->nijc", weights, weights, square, optimize=True)
        np.testing.assert_allclose(images, expected, atol=1.01 / 255)
        assert labels is None and images.shape == (2, 5, 5, 3)


def test_the_paper_s_celeba_from_a_folder_is_that_of_the_prepared_set(prepared, tmp_path):
    faces = faces_of("test")
    save_pictures(tmp_path, a_png=faces[0], b_png=faces[1])
    images, _ = data.load_image_folder(tmp_path, 32, crop=140)
    np.testing.assert_array_equal(images, data.load_image_split("celeba", "test", prepared).images)


def test_grey_and_colour_are_converted(tmp_path):
    grey = random_bytes(1, 5, 5)[0]
    save_pictures(tmp_path, a_png=grey, b_JPG=np.full((5, 5, 3), [200, 100, 50], np.uint8))
    colour, _ = data.load_image_folder(tmp_path, 5)
    np.testing.assert_allclose(colour[0], np.repeat(grey[..., None], 3, axis=-1) / 255, rtol=1e-6)
    images, _ = data.load_image_folder(tmp_path, 5, channels=1)
    assert images.shape == (2, 5, 5, 1)
    np.testing.assert_allclose(images[0, ..., 0], grey / 255, rtol=1e-6)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50  # ITU-R BT.601
    np.testing.assert_allclose(images[1], luma / 255, atol=3 / 255)


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path names '.*nowhere', which is no folder"):
        data.load_image_folder(tmp_path / "nowhere", 8)
    with pytest.raises(
        ValueError, match=r"holds no picture; it needs files that end in \.png, \.jpg, \.jpeg"
    ):
        data.load_image_folder(tmp_path, 8)
    for path in ("", None, 3):
        with pytest.raises((TypeError, ValueError), match=r"path (is empty|must be a path)"):
            data.load_image_folder(path, 8)
    save_pictures(tmp_path, loose_png=random_bytes(1, 8, 8)[0])
    for kwargs, message in (
        ({"size": 0}, "size must be an integer of at least 1"),
        ({"size": 8, "channels": 4}, "channels=4 is unknown; choose one of 1, 3"),
        ({"size": 8, "crop": 0}, "crop must be an integer of at least 1"),
        ({"size": 2**17}, "size=131072 is larger than any picture"),
        ({"size": 8, "crop": 9}, r"loose.png' cannot be used: its 8 x 8 pixels are fewer than crop=9"),
    ):
        with pytest.raises(ValueError, match=message):
            data.load_image_folder(tmp_path, **kwargs)
    save_pictures(tmp_path, cat__a_png=random_bytes(1, 8, 8)[0])
    with pytest.raises(ValueError, match=r"loose.png' lies beside sub-folders, which are the classes"):
        data.load_image_folder(tmp_path, 8)


@pytest.mark.parametrize("damage", ["text", "cut", "deep"])
def test_a_picture_that_cannot_be_read_is_named(tmp_path, damage):
    save_pictures(tmp_path, a_png=random_bytes(1, 8, 8)[0], b_png=random_bytes(1, 64, 64)[0])
    path = tmp_path / "b.png"
    if damage == "text":
        path.write_text("not a picture")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        Image.fromarray(np.full((8, 8), 1_000, np.uint16)).save(path)
    reason = "has more than 8 bits" if damage == "deep" else "it cannot be decoded as a picture"
    with pytest.raises(ValueError, match=rf"b.png' cannot be used: .*{reason}"):
        data.load_image_folder(tmp_path, 8)


@pytest.mark.parametrize("damage", ["empty", "folder", "link"])
def test_what_cannot_be_opened_is_named(tmp_path, damage):
    save_pictures(tmp_path, a_png=random_bytes(1, 8, 8)[0])
    path = tmp_path / "b.png"
    if damage == "empty":
        path.touch()
        with pytest.raises(ValueError, match=r"b.png' cannot be used: it cannot be decoded as a picture"):
            data.load_image_folder(tmp_path, 8)
        return
    if damage == "folder":
        save_pictures(path, c_png=random_bytes(1, 8, 8)[0])
        with pytest.raises(ValueError, match=r"a.png' lies beside sub-folders"):
            data.load_image_folder(tmp_path, 8)
        return
    path.symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(UserWarning, match=r"1 of the 2 files .* left out.*b.png'"):
        assert len(data.load_image_folder(tmp_path, 8).images) == 1


def test_links_are_followed_but_not_in_circles(tmp_path):
    pixels = random_bytes(2, 6, 6, 3)
    (folder := tmp_path / "set").mkdir()
    save_pictures(tmp_path / "elsewhere", a_png=pixels[0])
    save_pictures(folder, dog__b_png=pixels[1])
    (folder / "cat").symlink_to(tmp_path / "elsewhere")
    (folder / "dog" / "all").symlink_to(folder)
    images, labels = data.load_image_folder(folder, 6)
    np.testing.assert_allclose(images, pixels / 255, rtol=1e-6)
    np.testing.assert_array_equal(labels, [0, 1])


# How a picture that was stored by each orientation is to be shown, from the EXIF standard.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
    9: lambda x: x,  # there is none such
}


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright(tmp_path, orientation, ending):
    blocks = np.kron(random_bytes(1, 2, 4, 3)[0] // 128 * 255, np.ones((8, 8, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(blocks).save(
        tmp_path / f"a.{ending}", exif=exif, **({"quality": 95} if ending == "jpg" else {})
    )
    (image,) = data.load_image_folder(tmp_path, 16, channels=1).images
    expected = Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](blocks))).convert("L")
    left, top = (np.array(expected.size) - 16) // 2
    np.testing.assert_allclose(
        image[..., 0], np.asarray(expected)[top : top + 16, left : left + 16] / 255, atol=0.1
    )


def test_an_orientation_that_cannot_be_read_is_none(tmp_path):
    pixels = random_bytes(1, 8, 8, 3)[0]
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\0\0no such thing")
    np.testing.assert_allclose(data.load_image_folder(tmp_path, 8).images[0], pixels / 255, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "P and transparency", "RGB", "RGBA", "CMYK"])
def test_pictures_of_every_mode_of_eight_bits(tmp_path, mode, channels):
    grey = random_bytes(1, 8, 8)[0] // 128 * 255  # which every mode can hold
    options = {"transparency": bytes([10] * 256)} if "and" in mode else {}
    ending = "jpg" if mode == "CMYK" else "png"
    Image.fromarray(grey).convert("RGB").convert(mode.split()[0]).save(tmp_path / f"a.{ending}", **options)
    (image,) = data.load_image_folder(tmp_path, 8, channels=channels).images
    np.testing.assert_allclose(image, np.repeat(grey[..., None] / 255, channels, axis=-1), atol=0.2)


def test_of_an_animation_the_first_picture_is_taken(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), 100 * k, np.uint8)) for k in (1, 2)]
    frames[0].save(tmp_path / "a.png", format="GIF", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "b.png", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(data.load_image_folder(tmp_path, 8).images, 100 / 255, rtol=1e-6)


def test_a_picture_over_pillow_s_limit_is_named(tmp_path, monkeypatch):
    save_pictures(tmp_path, a_png=random_bytes(1, 4, 4)[0], b_png=random_bytes(1, 10, 10)[0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(ValueError, match=r"b.png' cannot be used: it is larger than Pillow's limit"):
        data.load_image_folder(tmp_path, 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80)  # above it by less than the factor 2
    with pytest.raises(ValueError, match=r"b.png' cannot be used: it is larger than Pillow's limit"):
        data.load_image_folder(tmp_path, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(data.load_image_folder(tmp_path, 4).images) == 2
    assert any("b.png' has 10 x 10 pixels, over Pillow's limit" in str(warning.message) for warning in caught)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as the message advises
    assert len(data.load_image_folder(tmp_path, 4).images) == 2


def test_a_size_beyond_the_memory_is_refused_before_it_is_taken(tmp_path, monkeypatch):
    save_pictures(tmp_path, a_png=random_bytes(1, 8, 8)[0], b_png=random_bytes(1, 8, 8)[0])
    with pytest.raises(ValueError, match=r"size=1000000 is larger than any picture; pass size=65536"):
        data.load_image_folder(tmp_path, 10**6)
    monkeypatch.setattr(image_folder, "available_memory", lambda: 4 * 2 * 3 * 100**2)
    with pytest.raises(ValueError, match=r"size=101 makes 2 images of .* GiB.*pass size=100 or less"):
        data.load_image_folder(tmp_path, 101)
    assert data.load_image_folder(tmp_path, 100).images.shape == (2, 100, 100, 3)
    monkeypatch.setattr(image_folder, "available_memory", lambda: 10)
    with pytest.raises(ValueError, match=r"read fewer pictures"):
        data.load_image_folder(tmp_path, 8)


def test_the_memory_of_a_machine_is_known_where_it_says(monkeypatch, tmp_path):
    assert 2**20 < memory.available_memory() < 2**60
    (tmp_path / "limit").write_text("1048576\n")
    monkeypatch.setattr(memory, "_CONTAINER_LIMIT", tmp_path / "limit")
    assert memory.available_memory() == 2**20


def test_without_pillow_it_says_what_to_install(tmp_path, monkeypatch):
    save_pictures(tmp_path, a_png=random_bytes(1, 8, 8)[0])
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"needs PIL.*pip install 'bism-jax\[data\]'"):
        data.load_image_folder(tmp_path, 8)


# The check.


def noise(*shape):
    return np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "convert_fn", [np.asarray, np.float64, jnp.asarray, lambda x: jnp.asarray(x, jnp.bfloat16)]
)
def test_good_images_pass(channels, convert_fn):
    data.check_images("images", convert_fn(noise(2, 8, 8, channels)))


def with_value(value):
    images = noise(3, 8, 8, 1)
    images[1, 2, 3] = value
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            random_bytes(2, 8, 8, 1),
            r"samples has dtype uint8, .*divide by 255: samples.astype\(np.float32\) / 255",
        ),
        (noise(2, 8, 8, 1) * 255, r"samples ranges from .* not within \[0, 1\]; divide by 255"),
        (noise(2, 8, 8, 1) * 60_000, "divide by the largest value"),
        (noise(2, 8, 8, 1) * 2 - 1, r"take \(samples \+ 1\) / 2"),
        (noise(2, 8, 8, 1) * 6 - 3, "undo the standardisation, or clip noisy images"),
        (
            noise(2, 3, 8, 8),
            r"samples has shape \(2, 3, 8, 8\), with the channels first; .*transpose\(0, 2, 3, 1\)",
        ),
        (noise(2, 1, 8, 8), "with the channels first"),
        (noise(2, 8, 8, 4), "so 4 channels; 1 .* or 3 .* are needed"),
        (noise(2, 8, 8), r"add the channel: samples\[\.\.\., None\]"),
        (noise(2, 64), "reshape it to that"),
        (noise(0, 8, 8, 1), "samples is empty"),
        (with_value(np.nan), "NaN or infinite values, first in row 1"),
        (with_value(np.inf), "NaN or infinite values, first in row 1"),
    ],
)
def test_bad_images_are_named(images, message):
    with pytest.raises(ValueError, match=message):
        data.check_images("samples", images)


def test_what_is_no_array_is_named():
    split = data.LabelledImages(noise(2, 8, 8, 1), None)
    with pytest.raises(TypeError, match=r"not a LabelledImages; pass train.images"):
        data.check_images("train", split)
    with pytest.raises(TypeError, match=r"not a list\."):
        data.check_images("train", [1, 2])


def test_mirrored_images_come_once_each_way():
    images = noise(3, 8, 8, 3)
    mirrored = data.MirroredImages(images)
    rows = np.stack([mirrored[index] for index in range(len(mirrored))])
    np.testing.assert_array_equal(rows[:3], images)
    np.testing.assert_array_equal(rows[3:, :, 0], images[:, :, -1])
    np.testing.assert_array_equal(rows[3:, :, ::-1], images)
    with pytest.raises(IndexError, match="6"):
        mirrored[6]
    with pytest.raises(ValueError, match="images has dtype uint8"):
        data.MirroredImages((255 * images).astype(np.uint8))
