"""Whether the device computes what it should."""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bism_jax
from benchmarks.accelerator.cases import Case, Context
from benchmarks.accelerator.golden import load_golden
from benchmarks.accelerator.paper_networks import product_precision
from benchmarks.accelerator.rows import FAILED, PARTIAL
from benchmarks.accelerator.stages.seeds import METHOD
from benchmarks.accelerator.training import train_until
from benchmarks.depth.measure import Bench
from benchmarks.hypergradients import flatten
from bism_jax import Unrolled
from bism_jax.data import checkerboard_splits
from bism_jax.evaluation import log_likelihood
from bism_jax.models import GRBM, BernoulliPosterior

_DEPTH = 5
_STRATEGIES = {
    "mixed": Unrolled(_DEPTH),
    "mixed_segments": Unrolled(_DEPTH, segment="sqrt"),
    "segments": Unrolled(_DEPTH, segment="sqrt", mixed_mode=False),
    "plain_scan": Unrolled(_DEPTH, mixed_mode=False),
}
# Of the relative error in float64, and in float32 with full products; TF32 is reported and not judged.
_LIMITS = {"float64": 1e-9, "float32": 1e-3, "TF32": math.inf}
_RUN: dict[str, Any] = {"batch_size": 100, "rng_key": 0}


def cases(context: Context) -> list[Case]:
    """Gradients in float64 and float32, how programs are run, and a whole run."""
    on_gpu = jax.default_backend() == "gpu"
    precisions = ("float64", "float32", *(["TF32"] if on_gpu else []))
    bench = functools.cache(lambda model: Bench(model, 0.01, errors=False))
    models = ("checkerboard",) if context.options.quick else ("checkerboard", "image-4")
    strategies = ("mixed", "mixed_segments") if context.options.quick else tuple(_STRATEGIES)
    comparisons = [
        Case(
            f"exact strategies, {model}, {precision}",
            functools.partial(_strategies, bench, model, precision, strategies),
        )
        for model in models
        for precision in precisions
    ]
    return [
        Case("machine", _machine),
        *(
            Case(f"golden values, {precision}", functools.partial(_golden, precision, strategies[:2]))
            for precision in precisions[:2]
        ),
        *comparisons,
        Case("donated buffers", _donation),
        Case("jit and pmap", _layouts),
        Case("fit on the checkerboard", functools.partial(_fit, context)),
    ]


def _machine() -> dict[str, Any]:
    stats = jax.devices()[0].memory_stats()
    return {
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "memory_gib": stats["bytes_limit"] / 2**30 if stats and "bytes_limit" in stats else None,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def _judged(errors: dict[str, float], precision: str) -> dict[str, Any]:
    """The columns of relative errors, which fail where one exceeds the limit, or is no number."""
    limit = _LIMITS[precision]
    bad = [name for name, error in errors.items() if not error <= limit]
    fault = {"status": FAILED, "error": f"{', '.join(bad)}: off by more than {limit}"} if bad else {}
    return {**errors, "limit": limit, **fault}


def _in_threads(fn: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Compiling takes most of the time, and a core for each program."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(fn, items))


def _relative_error(found: Any, expected: Any) -> float:
    """In max norm over a gradient, as the tests have it."""
    found, expected = flatten(found), flatten(expected)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _golden(precision: str, strategies: Sequence[str]) -> dict[str, Any]:
    """The largest error of the hypergradient over optimisers and temperatures, for each strategy."""
    golden, values = load_golden()
    cases = [
        case for case in values["cases"] if case.get("objective", "DSM") == "DSM" and case["N"] == _DEPTH
    ]
    specs = [
        spec
        for spec in values["inputs"]["optimizers"]
        if any(case["optimizer"] == spec["name"] for case in cases)
    ]

    def errors_of(pair: tuple[str, dict[str, Any]]) -> list[float]:
        strategy, spec = pair
        with jax.enable_x64(precision == "float64"), product_precision("float32"):
            run = jax.jit(_golden_gradient(golden, values["inputs"], spec, _STRATEGIES[strategy]))
            expected = [
                (case["tau"], golden.theta_of(case["hypergrad"]))
                for case in cases
                if case["optimizer"] == spec["name"]
            ]
            return [_relative_error(run(tau), gradient) for tau, gradient in expected]

    pairs = [(strategy, spec) for strategy in strategies for spec in specs]
    errors = _in_threads(errors_of, pairs)
    worst = {
        name: max(max(found) for (strategy, _), found in zip(pairs, errors, strict=True) if strategy == name)
        for name in strategies
    }
    return _judged(worst, precision)


def _golden_gradient(golden: Any, inputs: Any, spec: Any, strategy: Unrolled) -> Callable[[Any], Any]:
    def gradient(temperature: Any) -> Any:
        losses, problem, lower_input, theta, phi, v = golden.setup(inputs, spec, temperature)
        steps = jnp.zeros(strategy.num_steps, jnp.int32)
        stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None][steps], lower_input)
        outer = golden.noise(inputs, "outer")
        return jax.grad(losses.unrolled_loss, has_aux=True)(theta, phi, v, outer, strategy, problem, stacked)[
            0
        ]

    return gradient


