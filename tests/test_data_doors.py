"""What users have as data: arrays of any library, tables, sparse arrays, loaders; and advice that works."""

import array
import collections
import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpy.lib.recfunctions  # which the advice names
import pyarrow
import pytest
import scipy.io
import scipy.sparse
from jax.experimental import sparse as jax_sparse

from bism_jax import ContrastiveDivergence, data, fit
from bism_jax.models import GRBM
from bism_jax.training._sources.source import as_data_source
from tests.helpers import rows

SEED = (0, 7)
X = rows(12, (3,))
PARTS = list(X.reshape(3, 4, 3))
LABELS = np.arange(4)
SPARSE = np.where(np.abs(X) < 0.5, 0, X)


def minibatches(source_or_data, num_steps=3, batch_size=4):
    source = as_data_source(source_or_data, batch_size, SEED)
    assert source.example().dtype.isnative
    selection = source.take(0, num_steps)
    return selection if source.resident is None else source.resident[selection]


EXPECTED = minibatches(X)


def train(training_data, batch_size=4):
    options = {"method": ContrastiveDivergence(1), "num_steps": 3, "progress": False}
    return fit(GRBM(2), None, training_data, batch_size=batch_size, **options)


class Tensor:
    """As PyTorch's: NumPy can read it, its dtype is none of NumPy's, and it has no `astype`."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, f"torch.{values.dtype}"

    def __array__(self, dtype=None):
        return self.values if dtype is None else self.values.astype(dtype)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return Tensor(self.values[index])


class Loader:
    """Starts anew on each `iter`, and has a length but no items, as PyTorch's."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)

    def __len__(self):
        return len(self.items)


class Frame:
    """As pandas': dtypes that are none of NumPy's, an object array where they are nullable."""

    iloc = None

    def __init__(self, **columns):
        self._columns = columns
        self._dtypes = {name: str(x.dtype).replace("float64", "Float64") for name, x in columns.items()}

    columns = property(lambda self: list(self._columns))
    dtypes = property(lambda self: list(self._dtypes.values()))

    def __array__(self, dtype=None, copy=None):
        is_nullable = "Float64" in self.dtypes
        return self.to_numpy(object if is_nullable else None)

    def to_numpy(self, dtype=None, na_value=None):
        return np.stack(list(self._columns.values()), axis=1).astype(dtype)

    def __len__(self):
        return len(next(iter(self._columns.values())))

    def drop(self, columns):
        return Frame(**{name: x for name, x in self._columns.items() if name not in columns})

    def astype(self, dtypes):
        dtypes = dtypes if isinstance(dtypes, dict) else dict.fromkeys(self._columns, dtypes)
        return Frame(**{name: x.astype(dtypes.get(name, x.dtype)) for name, x in self._columns.items()})


class Column:
    """As a pandas Series."""

    def __init__(self, name, values):
        self.name, self.values, self.dtype = name, values, values.dtype

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __len__(self):
        return len(self.values)

    def to_frame(self):
        return Frame(**{self.name: self.values})

    def astype(self, dtype):
        return Column(self.name, self.values.astype(dtype))

    def __truediv__(self, divisor):
        return Column(self.name, self.values / divisor)


def netcdf_variable(values):
    file = scipy.io.netcdf_file(io.BytesIO(), "w")
    dimensions = [f"axis {k}" for k in range(values.ndim)]
    for name, size in zip(dimensions, values.shape, strict=True):
        file.createDimension(name, size)
    variable = file.createVariable("v", values.dtype.str, dimensions)
    variable[:] = values
    return variable


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


# One meaning: these train.

