"""Libraries of the extra `data`, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any


def import_extra(module: str) -> Any:
    """The module of that name.

    Raises:
        ImportError: it cannot be imported; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"Reading this image set needs {package}, which cannot be imported ({error}); "
            "install it with: pip install 'bism-jax[data]'"
        ) from error
