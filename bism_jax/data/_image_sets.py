"""What is known of each image set, and what it is read into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int, UInt8


class LabelledImages(NamedTuple):
    """Images and their classes, as NumPy arrays in the memory of the host.

    Attributes:
        images: pixel / 255 in [0, 1], float32, `[rows, height, width, channels]`.
        labels: the class of each image, int32, `[rows]`; None for a set without classes.
    """

    images: Float[np.ndarray, "rows height width channels"]
    labels: Int[np.ndarray, " rows"] | None


class ImageSplits(NamedTuple):
    """An image set cut in three.

    Attributes:
        train: what a model is fitted to.
        validation: what settings are chosen on.
        test: what is reported.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


class StoredImages(NamedTuple):
    """Images as a source holds them: bytes `[rows, height, width, channels]`, and their classes."""

    pixels: UInt8[np.ndarray, "rows height width channels"]
    labels: Int[np.ndarray, " rows"] | None


@dataclass(frozen=True)
class ImageSet:
    """An image set: how it is stored and how it is prepared for a model.

    Attributes:
        name: what `load_images` calls it.
        prepared_name: what tensorflow-datasets calls it.
        shape: height, width and channels of a stored image.
        num_classes: classes of its labels, counted from 0; None without labels.
        num_validation: training images, the last ones stored, that validate; None where the set has a
            validation split of its own.
        padding: zero pixels added on each side.
        crop: side of the square cut from the centre, which is then resized to 32 x 32; None leaves the image.
    """

    name: str
    prepared_name: str
    shape: tuple[int, int, int]
    num_classes: int | None = 10
    num_validation: int | None = 10_000
    padding: int = 0
    crop: int | None = None

    def stored_rows(self, split: str) -> tuple[str, slice]:
        """The stored split that holds a split, and its rows there."""
        if self.num_validation is None or split == "test":
            return split, slice(None)
        if split == "train":
            # From the end, so that the number of rows need not be known.
            return "train", slice(None, -self.num_validation)
        return "train", slice(-self.num_validation, None)


class ImageSource(Protocol):
    """A place that holds an image set."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The stored splits it holds."""
        ...

    @property
    def description(self) -> str:
        """Where it lies and what it holds, for messages."""
        ...

    def read(self, image_set: ImageSet, split: str, rows: slice) -> StoredImages:
        """The rows of a stored split, cropped and resized but not padded."""
        ...


SPLITS = ImageSplits._fields
# Halved three times by every image energy, and the size of CIFAR-10: others are padded or resized to it.
IMAGE_SIZE = 32

IMAGE_SETS = {
    image_set.name: image_set
    for image_set in (
        ImageSet("mnist", "mnist", (28, 28, 1), padding=2),
        ImageSet("fashion_mnist", "fashion_mnist", (28, 28, 1), padding=2),
        ImageSet("cifar10", "cifar10", (32, 32, 3)),
        ImageSet("celeba", "celeb_a", (218, 178, 3), num_classes=None, num_validation=None, crop=140),
    )
}
"""The image sets of `load_images` by name."""
