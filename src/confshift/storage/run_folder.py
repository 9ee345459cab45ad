"""The content of a run folder: the current records, the damaged ones, and those no longer needed."""

from __future__ import annotations

import contextlib
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from confshift.errors import ConfshiftError
from confshift.input_checks import are_numbers, check_names
from confshift.measurement import Measurement
from confshift.storage import arrays
from confshift.storage.finding_runs import RUN_FILE, did_you_mean
from confshift.storage.measuring import read_measurement
from confshift.storage.reading import entries_of, is_folder, read_bytes, status_of
from confshift.storage.record import Record, read_record
from confshift.storage.signed_json import MAX_JSON, check_schema, decode, is_ours, readable
from confshift.storage.split_folder import SPLIT, Problem, SplitFolder, is_data, look_into
from confshift.storage.split_memory import Announcements, SplitMemory, SplitReader
from confshift.workers import map_in_order

#: Class names other than the default numbers: names that came after the first checkpoint, since run.json,
#: like every file, is never changed; and a copy of those in run.json, in case that is damaged.
NAMES_FILE = "class_names.json"

_T = TypeVar("_T")

#: A folder in which files were replaced meanwhile is read again at most this often.
_LOOKS = 20


class RunFolder:
    """Reads the folder of one run. A record never changes under its name, so each is parsed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parsed: dict[tuple[Path, object], tuple[tuple[int, ...], Any]] = {}
        self._memories: dict[tuple[str, int], SplitMemory] = {}
        self._announcements = Announcements(path)
        self._turn = threading.Lock()
        self._damage: dict[str, str] = {}  # of each columns file read so far; "" if it is sound
        self._measured: dict[str, Measurement] = {}  # of sound columns, until a checkpoint takes them
        self._logits_damage: dict[str, str] = {}  # of each damaged logits file read so far

    def exists(self) -> bool:
        """Tell whether the folder is a run."""
        return status_of(self.path / RUN_FILE) is not None

    def check_is_run(self) -> None:
        """Refuse a folder that is missing or not a run, and name similar ones."""
        if not is_folder(self.path):
            raise ConfshiftError(
                f"there is no run at {self.path}; inspect(..., run=...) or append() makes one"
                f"{did_you_mean(self.path)}"
            )
        if not self.exists():
            raise ConfshiftError(f"{self.path} is not a run: it has no {RUN_FILE}{did_you_mean(self.path)}")

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes; if none are known or readable, the numbers from 0 on.

        Raises
        ------
        ConfshiftError
            Where the folder is missing or not a run, or its files are of a newer schema, or no readable file
            says how many classes there are.
        """
        self.check_is_run()
        first = self._names_in(RUN_FILE)
        if isinstance(first, tuple) and not are_numbers(first):
            return first
        copy = self._names_in(NAMES_FILE)
        if not isinstance(copy, tuple):
            return first if isinstance(first, tuple) else self._numbers(first)
        if isinstance(first, tuple) and len(copy) != len(first):
            raise ConfshiftError(
                f"{self.path / NAMES_FILE} names {len(copy)} classes, and {RUN_FILE} has {len(first)}"
            )
        return copy

    def has_copy(self) -> bool:
        """Tell whether there is a file of class names beside run.json."""
        return status_of(self.path / NAMES_FILE) is not None

    def damaged_names(self) -> list[Problem]:
        """Return the problems of the files with class names."""
        contents = [(name, self._names_in(name)) for name in (RUN_FILE, NAMES_FILE)]
        whole = any(isinstance(names, tuple) and not are_numbers(names) for _, names in contents)
        effect = (
            "another copy of the class names is used" if whole else "the classes are called by their numbers"
        )
        return [
            Problem("", None, name, f"{reason}; {effect}", "in part")
            for name, reason in contents
            if type(reason) is str
        ]

    def _names_in(self, name: str) -> tuple[str, ...] | str | None:
        """Return the names in a file, the reason they can't be read, or None if there is no file."""
        path = self.path / name
        if status_of(path) is None:
            return None
        try:
            content, names = self._parse(path, "names", _with_class_names)
        except ConfshiftError as error:
            return str(error)
        check_schema(content, path)
        return names or f"{path} is damaged: it has no class names"

    def _numbers(self, damage: str | None) -> tuple[str, ...]:
        """Return as many numbers as there are classes, according to a record."""
        for folder in self.folders():
            for path in look_into(folder).record_files:
                with contextlib.suppress(ConfshiftError):
                    record = self._parse(path, None, read_record)
                    return check_names(None, record.shards[0].logits.shape[1])
        raise ConfshiftError(str(damage))

    def folders(self) -> list[Path]:
        """Return the folders of the splits, val first; some may hold no checkpoint."""
        folders = [
            folder
            for folder in entries_of(self.path)
            if SPLIT.fullmatch(folder.name)
            and (status := status_of(folder)) is not None
            and stat.S_ISDIR(status.st_mode)
        ]
        return sorted(folders, key=lambda folder: (folder.name != "val", folder.name))

    def splits(self) -> tuple[str, ...]:
        """Return the splits that have a record, readable or not, val first."""
        return tuple(folder.name for folder in self.folders() if self._is_split(folder))

    def _is_split(self, folder: Path) -> bool:
        """Tell a split's folder from one of the user's, whose files may be named like records."""
        try:
            split_folder = look_into(folder)
        except ConfshiftError:  # unreadable: whoever reads it gets the reason
            return True
        return bool(split_folder.record_files) and (
            any(map(is_data, split_folder.other_files))
            or any(map(self._is_record, split_folder.record_files))
        )

    def own_files(self, folder: Path) -> list[Path]:
        """Return the run's own files in a split's folder, records first.

        Raises
        ------
        ConfshiftError
            Where the folder can't be read.
        """
        split_folder = look_into(folder)
        return [*filter(self._is_record, split_folder.record_files), *split_folder.other_files]

    def _is_record(self, path: Path) -> bool:
        """Tell whether a file is a record, maybe a damaged one; one that can't be read is not."""
        try:
            return self._parse(path, "ours", lambda raw, _: is_ours(raw))
        except ConfshiftError:
            return False

    def holds(self, split: str) -> bool:
        """Tell whether a split has a record, readable or not."""
        return is_folder(self.path / split) and self._is_split(self.path / split)

    def memory(self, split: str, classes: int) -> SplitMemory:
        """Return what this process remembers of a split, for saves and for looking up one epoch."""
        with self._turn:  # called in the training's thread and in the writer's
            memory = self._memories.get((split, classes))
            if memory is None:
                folder = self.path / split
                parse = partial(read_record, classes=classes)
                read = SplitReader(
                    whole=lambda: self.split_folder(split, classes),
                    record=lambda path: self._parse(path, classes, parse),
                    wrong=lambda record: self._wrong(folder, record),
                )
                memory = SplitMemory(folder, read, self._announcements)
                self._memories[split, classes] = memory
            return memory

    def split_folder(self, split: str, classes: int) -> SplitFolder:
        """Return the records of a split: the newest of each epoch, with files of the right size.

        Raises
        ------
        ConfshiftError
            Where the split's folder can't be read, or is a symbolic link: nothing outside the run is read
            or written.
        """
        for _ in range(_LOOKS):
            split_folder = self._split_folder(split, classes)
            if split_folder is not None:
                return split_folder
        raise ConfshiftError(f"{self.path / split} changed each time it was read; try again")

    def _split_folder(self, split: str, classes: int) -> SplitFolder | None:
        """Return the split folder; None if a record was replaced while this read it."""
        split_folder = look_into(self.path / split)
        versions: dict[float, list[Record]] = {}
        for path in split_folder.record_files:
            try:
                record = self._parse(path, classes, partial(read_record, classes=classes))
            except ConfshiftError as error:
                if status_of(path) is None:
                    return None
                split_folder.problems.append(Problem(split, None, path.name, str(error)))
                continue
            split_folder.readable.append(record)
            versions.setdefault(record.epoch, []).append(record)
        for epoch, (*older, newest) in sorted(versions.items()):
            wrong = self._wrong(split_folder.folder, newest)
            if wrong and status_of(split_folder.folder / newest.name) is None:
                return None
            if wrong:
                split_folder.problems.append(Problem(split, epoch, newest.name, wrong))
            else:
                split_folder.records[epoch] = newest
                split_folder.replaced += older
        return split_folder

    def _wrong(self, folder: Path, record: Record) -> str:
        """Say what is wrong with a record's files, as far as they were read; "" if nothing is known."""
        try:
            for stored in record.files:
                arrays.check_size(folder, stored)
        except ConfshiftError as error:
            return str(error)
        return self._damage.get(_columns_file(record), "")

    def split_folders(self, classes: int, *, sound: bool = False) -> list[SplitFolder]:
        """Return the folders of all splits, with their columns checked if `sound`; unreadable ones say so."""
        split_folders = []
        for split in self.splits():
            try:
                split_folders.append(
                    (self.sound_split_folder if sound else self.split_folder)(split, classes)
                )
            except ConfshiftError as error:
                problem = Problem(split, None, "", str(error))
                split_folders.append(SplitFolder(self.path / split, problems=[problem]))
        return split_folders

    def sound_split_folder(self, split: str, classes: int) -> SplitFolder:
        """Return a split's folder after checking all its columns, once; logits are not checked."""
        split_folder = self.split_folder(split, classes)
        records = [one for one in split_folder.records.values() if _columns_file(one) not in self._damage]
        map_in_order(partial(self._check, split_folder.folder), records, share_memory=True)
        split_folder = self.split_folder(split, classes)
        for epoch, record in split_folder.records.items():
            name = _logits_file(record)
            if name in self._logits_damage:
                problem = Problem(split, epoch, name, self._logits_damage[name], "in part")
                split_folder.problems.append(problem)
        return split_folder

    def _check(self, folder: Path, record: Record) -> None:
        name = _columns_file(record)
        try:
            self._measured[name] = read_measurement(folder, record)
            self._damage[name] = ""
        except ConfshiftError as error:
            self._damage[name] = str(error)

    def handed_over(self, record: Record) -> Measurement | None:
        """Return, once, what was read to check a record's columns."""
        return self._measured.pop(_columns_file(record), None)

    def note_logits(self, record: Record, damage: str) -> None:
        """Remember the result of reading a record's logits: "" if nothing is wrong with them."""
        if damage:
            self._logits_damage[_logits_file(record)] = damage
        else:
            self._logits_damage.pop(_logits_file(record), None)

    def _parse(self, path: Path, purpose: object, parse: Callable[[bytes, Path], _T]) -> _T:
        """Read and parse a small file, once for each `purpose`, and remember the result or the error."""
        status = status_of(path)
        if status is None:
            raise ConfshiftError(f"{path} is missing")
        signature = (status.st_ino, status.st_size, status.st_mtime_ns)
        entry = self._parsed.get((path, purpose))
        if entry is None or entry[0] != signature:
            result: _T | ConfshiftError
            try:
                result = parse(read_bytes(path, limit=MAX_JSON), path)
            except ConfshiftError as error:
                result = error
            self._parsed[path, purpose] = entry = (signature, result)
        if isinstance(entry[1], ConfshiftError):
            raise entry[1]
        content: _T = entry[1]
        return content


def _with_class_names(raw: bytes, path: Path) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """Return a file's content and the class names in it, None where they can't be used."""
    content = decode(raw, path)
    names = content.get("class_names")
    if not isinstance(names, list) or len(names) < 2 or not all(type(name) is str for name in names):
        return content, None
    return content, tuple(names) if all(readable(name) == name for name in names) else None


def _columns_file(record: Record) -> str:
    return record.shards[0].columns.name


def _logits_file(record: Record) -> str:
    return record.shards[0].logits.name
