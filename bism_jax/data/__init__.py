"""Data sets: toy densities on the plane, and image sets read from a local folder; nothing is downloaded."""

from bism_jax.data.directory import data_directory
from bism_jax.data.frey_face import load_frey_face
from bism_jax.data.image_checks import check_images
from bism_jax.data.image_folder import load_image_folder
from bism_jax.data.image_sets import ImageSplits, LabelledImages
from bism_jax.data.images import load_image_split, load_images
from bism_jax.data.mirrored import MirroredImages
from bism_jax.data.splits import Splits
from bism_jax.data.toy import (
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
