"""`confshift report --watch`: waits for checkpoints, and writes the page anew whenever one is added."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from confshift.cli.group import newest_run_folder
from confshift.cli.output import answer, remark
from confshift.errors import ConfshiftError

if TYPE_CHECKING:
    from confshift.analysis.series import Looks
    from confshift.reporting.page import Report
    from confshift.storage.run import Run

#: Seconds between two looks at the folder, and after which the open page reloads itself.
_PAUSE, _RELOAD = 1.0, 10.0


def watch(
    run: Path | None,
    other: Path | None,
    out: Path | None,
    *,
    looks: Looks,
    as_json: bool,
    **options: Any,
) -> None:
    """Follow one run; `looks` is "every epoch" unless the user chose another; `options` are for `report`."""
    from confshift import Run

    if other is not None or as_json:
        what = f"OTHER ({other})" if other is not None else "--json"
        raise click.UsageError(f"--watch follows one run and prints a line for each page: leave out {what}")
    if click.get_current_context().get_parameter_source("looks") is ParameterSource.DEFAULT:
        looks = "every epoch"
    watched_run = Run(run if run is not None else newest_run_folder())
    path = out or Path(f"{watched_run.name}.html")
    _follow(watched_run, path, looks=looks, **options)


def _follow(run: Run, path: Path, **options: Any) -> None:
    """Write the page of a run whenever its checkpoints change, until the user interrupts."""
    import confshift

    def write(reload: float | None) -> Report:
        return confshift.report(run, path, reload=reload, **options)

    remark(f"watching {run.path}; Ctrl-C ends this")
    written = False
    try:
        for number in _changes(run):
            try:
                answer(f"{number} checkpoint{'' if number == 1 else 's'}: {write(_RELOAD).verdict}")
                written = True
            except ConfshiftError as error:  # of this state of the run; the next one may do
                remark(f"{path} was not written: {error}")
    except KeyboardInterrupt:
        if written:
            write(None)  # the open page takes this as the last one
            remark(f"wrote {path}, which no longer reloads itself")


def _changes(run: Run) -> Iterator[int]:
    """Yield the number of checkpoints once the run has one of val, and whenever the checkpoints change."""
    known = None
    while True:
        contents = _contents(run)
        if contents != known and contents.get("val"):
            known = contents
            yield sum(map(len, contents.values()))
        time.sleep(_PAUSE)


def _contents(run: Run) -> dict[str, tuple[float, ...]]:
    """Return the epochs of each split; nothing where the run is not there yet, or no longer."""
    return {split: run.epochs_of(split) for split in run.splits} if run.exists() else {}
