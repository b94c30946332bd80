"""The Frey faces: 1,965 frames of one face on film, 28 x 20 pixels, in the order of the film."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from bism_jax import checks
from bism_jax.data._directory import data_directory
from bism_jax.data._splits import Splits

NUM_IMAGES, HEIGHT, WIDTH = 1965, 28, 20
TRAIN_END, VALIDATION_END = 1400, 1700

_NPZ_NAME, _NPZ_KEY = "frey_face.npz", "images"
_MAT_NAME, _MAT_KEY = "frey_rawface.mat", "ff"


def load_frey_face(data_dir: str | Path | None = None, *, flatten: bool = True) -> Splits:
    """The Frey faces, pixel / 255 in [0, 1], float32, split in the order of the film.

    The first 1,400 images train, the next 300 validate, the last 265 test: the split of Bao et al.,
    "Bi-level Score Matching for Learning Energy-based Latent Variable Models", NeurIPS 2020
    (arXiv 2010.07856). Neighbours on film look alike, so a shuffled split would leak.

    Reads `frey_face/frey_face.npz` (key `images`, uint8, `[1965, 28, 20]`), or else
    `frey_face/frey_rawface.mat` (key `ff`, uint8, `[560, 1965]`: a column holds an image row by row).
    Nothing is downloaded.

    Args:
        data_dir: the folder that holds `frey_face`; None takes the environment variable `BISM_JAX_DATA`.
        flatten: whether an image is a vector `[560]`, row by row, or a matrix `[28, 20]`.

    Raises:
        FileNotFoundError: there is no data folder, or neither file in it.
        ValueError: a file cannot be read, or holds another key, shape or dtype.
    """
    checks.boolean("flatten", flatten)
    images = _read(data_directory(data_dir) / "frey_face")
    pixels = images.astype(np.float32) / np.float32(255)
    if flatten:
        pixels = pixels.reshape(NUM_IMAGES, HEIGHT * WIDTH)
    return Splits(pixels[:TRAIN_END], pixels[TRAIN_END:VALIDATION_END], pixels[VALIDATION_END:])


def _read(folder: Path) -> UInt8[np.ndarray, "1965 28 20"]:
    npz_path, mat_path = folder / _NPZ_NAME, folder / _MAT_NAME
    if npz_path.is_file():
        return _from_npz(npz_path)
    if mat_path.is_file():
        return _from_mat(mat_path)
    raise FileNotFoundError(
        f"The Frey faces were looked for at {str(npz_path)!r} and at {str(mat_path)!r}, and neither exists. "
        f"Get the Frey face data, file {_MAT_NAME}, from Sam Roweis's page at NYU "
        f"(https://cs.nyu.edu/~roweis/data.html), and put it in {str(folder)!r}."
    )


def _from_npz(path: Path) -> UInt8[np.ndarray, "1965 28 20"]:
    try:
        # No pickles, which run code. NumPy leaves a file open that it has opened and cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            contents = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an npz archive: {error}") from error
    return _checked(path, contents, _NPZ_KEY, (NUM_IMAGES, HEIGHT, WIDTH))


def _from_mat(path: Path) -> UInt8[np.ndarray, "1965 28 20"]:
    import scipy.io
    from scipy.io.matlab import MatReadError

    try:
        contents = scipy.io.loadmat(path)
    # SciPy (1.17) raises NotImplementedError for MATLAB's version 7.3, which is HDF5.
    except (MatReadError, OSError, ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as a MATLAB file: {error}") from error
    columns = _checked(path, contents, _MAT_KEY, (HEIGHT * WIDTH, NUM_IMAGES))
    # MATLAB's columns are images, and each holds its rows one after the other.
    return columns.T.reshape(NUM_IMAGES, HEIGHT, WIDTH)


def _checked(path: Path, contents: dict[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array under `key`, or a ValueError that says how the file differs from a Frey face file."""
    if key not in contents:
        # SciPy adds `__header__` and the like.
        present = ", ".join(repr(name) for name in contents if not name.startswith("__")) or "nothing"
        raise ValueError(f"{str(path)!r} should hold the images under the key {key!r}, but holds {present}.")
    images = contents[key]
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(
            f"{key!r} in {str(path)!r} has shape {images.shape} and dtype {images.dtype}; the Frey faces "
            f"have shape {shape} and dtype uint8."
        )
    return images
