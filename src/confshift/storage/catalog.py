"""What a run folder holds: the records that count, what is damaged, and what nobody needs any more."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from confshift.errors import ConfshiftError
from confshift.storage import arrays, files
from confshift.storage.record import LOGITS, Record, columns_dtype, decode, read_record

__all__ = ["RUN_FILE", "Catalog", "Problem", "Shelf", "check_split"]

RUN_FILE = "run.json"

_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.", re.IGNORECASE)  # by Windows
_RECORD = re.compile(r"([0-9]{6,12})\.json")
_CLAIM = re.compile(r"([0-9]{6,12})\.json\.claim")
_DATA = re.compile(r"[0-9]{6,12}-[0-9a-f]{32}\.(logits\.npy|columns\.npy|tmp)")
_RUN_DRAFT = re.compile(r"run-[0-9a-f]{32}\.tmp|run\.json\.claim")
_MAX_JSON = 1 << 26


@dataclass(frozen=True)
class Problem:
    """A record or a file of it that can't be used, and why."""

    split: str
    epoch: float | None  # None where the record itself is unreadable
    file: str
    reason: str


@dataclass
class Shelf:
    """One split's part of a run folder, as it was found."""

    folder: Path
    records: dict[float, Record] = field(default_factory=dict)  # by epoch, ascending; sizes are right
    problems: list[Problem] = field(default_factory=list)
    replaced: list[Record] = field(default_factory=list)  # an epoch's older records, left by a crash
    named: set[str] = field(default_factory=set)  # files of the records that count, damaged or not
    unreadable: bool = False  # some record can't be read: nobody knows which files are its own
    last: int = 0  # the highest sequence number in use


def check_split(split: str, known: tuple[str, ...] = ()) -> None:
    """Refuse a name that can't be a folder's on every system."""
    if not isinstance(split, str) or not _SPLIT.fullmatch(split) or _RESERVED.fullmatch(split):
        raise ConfshiftError(
            f"split={split!r} can't name a folder; use at most 64 letters, digits, '.', '_', '-', as in 'val'"
        )
    twins = [one for one in known if one != split and one.lower() == split.lower()]
    if twins:
        raise ConfshiftError(
            f"split={split!r}: the run has {twins[0]!r}, and some disks can't tell them apart"
        )


