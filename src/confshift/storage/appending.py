"""Appending predictions: which epoch they are, and whether they belong to this run."""

from __future__ import annotations

import json
import logging
import math
import numbers
import sys
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from platform import python_version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confshift import __version__
from confshift.checkpoint import Checkpoint, Provenance
from confshift.errors import Refusal
from confshift.input_checks import are_numbers
from confshift.predictions import FACTS, Predictions, describe_difference
from confshift.storage.commit import PendingSave, is_stored
from confshift.storage.files import shows_sign
from confshift.storage.loading import group_names, make_checkpoint, read_predictions
from confshift.storage.measuring import read_measurement
from confshift.storage.pending import Save
from confshift.storage.record import Record
from confshift.storage.run_folder import RunFolder
from confshift.storage.signed_json import plain
from confshift.storage.split_folder import SplitFolder, check_split
from confshift.storage.writer import Writer

_log = logging.getLogger("confshift")

#: The names of groups stand in the record of every checkpoint: so many bytes at most.
_MAX_NAMES = 1 << 23
#: The samples of the newest appends, which those of the next are mostly equal to, and their fingerprints.
_recent: deque[tuple[int, list[NDArray[Any]], str]] = deque(maxlen=4)
#: Larger sets of samples are not kept, in bytes.
_MAX_REMEMBERED = 1 << 22


def append(
    writer: Writer,
    predictions: Predictions,
    *,
    epoch: float | None,
    split: str,
    notes: Mapping[str, Mapping[str, Any] | None],
    release: Callable[[], object] | None,
) -> Checkpoint:
    """Check everything in the caller's thread, then hand the save to the writer: see :meth:`Run.append`.

    `notes` are the metadata, logged and checks of the checkpoint.
    """
    check_split(split)
    _check_group_names(predictions)
    plain_notes = {name: plain(name, values) for name, values in notes.items()}
    fingerprint = _fingerprint(predictions)
    with writer.appending:
        writer.raise_failure()
        drafts = _on_their_way(writer)
        check_split(split, tuple(writer.splits))  # their folders may not exist yet
        names = _class_names(writer.run_folder, drafts, predictions)
        split_folder = _split_folder(writer, split, len(names))
        _check_samples(split_folder, drafts, predictions, fingerprint)

        def drafted(epoch: float) -> PendingSave:
            logged, checks = plain_notes["logged"], plain_notes["checks"]
            provenance = _provenance(writer, predictions, logged=logged, checks=checks)
            record = Record(split, epoch, fingerprint, provenance, plain_notes["metadata"])
            return PendingSave(record, predictions, names, split_folder.records.get(epoch))

        epoch = _choose_epoch(
            writer, epoch, split, lambda epoch: is_stored(split_folder.folder, drafted(epoch))
        )
        _refuse_living(writer, split_folder, epoch)
        draft = drafted(epoch)
        save = Save(draft, split, epoch, release)
        writer.submit(save)
        writer.note(split, epoch)
    return make_checkpoint(
        draft.record,
        names,
        save.measured.result,
        lambda: read_predictions(split_folder.folder, save.committed.result(), names),
        save.scores,
    )


def _provenance(
    writer: Writer, predictions: Predictions, *, logged: dict[str, float], checks: dict[str, Any]
) -> Provenance:
    versions = {"confshift": __version__, "numpy": np.__version__, "python": python_version()}
    if "torch" in sys.modules:  # a user of torch has imported it
        versions["torch"] = str(sys.modules["torch"].__version__)
    return Provenance(
        **{name: getattr(predictions, name) for name in FACTS},
        writer=writer.id,
        written=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=versions,
        logged=logged,
        checks=checks,
    )


def check_epoch(writer: Writer, *, epoch: float | None, split: str) -> float:
    """Return the epoch that an append would take now: see :meth:`Run.check_epoch`."""
    check_split(split)
    with writer.appending:
        _on_their_way(writer)
        check_split(split, tuple(writer.splits))
        if writer.started:
            return _choose_epoch(writer, epoch, split)
        # Refuses a path that can't be a run folder.
        split_folder = _split_folder_as_is(writer, split)
        epoch = _choose_epoch(writer, epoch, split)
        _refuse_living(writer, split_folder, epoch)
        return epoch


