"""From a record to a checkpoint that reads its arrays when they are needed."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from confshift.checkpoint import MEASURED, Checkpoint, Measurement
from confshift.errors import ConfshiftError
from confshift.predictions import FACTS, Predictions
from confshift.scoring import Scores
from confshift.storage import arrays
from confshift.storage.measuring import read_measurement
from confshift.storage.memory import check_room
from confshift.storage.record import Record, columns_dtype

#: At most this many bytes of logits stay in memory, but always those of the last two checkpoints read.
_MAX_BYTES = 1 << 27
#: Relative to the logits: whatever precision they were subtracted in.
_ROUNDING = 1e-5
_BLOCK = 1 << 18


def checkpoint_from(
    folder: Path,
    record: Record,
    class_names: tuple[str, ...],
    note_logits: Callable[[Record, str], None],
    known: Measurement | None = None,
) -> Checkpoint:
    """Return the checkpoint of a record; `folder` is its split's.

    `note_logits` receives the result of reading its logits: "", or what is wrong with them. `known` is its
    measurement, where that has been read.
    """

    @cache
    def measurement() -> Measurement:
        if known is not None and record.holds_left_out:
            return known
        return read_measurement(folder, record, predictions)

    def predictions() -> Predictions:
        try:
            result = read_predictions(folder, record, class_names, measurement)
        except ConfshiftError as error:
            note_logits(record, str(error))
            raise
        note_logits(record, "")
        return result

    return make_checkpoint(record, class_names, measurement, predictions)


def make_checkpoint(
    record: Record,
    class_names: tuple[str, ...],
    measurement: Callable[[], Measurement],
    predictions: Callable[[], Predictions],
    scores: Callable[[], Scores] | None = None,
) -> Checkpoint:
    """Return a checkpoint with a record's fields and these functions that read its arrays."""
    return Checkpoint(
        epoch=record.epoch,
        split=record.split,
        class_names=class_names,
        read_measurement=measurement,
        read_predictions=_Cached(predictions),
        metadata=MappingProxyType(dict(record.metadata)),
        provenance=record.provenance,
        read_scores=scores,
    )


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

    def __init__(self, read: Callable[[], Predictions]) -> None:
        self._read = read
        self._predictions: Predictions | None = None

    def __call__(self) -> Predictions:
        predictions = self._predictions
        if predictions is None:
            self._predictions = predictions = self._read()
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
