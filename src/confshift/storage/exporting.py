"""A run as Parquet files, for other programs: `split=val/epoch=3/part-0.parquet`, one row per sample."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from confshift import __version__
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError, Refusal
from confshift.input_checks import are_numbers
from confshift.measurement import columns_of
from confshift.storage import files
from confshift.storage.disk import Bytes
from confshift.storage.parquet import import_pyarrow
from confshift.storage.reading import entries_of, is_folder, status_of

#: Of the document under the key "confshift" in the metadata of a file's schema.
_SCHEMA = 1
_PART = "part-0.parquet"
#: Rows of a row group: the most, and as many as have this many bytes of logits. A group is in memory at once.
_MOST_ROWS, _MOST_BYTES = 1 << 17, 1 << 26
_COLUMNS = (
    *("sample_id", "group", "target", "target_name", "predicted", "predicted_name", "correct", "loss"),
    *("hedge", "mistake", "confidence", "margin", "tied", "calibration_loss", "refinement_loss"),
    *("scale_loss", "balance_loss", "answered", "finite", "logits"),
)
#: The columns with many equal values, which are stored as a dictionary: of floats that takes longest of all.
_REPEATED = ("group", "target", "target_name", "predicted", "predicted_name")
_NATS = ("loss", "hedge", "mistake", "margin", "calibration_loss", "refinement_loss", "scale_loss")
_UNITS = MappingProxyType(
    {**dict.fromkeys((*_NATS, "balance_loss", "logits"), "nats"), "confidence": "probability"}
)


class Part(NamedTuple):
    """A file that was written."""

    split: str
    epoch: float
    file: str  # below the folder, with forward slashes
    rows: int


def export_checkpoints(
    checkpoints: Iterable[Checkpoint], folder: Path, *, logits: bool, source: Path
) -> list[Part]:
    """Write a file for each checkpoint, as :meth:`Run.export_parquet` says; `source` is the run's folder.

    Raises
    ------
    ConfshiftError
        As :meth:`Run.export_parquet`; whatever was written is then removed.
    """
    import_pyarrow("written")
    _check_folder(folder, source)
    with contextlib.ExitStack() as undo:
        try:
            _make_new(folder, undo)
            parts = [_write(checkpoint, folder, logits, undo) for checkpoint in checkpoints]
        except OSError as error:
            raise ConfshiftError(
                f"folder={str(folder)!r} can't be written: {error.strerror or error}; give a new folder that "
                "you may write to, on a disk with space left"
            ) from error
        if not parts:
            raise ConfshiftError(
                f"{source} has no checkpoint that can be exported; Run.problems lists what can't be read"
            )
        undo.pop_all()
    return parts


def _check_folder(folder: Path, source: Path) -> None:
    """Refuse a folder that holds anything: files of two exports would read as one table."""
    where = f"folder={str(folder)!r}"
    if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(source)):
        raise Refusal(f"{where} is inside the run, which holds checkpoints alone; give a folder beside it")
    if status_of(folder) is None:
        return
    if not is_folder(folder):
        raise Refusal(f"{where} is a file; give a new folder")
    if entries_of(folder):
        raise Refusal(f"{where} is not empty, and nothing is overwritten; remove it, or give a new folder")


def _make_new(folder: Path, undo: contextlib.ExitStack) -> None:
    """Make a folder that another export may be making; where `undo` is not emptied, remove it again."""
    if not is_folder(folder):
        undo.callback(_forgiving(files.DISK.remove_folder), folder)
        files.make_folders(folder)


def _forgiving(remove: Callable[[Path], None]) -> Callable[[Path], None]:
    def attempt(path: Path) -> None:
        with contextlib.suppress(OSError):
            remove(path)

    return attempt


def _write(checkpoint: Checkpoint, folder: Path, logits: bool, undo: contextlib.ExitStack) -> Part:
    """Write one checkpoint's file; it appears whole under its name, or not at all."""
    epoch = float(checkpoint.epoch)
    name = f"{int(epoch)}" if epoch.is_integer() else repr(epoch)
    home = folder / f"split={checkpoint.split}" / f"epoch={name}"
    _make_new(home.parent, undo)
    files.DISK.make_folder(home)  # FileExistsError where another export is writing here
    undo.callback(_forgiving(files.DISK.remove_folder), home)
    draft, path = home / files.unique_name(".part-0", ".tmp"), home / _PART
    undo.callback(files.remove, [draft, path])
    descriptor = files.DISK.create(draft)
    try:
        with _Sink(descriptor) as sink:  # closed: what pyarrow still writes after an error goes nowhere
            rows = _fill(sink, checkpoint, logits)
        files.DISK.sync(descriptor)
    finally:
        files.DISK.close(descriptor)
    files.DISK.rename(draft, path)
    files.DISK.sync_folder(home)
    return Part(checkpoint.split, epoch, path.relative_to(folder).as_posix(), rows)


