"""Images in one file, to take along to a machine that has no data.

    python -m benchmarks.accelerator.arrays --output mnist.npz --data-dir /path/to/data

The file holds bytes and is compressed: 60,000 images of MNIST take 10 MB.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.accelerator.cases import UnavailableError
from bism_jax.data import ImageSplits, LabelledImages, load_image_split
from experiments.command_line import run_command

_SPLITS = ("train", "test")
_QUICK_ROWS = (1200, 500)


def write_arrays(path: Path, splits: dict[str, LabelledImages]) -> None:
    """Writes pixels as bytes, and labels."""
    arrays = {}
    for name, split in splits.items():
        arrays[f"{name}_images"] = np.round(255 * split.images).astype(np.uint8)
        arrays[f"{name}_labels"] = np.asarray(split.labels, np.uint8)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> ImageSplits:
    """The images, in [0, 1], as they were before; the validation split stays at home."""
    with np.load(path, allow_pickle=False) as archive:
        train, test = (
            LabelledImages(
                archive[f"{name}_images"].astype(np.float32) / np.float32(255),
                archive[f"{name}_labels"].astype(np.int32),
            )
            for name in _SPLITS
        )
    return ImageSplits(train, test, test)


def scikit_digits() -> ImageSplits:
    """The 8 x 8 digits that scikit-learn comes with, each pixel four times as wide and high.

    Raises:
        UnavailableError: where scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UnavailableError(
            "no --arrays were given, and scikit-learn, which has digits, is missing"
        ) from error
    digits = load_digits()
    images = np.kron(digits.images[..., None] / 16, np.ones((1, 4, 4, 1))).astype(np.float32)
    labels = digits.target.astype(np.int32)
    train, test = _QUICK_ROWS
    parts = [slice(train), slice(train, train + test)]
    first, second = (LabelledImages(images[part], labels[part]) for part in parts)
    return ImageSplits(first, second, second)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks.accelerator.arrays`."""
    run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser("benchmarks.accelerator.arrays", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--data-dir", type=Path, help="the data directory; BISM_JAX_DATA where it is not given"
    )
    given = parser.parse_args(arguments)
    write_arrays(given.output, {name: load_image_split("mnist", name, given.data_dir) for name in _SPLITS})
    print(f"{given.output}: {given.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
