"""The ways to unroll, in time and memory, on two models: `benchmarks.unroll_depth` for an accelerator."""

from __future__ import annotations

import functools
from typing import Any

from benchmarks.accelerator.cases import Case, Context
from benchmarks.depth.measure import Bench

_STRATEGIES = ("plain scan", "mixed", "mixed, segments", "segments")
_DEPTHS = (100, 20, 5)


def cases(context: Context) -> list[Case]:
    """The deepest first."""
    quick = context.options.quick
    models = ("mlp",) if quick else ("mlp", "image-64")
    strategies = _STRATEGIES[:3] if quick else _STRATEGIES
    bench = functools.cache(lambda model: Bench(model, 0.02 if quick else 1.0, errors=False))

    def measure(model: str, strategy: str, num_steps: int) -> dict[str, Any]:
        row = bench(model).measure(strategy, num_steps)._asdict()
        return {name: value for name, value in row.items() if name not in ("model", "strategy", "error")}

    return [
        Case(f"{model}, {strategy}, N = {n}", functools.partial(measure, model, strategy, n))
        for n in ((2,) if quick else _DEPTHS)
        for model in models
        for strategy in strategies
    ]