def holds(writer: Writer, split: str) -> bool:
    """Tell whether a split has a checkpoint, saved or on its way."""
    with writer.appending:
        if split in writer.splits:
            return True
        on_way = any(draft.record.split == split for draft in _on_their_way(writer))
        return on_way or writer.run_folder.holds(split)


def _on_their_way(writer: Writer) -> list[PendingSave]:
    """Return the saves that are waiting; warn where the folder was removed since the last one.

    Call it before reading the folder: a save must show up in at least one of the two. Epochs are still
    counted on: a training goes on although its checkpoints are gone.
    """
    waiting = writer.outstanding
    if writer.splits and not (waiting or writer.gaps or writer.run_folder.exists()):
        _log.warning(
            "%s: the run was removed while this process saves to it; its checkpoints are gone, and the "
            "count goes on after epoch %g. To start again from 1, pass another run folder",
            *(writer.run_folder.path, writer.latest or 0),
        )
        writer.begin_anew()
    return [draft for save in waiting if (draft := save.draft) is not None]


def _fingerprint(predictions: Predictions) -> str:
    """Return the fingerprint, of samples that were seen lately without hashing them again."""
    identity = predictions.sample_ids, predictions.targets, predictions.groups
    arrays = [array for array in identity if array is not None]
    for classes, known, fingerprint in list(_recent):
        same = classes == predictions.classes and len(known) == len(arrays)
        if same and all(map(_are_equal, known, arrays)):
            return fingerprint
    try:
        fingerprint = predictions.fingerprint
    except UnicodeEncodeError as error:
        raise Refusal(
            f"sample_ids or groups can't be written as UTF-8: {error}; pass text without lone surrogates"
        ) from error
    if sum(array.nbytes for array in arrays) <= _MAX_REMEMBERED:
        _recent.append((predictions.classes, [array.copy() for array in arrays], fingerprint))
    return fingerprint


def _are_equal(known: NDArray[Any], array: NDArray[Any]) -> bool:
    return known.dtype.kind == array.dtype.kind and np.array_equal(known, array)


def _check_group_names(predictions: Predictions) -> None:
    """Refuse names of groups that would make every record of the split a large file."""
    names = group_names(predictions.groups)
    if names is not None and len(json.dumps(names.tolist())) > _MAX_NAMES:
        raise Refusal(
            f"groups has {len(names):,} different names, more than {_MAX_NAMES:,} bytes of them; number the "
            "groups: np.unique(groups, return_inverse=True)[1]"
        )


def _split_folder(writer: Writer, split: str, classes: int) -> SplitFolder:
    run_folder = writer.run_folder
    if not run_folder.exists():
        if run_folder.path.exists() and not run_folder.path.is_dir():
            raise Refusal(f"run={str(run_folder.path)!r} is a file; pass a folder")
        return SplitFolder(run_folder.path / split)
    if split not in writer.splits:  # no other split had such a name when it was added
        check_split(split, tuple(folder.name for folder in run_folder.folders()))
    return run_folder.memory(split, classes).look()


def _split_folder_as_is(writer: Writer, split: str) -> SplitFolder:
    run_folder = writer.run_folder
    return _split_folder(writer, split, len(run_folder.class_names()) if run_folder.exists() else 0)


def _class_names(
    run_folder: RunFolder, drafts: list[PendingSave], predictions: Predictions
) -> tuple[str, ...]:
    """Return the run's class names, which the new ones must equal; default numbers give way to names."""
    names = predictions.class_names
    listed = [run_folder.class_names()] if run_folder.exists() else []
    listed += [draft.class_names for draft in drafts]
    current = next((other for other in listed if not are_numbers(other)), listed[0] if listed else names)
    if len(current) != len(names):
        raise Refusal(
            f"{run_folder.path}: the run has {len(current)} classes, and these logits have {len(names)} "
            "columns; use another run folder for other classes"
        )
    if are_numbers(current):
        return names
    if current != names and not are_numbers(names):
        changed = [k for k in range(len(current)) if current[k] != names[k]]
        first = changed[0]
        raise Refusal(
            f"{run_folder.path}: {len(changed)} of {len(current)} class names changed (class {first} was "
            f"{current[first]!r} and is now {names[first]!r}); pass the same names, or use another run folder"
        )
    return current


