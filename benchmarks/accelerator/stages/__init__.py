"""The stages, most telling first; a module each, which is imported in a process of the stage's own."""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """A group of measurements that share a process.

    Attributes:
        module: where `cases(context)` is.
        share: of the time, relative to the others'.
        platforms: of JAX, where it must not take the accelerator's memory; None for its own choice.
    """

    module: str
    share: float
    platforms: str | None = None


STAGES = {
    "parity": Stage("benchmarks.accelerator.stages.parity", 0.28),
    "networks": Stage("benchmarks.accelerator.stages.networks", 0.29),
    "pytorch": Stage("benchmarks.accelerator.stages.pytorch", 0.07, platforms="cpu"),
    "unrolling": Stage("benchmarks.accelerator.stages.unrolling", 0.14),
    "seeds": Stage("benchmarks.accelerator.stages.seeds", 0.06),
    "paper": Stage("benchmarks.accelerator.stages.paper", 0.16),
}
