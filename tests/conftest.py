"""Shared fixtures, and how the programs of tests are compiled."""

import os
from pathlib import Path

import jax
import pytest

from tests.real_data import real_data_dir

__all__ = ["real_data_dir"]

_CACHE = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_configure(config):
    """Leaves out XLA's emitters of fusions where all tests are quick ones, before XLA reads its flags.

    Most of a quick test is the compilation of what then runs a few times. One iteration of BiSM takes XLA
    1.9 s of CPU, at level 0 1.1 s, and without these emitters besides 0.3 s. JAX 0.12 has no such flag,
    and refuses those that it does not know.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    is_quick = config.option.markexpr == "not slow" and jax.__version_info__[:2] == (0, 10)
    if is_quick and "fusion_emitters" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """XLA optimises where a test runs long or measures the program, and in the processes it starts."""
    is_off = not any(item.get_closest_marker(name) for name in ("slow", "optimized"))
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(is_off))
    jax.config.update("jax_disable_most_optimizations", is_off)


@pytest.fixture
def x64():
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield
