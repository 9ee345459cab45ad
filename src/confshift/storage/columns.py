"""The columns of a checkpoint in its file: read in parts, so that no run has to fit into memory."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from confshift.measurement import KEPT
from confshift.storage import arrays
from confshift.storage.memory import check_room
from confshift.storage.record import Record

#: At most this many bytes of columns stay in memory, but always those of the last two checkpoints read.
_MAX_BYTES = 1 << 29
#: Of files up to this size everything stays.
_SMALL = arrays.PIECE_BYTES
#: Rows are read so many bytes at a time.
_PART_BYTES = 1 << 24


class StoredColumns:
    """The rows of one columns file; every byte is compared with its checksum whenever it is read.

    Columns stay in memory while there is room for them: of a small file all but ids and groups, of a larger
    one those that every analysis reads, :data:`KEPT`. All others are read when they are asked for.
    """

    _recent: ClassVar[deque[weakref.ref[StoredColumns]]] = deque()
    _turn: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, folder: Path, record: Record) -> None:
        self._folder, self._file = folder, record.shards[0].columns
        self.layout = self._file.layout
        kept = KEPT if self._file.size > _SMALL else set(self.names) - {"sample_id", "group", "target"}
        self._names = [name for name in self.names if name in kept]
        self._bytes = len(self) * sum(self.layout[name].itemsize for name in self._names)
        self._kept: dict[str, NDArray[Any]] = {}
        self._part: tuple[int, int, NDArray[Any]] | None = None
        #: Columns that other checkpoints have as well, held once for all of them.
        self.shared: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return self._file.shape[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns in the file."""
        return self.layout.names or ()

    def part(self, name: str, span: slice) -> NDArray[Any]:
        """Return a column of consecutive rows, without gaps in memory."""
        start, stop, _ = span.indices(len(self))
        whole = stop - start == len(self)
        if name in self._names:
            if name not in (kept := self._kept) and (whole or self._has_room()):
                kept = self._keep()
            if name in kept:
                return kept[name][start:stop]
        if name in self.shared:
            return self.shared[name][start:stop]
        if not whole:
            return np.ascontiguousarray(self._rows_of_part(start, stop)[name])
        return self._read_columns([name])[name]

    def columns(self, names: Sequence[str]) -> list[NDArray[Any]]:
        """Return some columns; those that are not in memory are read together."""
        missing = [name for name in names if name not in self._names and name not in self.shared]
        read = self._read_columns(missing) if missing else {}
        return [read[name] if name in read else self.part(name, slice(None)) for name in names]

    def _read_columns(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        columns = {name: np.empty(len(self), self.layout[name]) for name in names}
        for place, rows in self._parts():
            for name, column in columns.items():
                column[place] = rows[name]
        return columns

    def all_rows(self) -> Iterator[NDArray[Any]]:
        """Yield all rows in parts, of the file's dtype; what there is room for is in memory afterwards."""
        if self._has_room():
            yield from self._keeping()
        else:
            for _, rows in self._parts():
                yield rows

    def _parts(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        step = max(1, _PART_BYTES // self.layout.itemsize)
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            yield slice(start, stop), self._read(start, stop)

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        size = self.layout.itemsize
        return arrays.read_bytes(self._folder, self._file, start * size, stop * size).view(self.layout)

    def _rows_of_part(self, start: int, stop: int) -> NDArray[Any]:
        # Whoever goes through a run in parts asks for several columns of one part.
        part = self._part
        if part is None or part[:2] != (start, stop):
            # A copy: whole pieces of the file were read, and would stay in memory for each checkpoint.
            self._part = part = start, stop, self._read(start, stop).copy()
        return part[2]

    def _has_room(self) -> bool:
        return self._bytes + sum(columns._bytes for columns in self._others()) <= _MAX_BYTES

    def _others(self) -> list[StoredColumns]:
        """Return those that have columns in memory, in the order in which these were read."""
        found = (ref() for ref in list(self._recent))
        return [columns for columns in found if columns not in (None, self) and columns._kept]

    def _keep(self) -> dict[str, NDArray[Any]]:
        check_room(self._folder / self._file.name, self._bytes)
        for _ in self._keeping():
            pass
        return self._kept

    def _keeping(self) -> Iterator[NDArray[Any]]:
        kept = {name: np.empty(len(self), self.layout[name]) for name in self._names}
        for place, rows in self._parts():
            for name, column in kept.items():
                column[place] = rows[name]
            yield rows
        for column in kept.values():
            column.flags.writeable = False
        self._kept, self._part = kept, None
        with self._turn:  # several threads may read, each another file
            self._drop_others()

    def _drop_others(self) -> None:
        others = self._others()
        for place, columns in enumerate(others[:-1]):
            if self._bytes + sum(other._bytes for other in others[place:]) <= _MAX_BYTES:
                break
            columns._kept = {}
        type(self)._recent = deque(weakref.ref(columns) for columns in [*self._others(), self])
