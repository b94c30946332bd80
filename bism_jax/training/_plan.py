"""`plan`: what each way to differentiate would cost, before anything is run."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax._jax_switches import with_transfers
from bism_jax._precision import as_working
from bism_jax._tracing.compilation import compiled_once, compiled_to_look_at
from bism_jax._tracing.jaxpr_key import jaxpr_key
from bism_jax.hypergradient import Implicit, StopGradient, Strategy, Truncated, Unrolled
from bism_jax.methods import BiSM
from bism_jax.training._flops import flops_of_jaxpr
from bism_jax.typing import Method, Params

_MAX_NUM_STEPS = 100_000
_MAX_COMPILATIONS = 8  # of the search for the largest N; the checkerboard's GRBM takes one or two
# A step takes less than its share of the iteration's memory, and where four times as many steps as that
# share allows fit too, they mostly fit up to the cap: one compilation then ends the search.
_OVERSHOOT = 4.0
_SECONDS_OF_TIMING, _ROUNDS_OF_TIMING = 0.05, 4  # a core that others share is free in one of four
_MIB = 2**20


class PlannedStrategy(NamedTuple):
    """One iteration with one strategy.

    Attributes:
        strategy: how to differentiate, with N as its `num_steps`.
        memory_bytes: of a device: parameters, optimiser states, batch and temporaries.
        temporary_bytes: the last alone.
        flops: floating-point operations an iteration.
        seconds: an iteration's, estimated: its operations at the rate of the row with the fewest, which is
            run; None where that does not fit.
        largest_num_steps: the largest N found to fit the budget, 0 where not even one step does, 100,000
            where that many do, as the search ends there; None without a budget.
    """

    strategy: Strategy
    memory_bytes: int
    temporary_bytes: int
    flops: float
    seconds: float | None
    largest_num_steps: int | None


@dataclass(frozen=True, repr=False)
class Plan:
    """What `plan` found; printed, it is a Markdown table and a recommendation.

    Attributes:
        strategies: a row each.
        memory_budget: in bytes, or None.
    """

    strategies: tuple[PlannedStrategy, ...]
    memory_budget: int | None

    def __iter__(self) -> Iterator[PlannedStrategy]:
        """The rows."""
        return iter(self.strategies)

    @property
    def recommended(self) -> PlannedStrategy | None:
        """The row to take, or None where none fits the budget.

        It is an exact one where one fits, and of these the one in mixed mode and without segments.
        """
        fitting = [
            row for row in self if self.memory_budget is None or row.memory_bytes <= self.memory_budget
        ]
        return min(fitting, key=lambda row: _preference(row.strategy)[0], default=None)

    @property
    def recommendation(self) -> str:
        """Which strategy to take, and why."""
        row = self.recommended
        if row is None:
            least = min(self, key=lambda row: row.memory_bytes)
            return (
                f"None fits: the least, `{_shown(least.strategy)}`, takes "
                f"{least.memory_bytes / _MIB:.1f} MiB. Take a smaller batch or model."
            )
        return f"Take `{_shown(row.strategy)}`: {_preference(row.strategy)[1]}."

    def __str__(self) -> str:
        """A Markdown table and the recommendation."""
        header = ["strategy", "memory, MiB", "temporaries, MiB", "GFLOP", "ms, estimated"]
        if self.memory_budget is not None:
            header.append(f"largest N in {self.memory_budget / _MIB:.0f} MiB")
        lines = [header, ["---"] * len(header), *map(_cells, self)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{table}\n\n{self.recommendation}"

    __repr__ = __str__


def _cells(row: PlannedStrategy) -> list[str]:
    cells = [
        f"`{_shown(row.strategy)}`",
        _mib(row.memory_bytes),
        _mib(row.temporary_bytes),
        f"{row.flops / 1e9:.3g}",
        "-" if row.seconds is None else f"{1e3 * row.seconds:.2g}",
    ]
    if row.largest_num_steps is None:
        return cells
    is_cap = row.largest_num_steps >= _MAX_NUM_STEPS
    return [*cells, f"{row.largest_num_steps:,}" + (" or more (not searched)" if is_cap else "")]


def _mib(num_bytes: int) -> str:
    mib = num_bytes / _MIB
    return f"{mib:.1f}" if mib >= 1 else f"{mib:.2g}"


def _shown(strategy: Any) -> str:
    """The strategy with its number of steps, and what is not as by default."""
    if not dataclasses.is_dataclass(strategy):
        return repr(strategy)
    changed = [
        f"{field.name}={value!r}"
        for field in dataclasses.fields(strategy)
        if (value := getattr(strategy, field.name)) != field.default or field.name == "num_steps"
    ]
    return f"{type(strategy).__name__}({', '.join(changed)})"


def _preference(strategy: Any) -> tuple[int, str]:
    """The rank of a strategy among those that fit, and the reason to take it."""
    match strategy:
        case Unrolled(mixed_mode=True, segment=None):
            # docs/results/unroll_depth: 0.72 to 0.94 of `scan` from N = 10, 1.07 on the checkerboard.
            found = 0, "it is exact and takes less memory than plain reverse mode"
        case Unrolled(mixed_mode=True):
            found = 1, "it is exact, and memory is saved by computing the steps of a segment again"
        case Unrolled():
            found = 2, "it is exact"
        case Truncated(last=last):
            found = 3, f"it differentiates the last {last} steps, so with a bias, and no exact one here fits"
        case Implicit():
            found = 4, "it is right where the lower level is solved, and no unrolled one here fits"
        case StopGradient():
            found = 6, "it ignores how phi reacts to theta, and no other here fits"
        case _:
            found = 5, "none of those here whose derivatives the library knows fits"
    return found


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
    """Memory, operations and time of one training iteration by each strategy, and which one to take.

    The memory is what the compiler plans for one device; the operations are counted on the trace. The row of
    the fewest operations is run for a tenth of a second, and the time of the others is their operations at
    its rate. The search for the largest N compiles at most eight depths up to 100,000 and interpolates
    between them; the N that it returns was compiled and fits, and is within a tenth of the largest where
    memory is nearly linear in N or its root.

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
    from tqdm.auto import tqdm

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

    iterations = _Iterations(method, (energy_fn, posterior_fn), init_params, batch)
    # All before any is compiled: the one of the fewest operations is the one to run.
    traces = [iterations.trace(strategy) for strategy in given]
    flops = list(map(_flops, given, traces))
    cheapest = flops.index(min(flops))
    memory, seconds = iterations.run(traces[cheapest], memory_budget)
    # Compiled in full, the others without LLVM's optimisations: XLA plans the same memory for both.
    memories = {cheapest: memory}
    rows = []
    bar = tqdm(given, desc="plan", unit="strategy", disable=None if progress is None else not progress)
    for index, strategy in enumerate(bar):
        bar.set_postfix_str(type(strategy).__name__)
        memory = memories.get(index) or _memory(traces[index])
        largest = None
        if memory_budget is not None:
            bytes_at = functools.partial(iterations.bytes_at, strategy)
            largest = _largest_num_steps(bytes_at, (strategy.num_steps, memory.total), memory_budget)
        # max: a step that only moves numbers has 0 operations.
        estimate = None if seconds is None else seconds * flops[index] / max(1.0, flops[cheapest])
        rows.append(PlannedStrategy(strategy, *memory, flops[index], estimate, largest))
    return Plan(tuple(rows), memory_budget)