ARRAYS = {
    "tensor": Tensor,
    "matrix": lambda x: scipy.sparse.csr_matrix(x).todense(),
    "nothing masked": lambda x: np.ma.masked_greater(x, 1e6),
    "read-only": read_only,
    "column order": np.asfortranarray,
    "negative strides": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "memoryview": memoryview,
    "table of floats": lambda x: Frame(a=x[:, 0], b=x[:, 1], c=x[:, 2]),
    "nullable table": lambda x: Frame(
        a=x[:, 0].astype(float), b=x[:, 1].astype(float), c=x[:, 2].astype(float)
    ),
    "pyarrow": lambda x: pyarrow.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]}),
    "record batch": lambda x: pyarrow.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]}).to_batches()[0],
    "netCDF variable": netcdf_variable,
    "sharded": lambda x: jax.device_put(
        x, jax.sharding.NamedSharding(jax.make_mesh((1,), ("a",)), jax.sharding.PartitionSpec("a"))
    ),
}


@pytest.mark.parametrize("kind", ARRAYS.values(), ids=ARRAYS)
def test_arrays_of_any_kind_are_read(kind):
    np.testing.assert_array_equal(minibatches(kind(X)), EXPECTED)


def test_a_memory_map_is_read(tmp_path):
    X.tofile(tmp_path / "x")
    np.testing.assert_array_equal(
        minibatches(np.memmap(tmp_path / "x", X.dtype, "r", shape=X.shape)), EXPECTED
    )


NUMBERS = {
    "list": np.ndarray.tolist,
    "list of numpy": list,
    "list of jax": lambda x: list(jnp.asarray(x)),
    "array.array": lambda x: array.array("f", x),
    "column": lambda x: Column("a", x),
    "nullable column": lambda x: Column("a", x.astype(float)),
    "sparse": scipy.sparse.coo_array,
    "pyarrow": pyarrow.array,
    "chunked": lambda x: pyarrow.chunked_array([x[:5], x[5:]]),
}


@pytest.mark.parametrize("kind", NUMBERS.values(), ids=NUMBERS)
def test_numbers_are_rows_without_axes(kind):
    np.testing.assert_allclose(minibatches(kind(X[:, 0])), EXPECTED[..., 0], rtol=1e-6)


SPARSE_KINDS = {
    **{name: getattr(scipy.sparse, name) for name in ("csr_matrix", "csc_array", "coo_matrix", "lil_array")},
    **{name: getattr(scipy.sparse, name) for name in ("dok_matrix", "dok_array", "bsr_array", "dia_matrix")},
    "BCOO": jax_sparse.BCOO.fromdense,
    "BCOO with padding": lambda x: jax_sparse.BCOO.fromdense(x, nse=x.size),
    "BCOO with batches": lambda x: jax_sparse.BCOO.fromdense(x, n_batch=1),
    "BCSR": jax_sparse.BCSR.fromdense,
    "CSR of jax": jax_sparse.CSR.fromdense,
}


@pytest.mark.parametrize("kind", SPARSE_KINDS.values(), ids=SPARSE_KINDS)
def test_sparse_arrays_are_the_same_rows(kind):
    found = as_data_source(kind(SPARSE), 4, SEED)
    assert found.resident is None  # only a batch of it is ever dense
    np.testing.assert_array_equal(found.take(0, 3), minibatches(SPARSE))
    np.testing.assert_array_equal(found.example(), SPARSE[:4])


def test_sparse_arrays_of_more_axes():
    images = SPARSE.reshape(12, 3, 1)
    np.testing.assert_array_equal(minibatches(scipy.sparse.coo_array(images)), minibatches(images))


LOADERS = {
    "lists of one": [[part] for part in PARTS],
    "tuples of one": [(part,) for part in PARTS],
    "nested": [[[part]] for part in PARTS],
    "lists of one tensor": [[Tensor(part)] for part in PARTS],
    "lists of rows": [list(part) for part in PARTS],
    "lists of tensor rows": [[Tensor(row) for row in part] for part in PARTS],
    "sparse": [scipy.sparse.csr_array(part) for part in PARTS],
    "lists of one sparse": [[scipy.sparse.csr_matrix(part)] for part in PARTS],
    "tables": [ARRAYS["table of floats"](part) for part in PARTS],
    "other byte order": [part.astype(">f4") for part in PARTS],
}


