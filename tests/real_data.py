"""The folder of real data sets: where there is none, tests skip, or fail in continuous integration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bism_jax.data import data_directory


@pytest.fixture
def real_data_dir() -> Path:
    """The folder that `BISM_JAX_DATA` names; without it the test skips, or fails where `CI` is "true"."""
    if os.environ.get("BISM_JAX_DATA"):
        return data_directory()
    reason = "needs real data: set BISM_JAX_DATA to the folder that holds the data sets"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
