"""Minibatches from arrays, random-access sources and iterables: order, position, and what is refused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from bism_jax.training._sources.source import as_data_source
from tests.helpers import rows

SEED = (0, 7)
DTYPES = (np.float16, np.float32, np.float64, jnp.bfloat16)
SHAPES = ((), (1,), (2,), (28, 20), (4, 4, 3), (3, 1, 2, 1, 2), (20_000,))


class Rows:
    """A random-access source without `__getitems__`."""

    def __init__(self, array):
        self.array, self.fetched = array, []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        assert type(index) is int
        self.fetched.append(index)
        return self.array[index]


class ManyRows(Rows):
    """One with `__getitems__`, which is to be preferred."""

    def __getitem__(self, index):
        raise AssertionError("rows are fetched one by one")

    def __getitems__(self, indices):
        assert all(type(index) is int for index in indices)
        self.fetched.extend(indices)
        return [self.array[index] for index in indices]


class Batches:
    """An iterable that starts anew on each `iter`, counting how often."""

    def __init__(self, batches):
        self.batches, self.starts = batches, 0

    def __iter__(self):
        self.starts += 1
        return iter(self.batches)


class Stateful:
    """An endless iterator with a position, coded by `encode` and `decode`."""

    def __init__(self, batches, encode=lambda position: position, decode=lambda state: state):
        self.batches, self.encode, self.decode = batches, encode, decode
        self.index = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.index += 1
        return self.batches[(self.index - 1) % len(self.batches)]

    def get_state(self):
        return self.encode(self.index)

    def set_state(self, state):
        self.index = self.decode(state)


STATES = {
    "number": (lambda n: n, lambda s: s),
    "dict": (lambda n: {"index": n, "epoch": [0]}, lambda s: s["index"]),
    "dict of bytes read": (lambda n: {"bytes": n}, lambda s: s["bytes"]),
    "json bytes": (lambda n: json.dumps({"n": n}).encode(), lambda s: json.loads(s.decode())["n"]),
    "raw bytes": (lambda n: bytes([200 + n, 0, 255]), lambda s: s[0] - 200),
}


def batches(count=5, batch_size=4, dtype=np.float32):
    return list(rows(count * batch_size, dtype=dtype).reshape(count, batch_size, 2))


def taken(source, step, num_steps):
    """The minibatches themselves, also of a source that is gathered on the device."""
    selection = source.take(step, num_steps)
    return selection if source.resident is None else source.resident[selection]


# Arrays and random-access sources.


@pytest.fixture(params=["array", "rows", "many rows"])
def make_source(request):
    adapt = {"array": lambda array: array, "rows": Rows, "many rows": ManyRows}[request.param]
    return lambda array, batch_size, seed=SEED: as_data_source(adapt(array), batch_size, seed)


@pytest.mark.parametrize(("num_rows", "batch_size"), [(12, 4), (12, 12), (12, 1), (13, 4), (7, 4), (1, 1)])
def test_an_epoch_visits_each_row_at_most_once(make_source, num_rows, batch_size):
    source = make_source(np.arange(num_rows, dtype=np.float32), batch_size)
    steps = num_rows // batch_size
    for epoch in range(3):
        seen = taken(source, epoch * steps, steps).ravel().tolist()
        assert len(seen) == steps * batch_size
        assert len(set(seen)) == len(seen)
        if num_rows % batch_size == 0:
            assert set(seen) == set(range(num_rows))


def test_rows_that_one_epoch_leaves_out_come_in_others(make_source):
    source = make_source(np.arange(7, dtype=np.float32), 4)
    assert set(taken(source, 0, 30).ravel().tolist()) == set(range(7))


def test_order_does_not_depend_on_what_was_taken_before(make_source):
    array, batch_size, num_steps = rows(13), 4, 11
    whole = taken(make_source(array, batch_size), 0, num_steps)
    single = make_source(array, batch_size)
    for step in (10, 0, 3, 2, 9, 3):  # backwards and across epochs
        np.testing.assert_array_equal(taken(single, step, 1)[0], whole[step])
    chunks = make_source(array, batch_size)
    np.testing.assert_array_equal(np.concatenate([taken(chunks, 0, 5), taken(chunks, 5, 6)]), whole)
    late = make_source(array, batch_size)
    np.testing.assert_array_equal(taken(late, 7, 4), whole[7:])


def test_example_consumes_nothing_and_is_like_a_batch(make_source):
    array = rows(12)
    source, untouched = make_source(array, 4), make_source(array, 4)
    example = source.example()
    np.testing.assert_array_equal(example, source.example())
    np.testing.assert_array_equal(taken(source, 0, 3), taken(untouched, 0, 3))
    assert (example.shape, example.dtype) == (taken(source, 0, 1)[0].shape, array.dtype)


def test_epochs_and_seeds_differ(make_source):
    array = np.arange(40, dtype=np.float32)
    first, second = taken(make_source(array, 40), 0, 2)
    assert first.tolist() != second.tolist()
    assert first.tolist() != np.arange(40).tolist()
    for seed in ((0, 8), (1, 7), (7, 0)):
        assert taken(make_source(array, 40, seed), 0, 1)[0].tolist() != first.tolist()
    np.testing.assert_array_equal(taken(make_source(array, 40), 0, 1)[0], first)


def test_the_three_sources_see_the_same_order():
    array = rows(13)
    expected = taken(as_data_source(array, 4, SEED), 0, 7)
    for source in (Rows(array), ManyRows(array), jnp.asarray(array)):
        np.testing.assert_array_equal(taken(as_data_source(source, 4, SEED), 0, 7), expected)


def test_an_iteration_is_all_the_position_there_is(make_source):
    source = make_source(rows(12), 4)
    assert source.has_position
    before = taken(source, 5, 2)
    position = json.loads(json.dumps(source.position()))
    taken(source, 0, 3)
    source.set_position(position)
    np.testing.assert_array_equal(taken(source, 5, 2), before)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_floating_dtypes_are_kept(make_source, dtype):
    array = rows(12, dtype=dtype)
    source = make_source(array, 4)
    assert source.example().dtype == dtype
    assert taken(source, 0, 2).dtype == dtype


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_visible_shapes_are_kept(make_source, shape):
    array = rows(6, shape)
    source = make_source(array, 3)
    assert source.example().shape == (3, *shape)
    found = taken(source, 0, 2)
    assert found.shape == (2, 3, *shape)
    np.testing.assert_array_equal(np.sort(found.ravel()), np.sort(array.ravel()))


def test_arrays_are_resident_and_others_streamed():
    array = rows(12)
    for resident in (array, array[:, ::-1], np.asfortranarray(array), jnp.asarray(array)):
        source = as_data_source(resident, 4, SEED)
        np.testing.assert_array_equal(source.resident, resident)
        assert np.issubdtype(source.take(0, 2).dtype, np.integer)
    for streamed in (Rows(array), ManyRows(array), [array]):
        assert as_data_source(streamed, 4 if not isinstance(streamed, list) else 12, SEED).resident is None


def test_only_the_rows_of_a_batch_are_fetched():
    for source in (Rows(rows(40)), ManyRows(rows(40))):
        adapted = as_data_source(source, 4, SEED)
        source.fetched.clear()
        adapted.take(3, 2)
        assert len(source.fetched) == 8


class ArrayRows(ManyRows):
    def __getitems__(self, indices):
        return self.array[indices]


class GeneratedRows(ManyRows):
    def __getitems__(self, indices):
        return (self.array[index] for index in indices)


@pytest.mark.parametrize("kind", [ArrayRows, GeneratedRows], ids=["array", "generator"])
def test_getitems_may_return_any_sequence_of_rows(kind):
    array = rows(12)
    found = as_data_source(kind(array), 4, SEED).take(0, 3)
    np.testing.assert_array_equal(found, taken(as_data_source(array, 4, SEED), 0, 3))


class Items:
    """A source of 12 items, whatever they are."""

    def __init__(self, item_fn):
        self.item_fn = item_fn

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.item_fn(index)


@pytest.mark.parametrize(
    ("item_fn", "error", "match"),
    [
        (
            lambda i: {"label": 1, "image": np.ones(2)},
            TypeError,
            r"data yields dicts .*'image', 'label'.*wrap it",
        ),
        (lambda i: (np.ones(2, np.float32), 1), TypeError, r"data yields tuples.*wrap it"),
        (lambda i: (np.ones(2, np.float32), np.ones(2, np.float32)), TypeError, r"data yields tuples"),
        (lambda i: np.full(2, np.nan if i == 3 else 1.0), ValueError, r"data .*NaN or infinite"),
        (lambda i: np.arange(2), ValueError, r"data has dtype int64.*astype"),
        (lambda i: "ab", (TypeError, ValueError), r"data (yields str|has dtype)"),
        (lambda i: np.ones(1 + i % 2), ValueError, r"data .*shape"),
        (lambda i: np.ones(0), ValueError, r"data is empty"),
    ],
    ids=["dict", "tuple", "pair", "nan", "integers", "strings", "ragged", "no visible"],
)
def test_items_that_are_no_rows_are_refused(item_fn, error, match):
    with pytest.raises(error, match=match):
        as_data_source(Items(item_fn), 4, SEED).example()


def test_dicts_by_getitems_are_refused():
    class Dicts(ManyRows):
        def __getitems__(self, indices):
            return [{"image": self.array[index]} for index in indices]

    with pytest.raises(TypeError, match=r"data yields dicts with the keys \['image'\]"):
        as_data_source(Dicts(rows()), 4, SEED).example()


def test_a_bad_row_is_found_when_it_comes():
    array = rows(12)
    array[5, 0] = np.inf
    source = as_data_source(Rows(array), 1, SEED)
    source.example()
    with pytest.raises(ValueError, match="NaN or infinite"):
        source.take(0, 12)


@pytest.mark.parametrize("kind", [Rows, lambda array: array], ids=["rows", "array"])
def test_fewer_rows_than_a_batch_are_refused(kind):
    with pytest.raises(ValueError, match=r"batch_size=4 exceeds the 3 rows of data; pass batch_size=3"):
        as_data_source(kind(rows(3)), 4, SEED)


# Iterables.


def test_batches_come_in_order_and_the_first_is_not_lost():
    expected = batches()
    for data in (expected, Batches(expected), iter(expected), (batch for batch in expected)):
        source = as_data_source(data, 4, SEED)
        np.testing.assert_array_equal(source.example(), expected[0])
        np.testing.assert_array_equal(np.concatenate([source.take(0, 2), source.take(2, 3)]), expected)
        np.testing.assert_array_equal(source.example(), expected[0])
        assert source.has_position == isinstance(data, list)


def test_an_iterable_that_ends_starts_again():
    expected, data = batches(3), Batches(batches(3))
    source = as_data_source(data, 4, SEED)
    found = source.take(0, 8)
    np.testing.assert_array_equal(found, [expected[k % 3] for k in range(8)])
    assert data.starts == 3


def test_one_batch_is_enough():
    source = as_data_source(batches(1), 4, SEED)
    np.testing.assert_array_equal(source.take(0, 3), batches(1) * 3)


def test_a_list_of_jax_arrays_or_of_nested_lists_is_an_iterable():
    expected = batches(2)
    for data in ([jnp.asarray(batch) for batch in expected], [batch.tolist() for batch in expected]):
        np.testing.assert_allclose(as_data_source(data, 4, SEED).take(0, 2), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_floating_dtypes_of_batches_are_kept(dtype):
    source = as_data_source(batches(dtype=dtype), 4, SEED)
    assert source.example().dtype == source.take(0, 2).dtype == dtype


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_visible_shapes_of_batches_are_kept(shape):
    expected = rows(6, shape).reshape(2, 3, *shape)
    source = as_data_source(list(expected), 3, SEED)
    assert source.example().shape == (3, *shape)
    np.testing.assert_array_equal(source.take(0, 2), expected)


def test_a_short_last_batch_is_left_out_with_one_warning():
    expected = batches(2)
    source = as_data_source([*expected, expected[0][:3]], 4, SEED)
    with pytest.warns(UserWarning, match=r"a batch of 3 rows among batches of 4; .* left out") as caught:
        found = source.take(0, 7)
    assert len(caught) == 1
    np.testing.assert_array_equal(found, [expected[k % 2] for k in range(7)])


def test_another_visible_shape_is_refused():
    source = as_data_source([rows(4), rows(4, (3,))], 4, SEED)
    with pytest.raises(ValueError, match=r"data yields a batch of shape \(4, 3\) after .*\(4, 2\)"):
        source.take(0, 2)


def test_another_dtype_is_refused():
    source = as_data_source([rows(4), rows(4, dtype=np.float16)], 4, SEED)
    with pytest.raises(ValueError, match=r"data yields .*float16 after .*float32"):
        source.take(0, 2)


def test_an_iterator_that_runs_out_is_an_error():
    source = as_data_source(iter(batches(2)), 4, SEED)
    source.take(0, 2)
    with pytest.raises(ValueError, match=r"data ended: .*exhausted.*can be restarted"):
        source.take(2, 1)


@pytest.mark.parametrize("make", [list, lambda: iter([]), lambda: Batches([])])
def test_no_batch_at_all_is_an_error(make):
    with pytest.raises(ValueError, match=r"data ended: .*yields no batch"):
        as_data_source(make(), 4, SEED)


@pytest.mark.parametrize("batch_size", [3, 5, 20])
def test_another_batch_size_than_that_of_the_batches_is_refused(batch_size):
    match = f"batch_size={batch_size}, but data yields batches of 4 rows.*pass batch_size=4"
    with pytest.raises(ValueError, match=match):
        as_data_source(batches(), batch_size, SEED)


@pytest.mark.parametrize(
    ("batch", "error", "match"),
    [
        ({"image": rows(4)}, TypeError, r"data yields dicts with the keys \['image'\].*wrap it"),
        ((rows(4), np.arange(4)), TypeError, r"data yields tuples"),
        ((rows(4), rows(4), rows(4), rows(4)), TypeError, r"data yields tuples"),
        (np.full((4, 2), np.nan), ValueError, r"data holds 8 values .*row 0"),
        (np.ones((4, 2), int), ValueError, r"data has dtype int64.*astype"),
        ("text", (TypeError, ValueError), r"data (yields str|has dtype)"),
        (1, ValueError, r"data has dtype int64.*astype"),
    ],
    ids=["dict", "pair", "quadruple", "nan", "integers", "string", "numbers"],
)
def test_items_that_are_no_batches_are_refused(batch, error, match):
    with pytest.raises(error, match=match):
        as_data_source([batch] * 3, 4, SEED)


def test_a_list_of_rows_is_told_from_a_list_of_batches():
    # The advice must not be to take the width of a row as the batch size.
    with pytest.raises(ValueError, match=r"data yields batches of 2 rows.*np.asarray"):
        as_data_source(rows(40).tolist(), 4, SEED)


def test_a_bad_batch_is_found_when_it_comes():
    source = as_data_source([rows(4), np.full((4, 2), np.inf)], 4, SEED)
    with pytest.raises(ValueError, match="NaN or infinite"):
        source.take(0, 2)


def test_an_iterator_may_reuse_its_buffer():
    expected = batches(4)

    def reusing():
        buffer = np.empty((4, 2), np.float32)
        for batch in expected:
            buffer[:] = batch
            yield buffer

    np.testing.assert_array_equal(as_data_source(reusing(), 4, SEED).take(0, 4), expected)


# Iterators with a position.


@pytest.mark.parametrize("codec", STATES.values(), ids=STATES.keys())
def test_a_position_is_returned_to_exactly(codec):
    expected = batches(7)
    source = as_data_source(Stateful(expected, *codec), 4, SEED)
    assert source.has_position
    np.testing.assert_array_equal(source.example(), expected[0])
    np.testing.assert_array_equal(source.take(0, 3), expected[:3])
    position = json.loads(json.dumps(source.position()))
    np.testing.assert_array_equal(source.take(3, 2), expected[3:5])
    source.set_position(position)
    np.testing.assert_array_equal(source.take(3, 4), expected[3:7])

    fresh = as_data_source(Stateful(expected, *codec), 4, SEED)
    fresh.set_position(position)
    np.testing.assert_array_equal(fresh.take(3, 4), expected[3:7])


@pytest.mark.parametrize("codec", STATES.values(), ids=STATES.keys())
def test_the_position_before_the_first_batch_is_returned_to(codec):
    expected = batches(7)
    source = as_data_source(Stateful(expected, *codec), 4, SEED)
    position = json.loads(json.dumps(source.position()))
    source.take(0, 5)
    source.set_position(position)
    np.testing.assert_array_equal(source.take(0, 3), expected[:3])


def test_a_position_survives_an_iterator_that_hands_out_its_own_state():
    class Live(Stateful):
        def __init__(self, data):
            self.state = {"n": 0}
            super().__init__(data)

        @property
        def index(self):
            return self.state["n"]

        @index.setter
        def index(self, value):
            self.state["n"] = value

        def get_state(self):
            return self.state

        def set_state(self, state):
            self.state["n"] = state["n"]

    expected = batches(7)
    source = as_data_source(Live(expected), 4, SEED)
    np.testing.assert_array_equal(source.take(0, 2), expected[:2])
    position = source.position()
    source.take(2, 3)
    source.set_position(position)
    np.testing.assert_array_equal(source.take(2, 2), expected[2:4])


def test_a_position_in_a_later_epoch_of_an_iterable_that_restarts():
    expected = batches(3)

    class Epochs:
        def __iter__(self):
            return Epoch()

    class Epoch(Stateful):
        def __init__(self):
            super().__init__(expected)

        def __next__(self):
            if self.index == len(self.batches):
                raise StopIteration
            return super().__next__()

    source = as_data_source(Epochs(), 4, SEED)
    source.take(0, 4)
    position = source.position()
    following = source.take(4, 4)
    resumed = as_data_source(Epochs(), 4, SEED)
    resumed.set_position(position)
    np.testing.assert_array_equal(resumed.take(4, 4), following)
    np.testing.assert_array_equal(following, [expected[k % 3] for k in range(4, 8)])


def test_an_iterable_without_a_state_has_no_position():
    source = as_data_source(Batches(batches()), 4, SEED)
    assert not source.has_position
    assert source.position() is None
    source.set_position(None)
    np.testing.assert_array_equal(source.take(0, 2), batches()[:2])


def test_getitems_gives_one_row_an_index():
    class Source:
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return np.zeros(2, np.float32)

        def __getitems__(self, indices):
            return [self[index] for index in indices[1:]]

    with pytest.raises(ValueError, match=r"data\.__getitems__ returns 3 rows for 4 indices"):
        as_data_source(Source(), 4, SEED).example()
