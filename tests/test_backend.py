"""What is decided by the backend, on the one that is here and on one that is not."""

import jax
import pytest

from bism_jax import _backend as backend


@pytest.fixture(params=["cpu", "gpu"])
def name(request, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    return request.param


def untraced():
    raise AssertionError("the step was traced, whose answer is not needed")


def test_steps_are_written_out_on_a_cpu_where_they_are_few_and_small_or_convolve(name):
    is_cpu = name == "cpu"
    assert backend.is_faster_unrolled(8, lambda: (200, False)) == is_cpu
    assert backend.is_faster_unrolled(1, lambda: (10_000, True)) == is_cpu
    assert not backend.is_faster_unrolled(8, lambda: (201, False))
    assert not backend.is_faster_unrolled(9, untraced)
    if not is_cpu:
        assert not backend.is_faster_unrolled(1, untraced)


@pytest.mark.parametrize(("num_rows", "row_bytes", "expected"), [
    (100, 2**18 // 30, 25), (97, 2**12, 1), (64, 2**12, 64), (65, 2**12, 13), (3, 2**20, 1), (0, 2**12, 0),
])  # fmt: skip
def test_rows_at_a_time_divide_the_batch_and_fit_the_cache_of_a_cpu(name, num_rows, row_bytes, expected):
    assert backend.rows_at_a_time(num_rows, row_bytes) == (expected if name == "cpu" else num_rows)


def test_all_other_answers_are_for_a_cpu(name):
    is_cpu = name == "cpu"
    assert backend.backend_name() == name
    assert backend.convolves_slowly_in_loops() == backend.convolves_by_products() == is_cpu
    assert (backend.one_time_options() is not None) == is_cpu
