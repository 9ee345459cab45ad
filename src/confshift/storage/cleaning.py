"""Removing from a run folder: what no record needs any more, or the whole run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from confshift.errors import ConfshiftError
from confshift.storage import files
from confshift.storage.catalog import NAMES_FILE, Catalog, Shelf
from confshift.storage.nearby import RUN_FILE
from confshift.storage.record import Record

__all__ = ["delete", "remove_unneeded", "tidy"]

_RUN_DRAFT = re.compile(r"(run|class_names)(-[0-9a-f]{32}\.tmp|\.json\.claim)")


def tidy(catalog: Catalog) -> None:
    """Remove what no record needs, left by a crash.

    Only while nobody saves in the run: another writer's files have no record yet either. What can't be
    removed now stays until the next time.
    """
    if not catalog.path.is_dir():
        return
    with files.lock(catalog.path, exclusive=True) as alone:
        if not alone:
            return
        files.remove(_run_drafts(catalog))
        if catalog.exists():
            classes = len(catalog.class_names())
            for folder in catalog.folders():
                shelf = catalog.shelf(folder.name, classes)
                _remove(shelf, shelf.replaced, shelf.other_files)


def remove_unneeded(catalog: Catalog, split: str, classes: int, records: Iterable[Record]) -> None:
    """Remove these records and their files, as far as no record that counts needs them."""
    shelf = catalog.shelf(split, classes)
    own = {record.name: record for record in records}
    _remove(
        shelf,
        [record for record in shelf.replaced if record.name in own],
        [shelf.folder / stored.name for record in own.values() for stored in record.files],
    )


def _remove(shelf: Shelf, records: list[Record], others: Iterable[Path]) -> None:
    """Remove records, then files that no other record names; none while a record is unreadable."""
    if shelf.unreadable:
        return
    files.remove(shelf.folder / record.name for record in records)
    gone = {record.name for record in records}
    needed = {one.name for record in shelf.readable if record.name not in gone for one in record.files}
    files.remove(path for path in others if path.name not in needed)


def delete(catalog: Catalog) -> None:
    """Remove every file a run holds, then the folders that are empty by that.

    Records go before their files and run.json last: until it goes, the folder is a run.

    Raises
    ------
    ConfshiftError
        Where the folder is no run, another process is saving, or a file can't be removed.
    """
    classes = len(catalog.class_names())
    try:
        with files.lock(catalog.path, exclusive=True) as alone:
            if not alone and files.HAS_LOCKS:
                raise ConfshiftError(f"{catalog.path}: another process is saving in this run; it stays")
            shelves = [catalog.shelf(folder.name, classes) for folder in catalog.folders()]
            for shelf in shelves:
                for path in (*shelf.record_files, *shelf.other_files):
                    files.DISK.unlink(path)
            files.remove([*_run_drafts(catalog), catalog.path / NAMES_FILE, catalog.path / files.LOCK])
            files.DISK.unlink(catalog.path / RUN_FILE)
        for folder in (*(shelf.folder for shelf in shelves), catalog.path):
            with contextlib.suppress(OSError):  # it holds files of others
                files.DISK.remove_folder(folder)
    except OSError as error:
        raise ConfshiftError(f"{catalog.path} was not deleted: {error}") from error


def _run_drafts(catalog: Catalog) -> list[Path]:
    return [path for path in catalog.path.iterdir() if _RUN_DRAFT.fullmatch(path.name)]
