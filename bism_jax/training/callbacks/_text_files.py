"""Text files that a kill leaves whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from etils import epath

from bism_jax._paths import is_local


def whole_lines(text: str) -> str:
    """Without the last line, where a kill cut it off."""
    return text[: text.rfind("\n") + 1]


def read_text(file: epath.Path) -> str:
    """The text of a file, empty where there is none."""
    if not file.exists():
        return ""
    # An editor may have put a mark before it. What is no UTF-8 must be read too, to be told from this run's
    # and kept aside.
    return file.read_bytes().decode("utf-8-sig", errors="replace")


def move_aside(file: epath.Path) -> epath.Path:
    """Renames a file to the first of `NAME.edited-1`, `NAME.edited-2`, ... that is free; returns that."""
    number = 1
    while (aside := file.with_name(f"{file.name}.edited-{number}")).exists():
        number += 1
    return file.rename(aside) or aside


def append_text(file: epath.Path, text: str) -> bool:
    """Appends to a file; False where it cannot be: there is none, or it is in a bucket."""
    if not is_local(file) or not file.exists():
        return False
    # newline="": rows of CSV end in \r\n already.
    with _naming(file), open(file, "a", newline="", encoding="utf-8") as stream:
        stream.write(text)
    return True


def replace_text(file: epath.Path, text: str) -> None:
    """Writes a whole file at once, so that a kill loses nothing of the old one."""
    with _naming(file):
        if not is_local(file):  # a bucket replaces an object at once, and has no cheaper rename
            file.write_bytes(text.encode())
            return
        file = epath.Path(os.path.realpath(file))  # of a link, what it points to
        file.parent.mkdir(parents=True, exist_ok=True)
        # The process in its name: `NAME.tmp` may be a user's own file.
        temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        temporary.write_bytes(text.encode())
        temporary.replace(file)


@contextlib.contextmanager
def _naming(file: epath.Path) -> Iterator[None]:
    """Names the log in an error of the system."""
    try:
        yield
    except OSError as error:
        # With its number Python makes it the same subclass again, such as PermissionError.
        raise OSError(
            error.errno,
            f"the log {file} cannot be written ({error.strerror}); see to the space left and the "
            "permissions, or choose another path",
        ) from error
