"""Where data sets lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from bism_jax import checks

DATA_DIRECTORY_VARIABLE = "BISM_JAX_DATA"


def data_directory(data_dir: str | Path | None = None) -> Path:
    """The folder that holds the data sets, one sub-folder each.

    Args:
        data_dir: the folder; None takes it from the environment variable `BISM_JAX_DATA`.

    Raises:
        FileNotFoundError: neither is given, or what is given is no folder.
        TypeError: for anything but a path.
    """
    if data_dir is not None:
        return _existing(checks.path("data_dir", data_dir), "data_dir")
    from_environment = os.environ.get(DATA_DIRECTORY_VARIABLE)
    if from_environment:
        return _existing(Path(from_environment), DATA_DIRECTORY_VARIABLE)
    raise FileNotFoundError(
        f"There is no data folder to read from: pass data_dir, or set the environment variable "
        f"{DATA_DIRECTORY_VARIABLE} to the folder that holds the data sets."
    )


def _existing(directory: Path, source: str) -> Path:
    # A shell expands ~, a file of environment variables or a string in Python does not.
    directory = directory.expanduser()
    if not directory.is_dir():
        raise FileNotFoundError(
            f"{source} names {str(directory)!r}, which is no folder; give the one that holds the data sets."
        )
    return directory
