"""The same iterations by PyTorch, in a process in which JAX leaves the accelerator alone."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator.cases import Case, Context, UnavailableError
from benchmarks.accelerator.measure import time_iterations
from benchmarks.accelerator.paper_networks import Setting, configuration, settings
from benchmarks.rivals.task import Task
from experiments.imaging.networks import make_energy, make_posterior

_MIB = 2**20


def device() -> str:
    """PyTorch's, since JAX's is the CPU here."""
    torch = _import("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "cpu"


def cases(context: Context) -> list[Case]:
    """Unrolled by hand, and once by `higher`."""
    chosen = settings(context.options.quick)
    run = functools.partial(_iteration, context)
    by_hand = [Case(setting.name, functools.partial(run, setting, "Eager")) for setting in chosen]
    first = chosen[0]._replace(precision="float32")
    return [*by_hand, Case(f"{first.name}, by higher", functools.partial(run, first, "Higher"))]


def _import(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        return None


def _iteration(context: Context, setting: Setting, implementation: str) -> dict[str, Any]:
    torch = _import("torch")
    if torch is None:
        raise UnavailableError("torch is not installed")
    if implementation == "Higher" and _import("higher") is None:
        raise UnavailableError("higher is not installed")
    from benchmarks.rivals import torch_rivals

    on_gpu = torch.cuda.is_available()
    torch.backends.cudnn.benchmark = True  # as XLA tries out its convolutions
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = setting.precision != "float32"
    rival = getattr(torch_rivals, implementation)(_task(context, setting), "cuda" if on_gpu else "cpu")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with _autocast(torch, setting.precision, on_gpu):
        times = time_iterations(rival.run, 0.05 if context.options.quick else 1.0)
    return {**times, "peak_mib": torch.cuda.max_memory_allocated() / _MIB if on_gpu else None}


def _autocast(torch: Any, precision: str, on_gpu: bool) -> Any:
    if precision != "bfloat16":
        return contextlib.nullcontext()
    return torch.autocast("cuda" if on_gpu else "cpu", torch.bfloat16)


def _task(context: Context, setting: Setting) -> Task:
    config = configuration(setting, context.options.quick)
    energy, posterior = make_energy(config), make_posterior(config)
    v = np.random.default_rng(0).uniform(size=(config.batch_size, *config.image_shape)).astype(np.float32)
    theta = jax.jit(energy.init)(
        jax.random.key(1), v, np.zeros((len(v), config.network.num_hidden), np.float32)
    )
    phi = jax.jit(posterior.init)(jax.random.key(2), v)
    std = np.geomspace(config.training.min_std, config.training.max_std, len(v)).astype(np.float32)
    return Task(
        "image", energy, posterior, theta, phi, v, std, config.training.lower_steps, setting.num_steps
    )
