"""Arrays of any wrong dtype, shape or value are refused by an error that names the argument."""

import numpy as np
import pytest

from benchmarks.malformed import campaign, evaluation, plotting, samplers

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

QUICK = settings(max_examples=40, deadline=None, derandomize=True, database=None)
CALLS = {
    (package.PACKAGE, name, argument): call
    for package, names in (
        (evaluation, ("log_likelihood", "gradient_bias", "ood_scores", "energy_distance")),
        (samplers, ("langevin", "sample_joint", "nuts")),
        (plotting, ("plot_density",)),
    )
    for name, call in package.calls().items()
    for argument, kind in call.kinds.items()
    if name in names and kind in {"rows", "features", "states"}
}
TARGETS = st.sampled_from(sorted(CALLS))
COLUMNS = 2  # of the valid calls
NO_NUMBERS = st.sampled_from(["complex64", "complex128", "<U2", "S3", "object", "M8[s]", "V4"])
FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
NOT_FINITE = st.sampled_from([np.nan, np.inf, -np.inf])


def outcome(target, value):
    package, name, argument = target
    case = campaign.Case(package, name, f"{argument}: drawn", CALLS[target], {argument: value})
    return campaign.run(case)


def is_clear(target, value):
    found = outcome(target, value)
    assert found.kind == "clear", found


@QUICK
@given(TARGETS, NO_NUMBERS, st.integers(1, 5))
def test_what_is_no_number(target, dtype, num_rows):
    is_clear(target, np.zeros((num_rows, COLUMNS), dtype))


@QUICK
@given(TARGETS, FLOATS, st.integers(2, 6), NOT_FINITE, st.data())
def test_a_value_that_is_not_finite(target, dtype, num_rows, value, data):
    rows = np.zeros((num_rows, COLUMNS), dtype)
    rows[data.draw(st.integers(0, num_rows - 1)), data.draw(st.integers(0, COLUMNS - 1))] = value
    is_clear(target, rows)


@QUICK
@given(TARGETS, FLOATS, arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
def test_a_shape_without_an_entry_or_a_row(target, dtype, shape):
    shape = shape if 0 in shape else (*shape[:1], 0) if shape else ()
    is_clear(target, np.zeros(shape, dtype))


@QUICK
@given(TARGETS, st.recursive(st.none() | st.text(max_size=3) | st.binary(max_size=3), st.lists, max_leaves=4))
def test_what_is_no_array(target, value):
    is_clear(target, value)
