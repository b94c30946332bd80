"""Checks of arguments: each error names the argument, the reason and the alternative."""

# There is no `__all__`: the names are for this library and its scripts, and may change.
# ruff: noqa: F401

from bism_jax.checks._arrays import (
    array,
    as_numbers,
    finite_rows,
    floating,
    floating_rows,
    is_finite,
    is_known,
    not_empty,
    rng_key,
    same_row_shapes,
    same_shape,
    scalar_loss,
)
from bism_jax.checks._calls import called, told_as
from bism_jax.checks._data import batch_fits, data_array, data_dtype, not_finite, unmasked
from bism_jax.checks._messages import shapes_of, shown
from bism_jax.checks._numbers import (
    finite_scalar,
    fraction,
    learning_rate,
    loop_count,
    non_negative,
    non_negative_int,
    positive,
    positive_int,
    positive_scalar,
    seed,
    shape,
    widths,
)
from bism_jax.checks._trees import arrays, floating_tree, leading_axis, parameters
from bism_jax.checks._values import (
    boolean,
    callback,
    floating_dtype,
    function,
    instance,
    no_result,
    one_of,
    optimizer,
    optimizer_pair,
    path,
    text,
)
