"""What a run folder holds: the records that count, what is damaged, and what nobody needs any more."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from confshift.errors import ConfshiftError
from confshift.gate import are_numbers
from confshift.storage import arrays
from confshift.storage.nearby import RUN_FILE, did_you_mean
from confshift.storage.reading import read_bytes
from confshift.storage.record import MAX_JSON, Record, decode, read_record

__all__ = ["NAMES_FILE", "Catalog", "Problem", "Shelf", "check_split"]

#: Class names given after the first checkpoint: run.json, like every file, is never changed.
NAMES_FILE = "class_names.json"

_T = TypeVar("_T")

_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.", re.IGNORECASE)  # by Windows
_RECORD = re.compile(r"([0-9]{6,12})\.json")
_CLAIM = re.compile(r"([0-9]{6,12})\.json\.claim")
_DATA = re.compile(r"[0-9]{6,12}-[0-9a-f]{32}\.(logits\.npy|columns\.npy|tmp)")


@dataclass(frozen=True)
class Problem:
    """A checkpoint that can't be used, and why."""

    split: str
    epoch: float | None  # None where the record itself can't be read
    file: str
    reason: str


@dataclass
class Shelf:
    """One split's part of a run folder, as it was found."""

    folder: Path
    records: dict[float, Record] = field(default_factory=dict)  # by epoch, ascending; sizes are right
    problems: list[Problem] = field(default_factory=list)
    replaced: list[Record] = field(default_factory=list)  # an epoch's older records, left by a crash
    readable: list[Record] = field(default_factory=list)  # all of the above and those with a problem
    record_files: list[Path] = field(default_factory=list)  # in the order they were put
    other_files: list[Path] = field(default_factory=list)  # data, drafts and claims
    last: int = 0  # the highest number in use

    @property
    def unreadable(self) -> bool:
        """Whether some record can't be read: then nobody knows which files are its own."""
        return any(problem.epoch is None for problem in self.problems)


