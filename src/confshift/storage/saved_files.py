"""Files that other programs wrote, one for each checkpoint: which there are, and of which epoch and split."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions
from confshift.storage.npz import read_npz
from confshift.storage.parquet import read_parquet
from confshift.storage.reading import entries_of, is_folder
from confshift.storage.split_folder import check_split
from confshift.workers import count_workers, map_in_order

_READ = {".npz": read_npz, ".parquet": read_parquet}
#: A number that is no part of a longer one, of a version or of a date written with points.
_NUMBER = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+)?(?!\.?[0-9])")
_EPOCH = re.compile(rf"(?<![a-z])ep(?:och)?[ _=.-]?({_NUMBER.pattern})", re.IGNORECASE)
_NEGATIVE = re.compile(r"(?:^|[^A-Za-z0-9])-[0-9]")
#: A part of a table, as Spark and others write them: its number is no epoch.
_PART = re.compile(r"part-[0-9]+", re.IGNORECASE)
#: How names call the splits.
_SPLITS = {
    **dict.fromkeys(("val", "valid", "validation", "eval", "dev"), "val"),
    **dict.fromkeys(("train", "training"), "train"),
    "test": "test",
}


@dataclass(frozen=True)
class SavedFile:
    """A file with the predictions of one checkpoint."""

    path: Path
    epoch: float
    split: str

    def __reduce__(self) -> tuple[type, tuple[Path, float, str]]:
        # A worker may have another working folder, also one that lived before this process changed its own.
        return SavedFile, (self.path.absolute(), self.epoch, self.split)

    def read(self) -> Predictions:
        """Return the predictions.

        Raises
        ------
        ConfshiftError
            Where the file can't be read, or holds something else.
        """
        return _READ.get(self.path.suffix, read_npz)(self.path)


class Added(NamedTuple):
    """A checkpoint that was added, and what it says."""

    file: str  # its name
    split: str
    epoch: float
    task: str
    metrics: dict[str, float]  # of `Checkpoint.metrics`


class Target(Protocol):
    """The run that files are added to; it can be pickled."""

    def append(self, predictions: Predictions, *, epoch: float, split: str) -> Checkpoint:
        """Save a checkpoint."""
        ...

    def flush(self) -> None:
        """Wait until it is on the disk."""
        ...

    def release(self) -> None:
        """Let other processes replace what this one saved so far."""
        ...


def add_files(run: Target, files: Sequence[SavedFile]) -> Iterator[Added]:
    """Add checkpoints to a run; joblib's workers, where the caller set up any, each add another one.

    Those of the first epoch are added before the others begin: with them there is a run, whose samples the
    others must have, and only its first process may save an epoch 0.
    """
    if count_workers():
        first = sum(file.epoch == files[0].epoch for file in files)  # one of each split
        yield from (_added_apart(run, file) for file in files[:first])
        yield from map_in_order(partial(_added_apart, run), files[first:])
    else:
        yield from (_added(run, file) for file in files)


def _added_apart(run: Target, file: SavedFile) -> Added:
    added = _added(run, file)
    run.release()  # this process lives on, and is no training that others must not disturb
    return added


def _added(run: Target, file: SavedFile) -> Added:
    try:
        predictions = file.read()
        checkpoint = run.append(predictions, epoch=file.epoch, split=file.split)
        run.flush()
    except ConfshiftError as error:
        named = str(error) if str(file.path) in str(error) else f"{file.path}: {error}"
        raise type(error)(named) from error
    return Added(file.path.name, file.split, file.epoch, predictions.task, checkpoint.metrics())


def saved_files(path: Path, *, epoch: float | None, split: str | None) -> list[SavedFile]:
    """Return the checkpoints of a file or a folder, ascending by epoch.

    Parameters
    ----------
    path : Path
        A .npz or .parquet file, a folder of them, or a folder that `confshift export --logits` wrote.
    epoch : float or None
        Of a single file. Otherwise it is the number in a file's name, or the one after "epoch".
    split : str or None
        Of all files; without it val, or that in the folder's names in an export. A name that calls another
        split is refused.

    Raises
    ------
    ConfshiftError
        Where there is no such file, or a name leaves open which epoch or split it is.
    """
    if split is not None:
        check_split(split)
    if not is_folder(path):
        return [_one(path, epoch, split or "val")]
    if epoch is not None:
        raise ConfshiftError(
            f"epoch={epoch:g} is one epoch, and {path} is a folder: leave it out, and the names of the files "
            "say theirs (epoch_3.npz); or pass one file"
        )
    files = _exported(path, split) or [
        _one(file, None, split or "val")
        for file in sorted(entries_of(path))
        if file.suffix in _READ and not file.name.startswith(".")
    ]
    if not files:
        raise ConfshiftError(
            f"{path} holds no .npz or .parquet file{'' if split is None else f' of split {split!r}'}; pass a "
            "folder with one for each checkpoint: epoch_1.npz, epoch_2.npz, ..."
        )
    files.sort(key=lambda file: (file.epoch, file.split != "val", file.split))
    for file, following in itertools.pairwise(files):
        if (file.epoch, file.split) == (following.epoch, following.split):
            raise ConfshiftError(
                f"{file.path.name} and {following.path.name} are both epoch {file.epoch:g} ({file.split}); "
                "move one out of the folder, or rename it"
            )
    return files


def _one(path: Path, epoch: float | None, split: str) -> SavedFile:
    if epoch is None:
        epoch = _epoch_of(path)
        _check_named_split(path, split)
    return SavedFile(path, epoch, split)


def _epoch_of(path: Path) -> float:
    """Return the epoch in a file's name; refuse one that leaves it open."""
    stem = path.stem
    numbers = _EPOCH.findall(stem) or _NUMBER.findall(stem)
    epochs = sorted({float(number) for number in numbers})
    if _NEGATIVE.search(stem):
        problem = "says a negative number"
    elif _PART.match(stem):
        problem = "is called a part of a table"
    elif not epochs:
        problem = "has a name without a number"
    elif len(epochs) > 1:
        problem = f"has {len(epochs)} numbers in its name ({', '.join(numbers)})"
    else:
        return epochs[0]
    raise ConfshiftError(
        f"{path.name} {problem}, so its epoch is not known: rename it (epoch_3{path.suffix}), or add it by "
        "itself with --epoch"
    )


