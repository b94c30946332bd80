"""MNIST, Fashion-MNIST, CIFAR-10 and CelebA from local files, as the paper trains on them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from bism_jax import checks
from bism_jax.data._directory import DATA_DIRECTORY_VARIABLE, data_directory
from bism_jax.data._image_sets import (
    IMAGE_SETS,
    SPLITS,
    ImageSet,
    ImageSource,
    ImageSplits,
    LabelledImages,
)
from bism_jax.data._keras_archive import KerasArchive
from bism_jax.data._prepared import default_prepared_folder, find_prepared, prepare_command


def load_images(name: str, data_dir: str | Path | None = None) -> ImageSplits:
    """An image set, pixel / 255 in [0, 1], float32, `[rows, 32, 32, channels]`, with labels where it has any.

    | name | images | train / validation / test |
    |---|---|---|
    | `mnist`, `fashion_mnist` | 28 x 28 x 1, 2 zero pixels added on each side | 50,000 / 10,000 / 10,000 |
    | `cifar10` | 32 x 32 x 3 | 40,000 / 10,000 / 10,000 |
    | `celeba` | centre 140 x 140 x 3, resized; no labels | 162,770 / 19,867 / 19,962, its own splits |

    The preparation and the splits of Bao et al., "Bi-level Score Matching for Learning Energy-based Latent
    Variable Models", NeurIPS 2020 (arXiv 2010.07856); its code also mirrors CelebA's images at random, for
    which there is `MirroredImages`. The last 10,000 stored training images validate. tensorflow-datasets
    stores the images in an order of its own, so those are other images than in an archive.

    Reads what is in the folder, and downloads nothing:

    - sets prepared by tensorflow-datasets as ArrayRecord, in `tfds/<name>/<version>` or `<name>/<version>`
      (CelebA is `celeb_a` there), or
    - an archive `<name>.npz` or `<name>/<name>.npz` of uint8 images with the keys of Keras, `x_train`,
      `y_train`, `x_test` and `y_test` (not for CelebA).

    Of several, the first that holds a split is read.

    Args:
        name: `mnist`, `fashion_mnist`, `cifar10` or `celeba`.
        data_dir: the folder; None takes the environment variable `BISM_JAX_DATA`, and then the folder of
            tensorflow-datasets (`TFDS_DATA_DIR`, or `~/tensorflow_datasets`).

    Raises:
        FileNotFoundError: there is no such folder, or nothing in it holds the set.
        ValueError: the name is unknown, a split is missing, or a file holds other data.
        ImportError: a prepared set needs the extra `data`.
    """
    return ImageSplits(*(load_image_split(name, split, data_dir) for split in SPLITS))


def load_image_split(name: str, split: str, data_dir: str | Path | None = None) -> LabelledImages:
    """One split of an image set alone, as in `load_images`.

    Args:
        name: `mnist`, `fashion_mnist`, `cifar10` or `celeba`.
        split: `train`, `validation` or `test`.
        data_dir: as in `load_images`.

    Raises:
        FileNotFoundError: there is no such folder, or nothing in it holds the set.
        ValueError: the name or the split is unknown or missing, or a file holds other data.
        ImportError: a prepared set needs the extra `data`.
    """
    checks.one_of("name", name, tuple(IMAGE_SETS))
    checks.one_of("split", split, SPLITS)
    image_set = IMAGE_SETS[name]
    stored_split, rows = image_set.stored_rows(split)
    source = _source_with(image_set, stored_split, data_dir)
    pixels, labels = source.read(image_set, stored_split, rows)
    # A slice from the end of too few rows gives what there is, and overlaps the training images.
    if len(pixels) == 0 or (split == "validation" and len(pixels) < (image_set.num_validation or 0)):
        raise ValueError(
            f"{source.description}, but too few images in {stored_split} for the split {split} of {name}; it "
            "is cut short, so get the whole set."
        )
    return LabelledImages(_padded_floats(pixels, image_set.padding), labels)


def _padded_floats(
    pixels: UInt8[np.ndarray, "rows height width channels"], padding: int
) -> Float[np.ndarray, "rows padded_height padded_width channels"]:
    sides = (padding, padding)
    # Padded as bytes and divided in place: the floats are four times as large, and are there once.
    images = np.pad(pixels, ((0, 0), sides, sides, (0, 0))).astype(np.float32)
    images /= np.float32(255)
    return images


def _source_with(image_set: ImageSet, stored_split: str, data_dir: str | Path | None) -> ImageSource:
    """The first source that holds the split, or an error that says where it was looked for."""
    folders, prepared_folders = _folders(data_dir)
    archives = [path for folder in folders for path in _archive_paths(image_set, folder)]
    prepared = [find_prepared(image_set, folder) for folder in prepared_folders]
    sources: list[ImageSource] = [source for source in prepared if source is not None]
    sources += [KerasArchive(path) for path in archives if path.is_file()]
    # By split, so that an archive serves where a prepared set was made of some splits only.
    for source in sources:
        if stored_split in source.splits:
            return source
    remedy = _remedy(image_set, prepared_folders[0], archives)
    if sources:
        found = "; ".join(source.description for source in sources)
        raise ValueError(
            f"The split {stored_split} of {image_set.name} is missing: {found}. {remedy} Delete an "
            "incomplete prepared set first: it would not be prepared again."
        )
    places = [folder / image_set.prepared_name for folder in prepared_folders] + archives
    looked_for = ", ".join(repr(str(place)) for place in places)
    elsewhere = "" if folders else f" If it lies elsewhere, pass data_dir or set {DATA_DIRECTORY_VARIABLE}."
    raise FileNotFoundError(
        f"{image_set.name} was looked for at {looked_for}, and nothing is there; it is not downloaded here. "
        f"{remedy}{elsewhere}"
    )


def _remedy(image_set: ImageSet, folder: Path, archives: list[Path]) -> str:
    remedy = (
        "Get it on a machine with internet: pip install tensorflow importlib_resources (only this step needs "
        f"them), then {prepare_command(image_set, folder)}"
    )
    if archives:
        remedy += f" Or put an archive (x_train, y_train, x_test, y_test) at {str(archives[0])!r}."
    return remedy


def _folders(data_dir: str | Path | None) -> tuple[list[Path], list[Path]]:
    """Folders of data sets, and folders of tensorflow-datasets, in the order they are looked through."""
    given = data_dir is not None or bool(os.environ.get(DATA_DIRECTORY_VARIABLE))
    folders = [data_directory(data_dir)] if given else []
    prepared_folders = [place for folder in folders for place in (folder / "tfds", folder)]
    # A folder that is named is meant: nothing else is looked through.
    if data_dir is None:
        prepared_folders.append(default_prepared_folder())
    return folders, prepared_folders


def _archive_paths(image_set: ImageSet, folder: Path) -> list[Path]:
    # Keras has no CelebA, and an archive of two splits would not have its validation images.
    if image_set.num_classes is None:
        return []
    file_name = f"{image_set.name}.npz"
    return [folder / file_name, folder / image_set.name / file_name]
