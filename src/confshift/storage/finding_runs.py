"""Which runs a folder holds, which was written to last, and which of them a path may have meant."""

from __future__ import annotations

import difflib
import stat
from pathlib import Path

from confshift.storage import files

RUN_FILE = "run.json"

_SHOWN = 5


def runs_in(folder: Path) -> list[Path]:
    """Return the runs that lie in a folder, by name."""
    return sorted(folder / name for name in _names(folder) if RUN_FILE in _names(folder / name))


def _names(folder: Path) -> list[str]:
    """Return the names in a folder; none where it can't be read, or is no folder."""
    try:
        return files.DISK.names(folder)
    except (OSError, ValueError):
        return []


def did_you_mean(path: Path) -> str:
    """Name the runs in a folder that is none, or beside a missing one those of a similar name; "" without."""
    if path.is_dir():
        found = runs_in(path)
    else:
        names = [run.name for run in runs_in(path.parent)]
        found = [path.parent / name for name in difflib.get_close_matches(path.name, names, n=_SHOWN)]
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"; did you mean {', '.join(map(str, found[:_SHOWN]))}{more}?"


def newest_run(folder: Path) -> Path | None:
    """Return the run in a folder that got its newest checkpoint last; None where there is no run.

    A split's folder changes with each checkpoint, `run.json` only once. The name decides between equals.
    """
    return max(runs_in(folder), key=_written, default=None)


def _written(run: Path) -> tuple[int, str]:
    try:
        found = {name: files.DISK.status(run / name, follow=True) for name in files.DISK.names(run)}
        used = (one for name, one in found.items() if name == RUN_FILE or stat.S_ISDIR(one.st_mode))
        return max(one.st_mtime_ns for one in used), run.name
    except OSError:  # it can't be read, or is being deleted: any other is newer
        return 0, run.name
