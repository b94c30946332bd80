"""The layers that image energies and posteriors share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

_POWER_ITERATIONS = 8
_CACHED_BYTES = 2**20


class Conv(nn.Module):
    """A 3 x 3 convolution with zero padding, or a 1 x 1 one, on `[B, height, width, channels]`.

    Only its input is kept for derivatives: what the activation leaves behind is computed again.

    Attributes:
        channels: of the output.
        activation: an elementwise function of x that goes before, or None.
        size: 3 or 1.
        reduce: how a 3 x 3 convolution halves height and width: `"stride"` takes every second output, and
            `"mean"` the average over blocks of 2 x 2, as one 4 x 4 convolution, at 16 products a pixel
            instead of 36; None does not.
        use_bias: whether a bias is added.
        spectral_norm: whether the kernel, as a matrix of the outputs, is divided by its largest singular
            value (Miyato et al., ICLR 2018, arXiv 1802.05957).
        dtype: what it computes in; None for that of the input.
    """

    channels: int
    activation: Callable[[Array], Array] | None = None
    size: Literal[1, 3] = 3
    reduce: Literal["stride", "mean"] | None = None
    use_bias: bool = True
    spectral_norm: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w out"]:
        """The output."""
        shape = (self.size, self.size, x.shape[-1], self.channels)
        fan_in = self.size**2 * x.shape[-1]
        dtype = self.dtype or x.dtype
        kernel = self.param("kernel", uniform_fan_in(fan_in), shape, jnp.result_type(float))
        if self.spectral_norm:
            kernel = kernel / largest_singular_value(kernel.reshape(-1, self.channels))
        if self.reduce == "mean":
            kernel = _averaging_kernel(kernel)
        x = self._convolve(x.astype(dtype), kernel.astype(dtype))
        if self.use_bias:
            bias = self.param("bias", uniform_fan_in(fan_in), (self.channels,), jnp.result_type(float))
            x = x + bias.astype(dtype)
        return x

    def _convolve(self, x: Array, kernel: Array) -> Array:
        def of_rows(x: Array, kernel: Array) -> Array:
            x = x if self.activation is None else self.activation(x)
            return x @ kernel[0, 0] if self.size == 1 else convolve(x, kernel, self.reduce is not None)

        # A derivative takes off one checkpoint and leaves the forward pass without it: two serve the second.
        of_rows = jax.checkpoint(jax.checkpoint(of_rows))
        return _map_rows(of_rows, x, kernel, self.channels)


def _averaging_kernel(kernel: Float[Array, "3 3 inputs outputs"]) -> Float[Array, "4 4 inputs outputs"]:
    shifts = [((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)) for i in (0, 1) for j in (0, 1)]
    return jnp.stack([jnp.pad(kernel, shift) for shift in shifts]).mean(axis=0)


def convolve(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "size size inputs outputs"],
    halves: bool,
) -> Float[Array, "batch h w outputs"]:
    """A convolution with a padding of 1 and a stride of 1, or 2 if it halves.

    On a CPU it is a sum of matrix products. XLA's CPU backend has no fast kernel for the derivatives of a
    strided convolution, nor for the gradient of a kernel, which run at a tenth of the rate or less.
    """
    if jax.default_backend() == "cpu":
        return _halving_products(x, kernel) if halves else _shifted_products(x, kernel)
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1 + halves,) * 2, [(1, 1)] * 2, dimension_numbers=layout)


def _shifted_products(x: Array, kernel: Array) -> Array:
    batch, height, width, inputs = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def product(i: int, j: int) -> Array:
        return padded[:, i : i + height, j : j + width].reshape(-1, inputs) @ kernel[i, j]

    total = product(0, 0)
    for i, j in [(i, j) for i in range(3) for j in range(3)][1:]:
        total += product(i, j)
    return total.reshape(batch, height, width, -1)


def _halving_products(x: Array, kernel: Array) -> Array:
    """Products on blocks of 2 x 2 pixels."""
    batch, height, width, inputs = x.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    padded = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    blocks = padded.reshape(batch, rows + 1, 2, columns + 1, 2, inputs).transpose(0, 1, 3, 2, 4, 5)

    def product(i: int, j: int) -> Array:
        part = kernel[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        block = blocks[:, i : i + rows, j : j + columns, : part.shape[0], : part.shape[1]]
        return block.reshape(batch, rows, columns, -1) @ part.reshape(-1, part.shape[-1])

    return product(0, 0) + product(0, 1) + product(1, 0) + product(1, 1)


def _map_rows(fn: Callable[[Array, Array], Array], x: Array, kernel: Array, channels: int) -> Array:
    """On a CPU, a few rows at a time: what the products leave stays in the cache, and is not kept."""
    row_bytes = x[0, ..., 0].size * max(x.shape[-1], channels) * x.dtype.itemsize
    limit = max(1, _CACHED_BYTES // row_bytes)
    if jax.default_backend() != "cpu" or len(x) <= limit:
        return fn(x, kernel)
    rows = max(rows for rows in range(1, limit + 1) if len(x) % rows == 0)
    y = jax.lax.map(lambda part: fn(part, kernel), x.reshape(-1, rows, *x.shape[1:]))
    return y.reshape(len(x), *y.shape[2:])


def dense(width: int, fan_in: int, name: str | None = None) -> nn.Dense:
    """A linear layer of `fan_in` inputs, initialised as the convolutions are."""
    init, dtype = uniform_fan_in(fan_in), jnp.result_type(float)
    return nn.Dense(width, kernel_init=init, bias_init=init, param_dtype=dtype, name=name)


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), for weights and biases: the paper's initialisation."""

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def mean_pool(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w channels"]:
    """The average over blocks of 2 x 2; a reshape, since windowed reductions are slow on a CPU."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def largest_singular_value(matrix: Float[Array, "rows columns"]) -> Float[Array, ""]:
    """By power iterations from a fixed start, so that it is a pure and smooth function of the matrix."""

    def iterate(vector: Array, _: None) -> tuple[Array, None]:
        vector = matrix.T @ (matrix @ vector)
        return vector / jnp.linalg.norm(vector), None

    start = jnp.cos(jnp.arange(matrix.shape[1], dtype=matrix.dtype))  # orthogonal to nothing in particular
    vector, _ = jax.lax.scan(iterate, start, None, length=_POWER_ITERATIONS)
    return jnp.linalg.norm(matrix @ vector)
