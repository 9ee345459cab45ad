"""Opening files that anyone may have put there: ordinary ones, of a known size, never through a link."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from confshift.errors import ConfshiftError, Refusal
from confshift.storage import files

_ABSENT = (FileNotFoundError, NotADirectoryError)
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def status_of(path: Path) -> os.stat_result | None:
    """Return the status of a path, of a link its own; None if it does not exist.

    Raises
    ------
    ConfshiftError
        Where that can't be determined: no permission, a name that is too long, a disk that fails.
    """
    try:
        return files.DISK.status(path)
    except _ABSENT:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def is_folder(path: Path) -> bool:
    """Tell whether a path leads to a folder, also through links; errors as in :func:`status_of`."""
    try:
        return stat.S_ISDIR(files.DISK.status(path, follow=True).st_mode)
    except _ABSENT:
        return False
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def entries_of(folder: Path) -> list[Path]:
    """Return the paths in a folder, none if it does not exist; errors as in :func:`status_of`."""
    try:
        return [folder / name for name in files.DISK.names(folder)]
    except _ABSENT:
        return []
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error


def names_in(folder: Path) -> set[str]:
    """Return the names in a folder; as :func:`entries_of`, for folders of thousands of files."""
    try:
        return set(files.DISK.names(folder))
    except _ABSENT:
        return set()
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error


def size_of(path: Path) -> int:
    """Return the size of an ordinary file; a symbolic link, a pipe or a device is refused.

    Raises
    ------
    ConfshiftError
        Where the file is missing, unreadable or not an ordinary file.
    """
    return _ordinary(path, follow=False).st_size


def _ordinary(path: Path, *, follow: bool) -> os.stat_result:
    try:
        status = files.DISK.status(path, follow=follow)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        raise ConfshiftError(f"{path} is {kind}, not an ordinary file; it is not read")
    return status


@contextlib.contextmanager
def open_plain(path: Path, *, follow: bool = False) -> Iterator[BinaryIO]:
    """Open an ordinary file for reading, as :func:`size_of` allows; with `follow` also through links."""
    status = _ordinary(path, follow=follow)
    try:
        stream = files.DISK.open_reading(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    with stream:
        if not os.path.samestat(os.fstat(stream.fileno()), status):
            raise ConfshiftError(f"{path} was changed while it was opened; try again")
        try:
            yield stream
        except OSError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError | ValueError) -> ConfshiftError:
    if isinstance(error, FileNotFoundError):
        return ConfshiftError(f"{path} is missing")
    if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:  # ValueError: a NUL in the name
        reason = str(error) if isinstance(error, ValueError) else error.strerror
        return Refusal(f"{str(path)!r} can't be a name on this disk: {reason}; use another name")
    return ConfshiftError(f"{path} can't be read: {error.strerror}")


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Read a small ordinary file; one over `limit` bytes is refused unread."""
    with open_plain(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            raise ConfshiftError(f"{path} has {size} bytes, more than the {limit} that are allowed")
        return stream.read(limit + 1)
