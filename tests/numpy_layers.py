"""The layers of image networks as NumPy formulas, to compare with."""

import itertools

import jax
import numpy as np


def flat(params):
    """Parameters by a path such as `trunk/block_0/...`, in the order of the network."""
    leaves = jax.tree_util.tree_leaves_with_path(params["params"])
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def numpy_conv(x, kernel, stride=1):
    """A convolution with zero padding, entry by entry."""
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    rows = (x.shape[1] - size) // stride + 1
    out = np.zeros((len(x), rows, rows, kernel.shape[-1]))
    for i, j in itertools.product(range(rows), range(rows)):
        window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
        out[:, i, j] = np.tensordot(window, kernel, 3)
    return out


def numpy_pool(x):
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def silu(x):
    return x / (1 + np.exp(-x))


def layer(params, path):
    """The kernel and the bias of a layer, 0 where it has none."""
    return params[f"{path}/kernel"], params.get(f"{path}/bias", 0)


def residual_block(params, path, x, activation, halves):
    """With the pooling after the convolution."""
    pool = numpy_pool if halves else lambda x: x
    inner = numpy_conv(activation(x), layer(params, f"{path}/Conv_0")[0])
    kernel, bias = layer(params, f"{path}/Conv_1")
    residual = pool(numpy_conv(activation(inner), kernel) + bias)
    kernel, bias = layer(params, f"{path}/Conv_2")
    return residual + numpy_conv(pool(x), kernel) + bias
