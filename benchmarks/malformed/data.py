"""Malformed calls of `bism_jax.data`: toy densities, and the arguments of the loaders."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from benchmarks.malformed.allowed import but_for
from benchmarks.malformed.campaign import Call
from benchmarks.malformed.values import scratch_folder
from bism_jax import data

PACKAGE = "bism_jax.data"
_RESULTS = "ImageSplits LabelledImages Splits"
_TOYS = "checkerboard eight_gaussians pinwheel rings two_moons two_spirals"
EXEMPT = {
    **dict.fromkeys(_RESULTS.split(), "a result"),
    **dict.fromkeys(_TOYS.split(), "a value; its methods have entries"),
    "TOYS": "a dictionary",
    "ToyDensity": "made by the library; its methods have entries",
}
KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(size=(4, 8, 8, 3)).astype(np.float32)
POINTS = np.random.default_rng(0).uniform(size=(5, 2)).astype(np.float32)
_FOLDER = scratch_folder()
_PATHS = ({"data_dir": "/no/such/folder"}, {"data_dir": __file__})


@functools.cache
def _folder_of_pictures() -> Path:
    folder = scratch_folder()
    Image.fromarray((255 * IMAGES[0]).astype(np.uint8)).save(folder / "a.png")
    return folder


def calls() -> dict[str, Call]:
    """One valid call for each public name."""
    grey, bytes_ = IMAGES[..., 0], (255 * IMAGES).astype(np.uint8)
    images: tuple[Any, ...] = (
        grey,
        bytes_,
        255 * IMAGES,
        2 * IMAGES - 1,
        IMAGES.transpose(0, 3, 1, 2),
        IMAGES[..., :2],
    )
    images += (IMAGES[:0], IMAGES * np.nan, IMAGES.astype(str), IMAGES.tolist(), None, "x", IMAGES[0])
    images += (data.LabelledImages(IMAGES, None), 3)
    bad = tuple({"images": one} for one in images)
    nan = {"points: NaN": "NaN there", "points: infinite": "no mass there", "points: no rows": "no values"}
    toys = {
        f"toy({name}).log_prob": Call(
            density.log_prob,
            {"points": POINTS},
            {"points": "numbers"},
            ({"points": POINTS[:, :1]}, {"points": np.ones((4, 3))}, {"points": np.ones(())}),
            nan,
        )
        for name, density in data.TOYS.items()
        if density.log_prob_fn is not None
    }
    draws = {
        f"toy({name}).sample": Call(
            density.sample,
            {"rng_key": KEY, "num_samples": 3},
            {"rng_key": "key", "num_samples": "batch_size"},
        )
        for name, density in data.TOYS.items()
    }
    return {
        **toys,
        **draws,
        "toy": Call(data.toy, {"name": "rings"}, {"name": "choice"}, ({"name": {}}, {"name": "Rings"})),
        "checkerboard_splits": Call(data.checkerboard_splits, {"rng_key": KEY}, {"rng_key": "key"}),
        "MirroredImages": Call(data.MirroredImages, {"images": IMAGES}, {}, bad),
        "check_images": Call(data.check_images, {"name": "images", "images": IMAGES}, {"name": "text"}, bad),
        "data_directory": Call(data.data_directory, {"data_dir": _FOLDER}, {"data_dir": "path"}, _PATHS),
        "load_frey_face": Call(
            but_for(data.load_frey_face, {"data_dir": _FOLDER, "flatten": True}),
            {"data_dir": _FOLDER, "flatten": True},
            {"data_dir": "path", "flatten": "flag"},
            _PATHS,
        ),
        "load_images": Call(
            but_for(data.load_images, {"name": "mnist", "data_dir": _FOLDER}),
            {"name": "mnist", "data_dir": _FOLDER},
            {"name": "choice", "data_dir": "path"},
            (*_PATHS, {"name": "MNIST"}),
        ),
        "load_image_split": Call(
            but_for(data.load_image_split, {"name": "mnist", "split": "train", "data_dir": _FOLDER}),
            {"name": "mnist", "split": "train", "data_dir": _FOLDER},
            {"name": "choice", "split": "choice", "data_dir": "path"},
            (*_PATHS, {"split": "valid"}),
        ),
        "load_image_folder": Call(
            data.load_image_folder,
            {"path": _folder_of_pictures(), "size": 8, "crop": 8, "channels": 3},
            {"path": "path", "size": "batch_size", "crop": "count", "channels": "choice"},
            ({"path": "/no/such/folder"}, {"path": __file__}, {"channels": 2}, {"channels": True}),
        ),
    }
