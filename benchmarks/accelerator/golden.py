"""The golden values of the tests, which an independent implementation computed in float64."""

from __future__ import annotations

import importlib
import os
from typing import Any

from benchmarks.accelerator.cases import UnavailableError


def load_golden() -> tuple[Any, dict[str, Any]]:
    """The tests' module that sets up the problem, and the inputs and cases.

    Raises:
        UnavailableError: where the tests or their values are not there.
    """
    try:
        golden: Any = importlib.import_module("tests.golden")
    except ImportError as error:
        raise UnavailableError("the golden values are in tests/, which is not here") from error
    if not hasattr(golden, "available"):
        return golden, golden.load()
    if not golden.available():
        raise UnavailableError("the golden values are looked for beside BISM_JAX_DATA, where they are not")
    return golden, golden.load(os.environ["BISM_JAX_DATA"])