def check_split(split: str, known: tuple[str, ...] = ()) -> None:
    """Refuse a name that can't be a folder's on every system, or that differs from another by case only."""
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
        self._parsed: dict[tuple[Path, int], tuple[tuple[int, ...], Any]] = {}
        self._damage: dict[str, str] = {}  # of each columns file that was read: what is wrong with it

    def exists(self) -> bool:
        """Tell whether the folder is a run."""
        return (self.path / RUN_FILE).is_file()

    def class_names(self) -> tuple[str, ...]:
        """Return the names in run.json, or those that came later where it has the default numbers.

        Raises
        ------
        ConfshiftError
            Where the folder is missing or no run, or run.json is damaged or of a newer schema.
        """
        path = self.path / RUN_FILE
        if not self.path.is_dir():
            raise ConfshiftError(
                f"there is no run at {self.path}; inspect(..., run=...) or append() makes one"
                f"{did_you_mean(self.path)}"
            )
        if not path.exists():
            raise ConfshiftError(f"{self.path} is not a run: it has no {RUN_FILE}{did_you_mean(self.path)}")
        names = self._parse(path, 0, _read_class_names)
        given_later = self.path / NAMES_FILE
        if not (are_numbers(names) and given_later.exists()):
            return names
        later = self._parse(given_later, 0, _read_class_names)
        if len(later) != len(names):
            raise ConfshiftError(f"{given_later} names {len(later)} classes, and {path} has {len(names)}")
        return later

    def folders(self) -> list[Path]:
        """Return the folders of the splits, val first; some may hold nothing that counts."""
        found = [
            folder
            for folder in self.path.iterdir()
            if _SPLIT.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink()
        ]
        return sorted(found, key=lambda folder: (folder.name != "val", folder.name))

    def splits(self) -> tuple[str, ...]:
        """Return the splits that have a record, readable or not, val first."""
        return tuple(
            folder.name
            for folder in self.folders()
            if any(_RECORD.fullmatch(entry.name) for entry in folder.iterdir())
        )

    def shelf(self, split: str, classes: int, *, only: float | None = None) -> Shelf:
        """Return the records of a split: the newest of each epoch, with files of the right size.

        With `only` the files of just this epoch are looked at, and no other epoch is returned.

        Raises
        ------
        ConfshiftError
            Where the split's folder is a symbolic link: nothing outside the run is read or written.
        """
        shelf = _look_into(self.path / split)
        versions: dict[float, list[Record]] = {}
        for path in shelf.record_files:
            try:
                record = self._parse(path, classes, partial(read_record, classes=classes))
            except ConfshiftError as error:
                if not path.exists():  # replaced while this looked
                    return self.shelf(split, classes, only=only)
                shelf.problems.append(Problem(split, None, path.name, str(error)))
                continue
            shelf.readable.append(record)
            versions.setdefault(record.epoch, []).append(record)
        if only is not None:
            versions = {epoch: found for epoch, found in versions.items() if epoch == only}
        for epoch, (*older, newest) in sorted(versions.items()):
            wrong = _wrong_size(shelf.folder, newest) or self._damage.get(_columns_file(newest), "")
            if wrong and not (shelf.folder / newest.name).exists():
                return self.shelf(split, classes, only=only)
            if wrong:
                shelf.problems.append(Problem(split, epoch, newest.name, wrong))
            else:
                shelf.records[epoch] = newest
                shelf.replaced += older
        return shelf

    def sound_shelf(self, split: str, classes: int) -> Shelf:
        """Return the shelf with every checkpoint's columns read and checked, once; its logits are not."""
        shelf = self.shelf(split, classes)
        for record in shelf.records.values():
            name = _columns_file(record)
            if name not in self._damage:
                self._damage[name] = arrays.damage(shelf.folder, record.shards[0].columns)
        return self.shelf(split, classes)

    def _parse(self, path: Path, classes: int, parse: Callable[[bytes, Path], _T]) -> _T:
        """Read a small file and parse it, or remember what came of that."""
        try:
            status = path.lstat()
        except OSError as error:
            raise ConfshiftError(f"{path} can't be read: {error.strerror}") from error
        signature = (status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._parsed.get((path, classes))
        if known is None or known[0] != signature:
            found: _T | ConfshiftError
            try:
                found = parse(read_bytes(path, limit=MAX_JSON), path)
            except ConfshiftError as error:
                found = error
            self._parsed[path, classes] = known = (signature, found)
        if isinstance(known[1], ConfshiftError):
            raise known[1]
        content: _T = known[1]
        return content


def _read_class_names(raw: bytes, path: Path) -> tuple[str, ...]:
    names = decode(raw, path).get("class_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfshiftError(f"{path} is damaged: it has no class names")
    return tuple(names)


def _look_into(folder: Path) -> Shelf:
    """Sort a split's files by what their names say."""
    if folder.is_symlink():
        raise ConfshiftError(f"{folder} is a symbolic link; a run's files must be in the run")
    shelf = Shelf(folder)
    numbered: list[tuple[int, Path]] = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := _RECORD.fullmatch(path.name):
            numbered.append((int(match[1]), path))
        elif _CLAIM.fullmatch(path.name) or _DATA.fullmatch(path.name):
            shelf.other_files.append(path)
    shelf.record_files = [path for _, path in sorted(numbered)]
    claims = [int(match[1]) for path in shelf.other_files if (match := _CLAIM.fullmatch(path.name))]
    shelf.last = max([number for number, _ in numbered] + claims, default=0)
    return shelf


def _wrong_size(folder: Path, record: Record) -> str:
    try:
        for stored in record.files:
            arrays.check_size(folder, stored)
    except ConfshiftError as error:
        return str(error)
    return ""


def _columns_file(record: Record) -> str:
    return record.shards[0].columns.name
