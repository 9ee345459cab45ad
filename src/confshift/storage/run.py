"""Run: a folder of checkpoints, read lazily, added to safely."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError, Refusal
from confshift.predictions import Predictions
from confshift.storage import arrays
from confshift.storage.appending import append, check_epoch, expected_epoch, holds
from confshift.storage.cleaning import delete
from confshift.storage.exporting import Part, export_checkpoints
from confshift.storage.files import make_new_folder
from confshift.storage.loading import StoredCheckpoint
from confshift.storage.measuring import columns_damage
from confshift.storage.record import FailedSave, Record
from confshift.storage.saved_files import Added, add_files, saved_files
from confshift.storage.split_folder import Problem, SplitFolder, check_split
from confshift.storage.writer import Writer, writer_of


class Run:
    """A handle on a run folder. Making a handle reads nothing; the folder may not exist yet.

    Parameters
    ----------
    path : str or path-like

    Notes
    -----
    Reading waits for this process's saves in the folder, writes nothing, and leaves out damaged
    checkpoints, which `problems` lists.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> run = Run(folder.name)
    >>> for epoch in (1, 2):
    ...     _ = run.append(Predictions([[2.0, 0.0], [epoch, 1.0]], [0, 1]))
    >>> run.epochs, round(run[2].metrics()["loss"], 4)
    ((1.0, 2.0), 0.7201)
    >>> run.delete()
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._home = os.path.realpath(path)  # an absolute path, since the process may change its folder
        except ValueError as error:
            raise Refusal(f"run={str(path)!r} can't name a folder: {error}") from error
        except OSError as error:  # the current folder was removed
            raise ConfshiftError(
                f"run={str(path)!r} can't be found: {error.strerror}; change to a folder that exists, or "
                "pass an absolute path"
            ) from error

    @classmethod
    def create(cls, parent: str | os.PathLike[str], name: str) -> Run:
        """Make a new folder for a run, `parent/name` or `parent/name-2`, ..., that no other process uses.

        Raises
        ------
        ConfshiftError
            Where no folder can be made there.
        """
        try:
            return cls(make_new_folder(Path(parent), name))
        except OSError as error:
            raise ConfshiftError(
                f"can't make a folder in {parent}: {error.strerror}; choose another place"
            ) from error

    def __reduce__(self) -> tuple[type[Run], tuple[Path]]:
        return Run, (Path(self._home),)  # absolute: a worker may have another working folder

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def home(self) -> str:
        """The folder's absolute path."""
        return self._home

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        """Return the number of checkpoints, of all splits."""
        return sum(len(split_folder.records) for split_folder in self._split_folders())

    def __iter__(self) -> Iterator[Checkpoint]:
        """Yield every checkpoint of every split in order of epoch, val first among equals."""
        names = self.class_names
        records = [
            (split_folder.folder, record)
            for split_folder in self._split_folders(sound=True)
            for record in split_folder.records.values()
        ]
        records.sort(key=lambda pair: pair[1].epoch)  # stable: val's folder comes first
        for folder, record in records:
            yield self._checkpoint_from(folder, record, names)

    def __getitem__(self, epoch: float) -> Checkpoint:
        return self.checkpoint(epoch)

    @property
    def _writer(self) -> Writer:
        return writer_of(self._home)

    @property
    def name(self) -> str:
        """The folder's name."""
        return Path(self._home).name

    def exists(self) -> bool:
        """Tell whether the folder is a run."""
        writer = self._writer
        writer.wait()
        return writer.run_folder.exists()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits' columns."""
        writer = self._writer
        writer.wait()
        if not writer.run_folder.exists():
            writer.raise_failure()  # the reason there is nothing to read
        return writer.run_folder.class_names()

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have a checkpoint, val first."""
        return tuple(
            split_folder.folder.name for split_folder in self._split_folders() if split_folder.records
        )

    @property
    def epochs(self) -> tuple[float, ...]:
        """The epochs of val, ascending."""
        return self.epochs_of("val")

    def epochs_of(self, split: str) -> tuple[float, ...]:
        """Return the epochs of a split, ascending."""
        return tuple(self._split_folder(split).records)

    def checkpoint(self, epoch: float, *, split: str = "val") -> Checkpoint:
        """Return one checkpoint; its arrays are read when they are needed.

        Raises
        ------
        ConfshiftError
            Where there is none (the message names the epochs), or it can't be used (it says why).
        """
        if not isinstance(epoch, numbers.Real):
            advice = (
                f"run.checkpoint(epoch, split={epoch!r})" if isinstance(epoch, str) else "one of run.epochs"
            )
            raise ConfshiftError(f"epoch={epoch!r} is not a number: pass {advice}")
        check_split(split)
        names = self.class_names
        record = self._writer.run_folder.memory(split, len(names)).find(epoch)
        if record is None:
            split_folder = self._split_folder(split)
            if epoch not in split_folder.records:
                gaps = open_gaps(self._split_folders(), self._writer.gaps)
                raise ConfshiftError(explain_missing(epoch, split_folder, gaps))
            record = split_folder.records[epoch]
        return self._checkpoint_from(Path(self._home) / split, record, names)

    def checkpoints(self, split: str = "val") -> list[Checkpoint]:
        """Return a split's checkpoints, ascending by epoch; damaged ones are left out and in `problems`."""
        check_split(split)
        names = self.class_names
        split_folder = self._writer.run_folder.sound_split_folder(split, len(names))
        return [
            self._checkpoint_from(split_folder.folder, record, names)
            for record in split_folder.records.values()
        ]

    @property
    def problems(self) -> pd.DataFrame:
        """What is missing: one row per checkpoint left out as damaged ("damaged") or never saved ("gap").

        Also one row per damaged file without which the rest can be used ("in part"): class names, or logits,
        whose damage is known once they have been read.

        Columns: split, epoch (NaN where the record can't be read), kind, file ("" for a gap), reason. Reads
        the columns of every checkpoint once; :meth:`verify` reads the logits too.
        """
        split_folders = self._split_folders(sound=True)
        run_folder = self._writer.run_folder
        problems = [problem for split_folder in split_folders for problem in split_folder.problems]
        gaps = open_gaps(split_folders, self._writer.gaps)
        return list_problems([*run_folder.damaged_names(), *problems], gaps)

    def append(
        self,
        predictions: Predictions,
        *,
        epoch: float | None = None,
        split: str = "val",
        metadata: Mapping[str, Any] | None = None,
        logged: Mapping[str, float] | None = None,
        checks: Mapping[str, Any] | None = None,
        release: Callable[[], object] | None = None,
    ) -> Checkpoint:
        """Save predictions as a checkpoint in the background, and return it.

        Everything is checked before this returns. The run's one background thread scores (the
        checkpoint's loss and accuracy wait for that), fits the temperature (its columns wait for that) and
        writes (its `predictions` wait for that); at most two saves are pending, a third waits.

        Parameters
        ----------
        predictions : Predictions
            With the samples and targets of the split's other checkpoints.
        epoch : float, optional
            Default: val counts 1, 2, 3, ...; other splits take val's newest. An epoch that exists is
            replaced, unless the content is the same. If another process had saved it, the log warns, once.
        metadata, logged, checks : mapping, optional
            The user's notes, the values their loop reported, the collector's checks: anything JSON can hold.
        release : callable, optional
            Called when the array of logits may be overwritten, whether or not the save succeeded.

        Raises
        ------
        ConfshiftError
            Where the predictions don't belong to this run, or where an earlier save failed (this call has
            then saved nothing: call it again).
        """
        return append(
            self._writer,
            predictions,
            epoch=epoch,
            split=split,
            notes={"metadata": metadata, "logged": logged, "checks": checks},
            release=release,
        )

    def check_epoch(self, epoch: float | None = None, *, split: str = "val") -> float:
        """Return the epoch that :meth:`append` would take now, or raise as it would; does not wait."""
        return check_epoch(self._writer, epoch=epoch, split=split)

    def expected_epoch(self, epoch: float | None = None, *, split: str = "val") -> float:
        """Return the epoch that :meth:`append` would take, from memory alone: the disk may be unreadable."""
        return expected_epoch(self._writer, epoch=epoch, split=split)

    def wait_for_room(self) -> None:
        """Wait until :meth:`append` would not wait for an earlier save."""
        self._writer.wait_for_room()

    def miss(self, epoch: float, *, split: str, reason: str) -> None:
        """Note a checkpoint that could not be appended: it is a gap, and the count of epochs goes on."""
        self._writer.miss(split, epoch, reason)

    def is_stored(self, epoch: float, *, split: str = "val") -> bool:
        """Tell whether a checkpoint is on the disk; waits for this process's saves."""
        check_split(split)
        classes = len(self.class_names)
        return self._writer.run_folder.memory(split, classes).find(epoch) is not None

    def holds(self, split: str) -> bool:
        """Tell whether a split has a checkpoint, saved or pending; does not wait."""
        return holds(self._writer, split)

    def raise_failure(self) -> None:
        """Raise the error of an earlier save, if it was not raised yet; does not wait."""
        self._writer.raise_failure()

    def flush(self) -> None:
        """Wait until every appended checkpoint is on the disk; raise the error of a save that failed."""
        self._writer.wait()
        self._writer.raise_failure()

    def release(self) -> None:
        """Let other processes replace what this one saved so far, as they may once it has ended.

        The log calls it another process's where this one replaces it later.
        """
        with self._writer.appending:  # another thread may be adding to the run, too
            self.flush()
            self._writer.give_up_sign()

    def verify(self) -> pd.DataFrame:
        """Read every byte of every file and compare it with its checksum.

        One row per file of a checkpoint, per record that can't be read and per damaged file of class names.
        Columns: split, epoch, file, sound, reason.
        """
        return check_files(self._split_folders(), self._writer.run_folder.damaged_names())

    def add(
        self, path: str | os.PathLike[str], *, epoch: float | None = None, split: str | None = None
    ) -> pd.DataFrame:
        """Add checkpoints from files that another program wrote; makes the run where there is none.

        Inside `joblib.parallel_config(n_jobs=...)` the workers each measure and save another checkpoint, also
        those of a cluster that shares the disk.

        Parameters
        ----------
        path : str or path-like
            A .npz or .parquet file, or a folder with one for each checkpoint; `confshift add --help` says
            what they hold.
        epoch : float, optional
            Of a single file. Default: the number in the file's name.
        split : str, optional
            Of all files. Default: "val", or what an exported folder says.

        Returns
        -------
        DataFrame
            One row per file: file (its name), split, epoch, task, metrics (those of `Checkpoint.metrics`).

        Raises
        ------
        ConfshiftError
            Where a file can't be read or does not belong to the run, naming it: those before it were added,
            and with workers maybe others, then or soon after. Where a worker was lost.
        """
        files = saved_files(Path(path), epoch=epoch, split=split)
        added = list(add_files(self, files))
        return pd.DataFrame(added, columns=list(Added._fields))

    def export_parquet(self, folder: str | os.PathLike[str], *, logits: bool = False) -> pd.DataFrame:
        """Write every checkpoint as a Parquet file for other programs: `split=val/epoch=3/part-0.parquet`.

        Needs `pip install 'confshift[parquet]'`. Each file has a row for each sample, in the order of their
        ids: `sample_id` and the columns of :attr:`Checkpoint.columns`, and where classes have names
        `target_name` and `predicted_name` (null where there is no answer). Row groups have at most 131,072
        rows and 64 MiB of logits: memory holds the columns of one checkpoint and one row group. The key
        "confshift" in the metadata of the schema holds, as JSON, the class names, the units, the task, the
        epoch and the version that wrote the file.

        Parameters
        ----------
        folder : str or path-like
            New or empty, outside the run; folders above it are made.
        logits : bool
            Add the column `logits`, a list of K numbers in single precision (those that are saved in double
            precision are rounded).

        Returns
        -------
        DataFrame
            One row per file: split, epoch, file (below the folder), rows. Damaged checkpoints are left out;
            `problems` lists them.

        Raises
        ------
        ConfshiftError
            Where pyarrow is missing, the folder holds something or can't be written, or the run has no
            checkpoint or its logits can't be read; nothing that was written stays.
        """
        parts = export_checkpoints(self, Path(folder), logits=logits, source=Path(self._home))
        return pd.DataFrame(parts, columns=list(Part._fields))

    def delete(self) -> None:
        """Remove the run from the disk: the run's own files and nothing else.

        Raises
        ------
        ConfshiftError
            Where the folder is not a run, or another process is saving in it.
        """
        writer = self._writer
        with writer.appending:
            writer.wait()
            writer.give_up_sign()
            delete(writer.run_folder)
            writer.forget()

    def _checkpoint_from(self, folder: Path, record: Record, names: tuple[str, ...]) -> Checkpoint:
        run_folder = self._writer.run_folder
        known = run_folder.handed_over(record)
        return StoredCheckpoint(folder, record, names, run_folder.note_logits, known).checkpoint()

    def _split_folder(self, split: str) -> SplitFolder:
        classes = len(self.class_names)
        return self._writer.run_folder.split_folder(split, classes)

    def _split_folders(self, *, sound: bool = False) -> list[SplitFolder]:
        classes = len(self.class_names)
        return self._writer.run_folder.split_folders(classes, sound=sound)


