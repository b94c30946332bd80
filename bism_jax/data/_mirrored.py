"""Images and their mirror images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from bism_jax.data._image_checks import check_images


class MirroredImages:
    """A source of twice as many rows for `fit`: the images, then each of them with left and right swapped.

    In a shuffled epoch of it every image comes once each way, at random times; the order stays a function
    of the iteration, so that a resumed run sees the same batches. Nothing is copied.

    Args:
        images: `[rows, height, width, channels]`, in [0, 1].

    Raises:
        TypeError: they are no array.
        ValueError: their shape, dtype or range is another.
    """

    def __init__(self, images: Float[np.ndarray, "rows height width channels"]) -> None:
        check_images("images", images)
        self._images = images

    def __len__(self) -> int:
        """Twice the number of images."""
        return 2 * len(self._images)

    def __getitem__(self, index: int) -> Float[np.ndarray, "height width channels"]:
        """An image, or from row `len(images)` on a mirror image."""
        number = len(self._images)
        # No negative index, and an error that ends a `for` over a source without `__iter__`.
        if not 0 <= index < 2 * number:
            raise IndexError(f"index {index} is not within 0 .. {2 * number - 1}.")
        image = self._images[index % number]
        # A view with a negative stride, so that nothing is copied before the batch is.
        return image if index < number else image[:, ::-1]
