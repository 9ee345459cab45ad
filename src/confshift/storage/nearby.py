"""Which runs a folder holds, and which of them a path may have meant."""

from __future__ import annotations

import difflib
from pathlib import Path

__all__ = ["RUN_FILE", "did_you_mean", "runs_in"]

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
