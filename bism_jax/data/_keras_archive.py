"""Image sets in one npz archive, with the keys that Keras gives them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from bism_jax.data._image_sets import ImageSet, StoredImages


@dataclass(frozen=True)
class KerasArchive:
    """An archive with the keys `x_train`, `y_train`, `x_test` and `y_test`; one pair of them is enough.

    `x` is uint8, `[rows, height, width, channels]`, or `[rows, height, width]` for grey images; `y` holds
    integers, `[rows]` or `[rows, 1]`.

    Attributes:
        path: the file.
    """

    path: Path

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have images."""
        return tuple(key.removeprefix("x_") for key in self._keys if key.startswith("x_"))

    @property
    def description(self) -> str:
        """Where it lies and which keys it holds."""
        return f"{str(self.path)!r} holds the keys {', '.join(self._keys) or 'none'}"

    def read(self, image_set: ImageSet, split: str, rows: slice) -> StoredImages:
        """The rows of a split.

        Raises:
            ValueError: the file cannot be read, or holds another key, shape or dtype.
        """
        # All rows, as an array within an archive has no random access.
        pixels = self._pixels(image_set, f"x_{split}")
        labels = self._labels(image_set, f"y_{split}", len(pixels))
        return StoredImages(pixels[rows], labels[rows])

    def _pixels(self, image_set: ImageSet, key: str) -> UInt8[np.ndarray, "rows height width channels"]:
        pixels, (height, width, channels) = self._array(key), image_set.shape
        where = f"{key!r} in {str(self.path)!r}"
        # Floats may be in any range, or standardised already.
        if pixels.dtype != np.uint8:
            raise ValueError(
                f"{where} has dtype {pixels.dtype}; the archive must hold the original bytes, uint8 in "
                "0 ... 255."
            )
        if channels == 1 and pixels.shape[1:] == (height, width):
            return pixels[..., None]
        if pixels.shape[1:] == image_set.shape:
            return pixels
        expected = f"[rows, {height}, {width}" + (f", {channels}]" if channels > 1 else "]")
        message = f"{where} has shape {pixels.shape}; {image_set.name} has {expected}."
        if pixels.shape[1:] == (channels, height, width):
            message += " Its channels come first: move them with np.moveaxis(x, 1, -1)."
        raise ValueError(message)

    def _labels(self, image_set: ImageSet, key: str, num_rows: int) -> Int[np.ndarray, " rows"]:
        labels, where = self._array(key), f"{key!r} in {str(self.path)!r}"
        # Keras has CIFAR-10's labels in a column, those of MNIST in a vector.
        if labels.shape not in ((num_rows,), (num_rows, 1)):
            raise ValueError(f"{where} has shape {labels.shape}, but there are {num_rows} images.")
        classes = image_set.num_classes
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"{where} has dtype {labels.dtype}; labels are integers from 0.")
        if classes is not None and labels.size and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(
                f"{where} holds labels from {labels.min()} to {labels.max()}; {image_set.name} has the "
                f"classes 0 ... {classes - 1}."
            )
        return labels.reshape(num_rows).astype(np.int32)

    # In `__dict__`, past the `__setattr__` of a frozen dataclass: the directory is read once.
    @cached_property
    def _keys(self) -> tuple[str, ...]:
        with self._opened() as archive:
            return tuple(archive.files)

    def _array(self, key: str) -> np.ndarray:
        if key not in self._keys:
            raise ValueError(f"{self.description}, but the key {key} is missing.")
        with self._opened() as archive:
            return archive[key]

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            # NumPy takes what is no archive for a pickle, and advises to allow it.
            if not zipfile.is_zipfile(self.path):
                raise ValueError("it is no zip file, or is cut short")
            # NumPy leaves a file open that it has opened and cannot read.
            with open(self.path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                yield archive
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{str(self.path)!r} cannot be read as an npz archive ({error}); write it with np.savez."
            ) from error
