"""A folder that belongs to one run at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from etils import epath
from filelock import FileLock, Timeout

from bism_jax._paths import is_local

_NAME = ".lock"  # hidden, and never taken for a checkpoint, whose name is a number


@contextlib.contextmanager
def hold(folder: epath.Path) -> Iterator[None]:
    """Makes the folder and keeps other runs out of it, until the end of the block or of the process.

    The system releases the lock of a process that is killed. Buckets have no locks: there nothing is held.

    Raises:
        ValueError: where another run holds the folder, or it cannot be written to.
    """
    if not is_local(folder):
        yield
        return
    # Before they are made: of a run that is refused, these and no others are removed.
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Each run has a lock of its own, also two of one process. It does not wait: the other may take days.
        lock = FileLock(str(folder / _NAME), timeout=0, thread_local=False)
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"checkpoint_dir={folder} is in use by another run; wait for its end, or choose another "
            "checkpoint_dir."
        ) from error
    except OSError as error:
        raise ValueError(
            f"checkpoint_dir={folder} cannot be written to ({error}); see to its permissions and the space "
            "left, or choose another checkpoint_dir."
        ) from error
    try:
        yield
    finally:
        lock.release()
        if new and [path.name for path in folder.iterdir()] == [_NAME]:  # it was refused before it began
            (folder / _NAME).unlink()
            for path in new:
                if not any(path.iterdir()):
                    path.rmdir()