@pytest.mark.parametrize("items", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("kind", [list, Loader, itertools.cycle])
def test_loaders_of_one_array_an_item(items, kind):
    np.testing.assert_array_equal(minibatches(kind(items)), PARTS)


def test_a_list_of_one_in_batches_of_one():
    rows_, batches = [[row] for row in X], [[row[None]] for row in X]
    for items in (rows_, batches):
        np.testing.assert_array_equal(minibatches(items, 12, 1), X[:, None])


def test_rows_in_a_list_or_tuple_of_one():
    for kind in (list, tuple):
        np.testing.assert_array_equal(minibatches(collections.deque(kind([row]) for row in X)), EXPECTED)


def test_a_loader_that_fills_the_memory_of_a_row_again():
    class Rows:
        buffer = np.empty(3, np.float32)

        def __len__(self):
            return len(X)

        def __getitem__(self, index):
            self.buffer[:] = X[index]
            return self.buffer

    np.testing.assert_array_equal(minibatches(Rows()), EXPECTED)


def test_an_iterator_that_iter_sets_back_starts_again():
    class Epoch:
        def __iter__(self):
            self.items = iter(PARTS)
            return self

        def __next__(self):
            return next(self.items)

    np.testing.assert_array_equal(minibatches(Epoch(), 6), PARTS * 2)


DTYPES = {">f2": 1e-3, ">f4": 0, ">f8": 0, "g": 0, ">g": 0, "e": 1e-3}
DOORS = {
    "array": lambda x: x,
    "rows": collections.deque,
    "batches": lambda x: list(x.reshape(3, 4, 3)),
    "lists": lambda x: [[part] for part in x.reshape(3, 4, 3)],
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_foreign_dtypes_through_every_door(dtype, door):
    found = minibatches(door(X.astype(dtype)))
    np.testing.assert_allclose(found, minibatches(door(X)), atol=DTYPES[dtype])
    assert found.dtype.isnative and found.dtype.itemsize <= 8


@pytest.mark.parametrize(
    "kind",
    [
        lambda: X.astype(">f8"),
        lambda: X.astype(np.longdouble),
        lambda: scipy.sparse.csr_matrix(X),
        lambda: Loader([[part] for part in PARTS]),
    ],
    ids=["big-endian", "longdouble", "sparse", "lists of one"],
)
def test_they_train(kind):
    assert np.isfinite(train(kind()).history["loss"]).all()


def test_whole_numbers_in_lists_stand_among_others():
    rows_ = [[0.5, 1.5], [1, 2], [0.5, 3], [4, 5]]
    found = minibatches(collections.deque([*rows_, *[[7, 8]] * 4]), 10)
    assert found.dtype == np.float64
    assert {tuple(row) for row in found.reshape(-1, 2)} == {*map(tuple, rows_), (7, 8)}


def test_two_rows_that_happen_to_be_alike_are_no_rounding():
    pair = np.array([[1000.0, 1.0], [1000.0 + 1e-9, 2.0], [3.0, 4.0], [7.0, 8.0]])
    assert minibatches(collections.deque(pair), 20, 2).shape == (20, 2, 2)


# No meaning, or several: the error names what it is, and its advice works when it is followed.


def refused(training_data, error, message, advice=None, batch_size=4):
    """Asserts that it is refused with this advice, and trains on what the advice gives."""
    with pytest.raises(error, match=message) as caught:
        minibatches(training_data, batch_size=batch_size)
    if advice is not None:
        assert advice in str(caught.value)
        names = {"np": np, "numpy": np, "data": training_data}
        return minibatches(eval(advice, names), batch_size=batch_size)
    return None


SCALED = "data.astype(np.float32) / 255"
CONVERTED = "data.astype(np.float32)"
RECORDS = "numpy.lib.recfunctions.structured_to_unstructured"
NOT_FLOATING = {
    "integers": (X.astype(int), SCALED),
    "bytes": (X.astype(np.uint8), SCALED),
    "big-endian integers": (X.astype(">i4"), SCALED),
    "booleans": (X > 0, CONVERTED),
    "complex": (X * 1j, "np.stack([data.real, data.imag], axis=-1)"),
    "objects": (X.astype(object), CONVERTED),
    "objects of rows": (np.fromiter(X, object), "np.stack([np.asarray(row, np.float32) for row in data])"),
    "strings": (X.astype(str), CONVERTED),
    "byte strings": (X.astype("S"), CONVERTED),
    "dates": (np.arange(12).astype("M8[s]"), "(data - data.min()) / np.timedelta64(1, 's')"),
    "durations": (np.arange(12).astype("m8[s]"), "data / np.timedelta64(1, 's')"),
    "records": (np.ones(12, [("a", ">f4"), ("b", int)]), f"{RECORDS}(np.asarray(data), np.float32)"),
    "records and text": (
        np.ones(12, [("a", ">f4"), ("s", "U2")]),
        f"{RECORDS}(np.asarray(data)[['a']], np.float32)",
    ),
    "sparse integers": (scipy.sparse.csr_matrix(X.astype(int)), SCALED),
    "sparse booleans": (scipy.sparse.csr_array(X > 0), CONVERTED),
    "tensor": (Tensor(X.astype(int)), "np.asarray(data).astype(np.float32) / 255"),
    "list": ([1, 2, 3, 4], "np.asarray(data).astype(np.float32) / 255"),
    "list of booleans": ([True, False] * 2, "np.asarray(data).astype(np.float32)"),
    "column": (Column("a", np.arange(12)), SCALED),
}


@pytest.mark.parametrize(("training_data", "advice"), NOT_FLOATING.values(), ids=NOT_FLOATING)
def test_numbers_that_are_not_floating(training_data, advice):
    assert refused(training_data, ValueError, "data has dtype .*floating data", advice) is not None


@pytest.mark.parametrize(
    "advice",
    ["data.filled(0.0)", "data[~np.ma.getmaskarray(data).reshape(len(data), -1).any(axis=1)]"],
)
def test_masked_numbers(advice):
    masked = np.ma.masked_less(X, -1)
    refused(masked, ValueError, "data is a masked array, whose mask would be lost", advice)
    refused(collections.deque(masked), ValueError, r"masked array in row \d+")
    refused([PARTS[0], np.ma.masked_less(PARTS[1], 1)], ValueError, r"masked array in batch 1")


TABLES = {
    "pandas": (Frame, "data.drop(columns=['n', 's'])"),
    "pyarrow": (lambda **columns: pyarrow.table(columns), "data.drop_columns(['n', 's'])"),
}


@pytest.mark.parametrize(("kind", "advice"), TABLES.values(), ids=TABLES)
def test_columns_that_are_not_floating_are_named(kind, advice):
    table = kind(a=X[:, 0], n=np.arange(12), b=X[:, 1], s=np.array(["x"] * 12))
    found = refused(table, ValueError, r"'n' \(int64\), 's' \(.*\); leave them out", advice)
    np.testing.assert_array_equal(found, EXPECTED[..., :2])


def test_tables_without_a_floating_column():
    whole = Frame(n=np.arange(12), m=np.arange(12))
    assert refused(whole, ValueError, "where they hold numbers", "data.astype('float32')").shape == (3, 4, 2)
    mixed = Frame(n=np.arange(12), a=X[:, 0])
    found = refused(mixed, ValueError, "leave them out", "data.astype({'n': 'float32'})")
    assert found.shape == (3, 4, 2)
    refused(Frame(n=np.arange(12), **{f"c{k}": LABELS for k in range(8)}), ValueError, "and 4 more")
    refused(pyarrow.table({}), ValueError, "data is empty: a Table without columns")
    refused(pyarrow.table({"a": [1.0, None] * 6}), ValueError, "data holds 6 values .*row 1")


def test_sparse_arrays_that_cannot_be_used():
    broken = SPARSE.copy()
    broken[7, 1] = np.nan
    refused(scipy.sparse.csr_array(broken), ValueError, r"data holds 1 values .*row 7")
    refused(scipy.sparse.csr_array((0, 3)), ValueError, "data is empty: it has no rows")
    refused(scipy.sparse.csr_array((5, 0)), ValueError, r"data is empty: its shape is \(5, 0\)")
    refused(scipy.sparse.csr_array(SPARSE[:3]), ValueError, "batch_size=4 exceeds the 3 rows")


SEVERAL = {
    "list and labels": (lambda x: [x, LABELS], "lists of 2 items .float32 .4, 3., int64 .4,", "batch[0]"),
    "tuple and labels": (lambda x: (x, LABELS), "tuples of 2 items", "batch[0]"),
    "labels first": (lambda x: [LABELS, x], "lists of 2 items", "batch[1]"),
    "targets": (lambda x: [x, x], "lists of 2 items", "batch[0]"),
    "tensors": (lambda x: [Tensor(x), Tensor(LABELS)], "lists of 2 items .torch.float32", "batch[0]"),
    "nothing": (lambda x: [x, None], "lists of 2 items .float32 .4, 3., NoneType", "batch[0]"),
    "dict": (lambda x: {"y": LABELS, "x": x}, r"dicts with the keys \['x', 'y'\]", "batch['x']"),
    "tuple": (lambda x: tuple(map(tuple, x.tolist())), "tuples in batch 0", "np.asarray(batch)"),
}


@pytest.mark.parametrize(("item_fn", "message", "part"), SEVERAL.values(), ids=SEVERAL)
def test_loaders_of_more_than_one_array(item_fn, message, part):
    items = [item_fn(part) for part in PARTS]
    advice = f"[{part} for batch in data]"
    for kind in (list, Loader, lambda items: (item for item in items)):
        with pytest.raises(TypeError, match=f"data yields {message}") as error:
            minibatches(kind(items))
        assert f": {advice}, or for an endless loader the same in parentheses" in str(error.value)
    endless = f"({part} for batch in data)"
    for expression, loader in ((advice, Loader(items)), (endless, itertools.cycle(items))):
        found = minibatches(eval(expression, {"np": np, "data": loader}))
        np.testing.assert_allclose(found, PARTS, rtol=1e-6)


ROWS = {
    "label": (lambda x: (x, 1), "tuples of 2 items .float32 .3,., int", "row[0]"),
    "dict": (lambda x: {"y": 1, "x": x}, "dicts with the keys", "row['x']"),
    "tuple": (lambda x: tuple(x.tolist()), "tuples in row 0", "np.asarray(row)"),
}


@pytest.mark.parametrize(("item_fn", "message", "part"), ROWS.values(), ids=ROWS)
def test_rows_of_more_than_one_array(item_fn, message, part):
    advice = f"np.stack([{part} for row in (data[i] for i in range(len(data)))])"
    found = refused(collections.deque(map(item_fn, X)), TypeError, f"data yields {message}", advice)
    np.testing.assert_allclose(found, EXPECTED, rtol=1e-6)


CONTAINERS = {
    "dict": ({"x": X, "y": LABELS}, "data['x']"),
    "tuple": ((X, LABELS), "data[0]"),
    "splits": (data.Splits(X, X, X), "data.train"),
}


@pytest.mark.parametrize(("container", "advice"), CONTAINERS.values(), ids=CONTAINERS)
def test_containers_of_data(container, advice):
    np.testing.assert_array_equal(
        refused(container, TypeError, "data is a .*pass an array", advice), EXPECTED
    )


def test_an_archive_of_numpy(tmp_path):
    np.savez(tmp_path / "x.npz", x=X)
    with np.load(tmp_path / "x.npz") as archive:
        refused(archive, TypeError, "data is a NpzFile; pass an array", "data['x']")


def test_lists_of_rows_of_another_batch_size():
    items = Loader([list(part) for part in PARTS])
    message = r"lists of 4 items .* where these are rows, pass batch_size=4\.$"
    refused(items, TypeError, message, batch_size=5)
    np.testing.assert_array_equal(minibatches(items), PARTS)
    refused(Loader([list(X)]), TypeError, r"lists of 12 items \(.*float32 \(3,\), \.\.\.\)", batch_size=5)


def test_lists_that_may_be_rows_or_batches():
    for rows_ in (list(X), X.tolist()):
        message = "batch_size=4, but data yields batches of 3 rows; pass batch_size=3"
        found = refused(rows_, ValueError, message, "np.asarray(data)")
        np.testing.assert_allclose(found, EXPECTED, rtol=1e-6)
    found = refused(
        np.split(X, 2), ValueError, "batches of 6 rows; pass batch_size=6", "np.concatenate(data)"
    )
    np.testing.assert_array_equal(found, EXPECTED)
    found = refused([X[:5], X[5:]], ValueError, "pass batch_size=5", "np.concatenate(data)")
    np.testing.assert_array_equal(found, EXPECTED)
    found = refused(
        [X], ValueError, r"pass batch_size=12, or np.concatenate\(data\) .*batches\.$", "np.concatenate(data)"
    )
    np.testing.assert_array_equal(found, EXPECTED)
    message = "pass batch_size=3, or make batches of 4 rows, or np.stack"
    refused((row for row in X), ValueError, message)
    refused(Loader(list(X)), ValueError, message, "np.stack(list(data))")
    refused({0.5, 1.5}, ValueError, "data yields numbers in batch 0, not batches")
    refused(iter(X[:, 0]), ValueError, "data yields numbers in batch 0, not batches")


@pytest.mark.parametrize(
    ("ragged", "message"),
    [
        ([np.ones(3), np.ones(2)], "padded to one length"),
        (
            [np.ones((5, 5)), np.ones((5, 6))],
            r"arrays of different shapes, \(5, 5\) and \(5, 6\).*pad or cut",
        ),
        ([[[1.0, 2.0], [3.0]]] * 2, "data has ragged rows in batch 0.*pad or cut"),
        ([list(map(np.ones, (3, 2, 3, 3)))], "data has ragged rows in batch 0: .*pad or cut"),
        ([1.0, [2.0]], "data has ragged rows: .*pad or cut"),
        (np.array([np.ones(2), np.ones(3)], object), "rows have different shapes, so pad or cut"),
        (collections.deque([np.ones(3)] * 4 + [np.ones(2)]), r"row 4 has \(2,\), others \(3,\).*pad or cut"),
    ],
    ids=["list", "images", "nested", "rows of a batch", "numbers", "objects", "rows"],
)
def test_ragged_rows(ragged, message):
    refused(ragged, ValueError, message)


LATE = {
    "nan": (np.nan * PARTS[1], ValueError, "data holds 12 values in batch 1 .*row 0"),
    "integers": (PARTS[1].astype(int), ValueError, "dtype int64 in batch 1"),
    "in a list": ([PARTS[1].astype(int)], ValueError, r"in batch 1, .*batch\[0\].astype"),
    "dtype": (PARTS[1].astype(float), ValueError, "dtype float64 after batches of float32 in batch 1"),
    "shape": (PARTS[1][:, :2], ValueError, r"shape \(4, 2\) after .* in batch 1"),
    "labels": ([PARTS[1], LABELS], TypeError, "lists of 2 items .* in batch 1"),
    "string": ("text", TypeError, "strs in batch 1"),
    "unreadable": (object(), TypeError, "objects in batch 1"),
}


@pytest.mark.parametrize(("item", "error", "message"), LATE.values(), ids=LATE)
def test_a_batch_that_turns_bad_is_named(item, error, message):
    source = as_data_source([PARTS[0], item, PARTS[2]], 4, SEED)
    source.take(0, 1)
    with pytest.raises(error, match=message):
        source.take(1, 1)


LATE_ROWS = {
    "nan": (np.nan * X[0], ValueError, "data holds 3 values .*row 12"),
    "integers": (X[0].astype(np.uint8), ValueError, "dtype uint8 in row 12"),
    "dtype": (X[0].astype(float), ValueError, "dtype float64 in row 12, but float32 in others"),
    "labels": ((X[0], 1), TypeError, "tuples of 2 items .* in row 12"),
    "nothing": (None, TypeError, "NoneTypes in row 12"),
}


@pytest.mark.parametrize(("item", "error", "message"), LATE_ROWS.values(), ids=LATE_ROWS)
def test_a_row_that_turns_bad_is_named(item, error, message):
    source = as_data_source(collections.deque([*X, item]), 1, SEED)
    source.example()
    with pytest.raises(error, match=message):
        source.take(0, 13)


def test_rows_fetched_together_that_turn_bad_are_named():
    class Rows:
        late = X[:1]

        def __len__(self):
            return 12

        def __getitem__(self, index):
            raise AssertionError

        def __getitems__(self, indices):
            return self.late if 7 in indices else X[indices]

    for late, message in (
        (X[:1, :2], r"row 7 has \(2,\), others \(3,\)"),
        (X[:1].astype(int), "data has dtype int64"),
        (X[:1].astype(float), "dtype float64 in row 7, but float32"),
        (np.nan * X[:1], "data holds 3 values .* row 7"),
    ):
        source = as_data_source(Rows(), 1, SEED)
        source.example()
        Rows.late = late
        with pytest.raises(ValueError, match=message):
            source.take(0, 12)


def test_iterators_that_are_exhausted():
    generator = (part for part in PARTS)
    minibatches(generator)
    refused(generator, ValueError, "data ended: it is an iterator that is exhausted, or yields no batch")
    source = as_data_source(iter(PARTS), 4, SEED)
    with pytest.raises(ValueError, match=r"exhausted after 3 batches.*such as a list of batches"):
        source.take(0, 4)


@pytest.mark.filterwarnings("ignore:data yields a batch of 3 rows")
def test_an_endless_iterator_of_other_sizes_is_given_up():
    source = as_data_source(itertools.chain([X[:4]], itertools.repeat(X[:3])), 4, SEED)
    with pytest.raises(ValueError, match=r"no further batch of shape \(4, 3\): the last 1000 have other"):
        source.take(0, 2)


def test_an_empty_batch_is_a_short_one():
    source = as_data_source([PARTS[0], X[:0]], 4, SEED)
    with pytest.warns(UserWarning, match="a batch of 0 rows among batches of 4"):
        np.testing.assert_array_equal(source.take(0, 2), [PARTS[0]] * 2)


def test_what_numpy_cannot_read_says_why():
    class Attached(Tensor):
        def __array__(self, dtype=None):
            raise RuntimeError("Use tensor.detach().numpy() instead.")

    refused(Attached(X), TypeError, "data is of type Attached and cannot be read .*detach")
    deleted = jnp.asarray(X)
    deleted.delete()
    refused(deleted, TypeError, "cannot be read as an array: .*deleted")


def test_a_source_that_is_not_numbered():
    class Named:
        def __len__(self):
            return 12

        def __getitem__(self, name):
            return {"x": X}[name]

    refused(Named(), TypeError, r"data is a Named .* data\[0\] raises KeyError.*numbered from 0")