class Catalog:
    """Reads the folder of one run. Records never change under their name, so each is parsed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parsed: dict[tuple[str, str], tuple[tuple[int, ...], Record | ConfshiftError]] = {}
        self._columns_read: dict[str, str] = {}  # file -> what is wrong with it

    def exists(self) -> bool:
        """Tell whether the folder is a run."""
        return (self.path / RUN_FILE).is_file()

    def class_names(self) -> tuple[str, ...]:
        """Return the names in run.json.

        Raises
        ------
        ConfshiftError
            Where the folder is missing or no run, or run.json is damaged or of a newer schema.
        """
        path = self.path / RUN_FILE
        if not self.path.is_dir():
            raise ConfshiftError(
                f"there is no run at {self.path}; inspect(..., run={str(self.path)!r}) makes one"
            )
        if not path.exists():
            raise ConfshiftError(f"{self.path} is not a run: it has no {RUN_FILE}")
        names = decode(files.read_bytes(path, limit=_MAX_JSON), path).get("class_names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfshiftError(f"{path} is damaged: it has no class names")
        return tuple(names)

    def splits(self) -> tuple[str, ...]:
        """Return the splits that have a record, val first."""
        found = [
            folder.name
            for folder in self.path.iterdir()
            if _SPLIT.fullmatch(folder.name)
            and not folder.is_symlink()
            and folder.is_dir()
            and any(_RECORD.fullmatch(entry.name) for entry in folder.iterdir())
        ]
        return tuple(sorted(found, key=lambda name: (name != "val", name)))

    def shelf(self, split: str, classes: int) -> Shelf:
        """Return the records of a split: the newest of each epoch, with files of the right size."""
        shelf = Shelf(self.path / split)
        if shelf.folder.is_symlink() or not shelf.folder.is_dir():
            return shelf
        newest: dict[float, Record] = {}
        for entry in sorted(shelf.folder.iterdir()):
            match = _RECORD.fullmatch(entry.name) or _CLAIM.fullmatch(entry.name)
            if match:
                shelf.last = max(shelf.last, int(match[1]))
            if not _RECORD.fullmatch(entry.name):
                continue
            try:
                record = self._parse(entry, classes)
            except ConfshiftError as error:
                shelf.unreadable = True
                shelf.problems.append(Problem(split, None, entry.name, str(error)))
                continue
            if record.epoch in newest:
                shelf.replaced.append(newest[record.epoch])
            newest[record.epoch] = record
        for epoch, record in sorted(newest.items()):
            shelf.named.update(record.file_names)
            wrong = self._wrong_size(shelf.folder, record) or self._columns_read.get(_key(split, record), "")
            if wrong:
                shelf.problems.append(Problem(split, epoch, record.name, wrong))
            else:
                shelf.records[epoch] = record
        return shelf

    def _parse(self, path: Path, classes: int) -> Record:
        """Read a record, or remember it: a name is used once, unless a run is deleted and made again."""
        key = (path.parent.name, path.name)
        try:
            status = path.lstat()
        except OSError as error:
            raise ConfshiftError(f"{path} is missing") from error
        signature = (status.st_ino, status.st_size, status.st_mtime_ns, classes)
        if key not in self._parsed or self._parsed[key][0] != signature:
            try:
                found: Record | ConfshiftError = read_record(
                    files.read_bytes(path, limit=_MAX_JSON), path, classes
                )
            except ConfshiftError as error:
                found = error
            self._parsed[key] = (signature, found)
        found = self._parsed[key][1]
        if isinstance(found, ConfshiftError):
            raise found
        return found

    def _wrong_size(self, folder: Path, record: Record) -> str:
        shard = record.shards[0]
        try:
            arrays.check_size(folder, shard.columns, columns_dtype(shard.columns.dtype[0][1]))
            arrays.check_size(folder, shard.logits, np.dtype(LOGITS[shard.encoding]))
        except ConfshiftError as error:
            return str(error)
        return ""

    def sound_shelf(self, split: str, classes: int) -> Shelf:
        """Return the shelf with every checkpoint's columns read and checked, once; its logits are not."""
        shelf = self.shelf(split, classes)
        for record in shelf.records.values():
            key = _key(split, record)
            if key not in self._columns_read:
                columns = record.shards[0].columns
                dtype = columns_dtype(columns.dtype[0][1])
                self._columns_read[key] = arrays.damage(shelf.folder, columns, dtype)
        return self.shelf(split, classes)

    def verified(self, split: str, classes: int) -> Iterator[tuple[str, float, str, bool, str]]:
        """Read a split's files to the last byte; yield split, epoch, file, whether sound, what is wrong."""
        shelf = self.shelf(split, classes)
        for problem in shelf.problems:
            yield (
                split,
                math.nan if problem.epoch is None else problem.epoch,
                problem.file,
                False,
                problem.reason,
            )
        for epoch, record in shelf.records.items():
            shard = record.shards[0]
            for stored, dtype in (
                (shard.columns, columns_dtype(shard.columns.dtype[0][1])),
                (shard.logits, np.dtype(LOGITS[shard.encoding])),
            ):
                wrong = arrays.damage(shelf.folder, stored, dtype)
                yield split, epoch, stored.name, not wrong, wrong

    def litter(self, classes: int) -> list[Path]:
        """Return the files that no record needs; a split with an unreadable record keeps all of its own.

        Only for who holds the run's lock alone: another writer's files have no record yet either.
        """
        found = [entry for entry in self.path.iterdir() if _RUN_DRAFT.fullmatch(entry.name)]
        for split in self.splits():
            shelf = self.shelf(split, classes)
            if not shelf.unreadable:
                found += [
                    shelf.folder / record.name for record in shelf.replaced
                ]  # records before their files
                found += [
                    entry
                    for entry in shelf.folder.iterdir()
                    if _CLAIM.fullmatch(entry.name)
                    or (_DATA.fullmatch(entry.name) and entry.name not in shelf.named)
                ]
        return found

    def everything(self) -> list[Path]:
        """Return every file that a run may hold, run.json last: until it goes, the folder is a run."""
        found = [entry for entry in self.path.iterdir() if _RUN_DRAFT.fullmatch(entry.name)]
        for split in self.splits():
            inside = [entry.name for entry in (self.path / split).iterdir()]
            records = [name for name in inside if _RECORD.fullmatch(name)]
            others = [name for name in inside if _DATA.fullmatch(name) or _CLAIM.fullmatch(name)]
            found += [self.path / split / name for name in (*records, *others)]
        return [*found, self.path / files.LOCK, self.path / RUN_FILE]


def _key(split: str, record: Record) -> str:
    return f"{split}/{record.shards[0].columns.name}"