class _Sink(io.RawIOBase):
    """What pyarrow writes to: an open file, by the calls that all files of the package are written by."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        """Tell pyarrow that it may write."""
        return True

    def write(self, piece: Bytes) -> int:  # type: ignore[override]
        """Write all of a piece."""
        if self.closed:
            raise ValueError("the file is closed")
        files.DISK.write(self._descriptor, piece)
        return len(piece)


def _fill(sink: _Sink, checkpoint: Checkpoint, logits: bool) -> int:
    """Write a checkpoint's rows, one row group after another; return their number."""
    pyarrow = import_pyarrow("written")
    count = len(checkpoint)
    empty = _table(checkpoint, slice(0, 0), logits)
    about = {"confshift": json.dumps(_about(checkpoint, empty.column_names), allow_nan=False)}
    schema = empty.schema.with_metadata(about)
    options = {"compression": "zstd", "use_dictionary": list(_REPEATED)}
    with pyarrow.parquet.ParquetWriter(sink, schema, **options) as writer:
        for rows in _row_groups(count, len(checkpoint.class_names) if logits else 0):
            writer.write_table(_table(checkpoint, rows, logits).replace_schema_metadata(about))
    return count


def _row_groups(count: int, width: int) -> Iterator[slice]:
    size = min(_MOST_ROWS, max(1, _MOST_BYTES // (4 * width))) if width else _MOST_ROWS
    for start in range(0, count, size):
        yield slice(start, start + size)


def _table(checkpoint: Checkpoint, rows: slice, logits: bool) -> Any:
    """Return some rows of a checkpoint as an Arrow table."""
    pyarrow = import_pyarrow("written")
    measurement = checkpoint.measurement
    columns: dict[str, Any] = {
        "sample_id": measurement.sample_ids[rows],
        **columns_of(measurement, rows),
    }
    columns = {name: pyarrow.array(values) for name, values in columns.items()}
    if not are_numbers(checkpoint.class_names):
        names = pyarrow.array(checkpoint.class_names, pyarrow.string())
        for kind in ("target", "predicted"):
            number = columns[kind].to_numpy()
            columns[f"{kind}_name"] = names.take(pyarrow.array(number, mask=number < 0))
    if logits:
        with np.errstate(over="ignore"):  # of double precision, as documented
            block = checkpoint.predictions.logits[rows].astype(np.float32)
        flat = pyarrow.array(block.reshape(-1))
        columns["logits"] = pyarrow.FixedSizeListArray.from_arrays(flat, len(checkpoint.class_names))
    return pyarrow.table({name: columns[name] for name in _COLUMNS if name in columns})


def _about(checkpoint: Checkpoint, columns: list[str]) -> dict[str, Any]:
    """Return what a file says about itself beside its rows."""
    provenance = checkpoint.provenance
    return {
        "schema": _SCHEMA,
        "version": __version__,
        "split": checkpoint.split,
        "epoch": float(checkpoint.epoch),
        "task": provenance.task,
        "class_names": list(checkpoint.class_names),
        "label_names": list(provenance.label_names),
        "units": {name: _UNITS[name] for name in columns if name in _UNITS},
    }
