"""One split's folder as it is on the disk: its files sorted by their names."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from confshift.errors import ConfshiftError, Refusal
from confshift.storage.reading import entries_of, status_of
from confshift.storage.record import Record

SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.", re.IGNORECASE)  # by Windows
RECORD = re.compile(r"([0-9]{6,12})\.json")
_CLAIM = re.compile(r"([0-9]{6,12})\.json\.claim")
_DATA = re.compile(r"[0-9]{6,12}-[0-9a-f]{32}\.(logits\.npy|columns\.npy|tmp)")


@dataclass(frozen=True)
class Problem:
    """Something that can't be used, and why: a checkpoint, or a part of one or of the run."""

    split: str
    epoch: float | None  # None where the record itself can't be read
    file: str
    reason: str
    kind: str = "damaged"  # or "in part": whatever does not need this file can be used


@dataclass
class SplitFolder:
    """One split's part of a run folder, as it is on the disk."""

    folder: Path
    records: dict[float, Record] = field(default_factory=dict)  # by epoch, ascending; sizes are right
    problems: list[Problem] = field(default_factory=list)
    replaced: list[Record] = field(default_factory=list)  # an epoch's older records, left by a crash
    readable: list[Record] = field(default_factory=list)  # all of these and those with a problem
    record_files: list[Path] = field(default_factory=list)  # in the order they were written
    other_files: list[Path] = field(default_factory=list)  # data, drafts and claims
    last: int = 0  # the highest number in use

    @property
    def unreadable(self) -> bool:
        """Whether some record can't be read, so that its files are not known."""
        return any(problem.epoch is None for problem in self.problems)


def check_split(split: str, splits: tuple[str, ...] = ()) -> None:
    """Refuse a name that some system forbids for a folder, or that differs from another in case only."""
    if not isinstance(split, str) or not SPLIT.fullmatch(split) or _RESERVED.fullmatch(split):
        raise Refusal(
            f"split={split!r} can't name a folder; use at most 64 letters, digits, '.', '_', '-', as in 'val'"
        )
    twins = [name for name in splits if name != split and name.lower() == split.lower()]
    if twins:
        raise Refusal(
            f"split={split!r}: the run has {twins[0]!r}, and some disks can't tell them apart; use that, or "
            "another name"
        )


def is_data(path: Path) -> bool:
    """Tell whether a file has a name that only a run's data have."""
    return _DATA.fullmatch(path.name) is not None


def look_into(folder: Path, names: set[str] | None = None) -> SplitFolder:
    """Sort a split's files, or those with these names, by their names."""
    if (status := status_of(folder)) is not None and stat.S_ISLNK(status.st_mode):
        raise ConfshiftError(f"{folder} is a symbolic link; put the files themselves into the run")
    split_folder = SplitFolder(folder)
    numbered: list[tuple[int, Path]] = []
    for path in entries_of(folder) if names is None else map(folder.joinpath, names):
        if match := RECORD.fullmatch(path.name):
            numbered.append((int(match[1]), path))
        elif _CLAIM.fullmatch(path.name) or is_data(path):
            split_folder.other_files.append(path)
    split_folder.record_files = [path for _, path in sorted(numbered)]
    claims = [int(match[1]) for path in split_folder.other_files if (match := _CLAIM.fullmatch(path.name))]
    split_folder.last = max([number for number, _ in numbered] + claims, default=0)
    return split_folder
