"""Saving one checkpoint: its files, then the record that makes them count."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from confshift.errors import ConfshiftError
from confshift.input_checks import are_numbers
from confshift.measurement import Measurement
from confshift.predictions import Predictions
from confshift.storage import arrays, files
from confshift.storage.cleaning import remove_unneeded
from confshift.storage.finding_runs import RUN_FILE
from confshift.storage.loading import columns_array, group_names
from confshift.storage.record import FailedSave, Record, Shard
from confshift.storage.run_folder import NAMES_FILE, RunFolder
from confshift.storage.signed_json import encode
from confshift.storage.split_folder import SplitFolder
from confshift.storage.split_memory import SplitMemory


@dataclass(frozen=True)
class PendingSave:
    """A checkpoint to be saved: its record, as far as it is known before the files are written."""

    record: Record
    predictions: Predictions
    class_names: tuple[str, ...]
    replaces: Record | None  # the run's record of this epoch when the save was requested


def commit(
    run_folder: RunFolder, draft: PendingSave, measurement: Measurement, gaps: tuple[FailedSave, ...]
) -> Record:
    """Write a checkpoint, whole or not at all, and return its record.

    First come the files, under unique names, each synced; then their folder is synced; then the record
    appears under the next free number. Nothing is ever overwritten, so no writer waits for another.

    Raises
    ------
    ConfshiftError
        Where another writer saved the same epoch with other content meanwhile.
    OSError
        Where a system call failed. The files written are removed, as far as possible.
    """
    if not run_folder.exists():
        files.make_folders(run_folder.path)
    with files.lock(run_folder.path, exclusive=False) as lock:
        _put_run_file(run_folder, draft)
        memory = run_folder.memory(draft.record.split, len(draft.class_names))
        with memory.saving(lock):
            return _commit(run_folder, memory, lock, draft, measurement, gaps)


def _commit(
    run_folder: RunFolder,
    memory: SplitMemory,
    lock: files.Lock | None,
    draft: PendingSave,
    measurement: Measurement,
    gaps: tuple[FailedSave, ...],
) -> Record:
    unneeded: list[Record] = []
    complete = None
    try:
        while True:
            split_folder, existing = _look(memory, draft)
            if existing is not None and _holds_same(split_folder.folder, existing, draft):
                files.DISK.sync_folder(split_folder.folder)  # an earlier save may have failed here
                return existing
            _refuse_stranger(run_folder, split_folder, existing, draft)
            if complete is None:
                shard = _write_files(split_folder, draft.predictions, measurement)
                complete = replace(_measured(draft.record, measurement), gaps=gaps, shards=(shard,))
                unneeded = [complete]  # until its record is there
            numbered = _number(complete, split_folder, existing)
            try:
                memory.put(numbered, lock)
            except FileExistsError:  # another writer took the number
                memory.look_anew()
                continue
            unneeded = [existing] if existing is not None and not memory.remove(existing) else []
            return numbered
    finally:
        if unneeded:
            _clean(run_folder, draft, unneeded)


def _measured(record: Record, measurement: Measurement) -> Record:
    """Return the record with what was fitted."""
    joint_beta, fitted = measurement.fit
    biases = tuple(fitted.tolist())
    return replace(record, beta=measurement.beta, joint_beta=joint_beta if biases else 0.0, biases=biases)


def _put_run_file(run_folder: RunFolder, draft: PendingSave) -> None:
    """Save the class names: in run.json if there is none, and names other than numbers in a copy beside it.

    Names that come after the first checkpoint go into the copy; it also serves if run.json is damaged.
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
            f"{run_folder.path}: another process made this run meanwhile, with other class names; use "
            "another run folder"
        )


def _look(memory: SplitMemory, draft: PendingSave) -> tuple[SplitFolder, Record | None]:
    """Return the split as it is now, and its record of this epoch."""
    existing = memory.find(draft.record.epoch)
    split_folder = memory.look()
    if memory.differs(draft.record.fingerprint):
        raise ConfshiftError(
            f"{split_folder.folder}: another process saved other samples or targets meanwhile; use another "
            "run folder"
        )
    return split_folder, existing


def _refuse_stranger(
    run_folder: RunFolder, split_folder: SplitFolder, existing: Record | None, draft: PendingSave
) -> None:
    """Refuse to replace another process's record that is new since this save was requested.

    Nor one of a process that is still running: only a training that has ended can be resumed.
    """
    if existing is None or existing.provenance.writer == draft.record.provenance.writer:
        return
    unchanged = draft.replaces is not None and existing.to_bytes() == draft.replaces.to_bytes()
    if not unchanged or files.shows_sign(run_folder.path, existing.provenance.writer):
        raise ConfshiftError(
            f"{split_folder.folder}: another process ({existing.provenance.writer}) saved epoch "
            f"{existing.epoch:g} meanwhile; two trainings need two run folders"
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
    """Remove these records' files that are not needed, by the present state of the disk."""
    with contextlib.suppress(OSError, ConfshiftError):
        remove_unneeded(run_folder, draft.record.split, len(draft.class_names), records)


def _write_files(split_folder: SplitFolder, predictions: Predictions, measurement: Measurement) -> Shard:
    folder, prefix = split_folder.folder, f"{split_folder.last + 1:06d}"
    logits, columns = (folder / files.unique_name(prefix, f".{kind}.npy") for kind in ("logits", "columns"))
    encoding, names = _encoding(predictions), group_names(measurement.groups)
    if not split_folder.records:
        files.make_folders(folder)
    try:
        shard = Shard(
            rank=0,
            encoding=encoding,
            logits=arrays.write_array(logits, predictions.logits, as_bfloat16=encoding == "bfloat16"),
            columns=arrays.write_array(columns, columns_array(measurement)),
            group_names=() if names is None else tuple(names.tolist()),
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


def is_stored(folder: Path, draft: PendingSave) -> bool:
    """Tell whether a split's folder holds a checkpoint already."""
    return draft.replaces is not None and _holds_same(folder, draft.replaces, draft)


def _holds_same(folder: Path, existing: Record, draft: PendingSave) -> bool:
    """Tell whether a record already holds what is to be saved: then nothing has to be done."""
    if _notes(existing) != _notes(draft.record):
        return False
    shard, encoding = existing.shards[0], _encoding(draft.predictions)
    if shard.encoding != encoding or shard.logits.shape != draft.predictions.logits.shape:
        return False
    try:
        stored = arrays.read_array(folder, shard.logits)
    except ConfshiftError:
        return False
    return arrays.same_bytes(stored, draft.predictions.logits, as_bfloat16=encoding == "bfloat16")


def _notes(record: Record) -> tuple[Any, ...]:
    provenance = record.provenance
    notes = [record.metadata, provenance.logged, provenance.checks]
    return (
        record.fingerprint,
        *(provenance.id_source, provenance.task, provenance.label_names, provenance.total_rows),
        json.dumps(notes, sort_keys=True),
    )  # NaN equals NaN here
