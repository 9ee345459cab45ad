"""From a record to a checkpoint that reads its arrays when they are needed."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from confshift import recalibration
from confshift.checkpoint import LEFT_OUT, MEASURED, Checkpoint, Measurement
from confshift.errors import ConfshiftError
from confshift.predictions import FACTS, Predictions
from confshift.scoring import Scores
from confshift.storage import arrays
from confshift.storage.memory import check_room
from confshift.storage.record import Record, columns_dtype
from confshift.tasks import check_labels

#: At most this many bytes of logits stay in memory, but always those of the last two checkpoints read.
_MAX_BYTES = 1 << 29
#: Reading columns takes this many times their size: the file, ids and numbers apart, and copies of them.
_COPIES = 4
#: Relative to the logits: whatever precision they were subtracted in.
_ROUNDING = 1e-5
_BLOCK = 1 << 18


def checkpoint_from(
    folder: Path,
    record: Record,
    class_names: tuple[str, ...],
    note_logits: Callable[[Record, str], None],
) -> Checkpoint:
    """Return the checkpoint of a record; `folder` is its split's.

    `note_logits` receives the result of reading its logits: "", or what is wrong with them.
    """

    def predictions() -> Predictions:
        try:
            result = read_predictions(folder, record, class_names)
        except ConfshiftError as error:
            note_logits(record, str(error))
            raise
        note_logits(record, "")
        return result

    return make_checkpoint(
        record, class_names, lambda: read_measurement(folder, record, predictions), predictions
    )


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
        rows[name] = measurement.rows[name]
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


def read_measurement(
    folder: Path, record: Record, predictions: Callable[[], Predictions] | None = None
) -> Measurement:
    """Read a record's columns; check every byte, and that every number is possible.

    What records of schema 1 lack is made from `predictions` when it is asked for.

    Raises
    ------
    ConfshiftError
        Naming the file and what is wrong with it.
    """
    shard = record.shards[0]
    path = folder / shard.columns.name
    check_room(path, _COPIES * shard.columns.size)
    columns = arrays.read_array(folder, shard.columns)
    ids = columns["sample_id"]
    if not (ids[1:] > ids[:-1]).all():
        raise ConfshiftError(f"{path} is refused: its sample ids are not ascending")
    if ids.dtype.kind == "S":
        try:
            ids = np.char.decode(ids, "utf-8")
        except UnicodeDecodeError as error:
            raise ConfshiftError(f"{path} is damaged: a sample id is not UTF-8") from error
    start = columns.dtype["sample_id"].itemsize
    rows = _part(columns, start, MEASURED)
    wrong = _impossible(rows, shard.logits.shape[1])
    if record.holds_left_out:
        losses = _part(columns, start + MEASURED.itemsize, LEFT_OUT)
        wrong = wrong or _impossible_losses(losses, rows)
        left_out = _as_stored(losses, record)
    groups, unknown = _groups(path, columns, record)
    wrong = wrong or unknown or _wrong_labels(ids, record)
    if wrong:
        raise ConfshiftError(f"{path} is refused: {wrong}")

    def from_logits() -> recalibration.LeftOut:
        assert predictions is not None
        read = predictions()
        wrong = rows["predicted"] != rows["target"]
        return recalibration.left_out(read.logits, read.targets, measurement.curve, wrong)

    measurement = Measurement(
        np.ascontiguousarray(ids),
        rows,
        record.beta,
        (lambda: left_out) if record.holds_left_out else from_logits,
        groups,
    )
    return measurement


def _groups(path: Path, columns: NDArray[Any], record: Record) -> tuple[NDArray[Any] | None, str]:
    """Return the groups of the rows, and what is impossible about them, "" where nothing is."""
    if not record.holds_groups:
        return None, ""
    numbers, names = columns["group"].astype(np.int64), np.array(record.shards[0].group_names)
    if not len(names):
        return numbers, ""
    unknown = (numbers < 0) | (numbers >= len(names))
    if unknown.any():
        return None, f"the group of {int(unknown.sum()):,} of {len(numbers):,} samples is impossible"
    check_room(path, len(numbers) * names.itemsize)
    return names[numbers], ""


def _wrong_labels(ids: NDArray[Any], record: Record) -> str:
    """Say that ids are of labels without a name; "" if none is."""
    try:
        check_labels(record.provenance.label_names, record.provenance.task, ids)
    except ConfshiftError as error:
        return str(error)
    return ""


def _part(columns: NDArray[Any], start: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return some neighbouring columns at once, as bytes: ten times faster than field by field."""
    raw = columns.view(np.uint8).reshape(len(columns), -1)[:, start : start + dtype.itemsize]
    return np.ascontiguousarray(raw).reshape(-1).view(dtype)


