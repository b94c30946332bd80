"""Programs that are compiled once for all runs."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names another.

    An empty JAX_COMPILATION_CACHE_DIR keeps none.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bism_jax"
    jax.config.update("jax_compilation_cache_dir", str(folder))
