"""Removing from a run folder: files that no record needs any more, or the whole run."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from confshift.errors import ConfshiftError
from confshift.storage import files
from confshift.storage.finding_runs import RUN_FILE
from confshift.storage.reading import entries_of, open_plain
from confshift.storage.record import Record
from confshift.storage.run_folder import NAMES_FILE, RunFolder
from confshift.storage.split_folder import SplitFolder

_RUN_DRAFT = re.compile(r"(run|class_names)(-[0-9a-f]{32}\.tmp|\.json\.claim)")
_PAGE_DRAFT = re.compile(r".+-[0-9a-f]{32}\.tmp")
_DRAFT = "a draft of a save that was never finished"
_ENDED = "the lock of a process that has ended"
_LIVES = "a process that saves in this run is still running"


def tidy(run_folder: RunFolder) -> None:
    """Remove files that a crash left and no record needs.

    It does nothing while a process saves in the run, since another writer's files have no record yet either.
    A file that can't be removed now stays until the next time.
    """
    if not run_folder.path.is_dir():
        return
    with files.lock(run_folder.path, exclusive=True) as alone:
        if not alone:
            return
        files.remove(_run_drafts(run_folder))
        files.remove(path for path in _signs(run_folder) if not files.is_shown(path))
        if run_folder.exists():
            classes = len(run_folder.class_names())
            for folder in run_folder.folders():
                with contextlib.suppress(ConfshiftError):  # it can't be read: its files stay
                    if run_folder.memory(folder.name, classes).is_tidy():
                        continue
                    split_folder = run_folder.split_folder(folder.name, classes)
                    _remove(split_folder, split_folder.replaced, split_folder.other_files)


def remove_unneeded(run_folder: RunFolder, split: str, classes: int, records: Iterable[Record]) -> None:
    """Remove these records and their files, except those that a current record needs."""
    split_folder = run_folder.split_folder(split, classes)
    own = {record.name: record for record in records}
    _remove(
        split_folder,
        [record for record in split_folder.replaced if record.name in own],
        [split_folder.folder / stored.name for record in own.values() for stored in record.files],
    )


def _remove(split_folder: SplitFolder, records: list[Record], others: Iterable[Path]) -> None:
    """Remove records, then files that no other record names; nothing while a record is unreadable."""
    if split_folder.unreadable:
        return
    files.remove(split_folder.folder / record.name for record in records)
    removed = {record.name for record in records}
    needed = {
        file.name for record in split_folder.readable if record.name not in removed for file in record.files
    }
    files.remove(path for path in others if path.name not in needed)


@dataclass(frozen=True)
class Repaired:
    """A file that :func:`repair` removed or kept, and why."""

    path: Path
    removed: bool
    reason: str


def repair(run_folder: RunFolder, *, dry_run: bool = False) -> list[Repaired]:
    """Remove what a crash left and nothing refers to; keep what can be read, and all other files.

    If a record can't be read, data that no other record names may belong to it, and stays.

    Parameters
    ----------
    run_folder : RunFolder
    dry_run : bool
        Remove nothing; return what would be removed.

    Raises
    ------
    ConfshiftError
        Where the folder is not a run, or another process is saving in it.
    """
    classes = len(run_folder.class_names())
    try:
        with files.lock(run_folder.path, exclusive=True) as alone:
            if not alone:
                reason = (
                    "another process is saving in this run; repair it after that process has ended"
                    if files.HAS_LOCKS
                    else "this system can't tell whether a process is saving in this run; nothing is removed"
                )
                raise ConfshiftError(f"{run_folder.path}: {reason}")
            drafts = [Repaired(path, True, _DRAFT) for path in _run_drafts(run_folder)]
            drafts += _writer_signs(run_folder)
            drafts += _page_drafts(run_folder)
            litter = [
                item for folder in run_folder.folders() for item in _litter(run_folder, folder, classes)
            ]
            items = [*drafts, *litter]
            return items if dry_run else [_removed(item) for item in items]
    except OSError as error:
        raise ConfshiftError(f"{run_folder.path} was not repaired: {error}") from error


def _writer_signs(run_folder: RunFolder) -> Iterator[Repaired]:
    """Yield the lock files of writers; those of running processes stay, which doesn't hinder the repair."""
    for path in _signs(run_folder):
        lives = files.is_shown(path)
        yield Repaired(path, not lives, _LIVES if lives else _ENDED)


