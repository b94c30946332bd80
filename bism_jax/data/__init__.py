"""Data sets: toy densities on the plane, and image sets read from a local folder; nothing is downloaded."""

from bism_jax.data._directory import data_directory
from bism_jax.data._frey_face import load_frey_face
from bism_jax.data._image_checks import check_images
from bism_jax.data._image_folder import load_image_folder
from bism_jax.data._image_sets import ImageSplits, LabelledImages
from bism_jax.data._mirrored import MirroredImages
from bism_jax.data._named_sets import load_image_split, load_images
from bism_jax.data._splits import Splits
from bism_jax.data._toy import (
    TOYS,
    ToyDensity,
    checkerboard,
    checkerboard_splits,
    eight_gaussians,
    pinwheel,
    rings,
    toy,
    two_moons,
    two_spirals,
)

__all__ = [
    "TOYS",
    "ImageSplits",
    "LabelledImages",
    "MirroredImages",
    "Splits",
    "ToyDensity",
    "check_images",
    "checkerboard",
    "checkerboard_splits",
    "data_directory",
    "eight_gaussians",
    "load_frey_face",
    "load_image_folder",
    "load_image_split",
    "load_images",
    "pinwheel",
    "rings",
    "toy",
    "two_moons",
    "two_spirals",
]
