"""Opening files that anybody may have put there: ordinary ones, of a known size, never through a link."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from confshift.errors import ConfshiftError

__all__ = ["open_plain", "read_bytes", "size_of"]


def size_of(path: Path) -> int:
    """Return the size of an ordinary file; a symbolic link, a pipe or a device is refused.

    Raises
    ------
    ConfshiftError
        Where the file is missing, unreadable or no ordinary file.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise ConfshiftError(f"{path} is not an ordinary file (a symbolic link?); it is not read")
    return status.st_size


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """Open an ordinary file for reading, as :func:`size_of` allows."""
    size_of(path)
    try:
        status = path.lstat()
        stream = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error
    with stream:
        if not os.path.samestat(os.fstat(stream.fileno()), status):
            raise ConfshiftError(f"{path} was changed while it was opened; try again")
        yield stream


def _unreadable(path: Path, error: OSError) -> ConfshiftError:
    reason = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read: {error.strerror}"
    return ConfshiftError(f"{path} {reason}")


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Read a small ordinary file; one over `limit` bytes is refused unread."""
    size = size_of(path)
    if size > limit:
        raise ConfshiftError(f"{path} has {size} bytes, more than the {limit} it may have")
    with open_plain(path) as stream:
        return stream.read(limit + 1)
