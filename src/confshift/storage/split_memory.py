"""What a process remembers of a split's folder, and how it notices that anybody else has changed it.

So a save costs the same beside 10,000 checkpoints as beside two. A memory is believed as long as its mark is
that of the folder: its times, and the number of changes that other processes announced in the lock file. It
decides what is looked at, never what is overwritten: a record is put only where there is none, one that is to
be replaced is looked at again, and where a number is taken the folder is listed.
"""

from __future__ import annotations

import contextlib
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from confshift.errors import ConfshiftError
from confshift.storage import files
from confshift.storage.reading import names_in, status_of
from confshift.storage.record import Record
from confshift.storage.split_folder import RECORD, SplitFolder, look_into

_SECOND = 10**9


class Announcements:
    """The changes of a run that are announced in its lock file: a byte each, by whoever makes them."""

    def __init__(self, run: Path) -> None:
        self._path = run / files.LOCK
        self._own = 0
        self._turn = threading.Lock()

    def announce(self, lock: files.Lock) -> None:
        """Announce a change that this process makes."""
        with self._turn:
            lock.lengthen()
            self._own += 1

    def of_others(self) -> tuple[int, int] | None:
        """Return the lock file's identity and how many changes others announced; None if there is none."""
        with self._turn:
            status = status_of(self._path)
            return None if status is None else (status.st_ino, status.st_size - self._own)


class Mark(NamedTuple):
    """A state of a split's folder: while its mark is the same, nobody has changed it."""

    folder: tuple[int, int]
    times: tuple[int, int, int]
    others: tuple[int, int] | None

    def follows(self, before: Mark | None) -> bool:
        """Tell whether only this process changed the folder since `before`."""
        return before is not None and self[::2] == before[::2] and self.others is not None


@dataclass(frozen=True)
class SplitReader:
    """How a split's files are read; errors are ConfshiftError."""

    whole: Callable[[], SplitFolder]
    record: Callable[[Path], Record]
    wrong: Callable[[Record], str]  # what is wrong with its data, as far as is known; "" if nothing is