class _Memory(NamedTuple):
    total: int
    temporary: int


class _Iterations:
    """The iteration of a method by any strategy, for one model and batch."""

    def __init__(self, method: Any, models: tuple[Any, Any], init_params: Any, batch: Array) -> None:
        self._method, self._models, self._init_params = method, models, init_params
        key = jax.random.key(0)
        state = method.bind(*models, init_params=init_params).init(key, batch)
        self._args = (key, state, batch)

    def trace(self, strategy: Strategy) -> Any:
        changed: Any = dataclasses.replace(self._method, hypergradient=strategy)
        step = changed.bind(*self._models, init_params=self._init_params).step
        return jax.jit(step, donate_argnums=1).trace(*self._args)

    def bytes_at(self, strategy: Strategy, num_steps: int) -> int:
        return _memory(self.trace(_with_num_steps(strategy, num_steps))).total

    def run(self, traced: Any, budget: int | None) -> tuple[_Memory, float | None]:
        """The memory of an iteration, and its seconds where it fits."""
        key = jaxpr_key(traced.jaxpr)
        # Optimised: one to look at would take 4 times as long (575 microseconds instead of 139, GRBM, N = 5).
        program = compiled_once(key and ("run", key), lambda: traced.lower().compile())
        memory = _memory_of(program)
        if budget is not None and memory.total > budget:
            return memory, None
        try:
            return memory, self._seconds(program)
        except jax.errors.JaxRuntimeError:  # the device is too small, which no budget has said
            return memory, None

    def _seconds(self, program: Any) -> float:
        """The least of a few rounds, in which calls wait in line, so that calling costs little of it."""
        key, state, batch = self._args
        state = jax.tree.map(jnp.copy, state)  # which the program overwrites

        def timed(count: int) -> float:
            nonlocal state
            start = time.perf_counter()
            for _ in range(count):
                state, _info = program(key, state, batch)
            jax.block_until_ready(state)
            return (time.perf_counter() - start) / count

        # The first call pays for what later ones find ready; the second says how many fill a round.
        timed(1)
        count = max(1, int(_SECONDS_OF_TIMING / timed(1)))
        # The least: what other processes take only ever adds.
        return min(timed(count) for _ in range(_ROUNDS_OF_TIMING))


