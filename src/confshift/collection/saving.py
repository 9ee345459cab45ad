"""Saving what a pass saw: where to, under which epoch, and what happens when the disk will not have it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions
from confshift.storage.run import Run

__all__ = ["Destination", "open_run"]

_T = TypeVar("_T")
_log = logging.getLogger("confshift")

#: Runs whose failure to save was told.
_warned: set[str] = set()


def open_run(run: Run | os.PathLike[str] | str | None) -> Run:
    """Return the run to save to; without a name the one new run of this process."""
    if isinstance(run, Run):
        return run
    return _run_of_process(os.getpid()) if run is None else Run(run)


@lru_cache(maxsize=1)
def _run_of_process(process: int) -> Run:
    run = Run.create("runs", datetime.now().strftime("%Y-%m-%d-%H%M%S"))
    _log.info("inspect saves to %s", run.path)
    return run


class Destination:
    """The place of one checkpoint in a run; what a run would refuse is refused before the pass.

    Parameters
    ----------
    run : Run
    split : str
    epoch : float or None
    strict : bool
        Whether a failure to save is raised; otherwise it is a warning, once for each run.

    Raises
    ------
    ConfshiftError
        Where the run would refuse this epoch or split.
    """

    def __init__(self, run: Run, *, split: str, epoch: float | None, strict: bool) -> None:
        self._run = run
        self._split = split
        self._given = epoch
        self._strict = strict
        #: The run's folder.
        self.path = run.path
        self._attempt(run.raise_failure)
        #: The epoch it will have.
        self.epoch = run.check_epoch(epoch, split=split)
        #: No checkpoint of this split is there yet.
        self.is_first = not run.holds(split)

    def save(
        self,
        predictions: Predictions,
        *,
        metadata: Mapping[str, Any] | None,
        logged: Mapping[str, float] | None,
        checks: Mapping[str, Any],
        release: Callable[[], object],
    ) -> Checkpoint:
        """Hand the predictions to the run, which measures and writes them behind the training."""

        def append() -> Checkpoint:
            return self._run.append(
                predictions,
                epoch=self._given,
                split=self._split,
                metadata=metadata,
                logged=logged,
                checks=checks,
                release=release,
            )

        for _ in range(2):  # the first error may be that of the save before
            checkpoint = self._attempt(append)
            if checkpoint is not None:
                return checkpoint
        return self._in_memory(predictions, metadata, logged, checks)

    def _attempt(self, action: Callable[[], _T]) -> _T | None:
        """Do it; an error of the disk is a warning unless strict, any other is raised."""
        try:
            return action()
        except (ConfshiftError, OSError) as error:
            if not _is_disk_error(error):
                raise
            failure = (
                error if isinstance(error, ConfshiftError) else ConfshiftError(f"{self._run.path}: {error}")
            )
            if self._strict:
                raise failure from error.__cause__ or error
            self._warn(failure)
            return None

    def _warn(self, failure: ConfshiftError) -> None:
        _log.error("%s", failure)
        name = os.path.realpath(self._run.path)
        if name not in _warned:
            _warned.add(name)
            warnings.warn(
                f"{failure}; the training goes on, and further failures of this run are only logged "
                "(inspect(..., strict=True) raises them)",
                stacklevel=5,
            )

    def _in_memory(
        self,
        predictions: Predictions,
        metadata: Mapping[str, Any] | None,
        logged: Mapping[str, float] | None,
        checks: Mapping[str, Any],
    ) -> Checkpoint:
        checkpoint = Checkpoint.from_predictions(
            predictions, epoch=self.epoch, split=self._split, metadata=metadata
        )
        provenance = replace(checkpoint.provenance, logged=dict(logged or {}), checks=dict(checks))
        return replace(checkpoint, provenance=provenance)


def _is_disk_error(error: BaseException | None) -> bool:
    """Tell whether a system call is at the bottom of it: not the user's mistake, maybe gone the next time."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error is not None
