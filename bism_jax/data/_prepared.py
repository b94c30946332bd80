"""Image sets prepared by tensorflow-datasets, read from ArrayRecord files, without TensorFlow or network."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from bism_jax.data._extras import import_extra
from bism_jax.data._image_sets import IMAGE_SIZE, ImageSet, StoredImages
from bism_jax.data._pictures import centre_square, open_picture, to_pixels

_RECORDS_A_READ = 1_000  # still compressed; read at once, a whole set would stand in memory twice


def default_prepared_folder() -> Path:
    """Where tensorflow-datasets keeps its sets when it is told nothing: `TFDS_DATA_DIR`, or in the home."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def prepare_command(image_set: ImageSet, folder: Path) -> str:
    """The shell command that downloads and prepares the set."""
    builder = f"tfds.builder('{image_set.prepared_name}', data_dir='{folder}', file_format='array_record')"
    return f'python -c "import tensorflow_datasets as tfds; {builder}.download_and_prepare()"'


def find_prepared(image_set: ImageSet, folder: Path) -> PreparedSet | None:
    """The latest version of the set in a folder of tensorflow-datasets; None where there is none."""
    versions = {
        # As numbers: 3.10.0 is later than 3.9.0.
        tuple(int(number) for number in info.parent.name.split(".")): info.parent
        for info in (folder / image_set.prepared_name).glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name)
    }
    return PreparedSet(versions[max(versions)]) if versions else None


@dataclass(frozen=True)
class PreparedSet:
    """A version of a prepared set.

    Attributes:
        folder: holds `dataset_info.json`, `features.json` and the ArrayRecord files.
    """

    folder: Path

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits it was prepared with."""
        return tuple(self._builder.info.splits)

    @property
    def description(self) -> str:
        """Where it lies and which splits it holds."""
        return f"{str(self.folder)!r} holds the splits {', '.join(self.splits) or 'none'}"

    def read(self, image_set: ImageSet, split: str, rows: slice) -> StoredImages:
        """The rows of a split, in the order of the files.

        Raises:
            ValueError: the files cannot be read, or hold other data.
        """
        # Decoding here takes two thirds of the time, and only the cropped pixels of CelebA are ever kept.
        decoders = {"image": import_extra("tensorflow_datasets").decode.SkipDecoding()}
        with self._readable():
            source = self._builder.as_data_source(split, decoders=decoders)
            return _read_records(source, image_set, range(len(source))[rows])

    @cached_property
    def _builder(self) -> Any:
        tfds = import_extra("tensorflow_datasets")
        # tensorflow-datasets (4.9) imports it with the first record only.
        import_extra("array_record")
        with self._readable():
            return tfds.builder_from_directory(self.folder)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Names the folder where tensorflow-datasets, ArrayRecord or protobuf raise errors of many types."""
        try:
            yield
        # It says what to install, and the set may be in order.
        except ImportError:
            raise
        except NotImplementedError as error:
            raise ValueError(
                f"{str(self.folder)!r} is prepared in a format without random access; delete it and prepare "
                "the set again with file_format='array_record'."
            ) from error
        # The three libraries share no class of errors.
        except Exception as error:
            raise ValueError(
                f"{str(self.folder)!r} cannot be read as a prepared set, so it may be incomplete; delete it "
                f"and prepare the set again. {error}"
            ) from error


def _read_records(source: Any, image_set: ImageSet, rows: range) -> StoredImages:
    height, width, channels = image_set.shape if image_set.crop is None else (IMAGE_SIZE, IMAGE_SIZE, 3)
    # In bytes, a quarter of what the floats take, until all are read.
    pixels = np.empty((len(rows), height, width, channels), np.uint8)
    labels = None if image_set.num_classes is None else np.empty(len(rows), np.int32)
    # Threads help large JPEGs; they slow PNGs of a few hundred bytes.
    with nullcontext() if image_set.crop is None else ThreadPoolExecutor() as pool:
        decode_all = map if pool is None else pool.map
        for start in range(0, len(rows), _RECORDS_A_READ):
            records = source.__getitems__(list(rows[start : start + _RECORDS_A_READ]))
            decoded = decode_all(partial(_decode, image_set), [record["image"] for record in records])
            pixels[start : start + len(records)] = list(decoded)
            if labels is not None:
                labels[start : start + len(records)] = [record["label"] for record in records]
    return StoredImages(pixels, labels)


def _decode(image_set: ImageSet, encoded: bytes) -> UInt8[np.ndarray, "height width channels"]:
    try:
        picture = open_picture(io.BytesIO(encoded), image_set.shape[2])
    except ValueError as error:
        raise ValueError(f"One of its images is damaged: {error}.") from error
    height, width, _ = image_set.shape
    # A set of the same name but another release would be cropped elsewhere in silence.
    if picture.size != (width, height):
        found = f"{picture.size[1]} x {picture.size[0]}"
        raise ValueError(f"It holds an image of {found} pixels; {image_set.name} has {height} x {width}.")
    if image_set.crop is not None:
        picture = centre_square(picture, image_set.crop, IMAGE_SIZE)
    return to_pixels(picture)
