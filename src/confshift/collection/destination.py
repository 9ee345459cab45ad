"""Saving the result of a pass: where, under which epoch, and what happens when that fails."""

from __future__ import annotations

import logging
import math
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from confshift.checkpoint import Checkpoint
from confshift.collection.interrupts import Interrupts
from confshift.errors import ConfshiftError, Refusal
from confshift.predictions import Predictions
from confshift.storage.run import Run

_T = TypeVar("_T")
_log = logging.getLogger("confshift")

#: Runs already warned about, for a failure to save.
_warned: set[str] = set()
#: The model that was inspected last, by run folder and split.
_models: dict[tuple[str, str], weakref.ref[object]] = {}
#: The number of steps of Lightning's trainer at the previous checkpoint, by run folder and split.
_steps: dict[tuple[str, str], int] = {}


def open_run(run: Run | os.PathLike[str] | str | None) -> Run:
    """Return the run to save to; without one, the new run of this process."""
    if isinstance(run, Run):
        return run
    return _run_of_process(os.getpid()) if run is None else Run(run)


@lru_cache(maxsize=1)
def _run_of_process(process: int) -> Run:
    run = Run.create("runs", datetime.now().strftime("%Y-%m-%d-%H%M%S"))
    _log.info("inspect saves to %s", run.path)
    return run


