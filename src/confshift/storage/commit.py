"""Saving one checkpoint: its files, then the record that makes them count."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from confshift.checkpoint import Measurement
from confshift.errors import ConfshiftError
from confshift.input_checks import are_numbers
from confshift.predictions import Predictions
from confshift.storage import arrays, files
from confshift.storage.cleaning import remove_unneeded
from confshift.storage.finding_runs import RUN_FILE
from confshift.storage.loading import columns_array
from confshift.storage.record import FailedSave, Record, Shard
from confshift.storage.run_folder import NAMES_FILE, RunFolder
from confshift.storage.signed_json import encode
from confshift.storage.split_folder import SplitFolder


@dataclass(frozen=True)
class PendingSave:
    """A checkpoint on its way: the record as far as it is known before the files are written."""

    record: Record
    predictions: Predictions
    class_names: tuple[str, ...]
    replaces: Record | None  # what the run held for this epoch when the save was asked for


def commit(
    run_folder: RunFolder, draft: PendingSave, measurement: Measurement, gaps: tuple[FailedSave, ...]
) -> Record:
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
    if not run_folder.exists():
        files.make_folders(run_folder.path)
    unneeded: list[Record] = []
    written = None
    with files.lock(run_folder.path, exclusive=False):
        _put_run_file(run_folder, draft)
        try:
            while True:
                split_folder, existing = _look(run_folder, draft)
                if existing is not None and _holds_same(split_folder.folder, existing, draft):
                    files.DISK.sync_folder(
                        split_folder.folder
                    )  # the save before may have failed at just this
                    return existing
                _refuse_stranger(run_folder, split_folder, existing, draft)
                if written is None:
                    shard = _write_files(split_folder, draft.predictions, measurement)
                    written = replace(draft.record, beta=measurement.beta, gaps=gaps, shards=(shard,))
                    unneeded = [written]  # until its record is there
                numbered = _number(written, split_folder, existing)
                with contextlib.suppress(FileExistsError):  # another writer took the number: look again
                    files.put(split_folder.folder / numbered.name, numbered.to_bytes())
                    unneeded = [existing] if existing else []
                    return numbered
        finally:
            if unneeded:
                _clean(run_folder, draft, unneeded)


def _put_run_file(run_folder: RunFolder, draft: PendingSave) -> None:
    """Put the class names: into run.json where there is none, and a copy beside it if they are names.

    The copy is also where names go that come after the numbers, and what is left where run.json is damaged.
    """
    names = draft.class_names
    content = encode({"class_names": list(names), "versions": dict(draft.record.provenance.versions)})
    if not run_folder.exists():
        with contextlib.suppress(FileExistsError):
            files.put(run_folder.path / RUN_FILE, content)
    if are_numbers(names):
        return
    if not run_folder.has_copy():
        with contextlib.suppress(FileExistsError):
            files.put(run_folder.path / NAMES_FILE, content)
    if run_folder.class_names() != names and not run_folder.damaged_names():
        raise ConfshiftError(
            f"{run_folder.path}: another writer made this run meanwhile, with other class names"
        )


def _look(run_folder: RunFolder, draft: PendingSave) -> tuple[SplitFolder, Record | None]:
    """Return the split as it is now, and what it holds of this epoch."""
    split_folder = run_folder.growing_split_folder(draft.record.split, len(draft.class_names))
    if any(record.fingerprint != draft.record.fingerprint for record in split_folder.records.values()):
        raise ConfshiftError(
            f"{split_folder.folder}: another writer saved other samples or targets meanwhile"
        )
    return split_folder, split_folder.records.get(draft.record.epoch)


def _refuse_stranger(
    run_folder: RunFolder, split_folder: SplitFolder, existing: Record | None, draft: PendingSave
) -> None:
    """Refuse to replace what was not there when this save was asked for, unless it is our own.

    Nor what a process saved that still lives: only a training that has ended can be resumed.
    """
    if existing is None or existing.provenance.writer == draft.record.provenance.writer:
        return
    known = draft.replaces is not None and existing.to_bytes() == draft.replaces.to_bytes()
    if not known or files.shows_sign(run_folder.path, existing.provenance.writer):
        raise ConfshiftError(
            f"{split_folder.folder}: writer {existing.provenance.writer} saved epoch {existing.epoch:g} "
            "meanwhile; "
            "two trainings need two run folders"
        )


def _number(record: Record, split_folder: SplitFolder, existing: Record | None) -> Record:
    """Return the record with the next free number; it takes over the gaps of the one it replaces."""
    if existing is None:
        return replace(record, sequence=split_folder.last + 1)
    return replace(
        record,
        sequence=split_folder.last + 1,
        generation=existing.generation + 1,
        gaps=(*existing.gaps, *record.gaps),
    )


def _clean(run_folder: RunFolder, draft: PendingSave, records: list[Record]) -> None:
    """Remove what these records' files are not needed for: what counts is what the disk says now."""
    with contextlib.suppress(OSError, ConfshiftError):
        remove_unneeded(run_folder, draft.record.split, len(draft.class_names), records)


def _write_files(split_folder: SplitFolder, predictions: Predictions, measurement: Measurement) -> Shard:
    folder, prefix = split_folder.folder, f"{split_folder.last + 1:06d}"
    logits, columns = (folder / files.unique_name(prefix, f".{kind}.npy") for kind in ("logits", "columns"))
    encoding = _encoding(predictions)
    if not split_folder.records:
        files.make_folders(folder)
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


def _holds_same(folder: Path, existing: Record, draft: PendingSave) -> bool:
    """Tell whether a record holds just what is to be saved: then nothing is done."""
    if _said(existing) != _said(draft.record):
        return False
    shard, encoding = existing.shards[0], _encoding(draft.predictions)
    if shard.encoding != encoding or shard.logits.shape != draft.predictions.logits.shape:
        return False
    try:
        stored = arrays.read_array(folder, shard.logits)
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
