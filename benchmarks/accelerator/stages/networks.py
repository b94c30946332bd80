"""The rates of the device, and one iteration on the paper's networks against them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.cases import Case, Context
from benchmarks.accelerator.measure import compile_program, measured_peak, time_iterations
from benchmarks.accelerator.paper_networks import (
    PRECISIONS,
    Setting,
    configuration,
    product_precision,
    settings,
)
from bism_jax.training import count_flops
from bism_jax.typing import Algorithm
from experiments.imaging.config import ImageConfig
from experiments.imaging.networks import make_energy, make_method, make_posterior

NAME = "networks"


def cases(context: Context) -> list[Case]:
    """Rates, then iterations."""
    quick = context.options.quick
    rates = [Case(_rate_name(name), functools.partial(_product, name, context)) for name in PRECISIONS]
    transfer = Case("memory and transfers", functools.partial(_transfers, context))
    initial = functools.cache(lambda data: _initial_state(configuration(Setting(data, 0, "TF32"), quick)))
    iterations = [
        Case(setting.name, functools.partial(_iteration, setting, initial, context))
        for setting in settings(quick)
    ]
    return [*rates, transfer, *iterations]


def _rate_name(precision: str) -> str:
    return f"matrix product, {precision}"


def _seconds(context: Context) -> float:
    return 0.05 if context.options.quick else 1.0


def _product(precision: str, context: Context) -> dict[str, Any]:
    """Of square matrices of random numbers; products of zeros can be faster."""
    size = 256 if context.options.quick else 8192
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    with product_precision(precision):
        program = compile_program(jnp.matmul, matrix, matrix)

    def run(count: int) -> None:
        product = matrix
        for _ in range(count):
            product = program.call(matrix, matrix)
        jax.block_until_ready(product)

    times = time_iterations(run, _seconds(context))
    return {"size": size, **times, "tflop_per_s": 2e-9 * size**3 / times["ms"]}


def _transfers(context: Context) -> dict[str, Any]:
    """Of device memory, from and to the host, and of a call that does nothing."""
    count = 2**20 if context.options.quick else 2**28
    values = jax.random.normal(jax.random.key(0), (count,))
    host = np.array(values)
    add = jax.jit(lambda x: x + 1)
    scalar = jnp.zeros(())

    def repeat(call: Any) -> Any:
        return lambda times: [jax.block_until_ready(call()) for _ in range(times)]

    def ms(call: Any) -> float:
        return time_iterations(repeat(call), _seconds(context) / 4)["ms"]

    megabytes = host.nbytes / 1e6
    return {
        "memory_gb_per_s": 2 * megabytes / ms(lambda: add(values)),
        "to_device_gb_per_s": megabytes / ms(lambda: jax.device_put(host)),
        # A copy each time, since an array keeps its copy on the host.
        "to_host_gb_per_s": megabytes / ms(lambda: np.asarray(add(values))),
        "empty_call_ms": ms(lambda: add(scalar)),
    }


def _bind(config: ImageConfig) -> Algorithm:
    return make_method(config).bind(make_energy(config), make_posterior(config))


def _batch(config: ImageConfig) -> Any:
    v = np.random.default_rng(0).uniform(size=(config.batch_size, *config.image_shape))
    return jnp.asarray(v, jnp.float32)


def _initial_state(config: ImageConfig) -> Any:
    """Of every depth and precision, whose parameters are float32."""
    return _bind(config).init(jax.random.key(0), _batch(config))


def _iteration(setting: Setting, initial: Callable[[str], Any], context: Context) -> dict[str, Any]:
    config = configuration(setting, context.options.quick)
    algorithm, v, key = _bind(config), _batch(config), jax.random.key(0)
    state = initial(setting.data)
    with product_precision(setting.precision):
        flop = count_flops(algorithm.step, key, state, v)
        program = compile_program(algorithm.step, key, state, v, donate_argnums=1)
    states = [jax.tree.map(jnp.copy, state)]  # a donated state must not share its arrays

    def run(count: int) -> None:
        for _ in range(count):
            states[0], info = program.call(key, states[0], v)
        jax.block_until_ready((states[0], info))

    times, peak = measured_peak(lambda: time_iterations(run, _seconds(context)))
    rate = flop / 1e9 / times["ms"]
    product = context.value(NAME, _rate_name(setting.precision), "tflop_per_s")
    return {
        **times,
        "gflop": flop / 1e9,
        "tflop_per_s": rate,
        "share_of_product": None if product is None else rate / product,
        "peak_mib": peak,
        **program.columns,
    }
