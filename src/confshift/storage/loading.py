"""From a record to a checkpoint that reads its arrays when they are needed."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.measurement import MEASURED, Measurement
from confshift.predictions import FACTS, Predictions
from confshift.scoring import Scores
from confshift.storage import arrays
from confshift.storage.measuring import read_measurement
from confshift.storage.memory import check_room
from confshift.storage.record import Record, columns_dtype
from confshift.storage.user_cache import read_derived, write_derived

#: At most this many bytes of logits stay in memory, but always those of the last two checkpoints read.
_MAX_BYTES = 1 << 27
#: Relative to the logits: whatever precision they were subtracted in.
_ROUNDING = 1e-5
_BLOCK = 1 << 18


class StoredCheckpoint:
    """The files of a checkpoint: what its arrays are read from, when they are needed.

    Parameters
    ----------
    folder : Path
        Its split's.
    record : Record
    class_names : tuple of str
    note_logits : callable, optional
        Receives the result of reading its logits: "", or what is wrong with them.
    known : Measurement, optional
        Its measurement, where that has been read.
    """

    def __init__(
        self,
        folder: Path,
        record: Record,
        class_names: tuple[str, ...],
        note_logits: Callable[[Record, str], None] | None = None,
        known: Measurement | None = None,
    ) -> None:
        self._folder, self._record, self._class_names = folder, record, class_names
        self._note = note_logits or (lambda record, damage: None)
        self._measurement = known if record.holds_left_out else None

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        # Another process may have another working folder, and has no use for what is in this one's memory.
        return StoredCheckpoint, (self._folder.absolute(), self._record, self._class_names)

    @property
    def digest(self) -> str:
        """A digest of all that the record says, with the checksums of its files."""
        return self._record.digest

    def kept(self, key: str) -> bytes | None:
        """Return what was kept of an analysis; None where nothing was."""
        return read_derived(key)

    def keep(self, key: str, content: bytes) -> None:
        """Keep something of an analysis for other processes of this user: the run folder is only read."""
        write_derived(key, content)

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint."""
        return make_checkpoint(
            self._record, self._class_names, self.measurement, self.predictions, source=self
        )

    def measurement(self) -> Measurement:
        """Read the columns, once."""
        if self._measurement is None:
            self._measurement = read_measurement(self._folder, self._record, self.predictions)
        return self._measurement

    def predictions(self) -> Predictions:
        """Read the logits."""
        try:
            result = read_predictions(self._folder, self._record, self._class_names, self.measurement)
        except ConfshiftError as error:
            self._note(self._record, str(error))
            raise
        self._note(self._record, "")
        return result


def make_checkpoint(
    record: Record,
    class_names: tuple[str, ...],
    measurement: Callable[[], Measurement],
    predictions: Callable[[], Predictions],
    scores: Callable[[], Scores] | None = None,
    source: StoredCheckpoint | None = None,
) -> Checkpoint:
    """Return a checkpoint with a record's fields and these functions that read its arrays."""
    checkpoint = Checkpoint(
        epoch=record.epoch,
        split=record.split,
        class_names=class_names,
        read_measurement=measurement,
        read_predictions=_Cached(predictions),
        metadata=MappingProxyType(dict(record.metadata)),
        provenance=record.provenance,
        read_scores=scores,
    )
    object.__setattr__(checkpoint, "source", source)  # no argument: a copy with another epoch has none
    return checkpoint


def columns_array(measurement: Measurement) -> NDArray[Any]:
    """Return the content of the columns file: each sample's id and its measured values."""
    ids = measurement.sample_ids
    if ids.dtype.kind == "U":
        ids = np.char.encode(ids, "utf-8")
    groups = measurement.groups
    rows = np.empty(len(ids), columns_dtype(ids.dtype.str, groups=groups is not None))
    rows["sample_id"] = ids
    for name in MEASURED.names or ():
        rows[name] = measurement[name]
    rows["scaled_loss"] = measurement.left_out.scaled
    rows["calibrated_loss"] = measurement.left_out.calibrated
    if groups is not None:
        rows["group"] = groups if (names := group_names(groups)) is None else np.searchsorted(names, groups)
    return rows


