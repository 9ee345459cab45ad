"""The disk: every system call that reads or writes, one method each."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from typing import BinaryIO, TypeAlias

Bytes: TypeAlias = bytes | memoryview

#: For the run's own files: links are not followed.
PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_ANY_FILE = getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Disk:
    """The system calls, one method each, so that a test can make any fail; errors are the system's."""

    def make_folder(self, path: Path) -> None:
        """Make one folder."""
        path.mkdir()

    def create(self, path: Path, mode: int = 0o666) -> int:
        """Open a new file for writing; an existing name is an error."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN, mode)

    def open_existing(self, path: Path) -> int:
        """Open a pipe or a device for writing."""
        return os.open(path, os.O_WRONLY | _ANY_FILE)

    def open_target(self, path: Path) -> int:
        """Open an ordinary file for writing without emptying it, through links too, or make it."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | _ANY_FILE, 0o666)

    def make_like(self, descriptor: int, like: os.stat_result) -> None:
        """Give a file the permissions of another, and its owner and group if that is allowed."""
        if os.name != "nt":  # Windows has no such permissions
            with contextlib.suppress(OSError):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, like.st_mode & 0o777)

    def write(self, descriptor: int, piece: Bytes) -> None:
        """Write all of a piece."""
        rest = memoryview(piece).cast("B")
        while len(rest):
            rest = rest[os.write(descriptor, rest) :]

    def sync(self, descriptor: int) -> None:
        """Wait until a file's bytes are on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file; some systems report a full disk only here."""
        os.close(descriptor)

    def sync_folder(self, path: Path) -> None:
        """Wait until a folder's names are on the disk."""
        if os.name != "nt":  # Windows can't open a folder, and journals names itself
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; an existing name is an error."""
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        """Move a file to another name."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def open_lock(self, path: Path) -> int:
        """Open the lock file, to add bytes at its end; make it if there is none."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | PLAIN, 0o666)

    def lengthen(self, descriptor: int) -> None:
        """Add one byte to a lock file; it need not survive a power loss."""
        os.write(descriptor, b"\n")

    def status(self, path: Path, *, follow: bool = False) -> os.stat_result:
        """Return the status of a name; of a link its own, unless it is followed."""
        return path.stat(follow_symlinks=follow)

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, in no order."""
        return os.listdir(folder)  # noqa: PTH208 - names only, a third of the time

    def open_reading(self, path: Path) -> BinaryIO:
        """Open a file for reading."""
        return path.open("rb")

    def map(self, stream: BinaryIO, size: int) -> mmap.mmap:
        """Map this many bytes of a file into memory, for reading."""
        return mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