def _check_samples(
    split_folder: SplitFolder, drafts: list[PendingSave], predictions: Predictions, fingerprint: str
) -> None:
    """Refuse samples or targets that differ from the split's, saying how."""
    on_way = [draft for draft in drafts if draft.record.split == split_folder.folder.name]
    newest = on_way[-1].record if on_way else next(reversed(split_folder.records.values()), None)
    if newest is None or newest.fingerprint == fingerprint:
        return
    if on_way:
        first = on_way[-1].predictions
        known = first.sample_ids, first.targets, first.groups
    else:
        measurement = read_measurement(split_folder.folder, newest)
        known = measurement.sample_ids, measurement["target"], measurement.groups
    changed = describe_difference(known, (predictions.sample_ids, predictions.targets, predictions.groups))
    raise Refusal(
        f"{split_folder.folder}: these are not the samples that the split started with: {changed}. "
        "For another set use another run folder or another split="
    )


def _choose_epoch(
    writer: Writer,
    epoch: float | None,
    split: str,
    is_stored: Callable[[float], bool] = lambda epoch: False,
) -> float:
    """Return the requested epoch, else the next one for val, and val's newest for any other split."""
    if epoch is not None:
        epoch = _check_epoch(epoch)
    _check_first_write(writer, epoch, is_stored)
    if epoch is not None:
        return epoch
    newest = writer.highest if split == "val" else writer.latest
    if newest is None:
        newest = max(_split_folder_as_is(writer, "val").records, default=0.0)
    return _next(newest, split)


def _refuse_living(writer: Writer, split_folder: SplitFolder, epoch: float) -> None:
    """Refuse to replace a checkpoint of another process that is still running."""
    existing = split_folder.records.get(epoch)
    if existing is None or existing.provenance.writer == writer.id:
        return
    if shows_sign(writer.run_folder.path, existing.provenance.writer):
        raise Refusal(
            f"{writer.run_folder.path}: epoch {epoch:g} ({split_folder.folder.name}) was saved by another "
            "process that is still running. Two trainings need two run folders; to resume a training, end "
            "it first"
        )


def _next(newest: float, split: str) -> float:
    return math.floor(newest) + 1.0 if split == "val" else newest


def expected_epoch(writer: Writer, *, epoch: float | None, split: str) -> float:
    """Return the epoch that comes next after what this process has saved: see :meth:`Run.expected_epoch`."""
    if epoch is not None:
        return _check_epoch(epoch)
    return _next((writer.highest if split == "val" else writer.latest) or 0.0, split)


def _check_epoch(epoch: float) -> float:
    if isinstance(epoch, bool) or not isinstance(epoch, numbers.Real):
        raise Refusal(f"epoch={epoch!r} is not a number; pass 0, 1, 2, ... (fractions are fine)")
    if not math.isfinite(epoch) or epoch < 0:
        raise Refusal(f"epoch={epoch!r}: pass 0 (before training) or more")
    return float(epoch) + 0.0  # -0.0 is 0


def _check_first_write(writer: Writer, epoch: float | None, is_stored: Callable[[float], bool]) -> None:
    """Refuse to mix two trainings: the first write to a run with checkpoints must have an epoch.

    Epoch 0 is where a training begins; one that holds what is stored is of that training.
    """
    run_folder = writer.run_folder
    if writer.started or not run_folder.exists() or not run_folder.splits():
        return
    if epoch is None or (epoch <= 0 and not is_stored(epoch)):
        raise Refusal(
            f"{run_folder.path} already holds checkpoints, and epoch={epoch!r} does not say that this "
            "training goes on from them. Use another run folder, or pass epoch= (greater than 0) to resume "
            f"that training, or remove the old run first: Run({str(run_folder.path)!r}).delete()"
        )
