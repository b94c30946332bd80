"""The kernel Stein discrepancy."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax.objectives._objective import WithoutNoise, check_score, score_at, sum_events
from bism_jax.typing import ScoreFn


@dataclass(frozen=True)
class KSD(WithoutNoise):
    """The squared kernel Stein discrepancy, estimated on pairs of rows.

        F = s(v)^T k s(v') + s(v)^T grad_v' k + s(v')^T grad_v k + tr grad_v grad_v' k
        k(v, v') = exp(-|v - v'|^2 / (2 bandwidth^2))

    Needs the score's values alone, no derivative of it. A batch is paired as rows (0, 1), (2, 3), ..., so
    that the pairs do not depend on the number of devices; both rows of a pair carry its value. (Liu, Lee
    and Jordan, ICML 2016, arXiv 1602.03253.)

    Attributes:
        bandwidth: in units of the data; 0.1 on the checkerboard in Bao et al., arXiv 2010.08258.

    Raises:
        ValueError: where the bandwidth is not above 0, or a batch has an odd number of rows.
    """

    bandwidth: float = 0.1

    def __post_init__(self) -> None:
        checks.positive("bandwidth", self.bandwidth)

    def loss(self, score_fn: ScoreFn, v: Array, noise: tuple[()]) -> Float[Array, " batch"]:
        """The discrepancy of each row's pair, `[B]`."""
        return self.pointwise_loss(score_at(score_fn, v), v, noise)

    def pointwise_loss(self, score: Array, v: Array, noise: tuple[()]) -> Float[Array, " batch"]:
        """The loss of the score's values at v."""
        check_score(score, v)
        if v.shape[0] % 2:
            raise ValueError(
                f"KSD compares the rows of a batch in pairs, but v has {v.shape[0]} rows (on each "
                "device); pass an even batch_size."
            )
        precision = 1 / self.bandwidth**2
        difference = v[0::2] - v[1::2]
        squared = sum_events(difference**2)
        # 0 in float32 beyond some 14 bandwidths: a pair farther apart says nothing.
        kernel = jnp.exp(-0.5 * precision * squared)
        slope = precision * difference  # grad_v' log k = -grad_v log k
        linear = sum_events(score[0::2] * (score[1::2] + slope) - score[1::2] * slope)
        # The kernel's derivatives are written out: none is left to JAX but those of the score in theta.
        trace = precision * (v[0].size - precision * squared)
        # One value a row, so that the mean over rows is the mean over pairs.
        return jnp.repeat(kernel * (linear + trace), 2)