def _as_stored(losses: NDArray[Any], record: Record) -> recalibration.LeftOut:
    scaled, calibrated = (np.ascontiguousarray(losses[name]) for name in LEFT_OUT.names or ())
    beta = record.joint_beta if record.biases else math.nan
    return recalibration.LeftOut(scaled, calibrated, beta, np.array(record.biases, np.float64))


def _impossible_losses(losses: NDArray[Any], rows: NDArray[Any]) -> str:
    """Say which left-out losses no logits can have given; "" if all are possible."""
    fitted = np.isfinite(rows["curve_loss"])
    for name in LEFT_OUT.names or ():
        found = losses[name]
        count = int((~np.where(fitted, np.isfinite(found) & (found >= 0), np.isnan(found))).sum())
        if count:
            return f"the {name} of {count:,} of {len(rows):,} samples is impossible"
    return ""


def _impossible(rows: NDArray[Any], classes: int) -> str:
    """Say which numbers no logits can have given; "" if all are possible: anyone can make a checksum."""
    unanswered = np.isnan(rows["confidence"])
    nan = {name: np.isnan(rows[name]) for name in ("hedge", "mistake", "margin")}
    curve = [np.isfinite(rows[f"curve_{name}"]) for name in ("loss", "slope", "curvature")]
    target, predicted = rows["target"], rows["predicted"]
    possible = {
        "target": (target >= 0) & (target < classes),
        "predicted": (predicted >= -1) & (predicted < classes) & ((predicted == -1) == unanswered),
        "confidence": unanswered | ((rows["confidence"] > 0) & (rows["confidence"] <= 1)),
        "hedge": unanswered | ((rows["hedge"] >= 0) & (rows["hedge"] <= math.log(classes) + 1e-6)),
        "mistake": unanswered | ((rows["mistake"] >= 0) & ((rows["mistake"] == 0) | (predicted != target))),
        "margin": unanswered | ~nan["margin"],
        "tied": rows["tied"].view(np.uint8) <= 1,
        "curve": (curve[0] == curve[1]) & (curve[1] == curve[2]) & ~(rows["curve_curvature"] < 0),
        **{f"{name} of samples that can't be scored": ~unanswered | is_nan for name, is_nan in nan.items()},
    }
    wrong = next((name for name, fine in possible.items() if not fine.all()), None)
    if wrong is None:
        return ""
    count = int((~possible[wrong]).sum())
    return f"the {wrong} of {count:,} of {len(rows):,} samples is impossible"


def _strangers(logits: NDArray[Any], rows: NDArray[Any]) -> int:
    """Count the samples whose columns disagree with their logits: of another epoch, or forged."""
    top = _largest(logits)
    at_target = logits[np.arange(len(rows)), rows["target"]].astype(np.float64)
    answered = np.isfinite(top)
    with np.errstate(invalid="ignore", over="ignore"):
        mistake = top - at_target
        near = np.abs(mistake - rows["mistake"]) <= _ROUNDING * (1 + np.abs(top) + np.abs(at_target))
        same = near | (mistake == rows["mistake"])  # infinite on both sides
    return int((answered != (rows["predicted"] >= 0)).sum() + (answered & ~same).sum())


def _largest(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return each row's largest logit; numpy compares single precision four times as fast as half."""
    single = logits.dtype == np.float16
    step = max(1, _BLOCK // logits.shape[1])
    largest = np.empty(len(logits))
    for start in range(0, len(logits), step):
        block = logits[start : start + step]
        largest[start : start + step] = (block.astype(np.float32) if single else block).max(axis=1)
    return largest


def columns_damage(folder: Path, record: Record) -> str:
    """Say why a record's columns can't be used; "" if they can."""
    try:
        read_measurement(folder, record)
    except ConfshiftError as error:
        return str(error)
    return ""


def read_predictions(folder: Path, record: Record, class_names: tuple[str, ...]) -> Predictions:
    """Read a record's logits; check every byte, and that the columns were computed from them.

    Raises
    ------
    ConfshiftError
        Naming the file and what is wrong with it.
    """
    shard, provenance = record.shards[0], record.provenance
    measurement = read_measurement(folder, record)
    logits = arrays.read_array(folder, shard.logits)
    if shard.encoding == "bfloat16":
        check_room(folder / shard.logits.name, 2 * shard.logits.size)
        logits = arrays.from_bfloat16(logits)
    strangers = _strangers(logits, measurement.rows)
    if strangers:
        raise ConfshiftError(
            f"{folder / shard.logits.name} is refused: the columns of {strangers:,} of {len(logits):,} "
            "samples were not computed from it"
        )
    return Predictions.trusted(
        logits=logits,
        targets=measurement.rows["target"].astype(np.int64),
        sample_ids=measurement.sample_ids,
        groups=measurement.groups,
        class_names=class_names,
        **{name: getattr(provenance, name) for name in FACTS},
    )
