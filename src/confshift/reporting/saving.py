"""Writing a page or a picture where the reader asked for it."""

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
#: How often another process may replace a page while this one looks where it is.
_MOST_CHANGES = 100
_STANDARD = (1, 2)  # the descriptors of stdout and stderr


def save_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole, as its path asks for it.

    Readers of an ordinary file see the old one or the new one, never a part; its permissions stay. Links
    stay: the file they lead to is replaced. Pipes and devices are written to.

    Raises
    ------
    ConfshiftError
        Where that fails; an ordinary file is then what it was.
    """
    try:
        _write(Path(path), content)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or str(error)
        remedy = _REMEDIES.get(getattr(error, "errno", None) or 0, "give another file")
        raise ConfshiftError(f"path={str(path)!r} can't be written: {reason}; {remedy}") from error


def is_stdout(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is the standard output of this process (`/dev/stdout`, or what it is sent to)."""
    with contextlib.suppress(OSError, ValueError):
        there = Path(path).stat()
        nothing = os.path.samestat(there, Path(os.path.devnull).stat())  # what goes there meets nothing
        return not nothing and os.path.samestat(there, os.fstat(1))
    return False


def _write(path: Path, content: bytes) -> None:
    try:
        there = path.stat()
    except FileNotFoundError:
        there = None
    own = None if there is None else _own_stream(there)
    if own is not None:
        if sys.stdout is not None:
            sys.stdout.flush()  # what was printed before comes before it
        files.DISK.write(own, content)
    elif there is None and not path.is_symlink():
        _replace(path, content, None)
    elif there is None or stat.S_ISREG(there.st_mode):
        _replace(_target(path), content, there)
    elif stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    else:  # a pipe waits for its reader
        _fill(files.DISK.open_existing(path), content)


def _own_stream(there: os.stat_result) -> int | None:
    """Return our own descriptor of a file: what is printed later comes after it, not over it."""
    for descriptor in _STANDARD:
        with contextlib.suppress(OSError):
            if os.path.samestat(there, os.fstat(descriptor)):
                return descriptor
    return None


def _target(path: Path) -> Path:
    """Return the file itself that a path names, through links; a link to nothing gets an empty one.

    The system opens it for writing first: it knows who may, and which links of others not to follow.
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
        with files.hold_lock(descriptor, wait=True):  # who finds the draft knows that it isn't dead
            if taken_for_dead := not draft.exists():
                files.DISK.close(descriptor)
            else:
                _fill(descriptor, content, like)
                files.DISK.rename(draft, path)
    except BaseException:
        files.remove([draft])
        raise
    if taken_for_dead:  # before it was locked
        _replace(path, content, like)


def _fill(descriptor: int, content: bytes, like: os.stat_result | None = None) -> None:
    """Write a file and close it; an ordinary one is on the disk then."""
    try:
        files.DISK.write(descriptor, content)
        if like is not None:
            files.DISK.make_like(descriptor, like)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            files.DISK.sync(descriptor)
    finally:
        files.DISK.close(descriptor)


def _draft_prefix(path: Path) -> str:
    """Return how the drafts of a file are called: its own name may be too long to be made longer."""
    return f".confshift-{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}"


def _remove_dead_drafts(path: Path) -> None:
    """Remove the drafts of a file that killed processes left; where that can't be known they stay."""
    for draft in path.parent.glob(f"{_draft_prefix(path)}-*.tmp"):
        with contextlib.suppress(OSError):
            if stat.S_ISREG(draft.lstat().st_mode):
                with draft.open("rb") as stream, files.hold_lock(stream.fileno(), wait=False) as dead:
                    if dead:
                        files.DISK.unlink(draft)
