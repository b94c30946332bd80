"""The layers that image energies and posteriors share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bism_jax._backend import convolves_by_products, rows_at_a_time
from bism_jax._precision import working_dtype

_POWER_ITERATIONS = 8  # from a fixed start at every step, since a pure function keeps no vector between them


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
        """`[B, height, width, channels]` to the same with other channels, halved where `reduce` says so."""
        shape = (self.size, self.size, x.shape[-1], self.channels)
        fan_in = self.size**2 * x.shape[-1]
        dtype = self.dtype or x.dtype
        # Kept in float32 where x is narrower: bfloat16 would lose updates of a thousandth.
        kernel = self.param("kernel", uniform_fan_in(fan_in), shape, working_dtype(x.dtype))
        if self.spectral_norm:
            kernel = kernel / largest_singular_value(kernel.reshape(-1, self.channels))
        if self.reduce == "mean":
            # After the norm, which is of the kernel that is learnt.
            kernel = _averaging_kernel(kernel)
        x = self._convolve(x.astype(dtype), kernel.astype(dtype))
        if self.use_bias:
            bias = self.param("bias", uniform_fan_in(fan_in), (self.channels,), working_dtype(x.dtype))
            x = x + bias.astype(dtype)[None, None, None]
        return x

    def _convolve(self, x: Array, kernel: Array) -> Array:
        def of_rows(x: Array, kernel: Array) -> Array:
            x = x if self.activation is None else self.activation(x)
            # A 1 x 1 convolution is a product with no patches to copy.
            return x @ kernel[0, 0] if self.size == 1 else convolve(x, kernel, 2 if self.reduce else 1)

        # A derivative takes off one checkpoint and leaves the forward pass without it: two serve the second.
        of_rows = jax.checkpoint(jax.checkpoint(of_rows))
        return _map_rows(of_rows, x, kernel, self.channels)


def _averaging_kernel(kernel: Float[Array, "3 3 inputs outputs"]) -> Float[Array, "4 4 inputs outputs"]:
    # A convolution is linear in its kernel: the mean of four neighbours is one by the mean of four shifts.
    shifts = [((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)) for i in (0, 1) for j in (0, 1)]
    return jnp.stack([jnp.pad(kernel, shift) for shift in shifts]).mean(axis=0)


def convolve(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "size size inputs outputs"],
    stride: Literal[1, 2],
) -> Float[Array, "batch h w outputs"]:
    """A convolution with a padding of 1.

    On a CPU it is a matrix product with the patches of x.
    """
    if convolves_by_products():
        patches = _patches(x, kernel.shape[0], stride)
        # The parts of a patch lie in the order of the kernel's axes, so that no transpose is needed.
        return patches @ kernel.reshape(-1, kernel.shape[-1])
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, [(1, 1)] * 2, dimension_numbers=layout)


def _patches(x: Array, size: int, stride: int) -> Float[Array, "batch h w patch"]:
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = (length - size + 1 for length in padded.shape[1:3])  # in steps of one pixel
    shifts = itertools.product(range(size), repeat=2)
    parts = [padded[:, i : i + height : stride, j : j + width : stride] for i, j in shifts]
    return jnp.concatenate(parts, axis=-1)


def _map_rows(fn: Callable[[Array, Array], Array], x: Array, kernel: Array, channels: int) -> Array:
    row_bytes = x[0, ..., 0].size * max(x.shape[-1], channels) * x.dtype.itemsize
    rows = rows_at_a_time(len(x), row_bytes)
    if rows == len(x):
        return fn(x, kernel)
    y = jax.lax.map(lambda part: fn(part, kernel), x.reshape(-1, rows, *x.shape[1:]))
    return y.reshape(len(x), *y.shape[2:])


def dense(x: Float[Array, "*batch inputs"], width: int, name: str | None = None) -> Array:
    """A linear layer of x, `[..., width]`, initialised as the convolutions are."""
    init = uniform_fan_in(x.shape[-1])
    # Flax draws normal kernels and zero biases, the paper's code both uniform.
    layer = nn.Dense(width, kernel_init=init, bias_init=init, param_dtype=working_dtype(x.dtype), name=name)
    return layer(x)


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
        # Two products, never W^T W; each pass shrinks the rest by the squared ratio of singular values.
        vector = matrix.T @ (matrix @ vector)
        return vector / jnp.linalg.norm(vector), None

    start = jnp.cos(jnp.arange(matrix.shape[1], dtype=matrix.dtype))  # orthogonal to nothing in particular
    vector, _ = jax.lax.scan(iterate, start, None, length=_POWER_ITERATIONS)
    return jnp.linalg.norm(matrix @ vector)
