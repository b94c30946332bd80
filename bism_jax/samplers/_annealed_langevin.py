"""Langevin dynamics whose noise is annealed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from bism_jax import checks
from bism_jax._backend import convolves_slowly_in_loops
from bism_jax._jax_switches import with_transfers
from bism_jax._precision import is_floating_dtype
from bism_jax._tracing.compilation import call_compiled
from bism_jax._tracing.jaxprs import is_within_jit
from bism_jax.samplers import _chain_checks as chain_checks
from bism_jax.samplers._annealing_schedule import PAPER_SCHEDULE, AnnealingSchedule
from bism_jax.samplers._langevin import langevin_step


class AnnealedSamples(NamedTuple):
    """What an annealed sampler returns.

    Attributes:
        x: the chains after the denoising step, a pytree of `[chains, ...]`.
        snapshots: the chains after each of `schedule.snapshot_steps(num_snapshots)`, a pytree of
            `[num_snapshots, chains, ...]`; the last one is x itself.
    """

    x: PyTree
    snapshots: PyTree


@with_transfers
def annealed_langevin(
    energy_fn: Callable[[PyTree], Float[Array, " chains"]],
    rng_key: Key[Array, ""],
    x: PyTree,
    schedule: AnnealingSchedule = PAPER_SCHEDULE,
    *,
    num_snapshots: int = 0,
) -> AnnealedSamples:
    """Moves chains from x by the steps of a schedule; see `AnnealingSchedule`.

    The noise of step t is a function of `rng_key` and t alone, so schedules that agree in their first steps
    give the same states there. The sampler is compiled once for an energy function, a schedule and shapes:
    pass the same function again rather than a new lambda. Where the energy has parameters, `sample_joint`,
    `sample_visible`, `sample_latent` and `inpaint` take them as an argument. On a CPU the steps are
    dispatched one by one, since XLA runs convolutions in a compiled loop several times slower there (5.8
    times for a residual network of 32 channels); within a caller's `jax.jit` they are a loop.

    Args:
        energy_fn: the energy of each chain, `[chains]`; a pure function.
        rng_key: key.
        x: where the chains start, a pytree of floating `[chains, ...]`; the paper's start is `initial_noise`.
        schedule: the temperatures and the steps.
        num_snapshots: states to keep on the way, at most one a step.

    Raises:
        TypeError: `energy_fn` is no hashable function, or `schedule` no `AnnealingSchedule`.
        ValueError: x is not floating or not finite, its leaves differ in their number of chains,
            `num_snapshots` is out of range, or `energy_fn` does not return one energy a chain.
    """
    chain_checks.function("energy_fn", energy_fn, "x -> [chains]")
    x = chain_checks.states("x", x)
    # Not in `anneal`: the other samplers check v and h under their own names.
    chain_checks.finite("x", x)
    return anneal(_of_state, energy_fn, (), rng_key, x, schedule, num_snapshots)


@with_transfers
def initial_noise(
    rng_key: Key[Array, ""], shape: tuple[int, ...], dtype: jax.typing.DTypeLike = float
) -> Float[Array, "..."]:
    """The start of a chain far from all data, 0.5 + N(0, I), of visible units and of latents that move.

    Raises:
        TypeError: where the key is no key, or the dtype no dtype.
        ValueError: for a shape that is no tuple of integers of at least 1, or a dtype that is not floating.
    """
    checks.widths("shape", shape)
    try:
        is_floating = is_floating_dtype(jnp.dtype(dtype))
    except TypeError as error:
        raise TypeError(f"dtype must be one such as jnp.float32, not {dtype!r}.") from error
    if not is_floating:
        raise ValueError(f"dtype must be floating, such as jnp.float32, not {dtype!r}.")
    rng_key = checks.rng_key("rng_key", rng_key)
    # One program, compiled fast as it runs once, instead of one an operation.
    return call_compiled(lambda key: 0.5 + jax.random.normal(key, shape, dtype), rng_key)


def anneal(
    form: Callable[..., Float[Array, " chains"]],
    energy_fn: Callable[..., Array],
    params: PyTree,
    rng_key: Key[Array, ""],
    x: PyTree,
    schedule: AnnealingSchedule,
    num_snapshots: int,
) -> AnnealedSamples:
    """The sampler of the energy `form(energy_fn, params, x)`; both functions identify what is compiled."""
    _check_schedule(schedule, num_snapshots)
    rng_key = checks.rng_key("rng_key", rng_key)
    # Within a caller's jit the steps would be traced one by one, 2,701 of them for the paper's schedule.
    run = _run_on_host if convolves_slowly_in_loops() and not is_within_jit() else _run_compiled
    return run(_Energy(form, energy_fn), schedule, num_snapshots, params, rng_key, x)


@dataclass(frozen=True)
class _Energy:
    """`form(energy_fn, params, x)` of each chain; equal where both functions are, unlike a closure."""

    form: Callable[..., Array]
    energy_fn: Callable[..., Array]

    def __call__(self, params: PyTree, x: PyTree) -> Float[Array, " chains"]:
        return self.form(self.energy_fn, params, x)


def _of_state(energy_fn: Callable[[PyTree], Array], params: PyTree, x: PyTree) -> Float[Array, " chains"]:
    return energy_fn(x)


def _check_schedule(schedule: AnnealingSchedule, num_snapshots: int) -> None:
    if not isinstance(schedule, AnnealingSchedule):
        raise TypeError(f"schedule must be a value such as AnnealingSchedule(), not {schedule!r}.")
    checks.non_negative_int("num_snapshots", num_snapshots)
    if num_snapshots > schedule.num_steps:
        raise ValueError(
            f"num_snapshots={num_snapshots} exceeds the {schedule.num_steps} steps of the schedule; keep "
            "fewer."
        )


def _run_on_host(
    energy: _Energy, schedule: AnnealingSchedule, num_snapshots: int, params: PyTree, key: Array, x: PyTree
) -> AnnealedSamples:
    rates, noise_stds = schedule.coefficients()  # of NumPy: no step waits for a device
    snapshots = []
    for start, stop in _segments(schedule, num_snapshots):
        for step in range(start, stop):
            x = _move(energy, params, key, x, step, rates[step], noise_stds[step])
        snapshots.append(x)
    if not num_snapshots:
        return AnnealedSamples(x, _no_snapshots(x))
    return AnnealedSamples(x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *snapshots))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run_compiled(
    energy: _Energy, schedule: AnnealingSchedule, num_snapshots: int, params: PyTree, key: Array, x: PyTree
) -> AnnealedSamples:
    # Arrays on the device, since a traced step cannot index NumPy's.
    rates, noise_stds = (jnp.asarray(values) for values in schedule.coefficients())

    def step(index: Array, x: PyTree) -> PyTree:
        return _move(energy, params, key, x, index, rates[index], noise_stds[index])

    def segment(x: PyTree, bounds: Array) -> tuple[PyTree, PyTree]:
        # Traced bounds make it a while loop, which serves segments of unequal length.
        x = jax.lax.fori_loop(bounds[0], bounds[1], step, x)
        # Snapshots alone are stacked, so memory is flat in the number of steps.
        return x, x if num_snapshots else None

    x, snapshots = jax.lax.scan(segment, x, jnp.asarray(_segments(schedule, num_snapshots)))
    return AnnealedSamples(x, snapshots if num_snapshots else _no_snapshots(x))


@functools.partial(jax.jit, static_argnums=0)
def _move(
    energy: _Energy,
    params: PyTree,
    rng_key: Key[Array, ""],
    x: PyTree,
    step: int | Int[Array, ""],
    rate: float | Float[Array, ""],
    noise_std: float | Float[Array, ""],
) -> PyTree:
    """One step of any schedule, the denoising one too, so that one program serves all."""
    # A program of its own for the denoising step took 4.5 CPU s to compile for each shape of chains.
    energies = functools.partial(energy, params)
    # While tracing, so once a program and not once a step.
    chain_checks.one_energy_a_chain("energy_fn", energies, x)
    # Of the sum: a chain's energy depends on that chain alone.
    gradient = jax.grad(lambda x: energies(x).sum())(x)
    return langevin_step(gradient, jax.random.fold_in(rng_key, step), x, rate, noise_std)


def _segments(schedule: AnnealingSchedule, num_snapshots: int) -> list[tuple[int, int]]:
    """From which step to which before each snapshot; the denoising step is in the last."""
    *stops, _ = schedule.snapshot_steps(max(1, num_snapshots)).tolist()
    end = len(schedule.coefficients()[0])
    return list(zip([0, *stops], [*stops, end], strict=True))


def _no_snapshots(x: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape), leaf.dtype), x)
