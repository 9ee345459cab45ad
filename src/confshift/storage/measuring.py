"""A record's columns become a measurement, once every byte and every number in them has been checked."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift import recalibration
from confshift.errors import ConfshiftError
from confshift.measurement import LEFT_OUT, MadeLeftOut, Measurement
from confshift.predictions import Predictions
from confshift.storage.columns import StoredColumns
from confshift.storage.memory import check_room
from confshift.storage.record import Record
from confshift.storage.user_cache import read_derived, write_derived
from confshift.tasks import check_labels
from confshift.temperature import Sums, optimum_of, sums_of


def read_measurement(
    folder: Path, record: Record, predictions: Callable[[], Predictions] | None = None
) -> Measurement:
    """Read a record's columns once, in parts; check every byte, and that every number is possible.

    What records of schema 1 lack is made from `predictions` when it is asked for.

    Raises
    ------
    ConfshiftError
        Naming the file and what is wrong with it.
    """
    table = StoredColumns(folder, record)
    known = _checked(table, folder / record.shards[0].columns.name, record)

    def as_stored() -> recalibration.LeftOut:
        scaled, calibrated = (measurement.column(name) for name in ("scaled", "refinement"))
        return recalibration.LeftOut(scaled, calibrated, *fit)

    fit = record.joint_beta if record.biases else math.nan, np.array(record.biases, np.float64)
    stored = record.holds_left_out
    measurement = Measurement(
        known.sample_ids,
        table,
        record.beta,
        as_stored if stored else MadeLeftOut(_FromLogits(record, lambda: measurement, predictions)),
        known.groups,
        fit if stored else None,
        known.tied,
        optimum_of(record.beta, known.sums),
    )
    return measurement


class _FromLogits:
    """Makes what records of schema 1 lack, once for all processes of this user."""

    def __init__(
        self,
        record: Record,
        measurement: Callable[[], Measurement],
        predictions: Callable[[], Predictions] | None,
    ) -> None:
        self._record, self._measurement, self._predictions = record, measurement, predictions

    def __call__(self) -> recalibration.LeftOut:
        key = f"left out {self._record.digest}"
        if (kept := read_derived(key)) is not None:
            return self._unpacked(kept)
        assert self._predictions is not None
        measurement, read = self._measurement(), self._predictions()
        rows = measurement.rows
        wrong = rows["predicted"] != rows["target"]
        made = recalibration.left_out(read.logits, read.targets, measurement.curve, wrong)
        write_derived(key, np.concatenate(_numbers(made)).astype("<f8").tobytes())
        return made

    def _unpacked(self, kept: bytes) -> recalibration.LeftOut:
        numbers, samples = np.frombuffer(kept, "<f8"), self._record.shards[0].columns.shape[0]
        scaled, calibrated, beta, biases = np.split(numbers, [samples, 2 * samples, 2 * samples + 1])
        return recalibration.LeftOut(scaled, calibrated, float(beta[0]), biases)


def _numbers(left_out: recalibration.LeftOut) -> list[NDArray[np.float64]]:
    return [left_out.scaled, left_out.calibrated, np.array([left_out.beta]), left_out.biases]


def columns_damage(folder: Path, record: Record) -> str:
    """Say why a record's columns can't be used; "" if they can."""
    try:
        read_measurement(folder, record)
    except ConfshiftError as error:
        return str(error)
    return ""


class _Known(NamedTuple):
    """What a first reading of all rows finds out."""

    sample_ids: NDArray[Any]
    groups: NDArray[Any] | None
    tied: int
    sums: Sums


def _checked(table: StoredColumns, path: Path, record: Record) -> _Known:
    """Read all rows once, in parts; refuse what no logits can have given."""
    check_room(path, len(table) * table.layout["sample_id"].itemsize)
    ids, codes, targets, tied, sums = [], [], [], 0, Sums()
    wrong: Counter[str] = Counter()
    for rows in table.all_rows():
        ids.append(_ids(path, rows["sample_id"]))
        if len(ids) > 1 and not ids[-2][-1] < ids[-1][0]:
            raise ConfshiftError(f"{path} is refused: its sample ids are not ascending")
        wrong.update(_impossible(rows, record))
        targets.append(rows["target"].copy())
        tied += int(rows["tied"].sum())
        sums = Sums(*map(add, sums, sums_of(rows["curve_slope"], rows["curve_curvature"])))
        if record.holds_groups:
            codes.append(rows["group"].astype(np.int64))
    sample_ids = _shared("ids", np.concatenate(ids)) if ids else np.empty(0, np.int64)
    table.shared["target"] = _shared("targets", np.concatenate(targets or [np.empty(0, np.int32)]))
    groups, unknown = _groups(path, codes, record)
    name = next((name for name in _NUMBERS if wrong[name]), "")
    reason = f"the {name} of {wrong[name]:,} of {len(table):,} samples is impossible" if name else ""
    if reason := reason or unknown or _wrong_labels(sample_ids, record):
        raise ConfshiftError(f"{path} is refused: {reason}")
    return _Known(sample_ids, groups, tied, sums)


def _ids(path: Path, stored: NDArray[Any]) -> NDArray[Any]:
    """Return ids as numbers or text; refuse them where they are not ascending."""
    if not (stored[1:] > stored[:-1]).all():
        raise ConfshiftError(f"{path} is refused: its sample ids are not ascending")
    if stored.dtype.kind != "S":
        return np.ascontiguousarray(stored)
    try:
        return np.char.decode(stored, "utf-8")
    except UnicodeDecodeError as error:
        raise ConfshiftError(f"{path} is damaged: a sample id is not UTF-8") from error


#: What was read last of a size: checkpoints of a run have the same ids and groups, held once.
_RECENT: weakref.WeakValueDictionary[tuple[str, str, int], NDArray[Any]] = weakref.WeakValueDictionary()


def _shared(kind: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return an array that equals these values: the one that is already in memory, where there is one."""
    values.flags.writeable = False
    key = kind, values.dtype.str, len(values)
    known = _RECENT.get(key)
    if known is not None and np.array_equal(known, values):
        return known
    _RECENT[key] = values
    return values