def _check_named_split(path: Path, split: str) -> None:
    """Refuse a name that calls another split than the one it is to be added to."""
    words = re.findall(r"[a-z]+", path.stem.lower())
    named = {_SPLITS[word] for word in words if word in _SPLITS}
    if named and _SPLITS.get(split, split) not in named:
        other = sorted(named)[0]
        raise ConfshiftError(
            f"{path.name} is called {other}, and the split is {split!r}: pass --split {other}, rename it "
            f"(epoch_3{path.suffix}), or move it out of the folder"
        )


def _exported(folder: Path, split: str | None) -> list[SavedFile]:
    """Return the files of a folder that `confshift export` wrote: split=val/epoch=3/part-0.parquet."""
    files = []
    for of_split in entries_of(folder):
        name = of_split.name.removeprefix("split=")
        if name == of_split.name or (split is not None and name != split) or not is_folder(of_split):
            continue
        check_split(name)
        for of_epoch in entries_of(of_split):
            number = of_epoch.name.removeprefix("epoch=")
            parts = entries_of(of_epoch) if _NUMBER.fullmatch(number) and is_folder(of_epoch) else []
            parts = [part for part in parts if part.suffix == ".parquet"]
            if len(parts) > 1:
                raise ConfshiftError(f"{of_epoch} holds {len(parts)} .parquet files; write them as one")
            files += [SavedFile(part, float(number), name) for part in parts]
    return files