def group_names(groups: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return the names of groups, ascending; None where 32 bits hold the groups themselves."""
    if groups is None or (groups.dtype.kind == "i" and np.array_equal(groups, groups.astype(np.int32))):
        return None
    return np.unique(groups)


class _Cached:
    """Reads predictions on first use, and keeps them until too many others have been read since."""

    _recent: ClassVar[deque[weakref.ref[_Cached]]] = deque()
    _turn: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, read: Callable[[], Predictions]) -> None:
        self._read = read
        self._predictions: Predictions | None = None

    def __call__(self) -> Predictions:
        predictions = self._predictions
        if predictions is None:
            self._predictions = predictions = self._read()
            with self._turn:  # several threads may read, each another checkpoint
                self._recent.append(weakref.ref(self))
                self._drop_others()
        return predictions

    def _drop_others(self) -> None:
        entries = [
            entry
            for ref in list(self._recent)
            if (entry := ref()) is not None and entry._predictions is not None
        ]
        sizes = [0 if (cached := entry._predictions) is None else cached.logits.nbytes for entry in entries]
        for place, entry in enumerate(entries[:-2]):
            if sum(sizes[place:]) <= _MAX_BYTES:
                break
            entry._predictions = None
        while self._recent and ((oldest := self._recent[0]()) is None or oldest._predictions is None):
            self._recent.popleft()


def _strangers(logits: NDArray[Any], measurement: Measurement) -> int:
    """Count the samples whose columns disagree with their logits: of another epoch, or forged."""
    top = _largest(logits)
    target, predicted, stored = (measurement[name] for name in ("target", "predicted", "mistake"))
    at_target = logits[np.arange(len(target)), target].astype(np.float64)
    answered = np.isfinite(top)
    with np.errstate(invalid="ignore", over="ignore"):
        mistake = top - at_target
        near = np.abs(mistake - stored) <= _ROUNDING * (1 + np.abs(top) + np.abs(at_target))
        same = near | (mistake == stored)  # infinite on both sides
    return int((answered != (predicted >= 0)).sum() + (answered & ~same).sum())


def _largest(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return each row's largest logit; numpy compares single precision four times as fast as half."""
    single = logits.dtype == np.float16
    step = max(1, _BLOCK // logits.shape[1])
    largest = np.empty(len(logits))
    for start in range(0, len(logits), step):
        block = logits[start : start + step]
        largest[start : start + step] = (block.astype(np.float32) if single else block).max(axis=1)
    return largest


def read_predictions(
    folder: Path,
    record: Record,
    class_names: tuple[str, ...],
    columns: Callable[[], Measurement] | None = None,
) -> Predictions:
    """Read a record's logits; check every byte, and that the columns were computed from them.

    `columns` returns its columns, where they have been read already.

    Raises
    ------
    ConfshiftError
        Naming the file and what is wrong with it.
    """
    shard, provenance = record.shards[0], record.provenance
    measurement = columns() if columns else read_measurement(folder, record)
    logits = arrays.read_array(folder, shard.logits)
    if shard.encoding == "bfloat16":
        check_room(folder / shard.logits.name, 2 * shard.logits.size)
        logits = arrays.from_bfloat16(logits)
    strangers = _strangers(logits, measurement)
    if strangers:
        raise ConfshiftError(
            f"{folder / shard.logits.name} is refused: the columns of {strangers:,} of {len(logits):,} "
            "samples were not computed from it"
        )
    return Predictions.trusted(
        logits=logits,
        targets=measurement["target"].astype(np.int64),
        sample_ids=measurement.sample_ids,
        groups=measurement.groups,
        class_names=class_names,
        **{name: getattr(provenance, name) for name in FACTS},
    )
