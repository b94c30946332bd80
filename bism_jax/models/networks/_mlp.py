"""The multilayer perceptron that energies and posteriors share."""

from __future__ import annotations

from collections.abc import Callable

from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax._precision import working_dtype


class MLP(nn.Module):
    """Dense layers with an activation after each but the last.

    Attributes:
        widths: the width of each hidden layer.
        num_outputs: the width of the last layer.
        activation: an elementwise function; smooth where a score is matched.
    """

    widths: tuple[int, ...]
    num_outputs: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """`[..., inputs] -> [..., num_outputs]`."""
        dtype = working_dtype(x.dtype)
        for width in self.widths:
            # Flax's parameters are float32 for inputs of float64 too (0.12.8).
            x = self.activation(nn.Dense(width, param_dtype=dtype)(x))
        return nn.Dense(self.num_outputs, param_dtype=dtype)(x)
