"""Which run of a folder was written to last?"""

from __future__ import annotations

from pathlib import Path

from confshift.storage.nearby import RUN_FILE, runs_in

__all__ = ["newest_run"]


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
