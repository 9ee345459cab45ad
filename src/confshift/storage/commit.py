"""Saving one checkpoint: its files, then the record that makes them count."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from confshift.checkpoint import Measurement
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions
from confshift.storage import arrays, files
from confshift.storage.catalog import RUN_FILE, Catalog, Shelf
from confshift.storage.loading import columns_array
from confshift.storage.record import LOGITS, Gap, Record, Shard, encode

__all__ = ["Draft", "commit", "delete", "tidy"]


@dataclass(frozen=True)
class Draft:
    """A checkpoint on its way: the record as far as it is known before the files are written."""

    record: Record
    predictions: Predictions
    class_names: tuple[str, ...]
    replaces: Record | None  # what the run held for this epoch when the save was asked for


def commit(catalog: Catalog, draft: Draft, measurement: Measurement, gaps: tuple[Gap, ...]) -> Record:
    """Write a checkpoint so that it is there whole or not at all, and return its record.

    First the files under names of their own, each synced; then their folder synced; then the record, put
    under the next free number. Nothing is ever overwritten, so no writer waits for another.

    Raises
    ------
    ConfshiftError
        Where another writer saved the same epoch with other content meanwhile.
    OSError
        Where a system call failed. What was written is removed, as far as the disk lets us.
    """
    folder = catalog.path / draft.record.split
    files.make_folders(catalog.path)
    with files.lock(catalog.path, exclusive=False):
        _put_run_file(catalog, draft)
        files.make_folders(folder)
        shelf, held = _look(catalog, draft)
        if held is not None and _holds_same(folder, held, draft):
            files.DISK.sync_folder(folder)  # the save before may have failed at just this
            return held
        shard = _write_files(folder, shelf.last + 1, draft.predictions, measurement)
        record = replace(draft.record, beta=measurement.beta, gaps=gaps, shards=(shard,))
        try:
            return _put_record(catalog, draft, record, shelf)
        finally:
            # Whatever happened, what counts now is what the records say.
            after = catalog.shelf(folder.name, len(draft.class_names))
            if not after.unreadable:
                _remove_unnamed(after, [record, *([held] if held else [])])


def _put_run_file(catalog: Catalog, draft: Draft) -> None:
    if not catalog.exists():
        content = {
            "class_names": list(draft.class_names),
            "versions": dict(draft.record.provenance.versions),
        }
        with contextlib.suppress(FileExistsError):
            files.put(catalog.path / RUN_FILE, encode(content))
    if catalog.class_names() != draft.class_names:
        raise ConfshiftError(
            f"{catalog.path}: another writer made this run meanwhile, with other class names"
        )


def _look(catalog: Catalog, draft: Draft) -> tuple[Shelf, Record | None]:
    """Return the split as it is now, and what it holds for this epoch."""
    shelf = catalog.shelf(draft.record.split, len(draft.class_names))
    for record in shelf.records.values():
        if record.fingerprint != draft.record.fingerprint:
            raise ConfshiftError(
                f"{shelf.folder}: another writer saved other samples or targets meanwhile; use another folder"
            )
    return shelf, shelf.records.get(draft.record.epoch)


def _put_record(catalog: Catalog, draft: Draft, record: Record, shelf: Shelf) -> Record:
    """Put the record under the next free number; where that was taken meanwhile, look and decide again."""
    while True:
        held = shelf.records.get(record.epoch)
        if held is not None and held != draft.replaces and held.provenance.writer != record.provenance.writer:
            if _holds_same(shelf.folder, held, draft):
                files.DISK.sync_folder(shelf.folder)
                return held
            raise ConfshiftError(
                f"{shelf.folder}: epoch {record.epoch:g} was saved by another writer meanwhile "
                f"({held.provenance.writer}); two trainings need two folders"
            )
        numbered = replace(
            record,
            sequence=shelf.last + 1,
            generation=held.generation + 1 if held else 0,
            gaps=(*(held.gaps if held else ()), *record.gaps),
        )
        try:
            files.put(shelf.folder / numbered.name, numbered.to_bytes())
            return numbered
        except FileExistsError:
            shelf, _ = _look(catalog, draft)


def _remove_unnamed(shelf: Shelf, records: list[Record]) -> None:
    """Remove the files of these records, if no record that counts names them; records before their files."""
    replaced = {record.name for record in shelf.replaced}
    files.remove(shelf.folder / record.name for record in records if record.name in replaced)
    names = [name for record in records for name in record.file_names if name not in shelf.named]
    files.remove(shelf.folder / name for name in names)


def _write_files(folder: Path, sequence: int, predictions: Predictions, measurement: Measurement) -> Shard:
    prefix = f"{sequence:06d}"
    logits, columns = (folder / files.unique_name(prefix, f".{kind}.npy") for kind in ("logits", "columns"))
    encoding = _encoding(predictions)
    try:
        shard = Shard(
            rank=0,
            encoding=encoding,
            logits=arrays.write_array(logits, predictions.logits, as_bfloat16=encoding == "bfloat16"),
            columns=arrays.write_array(columns, columns_array(measurement)),
        )
        files.DISK.sync_folder(folder)
    except BaseException:
        files.remove([logits, columns])
        raise
    return shard


def _encoding(predictions: Predictions) -> str:
    if predictions.source_dtype == "bfloat16" and arrays.is_bfloat16(predictions.logits):
        return "bfloat16"
    return predictions.logits.dtype.name


def _holds_same(folder: Path, held: Record, draft: Draft) -> bool:
    """Tell whether a record holds just what is to be saved: then nothing is done."""
    if _said(held) != _said(draft.record):
        return False
    shard, encoding = held.shards[0], _encoding(draft.predictions)
    if shard.encoding != encoding or shard.logits.shape != draft.predictions.logits.shape:
        return False
    try:
        stored = arrays.map_array(folder, shard.logits, np.dtype(LOGITS[encoding]))
    except ConfshiftError:
        return False
    return arrays.same_bytes(stored, draft.predictions.logits, as_bfloat16=encoding == "bfloat16")


def _said(record: Record) -> tuple[Any, ...]:
    provenance = record.provenance
    notes = [record.metadata, provenance.logged, provenance.checks]
    return (
        record.fingerprint,
        provenance.id_source,
        json.dumps(notes, sort_keys=True),
    )  # NaN equals NaN here


def tidy(catalog: Catalog) -> None:
    """Remove what no record needs, left by a crash; where another process is saving, leave it."""
    if catalog.exists():
        with files.lock(catalog.path, exclusive=True) as alone:
            if alone:
                files.remove(catalog.litter(len(catalog.class_names())))


def delete(catalog: Catalog) -> None:
    """Remove every file a run holds, then the folders that are empty by that.

    Raises
    ------
    ConfshiftError
        Where another process is saving, or a file can't be removed.
    """
    splits = catalog.splits()
    try:
        with files.lock(catalog.path, exclusive=True) as alone:
            if not alone and files.HAS_LOCKS:
                raise ConfshiftError(
                    f"{catalog.path}: another process is saving in this run; it is not deleted"
                )
            for path in catalog.everything():
                with contextlib.suppress(FileNotFoundError):
                    files.DISK.unlink(path)
        for folder in (*(catalog.path / split for split in splits), catalog.path):
            with contextlib.suppress(OSError):  # it holds files of others
                files.DISK.remove_folder(folder)
    except OSError as error:
        raise ConfshiftError(f"{catalog.path} was not deleted: {error}") from error
