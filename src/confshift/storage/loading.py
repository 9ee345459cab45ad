"""From a record to a checkpoint that reads its arrays when it is asked for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confshift.checkpoint import MEASURED, Checkpoint, Measurement
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions
from confshift.scoring import Scores
from confshift.storage import arrays
from confshift.storage.record import Record, columns_dtype

__all__ = ["checkpoint_from", "columns_array", "make_checkpoint", "read_measurement", "read_predictions"]


def checkpoint_from(folder: Path, record: Record, class_names: tuple[str, ...]) -> Checkpoint:
    """Return the checkpoint of a record; `folder` is its split's."""
    return make_checkpoint(
        record,
        class_names,
        lambda: read_measurement(folder, record),
        lambda: read_predictions(folder, record, class_names),
    )


def make_checkpoint(
    record: Record,
    class_names: tuple[str, ...],
    measurement: Callable[[], Measurement],
    predictions: Callable[[], Predictions],
    scores: Callable[[], Scores] | None = None,
) -> Checkpoint:
    """Return a checkpoint with what a record says of it, and these sources of its arrays."""
    return Checkpoint(
        epoch=record.epoch,
        split=record.split,
        class_names=class_names,
        read_measurement=measurement,
        read_predictions=predictions,
        metadata=MappingProxyType(dict(record.metadata)),
        provenance=record.provenance,
        read_scores=scores,
    )


def columns_array(measurement: Measurement) -> NDArray[Any]:
    """Return what the columns file holds: each sample's id and what was measured of it."""
    ids = measurement.sample_ids
    if ids.dtype.kind == "U":
        ids = np.char.encode(ids, "utf-8")
    rows = np.empty(len(ids), columns_dtype(ids.dtype.str))
    rows["sample_id"] = ids
    for name in MEASURED.names or ():
        rows[name] = measurement.rows[name]
    return rows


def read_measurement(folder: Path, record: Record) -> Measurement:
    """Read a record's columns; every byte is checked, no logit is touched.

    Raises
    ------
    ConfshiftError
        Naming the file and what is wrong with it.
    """
    stored = record.shards[0].columns
    columns = arrays.read_array(folder, stored)
    ids = columns["sample_id"]
    if ids.dtype.kind == "S":
        try:
            ids = np.char.decode(ids, "utf-8")
        except UnicodeDecodeError as error:
            raise ConfshiftError(f"{folder / stored.name} is damaged: a sample id is no UTF-8") from error
    # All but the id at once, as bytes: ten times faster than field by field.
    raw = columns.view(np.uint8).reshape(len(columns), -1)[:, -MEASURED.itemsize :]
    rows = np.ascontiguousarray(raw).reshape(-1).view(MEASURED)
    return Measurement(np.ascontiguousarray(ids), rows, record.beta)


def read_predictions(folder: Path, record: Record, class_names: tuple[str, ...]) -> Predictions:
    """Map a record's logits; only bfloat16 ones are read, into float32.

    Raises
    ------
    ConfshiftError
        Naming the file and what is wrong with it.
    """
    shard, provenance = record.shards[0], record.provenance
    logits = arrays.map_array(folder, shard.logits)
    if shard.encoding == "bfloat16":
        logits = arrays.from_bfloat16(logits)
    measurement = read_measurement(folder, record)
    return Predictions.trusted(
        logits=logits,
        targets=measurement.rows["target"].astype(np.int64),
        sample_ids=measurement.sample_ids,
        class_names=class_names,
        id_source=provenance.id_source,
        source_dtype=provenance.source_dtype,
        ignored_samples=provenance.ignored_samples,
        duplicate_samples=provenance.duplicate_samples,
    )