def _strategies(
    bench_of: Callable[[str], Bench], model: str, precision: str, strategies: Sequence[str]
) -> dict[str, Any]:
    """Against plain reverse mode in float64 on the CPU of the machine."""
    bench = bench_of(model)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        exact = bench.gradient(_STRATEGIES["plain_scan"], np.float64)

    def error(strategy: str) -> float:
        dtype = np.float64 if precision == "float64" else np.float32
        products = "TF32" if precision == "TF32" else "float32"
        with jax.enable_x64(precision == "float64"), product_precision(products):
            return _relative_error(bench.gradient(_STRATEGIES[strategy], dtype), exact)

    return _judged(dict(zip(strategies, _in_threads(error, strategies), strict=True)), precision)


def _donation() -> dict[str, Any]:
    """A step that takes the memory of its state gives what one does that leaves it alone."""
    algorithm = METHOD.make().bind(GRBM(4), BernoulliPosterior(4))
    v, key = jax.random.uniform(jax.random.key(0), (100, 2)), jax.random.key(1)
    state = algorithm.init(key, v)
    with product_precision("float32"):
        expected, _ = jax.jit(algorithm.step)(key, state, v)
        given = jax.tree.map(jnp.copy, state)
        found, _ = jax.jit(algorithm.step, donate_argnums=1)(key, given, v)
    is_taken = all(leaf.is_deleted() for leaf in jax.tree.leaves(given.theta))
    columns = _judged({"donated": _relative_error(found.theta, expected.theta)}, "float32")
    return {**columns, "donated_is_gone": is_taken}


def _layouts() -> dict[str, Any]:
    """`fit` in float64 by one program over all devices, and by `pmap`."""
    rows = np.random.default_rng(0).uniform(size=(1000, 2))

    def theta(parallel: Any) -> Any:
        with jax.enable_x64(True):
            model = (GRBM(4), BernoulliPosterior(4))
            return bism_jax.fit(
                *model, rows, method=METHOD.make(), num_steps=20, parallel=parallel, progress=False, **_RUN
            ).theta

    by_jit, by_pmap = theta("jit"), theta("pmap")
    return _judged({"pmap_from_jit": _relative_error(by_pmap, by_jit)}, "float64")


def _fit(context: Context) -> dict[str, Any]:
    """The whole run of the checkerboard with its exact log-likelihood on the test set."""
    splits = checkerboard_splits(jax.random.key(0))
    model = GRBM(4)
    trained = train_until(
        context.deadline - 10,
        context.folder("checkerboard"),
        model,
        BernoulliPosterior(4),
        splits.train,
        300 if context.options.quick else 100_000,
        method=METHOD.make(),
        **_RUN,
    )
    columns = {
        **trained.columns,
        "log_likelihood": float(log_likelihood(model, trained.theta, splits.test).mean()),
        "log_likelihood_ema": float(log_likelihood(model, trained.theta_ema, splits.test).mean()),
        "on_a_cpu": None if context.options.quick else 0.327,  # of 10 seeds, docs/results
    }
    return columns if trained.is_whole else {**columns, "status": PARTIAL, "error": "the next call goes on"}