def _groups(path: Path, parts: list[NDArray[Any]], record: Record) -> tuple[NDArray[Any] | None, str]:
    """Return the groups of the rows, and what is impossible about them, "" where nothing is."""
    if not record.holds_groups:
        return None, ""
    numbers, names = np.concatenate(parts or [np.empty(0, np.int64)]), np.array(record.shards[0].group_names)
    if not len(names):
        return _shared("groups", numbers), ""
    unknown = (numbers < 0) | (numbers >= len(names))
    if unknown.any():
        return None, f"the group of {int(unknown.sum()):,} of {len(numbers):,} samples is impossible"
    check_room(path, len(numbers) * names.itemsize)
    return _shared("groups", names[numbers]), ""


def _wrong_labels(ids: NDArray[Any], record: Record) -> str:
    """Say that ids are of labels without a name; "" if none is."""
    try:
        check_labels(record.provenance.label_names, record.provenance.task, ids)
    except ConfshiftError as error:
        return str(error)
    return ""


#: Rows that stay in a core's cache while each of their columns is looked at.
_BLOCK = 1 << 13
#: What can be impossible, in the order in which it is said.
_NOT_NAN = ("hedge", "mistake", "margin")
_NUMBERS = (
    *("target", "predicted", "confidence", "hedge", "mistake", "margin", "tied", "curve"),
    *(f"{name} of samples that can't be scored" for name in _NOT_NAN),
    *(LEFT_OUT.names or ()),
)


def _impossible(rows: NDArray[Any], record: Record) -> dict[str, int]:
    """Count, by what is wrong, the numbers that no logits can have given: anyone can make a checksum."""
    found: Counter[str] = Counter()
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        possible = possible_numbers(some, record.shards[0].logits.shape[1])
        if record.holds_left_out:
            possible |= _possible_losses(some)
        found.update({name: int((~fine).sum()) for name, fine in possible.items() if not fine.all()})
    return found


def _possible_losses(rows: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """Return which left-out losses some logits can have given."""
    fitted = np.isfinite(rows["curve_loss"])
    losses = {name: rows[name] for name in LEFT_OUT.names or ()}
    return {
        name: np.where(fitted, np.isfinite(loss) & (loss >= 0), np.isnan(loss))
        for name, loss in losses.items()
    }


def possible_numbers(rows: NDArray[Any], classes: int) -> dict[str, NDArray[np.bool_]]:
    """Return which rows of MEASURED some logits can have given, by column."""
    unanswered = np.isnan(rows["confidence"])
    nan = {name: np.isnan(rows[name]) for name in _NOT_NAN}
    curve = [np.isfinite(rows[f"curve_{name}"]) for name in ("loss", "slope", "curvature")]
    target, predicted = rows["target"], rows["predicted"]
    return {
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
