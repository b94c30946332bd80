"""What is done differently on one backend than on another: no other module asks which one it is.

All of it is for XLA's CPU backend; the figures are in `benchmarks/NOTES.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

# Five steps on Frey face take 48 ms written out instead of 63 in a loop, and compile for 1.3 to 1.7 times as
# long, which grows with their number.
_MAX_UNROLLED_STEPS = 8

# Of one step. Where steps are written out, XLA merges what the backward pass computes again with the forward
# pass, and the memory of plain reverse mode comes back: 48 MiB instead of 19 for a step of 396 equations,
# which is hardly faster, while one of 137 gains a quarter.
_MAX_UNROLLED_EQUATIONS = 200

# Of a layer: the theta-gradient of a squared score (8 channels, 50 rows) takes 204 ms at this size, 264 at
# 60 KiB, 334 at 1 MiB and 660 with all rows at once.
_CACHED_BYTES = 2**18


def backend_name() -> str:
    """The default backend, such as `"cpu"` or `"gpu"`."""
    return jax.default_backend()


def is_faster_unrolled(num_steps: int, outline_step: Callable[[], tuple[int, bool]]) -> bool:
    """Whether a loop runs faster with its steps written out.

    Args:
        num_steps: of the loop.
        outline_step: returns the number of equations of a step and whether it convolves; a trace, so it is
            called only where the answer depends on it.
    """
    if not _is_cpu() or num_steps > _MAX_UNROLLED_STEPS:
        return False
    num_equations, convolves = outline_step()
    return convolves or num_equations <= _MAX_UNROLLED_EQUATIONS


def convolves_slowly_in_loops() -> bool:
    """Whether a convolution in a compiled loop is far slower than the same one outside.

    Five lower-level steps of a residual network of 16 channels took 18.8 s in a loop and 1.4 s written out.
    Annealed Langevin dynamics of one of 32 channels took 5.8 times as long in a loop as step by step.
    """
    return _is_cpu()


def convolves_by_products() -> bool:
    """Whether a convolution runs faster as a product of patches and kernel.

    XLA's CPU backend has no fast kernel for the derivatives of a strided convolution, nor for the gradient of
    a kernel on images of 16 x 16 or more: 1 GFLOP/s where a product reaches 80. An iteration on the paper's
    MNIST network fell from 31 to 12 CPU seconds.
    """
    return _is_cpu()


def rows_at_a_time(num_rows: int, row_bytes: int) -> int:
    """How many rows a layer is best computed on at a time; a divisor of their number.

    What a few rows of it leave behind stays in a CPU's cache.
    """
    limit = max(1, _CACHED_BYTES // row_bytes)
    if not _is_cpu() or num_rows <= limit:
        return num_rows
    # A divisor, so that all parts are of one shape and one loop body is compiled.
    return max(rows for rows in range(1, limit + 1) if num_rows % rows == 0)


def one_time_options() -> dict[str, Any] | None:
    """Compiler options of a program that runs once, which costs its compilation.

    Without LLVM's optimisations the random numbers of a network's initialisation compile in 3.5 s instead of
    16.9.
    """
    return {"xla_backend_optimization_level": 0} if _is_cpu() else None


def options_to_look() -> list[dict[str, Any] | None]:
    """Compiler options of a program that never runs, the cheapest first, which JAX 0.12 refuses.

    An iteration of a GRBM compiles in 0.5 CPU seconds instead of 1.4 without XLA's fusion emitters, and would
    be 4 times slower.
    """
    if not _is_cpu():
        return [None]
    unoptimised = {"xla_backend_optimization_level": 0}
    return [unoptimised | {"xla_cpu_use_fusion_emitters": False}, unoptimised]


def _is_cpu() -> bool:
    return jax.default_backend() == "cpu"