def _flops(strategy: Any, traced: Any) -> float:
    return flops_of_jaxpr(traced.jaxpr.jaxpr, getattr(strategy, "solver_steps", 1))


def _memory(traced: Any) -> _Memory:
    """What the compiler plans, which its optimisations of the machine code do not change."""
    key = jaxpr_key(traced.jaxpr)
    return compiled_once(key and ("memory", key), lambda: _memory_of(compiled_to_look_at(traced)))


def _memory_of(program: Any) -> _Memory:
    memory = program.memory_analysis()
    # The state is donated, as by `fit`: its output lies in its input's place and counts once.
    arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return _Memory(arguments + memory.temp_size_in_bytes, memory.temp_size_in_bytes)


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
        Truncated(num_steps, last=-(-num_steps // 4)),  # rounded up: `last` is at least 1
        Implicit(num_steps),
        StopGradient(num_steps),
    )


def _with_num_steps(strategy: Any, num_steps: int) -> Strategy:
    # `Truncated` refuses fewer steps than it differentiates.
    return dataclasses.replace(strategy, num_steps=max(num_steps, getattr(strategy, "last", 0)))


def _largest_num_steps(bytes_at: Callable[[int], int], known: tuple[int, int], budget: int) -> int:
    """Within a tenth, by secants from one known depth: memory is nearly linear in N, or in its root."""
    measured = dict([known])
    guess = _OVERSHOOT * max(1, known[0]) * budget / known[1]
    for _ in range(_MAX_COMPILATIONS):
        fits = max((n for n in measured if measured[n] <= budget), default=0)
        too_many = min((n for n in measured if measured[n] > budget), default=_MAX_NUM_STEPS + 1)
        is_between = too_many <= _MAX_NUM_STEPS
        # + 1: below 10 steps a tenth is less than one.
        if too_many <= 1.1 * fits + 1 or (is_between and guess <= 1.1 * fits):
            break
        # Beyond what fits a guess must not fall short; between two depths one 4 % too low ends the search.
        candidate = int(min(max((0.96 if is_between else 1.1) * guess, fits + 1), too_many - 1))
        measured[candidate] = bytes_at(candidate)
        guess = _secant(measured, budget)
    return max((n for n in measured if measured[n] <= budget), default=0)


def _secant(measured: dict[int, int], budget: int) -> float:
    """N on the line through the two measurements nearest to the budget."""
    first, second = sorted(sorted(measured, key=lambda n: abs(measured[n] - budget))[:2])
    slope = (measured[second] - measured[first]) / (second - first)
    # No growth, as where a strategy keeps no step: the upper end of the search comes next.
    return float("inf") if slope <= 0 else first + (budget - measured[first]) / slope
