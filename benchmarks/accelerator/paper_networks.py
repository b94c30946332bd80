"""The paper's networks on images, at the depths and precisions that are compared."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import jax

from experiments.imaging.config import Data, ImageConfig, preset

# What products of float32 are computed in. JAX's default is TF32 on the GPUs that have it; bfloat16 is the
# dtype of the energy's convolutions, and leaves the rest at the default.
PRECISIONS = {"float32": "highest", "TF32": "default", "bfloat16": "default"}
BATCH, QUICK_BATCH = 100, 4


class Setting(NamedTuple):
    """One program.

    Attributes:
        data: whose network it is.
        num_steps: N.
        precision: a key of `PRECISIONS`.
    """

    data: Data
    num_steps: int
    precision: str

    @property
    def name(self) -> str:
        """Of its case."""
        return f"{self.data}, N = {self.num_steps}, {self.precision}"


def settings(quick: bool) -> list[Setting]:
    """The most telling first."""
    if quick:
        return [Setting("mnist", 1, "float32"), Setting("mnist", 0, "bfloat16")]
    main, others = ("bfloat16", "float32", "TF32"), ("bfloat16", "float32")
    return [
        Setting(data, num_steps, precision)
        for num_steps, precisions in ((5, main), (0, main), (20, others), (1, others))
        for data in ("mnist", "cifar10")
        for precision in precisions
    ]


def configuration(setting: Setting, quick: bool) -> ImageConfig:
    """The published setting, of images of noise: the cost does not depend on them."""
    config = preset(setting.data, "paper")
    training = replace(config.training, num_steps=setting.num_steps)
    network = replace(config.network, bfloat16=setting.precision == "bfloat16")
    if quick:
        training = replace(training, lower_steps=1)
        network = replace(network, channels=2, widths=(2, 4, 8), num_hidden=5)
    return replace(config, training=training, network=network, batch_size=QUICK_BATCH if quick else BATCH)


def product_precision(precision: str) -> AbstractContextManager[Any]:
    """Of everything that is traced within."""
    return jax.default_matmul_precision(PRECISIONS[precision])