def list_problems(problems: list[Problem], gaps: list[FailedSave]) -> pd.DataFrame:
    """Return what is missing from a run, as :attr:`Run.problems` describes it."""
    rows = [(item.split, _number(item.epoch), item.kind, item.file, item.reason) for item in problems]
    rows += [(gap.split, gap.epoch, "gap", "", gap.reason) for gap in gaps]
    return pd.DataFrame(rows, columns=["split", "epoch", "kind", "file", "reason"])


def open_gaps(split_folders: list[SplitFolder], unrecorded: list[FailedSave]) -> list[FailedSave]:
    """Return the failed saves whose epoch is still missing; `unrecorded` ones are in no record yet."""
    present = {
        (split_folder.folder.name, epoch) for split_folder in split_folders for epoch in split_folder.records
    }
    in_records = [
        gap for split_folder in split_folders for record in split_folder.readable for gap in record.gaps
    ]
    return [gap for gap in dict.fromkeys([*in_records, *unrecorded]) if (gap.split, gap.epoch) not in present]


def explain_missing(epoch: float, split_folder: SplitFolder, gaps: list[FailedSave]) -> str:
    """Say why a split has no such epoch, and which it has."""
    split = split_folder.folder.name
    reasons = [problem.reason for problem in split_folder.problems if problem.epoch == epoch]
    reasons += [gap.reason for gap in gaps if (gap.split, gap.epoch) == (split, epoch)]
    because = f" ({'; '.join(reasons)})" if reasons else ""
    epochs = ", ".join(f"{number:g}" for number in split_folder.records) or "none"
    run = split_folder.folder.parent
    return f"{run} has no epoch {epoch:g} of split {split!r}{because}; its epochs: {epochs}"


def check_files(split_folders: list[SplitFolder], damaged_names: list[Problem]) -> pd.DataFrame:
    """Read every byte and compare it with its checksum, as :meth:`Run.verify` describes it."""
    rows = [(item.split, _number(item.epoch), item.file, False, item.reason) for item in damaged_names]
    for split_folder in split_folders:
        split = split_folder.folder.name
        rows += [
            (split, _number(item.epoch), item.file, False, item.reason) for item in split_folder.problems
        ]
        for epoch, record in split_folder.records.items():
            for stored in record.files:
                reason = arrays.damage(split_folder.folder, stored)
                if not reason and stored is record.shards[0].columns:
                    reason = columns_damage(split_folder.folder, record)
                rows.append((split, epoch, stored.name, not reason, reason))
    return pd.DataFrame(rows, columns=["split", "epoch", "file", "sound", "reason"])


def _number(epoch: float | None) -> float:
    return math.nan if epoch is None else epoch
