"""Putting a whole file in place of another."""

from __future__ import annotations

from pathlib import Path

from confshift.storage import files

__all__ = ["replace_file"]


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole: readers see the old one or the new one, and a failure leaves the old one."""
    draft = path.with_name(files.unique_name(path.stem, ".tmp"))
    files.write_file(draft, [content])
    try:
        files.DISK.rename(draft, path)
    except BaseException:
        files.remove([draft])
        raise
