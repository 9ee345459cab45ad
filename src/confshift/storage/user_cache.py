"""The user's cache folder: what is slow to make, and needed again by the next page."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from confshift.errors import ConfshiftError
from confshift.storage import files
from confshift.storage.saving import save_file

#: Values that were derived from runs take at most so many bytes of the folder.
MOST_DERIVED = 1 << 29


def cached_file(name: str) -> Path:
    """Return the place of a file of the cache, which may not be there."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.expanduser fails where there is no home
    places = Path(os.environ.get("XDG_CACHE_HOME", "")), Path(home, ".cache")
    # Not in the present folder, which may be a run; where no folder is named, nothing is cached.
    folder = next((place for place in places if place.is_absolute()), Path(os.path.devnull))
    return folder / "confshift" / name


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


def read_derived(key: str) -> bytes | None:
    """Return what `write_derived` kept by a key, by this code."""
    return read_own(_name_of(key))


def write_derived(key: str, body: bytes) -> None:
    """Keep what was derived from a run; the values that nobody wrote for longest make room for it."""
    write_own(_name_of(key), body)
    with suppress(OSError, ValueError):
        kept = [(file.stat(), file) for file in cached_file("").glob("derived-*")]
        kept.sort(key=lambda entry: entry[0].st_mtime, reverse=True)
        files.remove(_beyond(kept))


def _beyond(kept: list[tuple[os.stat_result, Path]]) -> Iterator[Path]:
    total = 0
    for place, (status, file) in enumerate(kept):
        total += status.st_size
        if total > MOST_DERIVED and place:
            yield file


def _name_of(key: str) -> str:
    return f"derived-{hashlib.sha256(f'{_code()} {key}'.encode()).hexdigest()}"


@cache
def _code() -> str:
    """Return what tells this code from another version: the package's files, and what it computes with."""
    sources = [file for file in sorted(Path(__file__).parent.parent.rglob("*.py")) if file.is_file()]
    known = [(file.name, (status := file.stat()).st_size, status.st_mtime_ns) for file in sources]
    return f"{known} {np.__version__} {version('scipy')}"


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
