"""Paths of a user: on this machine, in the home folder, or in a bucket."""

from __future__ import annotations

import os
import re
from typing import Any

from etils import epath

# A path made by pathlib has lost the second slash of its scheme; one letter is a drive of Windows.
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/(/?)")


def as_path(name: str, value: Any) -> epath.Path:
    """`value` as an absolute path, with `~` expanded; `gs://` and every scheme that epath knows are kept.

    Raises:
        TypeError: for anything but a path.
        ValueError: for an empty path, a scheme that is unknown, or one that nothing installed can reach.
    """
    text = _text_of(name, value)
    scheme = _SCHEME.match(text)
    if scheme is None:
        path = epath.Path(text).expanduser()
        return epath.Path(os.path.abspath(path))
    if not scheme.group(2):
        raise ValueError(
            f"{name}={text!r} has lost a slash, as pathlib's paths do; pass the string "
            f"'{scheme.group(1)}://...', or an etils.epath.Path."
        )
    return _reachable(name, text, scheme.group(1))


def is_unicode(text: str) -> bool:
    """Whether every character of it is one, and not half of a pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text_of(name: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"{name} must be a path, not {value!r}.")
    text = os.fspath(value)
    if text == "":
        raise ValueError(f"{name} is empty; pass a path.")
    # The system's own error would not name the argument.
    if "\0" in text:
        raise ValueError(f"{name}={text!r} holds a null character; pass another path.")
    if not is_unicode(text):
        raise ValueError(f"{name}={text!r} holds what is no character; pass another path.")
    return text


def _reachable(name: str, text: str, scheme: str) -> epath.Path:
    """A path with a scheme; epath raises errors of many types where what reads it is not installed."""
    try:
        path = epath.Path(text)
    except KeyError as error:
        raise ValueError(
            f"{name}={text!r}: the scheme {scheme}:// is unknown; pass a folder, gs://BUCKET/..., or another "
            "scheme of etils.epath."
        ) from error
    try:
        # epath looks for the library that reads a scheme at the first access only.
        path.exists()
    except Exception as error:
        raise ValueError(
            f"{name}={text!r} cannot be reached ({type(error).__name__}: {error}); install what reads "
            f"{scheme}:// (for gs:// it is tensorflow or gcsfs), see to its permissions, or pass a folder."
        ) from error
    return path


def is_local(path: epath.Path) -> bool:
    """Whether it is on a file system of this machine, where files can be appended to and locked."""
    return "://" not in os.fspath(path)
