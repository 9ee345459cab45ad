"""Files that survive: write, sync, put in place, lock."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from confshift.storage.disk import PLAIN, Bytes, Disk

try:
    import fcntl
except ImportError:  # not a POSIX system: without locks, litter stays
    fcntl = None  # type: ignore[assignment]

#: Whether this system has locks at all.
HAS_LOCKS = fcntl is not None

#: The lock file of a run. It stays, and has a byte for each change that was announced.
LOCK = ".lock"

#: The lock files of the processes that save in a run, each locked as long as its process runs.
SIGN = re.compile(r"\.writer-[0-9a-f]{16}\.lock")

_NO_LINKS = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_NO_LOCKS = {errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


#: The one disk that all code uses.
DISK = Disk()


def unique_name(prefix: str, suffix: str) -> str:
    """Return a file name that no other process uses."""
    return f"{prefix}-{uuid.uuid4().hex}{suffix}"


def make_folders(path: Path) -> None:
    """Make a folder and those above it, if missing, and sync their names to the disk."""
    if not path.parent.exists():
        make_folders(path.parent)
    with contextlib.suppress(FileExistsError):
        DISK.make_folder(path)
    DISK.sync_folder(path.parent)  # also if another writer has just made it


def make_new_folder(parent: Path, name: str) -> Path:
    """Make a new folder for this process alone: `parent/name`, or `parent/name-2`, ... if that exists."""
    make_folders(parent)
    for number in itertools.count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            DISK.make_folder(path)
            break
    DISK.sync_folder(parent)
    return path


def remove(paths: Iterable[Path]) -> None:
    """Remove files that nothing refers to any more; one that can't be removed is ignored."""
    for path in paths:
        with contextlib.suppress(OSError):
            DISK.unlink(path)


def write_file(path: Path, pieces: Iterable[Bytes]) -> None:
    """Write a new file and sync it; if that fails, remove it."""
    descriptor = DISK.create(path)
    try:
        try:
            for piece in pieces:
                DISK.write(descriptor, piece)
            DISK.sync(descriptor)
        finally:
            DISK.close(descriptor)
    except BaseException:
        remove([path])
        raise


@contextlib.contextmanager
def hold_lock(descriptor: int, *, wait: bool) -> Iterator[bool | None]:
    """Lock an open file until this context ends, even if the descriptor is closed before.

    Gives False if another process holds the lock, None if there are no locks.
    """
    if not HAS_LOCKS:
        yield None
        return
    second = os.dup(descriptor)
    try:
        yield _flocked(second, wait)
    finally:
        os.close(second)


def _flocked(descriptor: int, wait: bool) -> bool | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def put(path: Path, content: bytes) -> None:
    """Make a small file appear whole under its name, or not at all; an existing name is FileExistsError.

    When this returns, the file and its name are on the disk. Where the file system has no hard links, an
    empty file `<name>.claim` decides between two writers: the one that made it may rename. A claim whose
    owner was killed blocks its name for ever, so a caller goes on to another name.
    """
    draft = path.with_name(unique_name(path.stem, ".tmp"))
    write_file(draft, [content])
    try:
        try:
            DISK.link(draft, path)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _put_by_claim(draft, path)
        DISK.sync_folder(path.parent)
    finally:
        remove([draft])


def _put_by_claim(draft: Path, path: Path) -> None:
    claim = path.with_name(path.name + ".claim")
    DISK.close(DISK.create(claim))
    try:
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        DISK.rename(draft, path)
    finally:
        remove([claim])


@dataclass(frozen=True)
class Lock:
    """A run's lock, which this process has."""

    _descriptor: int

    def lengthen(self) -> None:
        """Add a byte to the lock file, so that others see that something changes."""
        DISK.lengthen(self._descriptor)


@contextlib.contextmanager
def lock(folder: Path, *, exclusive: bool) -> Iterator[Lock | None]:
    """Hold a run's lock: shared while saving, exclusive while removing files that no record names.

    Gives None if this process does not get it. It waits for a shared lock, not for an exclusive one. The
    system releases the locks of a process that dies. Without locks the answer is always None: saving needs
    none (it only adds files), and nothing is tidied up.
    """
    descriptor = _locked(folder / LOCK, exclusive) if HAS_LOCKS else None
    try:
        yield None if descriptor is None else Lock(descriptor)
    finally:
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked process may have inherited it
            os.close(descriptor)


def _locked(path: Path, exclusive: bool) -> int | None:
    how = fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH
    while True:
        descriptor = DISK.open_lock(path)
        try:
            fcntl.flock(descriptor, how)
            if os.path.samestat(os.fstat(descriptor), DISK.status(path, follow=True)):
                return descriptor
        except FileNotFoundError:
            pass  # the run was deleted
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError) or error.errno in _NO_LOCKS:
                return None
            raise
        os.close(descriptor)  # the run was deleted meanwhile: that lock is no longer in use


def sign_of(writer: str) -> str:
    """Return the name of a writer's lock file."""
    return f".writer-{writer}.lock"


def show_sign(folder: Path, writer: str) -> int | None:
    """Lock the file that shows other processes that this writer is running; None without locks.

    The system unlocks it when the process ends, however that happens.
    """
    return _locked(folder / sign_of(writer), exclusive=False) if HAS_LOCKS else None


def hide_sign(sign: int) -> None:
    """Close a writer's lock file; a forked process has its parent's open too."""
    os.close(sign)


def shows_sign(folder: Path, writer: str) -> bool:
    """Tell whether a writer is running; without locks it counts as ended."""
    path = folder / sign_of(writer)
    return SIGN.fullmatch(path.name) is not None and is_shown(path)


def is_shown(sign: Path) -> bool:
    """Tell whether the process of a lock file is still running."""
    try:
        descriptor = os.open(sign, os.O_RDWR | PLAIN)
    except OSError:
        return False
    try:
        with hold_lock(descriptor, wait=False) as dead:
            return dead is False
    finally:
        os.close(descriptor)
