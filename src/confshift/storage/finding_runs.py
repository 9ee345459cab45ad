"""Which runs a folder holds, which was written to last, and which of them a path may have meant."""

from __future__ import annotations

import difflib
from pathlib import Path

RUN_FILE = "run.json"

_SHOWN = 5


def runs_in(folder: Path) -> list[Path]:
    """Return the runs that lie in a folder, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{RUN_FILE}"))


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
        splits = [one for one in run.iterdir() if one.is_dir()]
        return max(one.stat().st_mtime_ns for one in (run / RUN_FILE, *splits)), run.name
    except OSError:  # it can't be read, or is being deleted: any other is newer
        return 0, run.name
