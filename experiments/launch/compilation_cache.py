"""Programs that are compiled once for all runs."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names another.

    An empty JAX_COMPILATION_CACHE_DIR keeps none. Those that compile fast are kept too, unless
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS says otherwise.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bism_jax"
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # JAX's second leaves out five of the six programs of a small `fit`: 2.3 instead of 1.6 CPU seconds.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
