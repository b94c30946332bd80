"""What a command line answers where its user gave it something wrong: one line, and exit status 2."""

from __future__ import annotations

import errno
import importlib.util
import linecache
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# Found without being imported, as some command lines start before JAX may be.
_SPECS = [importlib.util.find_spec(name) for name in ("bism_jax", "benchmarks", "experiments")]
_ROOTS = [Path(spec.origin).parent for spec in _SPECS if spec is not None and spec.origin is not None]
_REFUSALS = (ValueError, TypeError, OSError, ImportError)
# Causes that are a mistake in the code rather than in what it was given.
_BUGS = (TypeError, AttributeError, LookupError, NameError, AssertionError)
# What a file system says of a path; other operating system errors keep their traceback.
_OF_PATHS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.ENOSPC)


def run_command(command: Callable[[], Any]) -> None:
    """Runs the body of a command line.

    A message of `SystemExit`, and an error that the project itself raises of what it was given, end in one
    line on stderr and exit status 2; so does a path that cannot be written. Any other error is a mistake in
    the code and keeps its traceback.
    """
    try:
        command()
    except _REFUSALS as error:
        if not is_refusal(error):
            raise
        _end(error)
    except SystemExit as error:
        if not isinstance(error.code, str):
            raise
        _end(error)


def _end(error: BaseException) -> NoReturn:
    message = " ".join(str(error).split())
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    raise SystemExit(2) from None


def is_refusal(error: Exception) -> bool:
    """Whether an error is about what the user gave: raised by a `raise` of our own, or about a path."""
    if isinstance(error, OSError) and error.errno in _OF_PATHS:
        return True
    if isinstance(error.__cause__, _BUGS):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    is_ours = any(Path(last.filename).is_relative_to(root) for root in _ROOTS)
    return is_ours and linecache.getline(last.filename, last.lineno or 0).lstrip().startswith("raise ")
