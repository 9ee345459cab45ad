"""Finding runs: those in a folder, the newest of them, and those that a mistyped path may mean."""

from __future__ import annotations

import difflib
import stat
from pathlib import Path

from confshift.storage import files

RUN_FILE = "run.json"

_SHOWN = 5


def runs_in(folder: Path) -> list[Path]:
    """Return the runs in a folder, by name."""
    return sorted(folder / name for name in _names(folder) if RUN_FILE in _names(folder / name))


def _names(folder: Path) -> list[str]:
    """Return the names in a folder; none if it can't be read or is not a folder."""
    try:
        return files.DISK.names(folder)
    except (OSError, ValueError):
        return []


def did_you_mean(path: Path) -> str:
    """Name the runs in a folder that is not a run, or those named like a missing one; "" if none."""
    if path.is_dir():
        runs = runs_in(path)
    else:
        names = [run.name for run in runs_in(path.parent)]
        runs = [path.parent / name for name in difflib.get_close_matches(path.name, names, n=_SHOWN)]
    if not runs:
        return ""
    more = f" and {len(runs) - _SHOWN} more" if len(runs) > _SHOWN else ""
    return f"; did you mean {', '.join(map(str, runs[:_SHOWN]))}{more}?"


def newest_run(folder: Path) -> Path | None:
    """Return the run in a folder with the most recent checkpoint; None if there is no run.

    A split's folder changes with each checkpoint, `run.json` only once. Between equals the name decides.
    """
    return max(runs_in(folder), key=_time_and_name, default=None)


def _time_and_name(run: Path) -> tuple[int, str]:
    try:
        statuses = {name: files.DISK.status(run / name, follow=True) for name in files.DISK.names(run)}
        times = [
            status.st_mtime_ns
            for name, status in statuses.items()
            if name == RUN_FILE or stat.S_ISDIR(status.st_mode)
        ]
        return max(times), run.name
    except OSError:  # unreadable, or being deleted: any other run is newer
        return 0, run.name
