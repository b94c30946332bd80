"""`plan`: what each way to differentiate would cost, before anything is run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax._jax_switches import with_transfers
from bism_jax._precision import as_working
from bism_jax.hypergradient import Implicit, StopGradient, Strategy, Truncated, Unrolled
from bism_jax.methods import BiSM
from bism_jax.training._flops import count_flops
from bism_jax.typing import IterationFn, Method, Params

_MAX_NUM_STEPS = 100_000
_MAX_COMPILATIONS = 8  # of the search for the largest N, beyond the first
_FIRST_DEPTHS = (16, 64)  # beyond the few steps that a CPU writes out
_MIB = 2**20


class PlannedStrategy(NamedTuple):
    """One iteration with one strategy.

    Attributes:
        strategy: how to differentiate, with N as its `num_steps`.
        memory_bytes: of a device: parameters, optimiser states, batch and temporaries.
        temporary_bytes: the last alone.
        flops: floating-point operations an iteration.
        largest_num_steps: the largest N found to fit the budget, 0 where not even one step does; None
            without a budget.
    """

    strategy: Strategy
    memory_bytes: int
    temporary_bytes: int
    flops: float
    largest_num_steps: int | None


@dataclass(frozen=True)
class Plan:
    """What `plan` found; printed, it is a Markdown table.

    Attributes:
        strategies: a row each.
        memory_budget: in bytes, or None.
    """

    strategies: tuple[PlannedStrategy, ...]
    memory_budget: int | None

    def __iter__(self) -> Iterator[PlannedStrategy]:
        """The rows."""
        return iter(self.strategies)

    def __str__(self) -> str:
        """A Markdown table."""
        budget = self.memory_budget
        header = ["strategy", "memory, MiB", "temporaries, MiB", "GFLOP"]
        header += [] if budget is None else [f"largest N in {budget / _MIB:.0f} MiB"]
        lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        for row in self:
            cells = [
                f"`{row.strategy}`",
                f"{row.memory_bytes / _MIB:.1f}",
                f"{row.temporary_bytes / _MIB:.1f}",
                f"{row.flops / 1e9:.3g}",
            ]
            cells += [] if row.largest_num_steps is None else [str(row.largest_num_steps)]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


@with_transfers
def plan(
    energy_fn: Any,
    posterior_fn: Any,
    batch: Float[Array, "batch *visible"],
    method: Method | None = None,
    *,
    strategies: Sequence[Strategy] | None = None,
    memory_budget: int | None = None,
    init_params: tuple[Params, Params] | None = None,
    progress: bool | None = None,
) -> Plan:
    """Memory and operations of one training iteration by each strategy, compiled and not run.

    The memory is what the compiler plans for one device, the operations are counted on the trace. The search
    for the largest N compiles at most ten depths and interpolates between them; the N that it returns was
    compiled and fits, and is within a tenth of the largest where memory is nearly linear in N or its root.

    Args:
        energy_fn: as in `fit`.
        posterior_fn: as in `fit`.
        batch: a minibatch, `[B, *visible]`; its values do not matter.
        method: with a `hypergradient` to vary, such as `BiSM()`, the default.
        strategies: what to compare; None compares all with the method's N.
        memory_budget: bytes of a device, to find the largest N for; None does not search.
        init_params: `(theta, phi)`; required for plain functions.
        progress: whether to show a bar; None shows it on a terminal.

    Raises:
        TypeError: for a method without a hypergradient, or a batch that is no array.
        ValueError: for a model that does not fit, a budget that is not positive, or no strategies.
    """
    from tqdm import tqdm

    method = BiSM() if method is None else method
    checks.instance("method", method, Method, "BiSM()")
    if not hasattr(method, "hypergradient"):
        raise TypeError(
            f"method={method!r} has no hypergradient, so there is no strategy to choose; pass BiSM(...)."
        )
    if memory_budget is not None:
        checks.positive_int("memory_budget", memory_budget, alternative="None")
    if progress is not None:
        checks.boolean("progress", progress)
    batch = _as_batch(batch)
    given = _all_strategies(method) if strategies is None else _as_tuple(strategies)
    if not given:
        raise ValueError("strategies is empty; pass at least one, or None for all.")
    for strategy in given:
        checks.instance("strategies", strategy, Strategy, "Unrolled(num_steps=5)")

    key = jax.random.key(0)
    state = method.bind(energy_fn, posterior_fn, init_params=init_params).init(key, batch)

    def bind(strategy: Strategy) -> IterationFn:
        changed: Any = dataclasses.replace(method, hypergradient=strategy)  # type: ignore[type-var]
        return changed.bind(energy_fn, posterior_fn, init_params=init_params).step

    def compiled_memory(step: IterationFn) -> Any:
        return jax.jit(step, donate_argnums=1).lower(key, state, batch).compile().memory_analysis()

    def bytes_at(strategy: Strategy, num_steps: int) -> int:
        return _memory_bytes(compiled_memory(bind(_with_num_steps(strategy, num_steps))))

    def row(strategy: Strategy) -> PlannedStrategy:
        step, largest = bind(strategy), None
        memory = compiled_memory(step)
        flops = count_flops(step, key, state, batch, while_turns=getattr(strategy, "solver_steps", 1))
        if memory_budget is not None:
            largest = _largest_num_steps(functools.partial(bytes_at, strategy), memory_budget)
        return PlannedStrategy(strategy, _memory_bytes(memory), memory.temp_size_in_bytes, flops, largest)

    bar = tqdm(given, desc="compiling", disable=None if progress is None else not progress)
    return Plan(tuple(row(strategy) for strategy in bar), memory_budget)


def _as_batch(batch: Any) -> Float[Array, "batch *visible"]:
    try:
        array = jnp.asarray(as_working(batch))
    except (TypeError, ValueError) as error:
        raise TypeError(f"batch must be an array [batch, *visible], not a {type(batch).__name__}.") from error
    checks.array("batch", array, "[batch, *visible]")
    return array


def _as_tuple(strategies: Any) -> tuple[Strategy, ...]:
    if not isinstance(strategies, Iterable):
        raise TypeError(f"strategies must be a sequence such as [Unrolled(5)], not {strategies!r}.")
    return tuple(strategies)


def _all_strategies(method: Any) -> tuple[Strategy, ...]:
    num_steps = max(1, method.hypergradient.num_steps)
    return (
        Unrolled(num_steps, mixed_mode=False),
        Unrolled(num_steps),
        Unrolled(num_steps, segment="sqrt"),
        Truncated(num_steps, last=-(-num_steps // 4)),
        Implicit(num_steps),
        StopGradient(num_steps),
    )


def _with_num_steps(strategy: Any, num_steps: int) -> Strategy:
    return dataclasses.replace(strategy, num_steps=max(num_steps, getattr(strategy, "last", 0)))


def _memory_bytes(memory: Any) -> int:
    arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return arguments + memory.temp_size_in_bytes


def _largest_num_steps(bytes_at: Callable[[int], int], budget: int) -> int:
    """Within a tenth, by secants: memory is nearly linear in N, or in its root."""
    measured = {num_steps: bytes_at(num_steps) for num_steps in _FIRST_DEPTHS}
    for _ in range(_MAX_COMPILATIONS):
        fits = max((n for n in measured if measured[n] <= budget), default=0)
        too_many = min((n for n in measured if measured[n] > budget), default=_MAX_NUM_STEPS + 1)
        if too_many <= 1.1 * fits + 1:
            break
        guess = _secant(measured, budget)
        # Where the last guess was right, the step just above it shows that no more fit.
        candidate = guess if guess > 1.01 * fits else 1.1 * fits
        candidate = int(min(max(candidate, fits + 1), too_many - 1))
        measured[candidate] = bytes_at(candidate)
    return max((n for n in measured if measured[n] <= budget), default=0)


def _secant(measured: dict[int, int], budget: int) -> float:
    """N on the line through the two measurements nearest to the budget."""
    first, second = sorted(sorted(measured, key=lambda n: abs(measured[n] - budget))[:2])
    slope = (measured[second] - measured[first]) / (second - first)
    return float("inf") if slope <= 0 else first + (budget - measured[first]) / slope
