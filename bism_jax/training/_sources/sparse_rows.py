"""Sparse matrices as sources of dense rows, so that only a batch of them is ever in memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bism_jax import checks
from bism_jax._precision import as_native, as_working

_JAX_SPARSE = "jax.experimental.sparse"


def is_sparse(value: Any) -> bool:
    """Whether it is a sparse array of SciPy, JAX, or another library that has `tocsr`."""
    # By its module: to import it, or SciPy, is for who has such an array.
    return hasattr(type(value), "tocsr") or type(value).__module__.startswith(_JAX_SPARSE)


class SparseRows:
    """A random-access source of the rows of a sparse array `[rows, *visible]`, made dense when asked for.

    Raises:
        ValueError: it is not floating, not finite or has no columns.
    """

    def __init__(self, array: Any) -> None:
        coo_or_csr = _to_scipy(array)
        checks.data_dtype(coo_or_csr.dtype)
        shape = coo_or_csr.shape
        if 0 in shape[1:]:
            raise ValueError(f"data is empty: its shape is {shape}; it must be [rows, *visible].")
        self._visible = shape[1:]
        if len(shape) != 2:
            coo_or_csr = coo_or_csr.reshape((shape[0], math.prod(self._visible)))
        self._matrix = coo_or_csr.tocsr()
        self._check_finite()

    def __len__(self) -> int:
        """The number of rows."""
        return self._matrix.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        """One row."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> np.ndarray:
        """Rows, `[indices, *visible]`."""
        return self._matrix[indices].toarray().reshape(len(indices), *self._visible)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The values and where they stand, as SciPy keeps them."""
        return self._matrix.data, self._matrix.indices, self._matrix.indptr

    def _check_finite(self) -> None:
        # The zeros that are not stored are finite.
        finite = np.isfinite(as_working(self._matrix.data))
        if not finite.all():
            # From the right: empty rows start where the next one does.
            row = int(np.searchsorted(self._matrix.indptr, np.argmin(finite), side="right")) - 1
            raise checks.not_finite(int(finite.size - finite.sum()), row)


def sparse_to_array(array: Any) -> np.ndarray:
    """A dense array of the same shape, with all of its zeros."""
    return _to_scipy(array).toarray()


def _to_scipy(array: Any) -> Any:
    """The same as a sparse array of SciPy, of one dimension or more."""
    if type(array).__module__.startswith(_JAX_SPARSE):
        return _from_jax(array)
    import scipy.sparse

    return array if scipy.sparse.issparse(array) else array.tocsr()


def _from_jax(array: Any) -> Any:
    import scipy.sparse
    from jax.experimental import sparse

    if isinstance(array, sparse.BCSR):
        array = array.to_bcoo()
    if not isinstance(array, sparse.BCOO):
        return scipy.sparse.coo_array(np.asarray(array.todense()))
    if array.n_batch or array.n_dense:
        array = sparse.bcoo_update_layout(array, n_batch=0, n_dense=0)
    values = as_native(as_working(np.asarray(array.data)))
    indices = np.asarray(array.indices)
    inside = (indices < np.asarray(array.shape)).all(axis=1)  # what pads the list of indices lies outside
    return scipy.sparse.coo_array((values[inside], tuple(indices[inside].T)), shape=array.shape)