class Destination:
    """The place of one checkpoint in a run; refuses before the pass what the run would refuse after it.

    Any other failure (the disk, its folders, threads, memory, damaged files, another process) is not the
    caller's mistake: it causes one warning for each run, and the checkpoint lives in memory.

    Parameters
    ----------
    run : Run, path or None
    split : str
    epoch : float or None
    strict : bool
        Whether a failure to save is raised.
    model : object, optional
        The model under inspection, where it is known: another one in the same process needs another run.
        Lightning's sanity check is epoch 0 if it comes first; if the split has checkpoints already, as in a
        resumed training, it stays in memory. So does a `trainer.validate()` without a step of training before
        it.

    Raises
    ------
    ConfshiftError
        Where the run would refuse this epoch, split or model.
    """

    def __init__(
        self,
        run: Run | os.PathLike[str] | str | None,
        *,
        split: str,
        epoch: float | None,
        strict: bool,
        model: object = None,
    ) -> None:
        self._name = str(run.path if isinstance(run, Run) else run)
        self._split = split
        self._requested_epoch = epoch
        self._strict = strict
        self._reason = ""  # why the last attempt failed
        self._run: Run | None = None
        self._run = self._attempt(lambda: open_run(run))
        #: The epoch it will have; NaN if that can't be known.
        self.epoch = math.nan if epoch is None else epoch
        #: Whether this split has no checkpoint yet.
        self.is_first = False
        if self._run is not None:
            self._name = str(self._run.path)
            self._look(self._run, model)

    def _look(self, run: Run, model: object) -> None:
        self._attempt(run.raise_failure)
        sanity_check = _in_sanity_check(model)
        is_rehearsal = sanity_check and bool(self._attempt(lambda: run.holds(self._split)))
        if sanity_check and not is_rehearsal and self._requested_epoch is None:
            self._requested_epoch = 0.0
        self._check(run, model)  # refuse now rather than at the first checkpoint of the training
        if is_rehearsal:
            self._run = None
            self.epoch = 0.0 if self._requested_epoch is None else self._requested_epoch
        elif (
            self._requested_epoch is None
            and not self.is_first
            and _is_validated_again(run, model, self._split)
        ):
            self._run = None
            self.epoch = max(self._attempt(lambda: run.epochs_of(self._split)) or (math.nan,))
            _log.warning(
                "%s: the trainer made no step since the previous checkpoint (%s), so this call of "
                "trainer.validate() or trainer.test() stays in memory and is not saved; pass epoch= to save",
                *(self._name, self._split),
            )

    def _check(self, run: Run, model: object) -> None:
        split = self._split
        state = self._attempt(lambda: (run.check_epoch(self._requested_epoch, split=split), run.holds(split)))
        if state is None:
            self.epoch = run.expected_epoch(self._requested_epoch, split=split)
            return
        self.epoch, present = state
        self.is_first = not present
        self._attempt(
            lambda: _refuse_another(run, model, split=split, epoch=self._requested_epoch, present=present)
        )

    @property
    def path(self) -> str:
        """The run's folder."""
        return self._name

    def refuse_another_training(self) -> None:
        """Refuse a training that begins where the run's begins; one that goes on begins at a later epoch."""
        run, split = self._run, self._split
        if run is None or not self._attempt(lambda: run.holds(split)):
            return
        epochs = self._attempt(lambda: run.epochs_of(split)) or (math.nan,)
        first = min(epochs, key=lambda epoch: (epoch == 0, epoch))  # epoch 0 is before a training
        if self.epoch <= first:
            raise _another(
                run,
                split,
                f"from epoch {first:g} on, and this training begins with epoch {self.epoch:g}",
                "A training that goes on from these begins at a later epoch",
            )

    def save(
        self,
        predictions: Predictions,
        *,
        metadata: Mapping[str, Any] | None,
        logged: Mapping[str, float] | None,
        checks: Mapping[str, Any],
        release: Callable[[], object],
    ) -> Checkpoint:
        """Hand the predictions to the run, which measures and writes them in the background."""
        run = self._run
        if run is not None:

            def append() -> Checkpoint:
                return run.append(
                    predictions,
                    epoch=self._requested_epoch,
                    split=self._split,
                    metadata=metadata,
                    logged=logged,
                    checks=checks,
                    release=release,
                )

            self._attempt(run.wait_for_room)
            for _ in range(2):  # the first error may be an earlier save's
                with Interrupts():  # an interrupt while a thread starts would leave it waiting for ever
                    checkpoint = self._attempt(append)
                if checkpoint is not None:
                    return checkpoint
            run.miss(self.epoch, split=self._split, reason=self._reason)
        return self._in_memory(predictions, metadata, logged, checks)

    def settled(self, epoch: float) -> str:
        """Wait until the saved checkpoint is on the disk; return the run's absolute path, "" if it is not."""
        run = self._run
        if run is None:
            return ""
        self._attempt(run.flush)
        return run.home if self._attempt(lambda: run.is_stored(epoch, split=self._split)) else ""

    def _attempt(self, action: Callable[[], _T]) -> _T | None:
        """Do it; a failure that is not the caller's mistake is a warning, unless strict."""
        try:
            return action()
        except Refusal:
            raise
        except Exception as error:
            failure = (
                error
                if isinstance(error, ConfshiftError)
                else ConfshiftError(f"{self._name}: {type(error).__name__}: {error}")
            )
            if self._strict:
                raise failure from error.__cause__ or error
            self._reason = str(failure)
            self._warn(failure)
            return None

    def _warn(self, failure: ConfshiftError) -> None:
        _log.error("%s", failure)
        key = self._name if self._run is None else self._run.home
        if key not in _warned:
            _warned.add(key)
            warnings.warn(
                f"{failure}; the training goes on, and further failures of this run are only logged "
                "(inspect(..., strict=True) raises them)",
                stacklevel=_own_frames(),
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


def _in_sanity_check(model: object) -> bool:
    """Tell whether this is Lightning's sanity check, a pass before the training."""
    trainer = getattr(model, "_trainer", None)
    return getattr(trainer, "sanity_checking", False) is True


def _is_validated_again(run: Run, model: object, split: str) -> bool:
    """Tell whether Lightning evaluates, outside its fit, a model not trained since the previous checkpoint.

    The model of a trainer that has made no step was trained elsewhere.
    """
    trainer = getattr(model, "_trainer", None)
    step = getattr(trainer, "global_step", None)
    if type(step) is not int:
        return False
    before, _steps[run.home, split] = _steps.get((run.home, split)), step
    return getattr(getattr(trainer, "state", None), "fn", None) in ("validate", "test") and step in (
        0,
        before,
    )


def _refuse_another(run: Run, model: object, *, split: str, epoch: float | None, present: bool) -> None:
    """Refuse to mix two trainings of one process, as when a notebook cell runs again.

    The model is remembered by its identity: its weights may be loaded anew.
    """
    key = run.home, split
    reference = _models.get(key)
    previous = None if reference is None else reference()
    continues = reference is not None and present and model is not None
    if continues and epoch is None and previous is not model:
        reason = (
            "this process inspected another model into it, and no epoch= says that this one belongs there"
        )
    elif continues and epoch == 0 and any(run.epochs_of(split)):
        reason = "epoch 0, before training, is inspected again, after later epochs"
    else:
        if model is not None:
            _models[key] = weakref.ref(model)
        return
    raise _another(
        run, split, reason, "Checkpoints of one training that are loaded into new models need epoch="
    )


def _another(run: Run, split: str, reason: str, else_: str) -> Refusal:
    return Refusal(
        f"{run.path} already holds checkpoints ({split}): {reason}. Give this training a run folder of "
        f"its own, or remove the old run first: Run({str(run.path)!r}).delete(). {else_}"
    )


def _own_frames() -> int:
    """Return how far up the caller of the package is, for a warning to name its line."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("confshift."):
        frame, depth = frame.f_back, depth + 1
    return depth
