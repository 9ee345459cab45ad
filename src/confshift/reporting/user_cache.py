"""The user's cache folder: what pages share and is slow to make."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from confshift.errors import ConfshiftError
from confshift.reporting.saving import save_file


def cached_file(name: str) -> Path:
    """Return the place of a file of the cache, which may not be there."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.expanduser fails where there is no home
    return Path(os.environ.get("XDG_CACHE_HOME") or Path(home, ".cache"), "confshift", name)


def read_file(file: Path) -> bytes | None:
    """Return what a file holds, None where it can't be read."""
    with suppress(OSError, ValueError):
        if file.is_file():  # not a pipe, which would be waited for
            return file.read_bytes()
    return None


def keep_file(file: Path, content: bytes) -> None:
    """Write a file of the cache, in a folder for this user alone; where that fails, nothing is cached."""
    with suppress(OSError, ValueError, ConfshiftError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        save_file(file, content)


def read_own(name: str) -> bytes | None:
    """Return what `write_own` kept: nothing that others could have written, or that is damaged."""
    file = cached_file(name)
    content = read_file(file) if _is_own(file) else None
    digest, _, body = (content or b"").partition(b"\n")
    return body if content and digest == _digest(body) else None


def write_own(name: str, body: bytes) -> None:
    """Keep something for `read_own`, with its digest."""
    file = cached_file(name)
    keep_file(file, _digest(body) + b"\n" + body)


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode("ascii")


def _is_own(file: Path) -> bool:
    """Return whether a file is this user's, and no other user could have written it."""
    if os.name != "posix":  # without such modes the cache lies in the user's own folder
        return True
    with suppress(OSError, ValueError):
        status, folder = file.lstat(), file.parent.lstat()
        is_closed = not folder.st_mode & 0o077 or not (folder.st_mode | status.st_mode) & 0o022
        return is_closed and status.st_uid == folder.st_uid == os.getuid()
    return False
