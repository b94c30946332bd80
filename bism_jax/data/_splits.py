"""The three parts of a data set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped


class Splits(NamedTuple):
    """A data set cut in three, as NumPy arrays in the memory of the host.

    Attributes:
        train: what a model is fitted to, `[num_train, *visible]`.
        validation: what settings are chosen on, `[num_validation, *visible]`.
        test: what is reported, `[num_test, *visible]`.
    """

    train: Shaped[np.ndarray, "num_train *visible"]
    validation: Shaped[np.ndarray, "num_validation *visible"]
    test: Shaped[np.ndarray, "num_test *visible"]