def _page_drafts(run_folder: RunFolder) -> Iterator[Repaired]:
    """Yield the drafts of pages that killed reports left in the run's folder: no process holds their lock."""
    for path in entries_of(run_folder.path):
        if not _PAGE_DRAFT.fullmatch(path.name) or _RUN_DRAFT.fullmatch(path.name):
            continue
        with contextlib.suppress(ConfshiftError), open_plain(path) as stream:
            with files.hold_lock(stream.fileno(), wait=False) as dead:
                reason = "a draft of a page" if dead else "a page is being written"
            yield Repaired(path, bool(dead), reason)


def _litter(run_folder: RunFolder, folder: Path, classes: int) -> Iterator[Repaired]:
    """Yield the files of a split to remove, records first, and the useless ones that have to stay."""
    try:
        if not run_folder.own_files(folder):
            return
        split_folder = run_folder.sound_split_folder(folder.name, classes)
    except ConfshiftError as error:
        yield Repaired(folder, False, str(error))
        return
    unread = [problem.file for problem in split_folder.problems if problem.epoch is None]
    for problem in split_folder.problems:
        yield Repaired(folder / problem.file, False, problem.reason)
    why = f"{', '.join(unread[:3])} can't be read and may need it"
    for record in split_folder.replaced:
        reason = (
            why
            if unread
            else f"epoch {record.epoch:g} was replaced by {split_folder.records[record.epoch].name}"
        )
        yield Repaired(folder / record.name, not unread, reason)
    replaced = {record.name for record in split_folder.replaced}
    needed = {
        file.name for record in split_folder.readable if record.name not in replaced for file in record.files
    }
    for path in split_folder.other_files:
        if path.suffix != ".npy":
            yield Repaired(path, True, _DRAFT)
        elif path.name not in needed:
            yield Repaired(path, not unread, why if unread else "no record names it")
    own_files = {*split_folder.record_files, *split_folder.other_files}
    for path in sorted(set(entries_of(folder)) - own_files):
        yield Repaired(path, False, "not a file of a run")


def _removed(item: Repaired) -> Repaired:
    if item.removed:
        try:
            files.DISK.unlink(item.path)
        except OSError as error:
            return replace(
                item, removed=False, reason=f"{item.reason}, and it can't be removed: {error.strerror}"
            )
    return item


def delete(run_folder: RunFolder) -> None:
    """Remove every file of a run, then its folders if they are empty; keep all other files.

    Records are removed before their files, and run.json last: until then, the folder is a run.

    Raises
    ------
    ConfshiftError
        Where the folder is not a run, another process is saving, or a file can't be removed.
    """
    run_folder.check_is_run()
    try:
        with files.lock(run_folder.path, exclusive=True) as alone:
            if not alone and files.HAS_LOCKS:
                raise ConfshiftError(
                    f"{run_folder.path}: another process is saving in this run; end it first"
                )
            own = {folder: run_folder.own_files(folder) for folder in run_folder.folders()}
            for path in itertools.chain(*own.values()):
                files.DISK.unlink(path)
            files.remove(
                [*_run_drafts(run_folder), run_folder.path / NAMES_FILE, run_folder.path / files.LOCK]
            )
            files.remove(_signs(run_folder))
            files.DISK.unlink(run_folder.path / RUN_FILE)
        for folder in (*(folder for folder, paths in own.items() if paths), run_folder.path):
            with contextlib.suppress(OSError):  # it holds other files
                files.DISK.remove_folder(folder)
    except OSError as error:
        raise ConfshiftError(f"{run_folder.path} was not deleted: {error}") from error


def _signs(run_folder: RunFolder) -> list[Path]:
    return [path for path in entries_of(run_folder.path) if files.SIGN.fullmatch(path.name)]


def _run_drafts(run_folder: RunFolder) -> list[Path]:
    return [path for path in entries_of(run_folder.path) if _RUN_DRAFT.fullmatch(path.name)]
