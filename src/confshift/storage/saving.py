"""Writing a page or a picture to the path that the user gave."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
from pathlib import Path

from confshift.errors import ConfshiftError
from confshift.storage import files

_NO_FOLDER = "give a file in a folder that exists"
_NOT_ALLOWED = "give a file that you may write, in a folder that you may write to"
_FULL = "give a file on a disk with space left"
_REMEDIES = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), _NO_FOLDER),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _NOT_ALLOWED),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _FULL),
    errno.EFBIG: "lift the limit on the size of files (ulimit -f unlimited)",
    errno.EISDIR: "give the name of a file, not of a folder",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "give a file that is not a circle of links",
}
#: How often another process may replace a page while this one resolves its path.
_MOST_CHANGES = 100
_STANDARD = (1, 2)  # the descriptors of stdout and stderr


def save_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a whole file, in the way that suits the kind of its path.

    Readers of an ordinary file see the old one or the new one, never a part; its permissions stay. A link
    stays, and the file that it leads to is replaced. Pipes and devices are written to.

    Raises
    ------
    ConfshiftError
        Where that fails; an ordinary file then stays as it was.
    """
    try:
        _write(Path(path), content)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or str(error)
        remedy = _REMEDIES.get(getattr(error, "errno", None) or 0, "give another file")
        raise ConfshiftError(f"path={str(path)!r} can't be written: {reason}; {remedy}") from error


def is_stdout(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is the standard output of this process (`/dev/stdout`, or where it leads)."""
    with contextlib.suppress(OSError, ValueError):
        status = Path(path).stat()
        nothing = os.path.samestat(status, Path(os.path.devnull).stat())  # nothing on it can be overwritten
        return not nothing and os.path.samestat(status, os.fstat(1))
    return False


def _write(path: Path, content: bytes) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        status = None
    stream = None if status is None else _own_stream(status)
    if stream is not None:
        if sys.stdout is not None:
            sys.stdout.flush()  # earlier output comes first
        files.DISK.write(stream, content)
    elif status is None and not path.is_symlink():
        _replace(path, content, None)
    elif status is None or stat.S_ISREG(status.st_mode):
        _replace(_target(path), content, status)
    elif stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    else:  # a pipe waits for its reader
        _fill(files.DISK.open_existing(path), content)


def _own_stream(status: os.stat_result) -> int | None:
    """Return this process's own descriptor of a file, so that later output follows it, not overwrites it."""
    for descriptor in _STANDARD:
        with contextlib.suppress(OSError):
            if os.path.samestat(status, os.fstat(descriptor)):
                return descriptor
    return None


def _target(path: Path) -> Path:
    """Return the file that a path leads to through links; create an empty one behind a dangling link.

    It opens the file for writing first, so that the system decides who may, and which links of other users
    not to follow.
    """
    for _ in range(_MOST_CHANGES):
        descriptor = files.DISK.open_target(path)
        try:
            target = Path(os.path.realpath(path))
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), target.lstat()):
                    return target
        finally:
            files.DISK.close(descriptor)
    raise OSError(errno.EAGAIN, "it changes all the time", str(path))


def _replace(path: Path, content: bytes, like: os.stat_result | None) -> None:
    """Put a whole file in place of another, with the permissions of `like`; a failure leaves the old one."""
    _remove_dead_drafts(path)
    draft = path.with_name(files.unique_name(_draft_prefix(path), ".tmp"))
    descriptor = files.DISK.create(draft, 0o666 if like is None else 0o600)
    try:
        with files.hold_lock(descriptor, wait=True):  # the lock shows others that the draft isn't dead
            if is_gone := not draft.exists():
                files.DISK.close(descriptor)
            else:
                _fill(descriptor, content, like)
                files.DISK.rename(draft, path)
    except BaseException:
        files.remove([draft])
        raise
    if is_gone:  # another process removed it before it was locked
        _replace(path, content, like)


def _fill(descriptor: int, content: bytes, like: os.stat_result | None = None) -> None:
    """Write a file and close it; an ordinary one is on the disk afterwards."""
    try:
        files.DISK.write(descriptor, content)
        if like is not None:
            files.DISK.make_like(descriptor, like)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            files.DISK.sync(descriptor)
    finally:
        files.DISK.close(descriptor)


def _draft_prefix(path: Path) -> str:
    """Return the prefix of a file's drafts, of fixed length: the file's name may be too long to extend."""
    return f".confshift-{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}"


def _remove_dead_drafts(path: Path) -> None:
    """Remove the drafts of a file that killed processes left; where that is uncertain they stay."""
    for draft in path.parent.glob(f"{_draft_prefix(path)}-*.tmp"):
        with contextlib.suppress(OSError):
            if stat.S_ISREG(draft.lstat().st_mode):
                with draft.open("rb") as stream, files.hold_lock(stream.fileno(), wait=False) as dead:
                    if dead:
                        files.DISK.unlink(draft)
