"""Reads the parameters of a convolutional network from raw arrays named as in a PyTorch state dict."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from bism_jax import checks
from bism_jax.typing import Params

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
_NAMED_AT_MOST = 5  # arrays in a message, since a file of another network lacks hundreds


class LayerNames(NamedTuple):
    """Where a layer's arrays are in the file.

    Attributes:
        layer: the prefix of its `weight`, and of its `bias` where no normalisation follows.
        norm: the prefix of the batch normalisation that follows it, or None.
    """

    layer: str
    norm: str | None


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by their names, without the counters of batch normalisations.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no archive of arrays, or one holds NaN or infinite values.
    """
    path = checks.path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"path: there are no weights at {str(path)!r}; nothing is downloaded.")
    try:
        # No pickles, which run code. NumPy leaves a file open that it has opened and cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"path {str(path)!r} cannot be read as an npz archive of arrays: {error}") from error
    # The counters are integers, which the check below would refuse, and mean nothing once training is over.
    arrays = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise ValueError(f"{name!r} in path {str(path)!r} must hold finite floating numbers.")
    return arrays


def folded_parameters(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    network: nn.Module,
    image_shape: tuple[int, int, int],
    names_fn: Callable[[tuple[str, ...]], LayerNames],
    epsilon: float,
    unused: Mapping[str, tuple[int, ...]] | None = None,
) -> Params:
    """The parameters of a network of convolutions and dense layers, with batch normalisations folded in:

        kernel = W gamma / sqrt(var + epsilon),   bias = beta - mean gamma / sqrt(var + epsilon)

    Args:
        path: of the file, for messages.
        arrays: what it holds.
        network: a module whose parameters are kernels and biases.
        image_shape: height, width and channels.
        names_fn: from the path of a layer in the network to its names in the file.
        epsilon: of the normalisations.
        unused: shapes of arrays that must be in the file, though the network lacks them.

    Raises:
        ValueError: an array is missing, of another shape, or unknown; it is named.
    """
    layers = {layer: (names_fn(layer), shape) for layer, shape in _kernels(network, image_shape).items()}
    expected = dict(unused or {})
    for names, shape in layers.values():
        expected |= _expected(names, shape)
    # Before any array is taken, so that a file of another network is named as that.
    _compare(str(path), arrays, expected)
    flat: dict[tuple[str, ...], Any] = {}
    for layer, (names, _) in layers.items():
        kernel, bias = _fold(arrays, names, epsilon)
        flat[(*layer, "kernel")] = jnp.asarray(kernel, jnp.float32)
        flat[(*layer, "bias")] = jnp.asarray(bias, jnp.float32)
    return {"params": traverse_util.unflatten_dict(flat)}


def _kernels(network: nn.Module, image_shape: tuple[int, int, int]) -> dict[tuple[str, ...], tuple[int, ...]]:
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    # Traced, so that no weight is drawn only to be replaced.
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    flat = traverse_util.flatten_dict(shapes)
    return {path[:-1]: leaf.shape for path, leaf in flat.items() if path[-1] == "kernel"}


def _expected(names: LayerNames, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The file's names and shapes of a layer; PyTorch has outputs first, and channels before pixels."""
    expected = {f"{names.layer}.weight": (shape[-1], shape[-2], *shape[:-2])}
    if names.norm is None:
        return expected | {f"{names.layer}.bias": shape[-1:]}
    return expected | {f"{names.norm}.{part}": shape[-1:] for part in _NORM_PARTS}


def _compare(path: str, arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in expected if name not in arrays]
    unknown = [name for name in arrays if name not in expected]
    for problem, names in (("lacks", missing), ("has the unknown arrays", unknown)):
        if names:
            raise ValueError(
                f"path {path!r} {problem} {_listed(names)}; these are the weights of another network."
            )
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name!r} in path {path!r} has shape {arrays[name].shape}, not {shape}.")


def _listed(names: list[str]) -> str:
    listed = ", ".join(repr(name) for name in names[:_NAMED_AT_MOST])
    return listed + (f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else "")


def _fold(
    arrays: Mapping[str, np.ndarray], names: LayerNames, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    # Folded in float64 and rounded once, at the end.
    weight = arrays[f"{names.layer}.weight"].astype(np.float64)
    kernel = np.moveaxis(weight, (0, 1), (-1, -2))
    if names.norm is None:
        return kernel, arrays[f"{names.layer}.bias"]
    gamma, beta, mean, variance = (arrays[f"{names.norm}.{part}"].astype(np.float64) for part in _NORM_PARTS)
    scale = gamma / np.sqrt(variance + epsilon)
    return kernel * scale, beta - mean * scale