class SplitMemory:
    """The records of one split, by the thread that trains and the one that saves; see the module.

    Names alone are compared where the folder is listed: files never change under their name.
    """

    def __init__(self, folder: Path, read: SplitReader, announcements: Announcements) -> None:
        self._folder = folder
        self._read = read
        self._announcements = announcements
        self._turn = threading.RLock()
        self._mark: Mark | None = None  # None: it has to be listed
        self._names: set[str] | None = None
        self._known = SplitFolder(folder)
        self._fingerprints: set[str] = set()  # of these records and those that were replaced
        self._uses: Counter[str] = Counter()  # how many records name a data file
        self._saving = False

    def look(self) -> SplitFolder:
        """Return the current records and the highest number in use; no other field is up to date.

        While this process's own save changes the folder, that is the state before it.

        Raises
        ------
        ConfshiftError
            Where the folder can't be read, or is a symbolic link.
        """
        with self._turn:
            if not self._saving:
                self._refresh()
            return replace(self._known, records=dict(self._known.records))

    def find(self, epoch: float) -> Record | None:
        """Return an epoch's record after looking at its files; None if there is none that can be used."""
        with self._turn:
            if not self._saving:
                self._refresh()
            for _ in range(2):
                record = self._known.records.get(epoch)
                if record is None:
                    return None
                if (found := self._read_again(record)) is not None:
                    return found
                self.look_anew()
            return None

    def look_anew(self) -> None:
        """List the folder, whatever is remembered."""
        with self._turn:
            self._mark = None
            self._refresh()

    def differs(self, fingerprint: str) -> bool:
        """Tell whether some record has other samples or targets."""
        with self._turn:
            if self._fingerprints <= {fingerprint}:
                return False
            return any(record.fingerprint != fingerprint for record in self._known.records.values())

    def is_tidy(self) -> bool:
        """Tell whether each of the run's own files in the folder is a current record or named by one."""
        with self._turn:
            self._refresh()
            named = {record.name for record in self._known.records.values()} | self._uses.keys()
            others = look_into(self._folder, (self._names or set()) - named)
            return self._is_plain and not others.record_files and not others.other_files

    @contextlib.contextmanager
    def saving(self, lock: files.Lock | None) -> Iterator[None]:
        """Remember this process's own changes in this context, which only the saving thread enters.

        If others made changes meanwhile, or without a lock to know, the folder is listed the next time.
        """
        with self._turn:
            if lock is None:
                self._mark = None
            self._refresh()
            self._saving = True
        try:
            yield
        except BaseException:
            self._mark = None
            raise
        finally:
            with self._turn:
                self._saving, before, self._mark = False, self._mark, None
                with contextlib.suppress(ConfshiftError):
                    now = None if lock is None else self._mark_now()
                    self._mark = now if now is not None and now.follows(before) else None

    def put(self, record: Record, lock: files.Lock | None) -> None:
        """Put a record if its name is free, else raise FileExistsError; announce it before and after."""
        if lock is not None:
            self._announcements.announce(lock)
        files.put(self._folder / record.name, record.to_bytes())
        if lock is not None:
            with contextlib.suppress(OSError):  # the checkpoint is saved
                self._announcements.announce(lock)
        self._note(record)

    def remove(self, replaced: Record) -> bool:
        """Remove a record that was replaced, and its files; False if only the whole folder says which."""
        with self._turn:
            if not self._is_plain or self._names is None:
                self._mark = None
                return False
            self._uses.subtract(stored.name for stored in replaced.files)
            unused = [stored.name for stored in replaced.files if self._uses[stored.name] < 1]
            for name in unused:
                del self._uses[name]
            gone = [replaced.name, *unused]
            self._names.difference_update(gone)
        files.remove(self._folder / name for name in gone)
        return True

    @property
    def _is_plain(self) -> bool:
        """Whether each record is the only one of its epoch, and every one can be used."""
        return not self._known.problems and not self._known.replaced

    def _mark_now(self) -> Mark | None:
        """Return the folder's mark; None where it would prove nothing.

        File systems that count whole seconds (FAT two, ext3 one) don't tell one change from the next.
        """
        others = self._announcements.of_others()  # first: what is announced after this is noticed later
        status = status_of(self._folder)
        if status is None or not stat.S_ISDIR(status.st_mode) or status.st_mtime_ns % _SECOND == 0:
            return None
        times = status.st_mtime_ns, status.st_ctime_ns, status.st_size
        return Mark((status.st_dev, status.st_ino), times, others)

    def _refresh(self) -> None:
        """List the folder if its mark has changed, and read the records that are new."""
        mark = self._mark_now()  # before the names: what is added in between is found the next time
        if mark is not None and mark == self._mark:
            return
        self._mark = None
        names = names_in(self._folder)
        if self._names is None or not self._grow(names, self._names):
            self._known = self._read.whole()
            self._fingerprints = {record.fingerprint for record in self._known.readable}
            self._uses = Counter(stored.name for record in self._known.readable for stored in record.files)
        self._names, self._mark = names, mark

    def _grow(self, names: set[str], before: set[str]) -> bool:
        """Add the new records to those known; False if the folder has to be read anew.

        That is so if a record was replaced or its data removed: it may be another run of the same name.
        """
        if any(RECORD.fullmatch(name) or name.endswith(".npy") for name in before - names):
            return False
        added = look_into(self._folder, names - before)
        for path in added.record_files:
            try:
                record = self._read.record(path)
            except ConfshiftError:
                return False
            if record.epoch in self._known.records or self._read.wrong(record):
                return False
            self._add(record)
        self._known.last = max(self._known.last, added.last)
        return True

    def _add(self, record: Record) -> None:
        self._known.records[record.epoch] = record
        self._known.last = max(self._known.last, record.sequence)
        self._fingerprints.add(record.fingerprint)
        self._uses.update(stored.name for stored in record.files)

    def _note(self, record: Record) -> None:
        """Remember a record that this process has put."""
        with self._turn:
            self._add(record)
            if self._names is not None:
                self._names.update((record.name, *_names_of(record)))

    def _read_again(self, record: Record) -> Record | None:
        """Read a record, unless it was read before; None if it or its data are not what is remembered."""
        try:
            found = self._read.record(self._folder / record.name)
        except ConfshiftError:
            return None
        is_same = found.epoch == record.epoch and _names_of(found) == _names_of(record)
        return found if is_same and not self._read.wrong(found) else None


def _names_of(record: Record) -> list[str]:
    """Return the names of a record's data files, which no other save has."""
    return [stored.name for stored in record.files]
