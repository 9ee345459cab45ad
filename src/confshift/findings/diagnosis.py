"""diagnose(): ask every question, in the order a reader wants the answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from numbers import Real

from confshift.analysis.comparison import Comparison, compare
from confshift.analysis.history import History, summarize
from confshift.analysis.rise import Groups
from confshift.analysis.series import Looks
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.best_checkpoint import best_checkpoint
from confshift.findings.causes import about_causes
from confshift.findings.change import about_change
from confshift.findings.question import Finding
from confshift.findings.rise import about_rise
from confshift.findings.run_kind import kind_of, run_kind
from confshift.findings.start import about_start


def diagnose(
    run: Iterable[Checkpoint] | History | Comparison,
    *,
    before: float | None = None,
    after: float | None = None,
    looks: Looks | None = None,
    groups: Groups | None = None,
) -> list[Finding]:
    """Answer the questions people ask of a run.

    Parameters
    ----------
    run : Run, iterable of Checkpoint, History or Comparison
        A comparison answers the questions about the change only.
    before, after : float, optional
        Epochs to compare; without them the best by loss and the last (where the last is the best, the
        first and the last). `before` alone is compared with the last, `after` alone with the best by loss
        of those before it. Two that are given are compared in the order given.
    looks : {"once", "every epoch"} or int, optional
        How often you ask whether the run rises; a History has been told. "once", at the end and without an
        answer here, has a 5 % chance of a false alarm.
        Asked so after each epoch, a flat run would sooner or later raise one: "every epoch" spreads the
        5 % over all epochs to come, a number over so many planned, which finds a rise sooner.
    groups : sequence of length N or mapping from sample id, optional
        Samples with the same label (patient, document, series of frames) err together: the findings about
        the rise then count groups, not samples. A sequence is in the order of ascending sample id.

    Returns
    -------
    list of Finding
        Also those that can't be answered or do not apply: they say so.

    Raises
    ------
    ConfshiftError
        Where the run is empty, holds no such epoch, its checkpoints can't be paired, or `looks` or
        `groups` can't be used.
    """
    if isinstance(run, Comparison):
        return about_change(run)
    history = _history_of(run, looks, groups)
    return answers(history, compare(*choose_pair(history, before=before, after=after)))


def answers(history: History, comparison: Comparison) -> list[Finding]:
    """Answer every question, of a run and of two of its checkpoints."""
    overfitting = "overfitting" in kind_of(history)
    return [
        *about_rise(history),
        run_kind(history),
        *about_change(comparison, overfitting=overfitting),
        *about_causes(history, comparison),
        best_checkpoint(history),
        *about_start(history),
    ]


def _history_of(run: Iterable[Checkpoint] | History, looks: Looks | None, groups: Groups | None) -> History:
    """Return the history of a run that knows how the question is asked."""
    if not isinstance(run, History):
        return summarize(run, looks="once" if looks is None else looks, groups=groups)
    if looks is None and groups is None:
        return run
    return replace(run, looks=run.looks if looks is None else looks, groups=groups)


def choose_pair(
    history: History, *, before: float | None = None, after: float | None = None
) -> tuple[Checkpoint, Checkpoint]:
    """Return the two checkpoints to compare: those asked for, else the history's own pair.

    With `before` alone the later one is the run's last. With `after` alone the earlier one is the best by
    loss before it, or the first where none is better: what is compared does not run backwards unless both
    epochs are given so. An epoch with none on its other side is compared with itself.
    """
    if before is None and after is not None:
        return history.pair_ending_at(_at_epoch(history, after, "after"))
    first, last = history.pair
    return (
        first if before is None else _at_epoch(history, before, "before"),
        last if after is None else _at_epoch(history, after, "after"),
    )


def _at_epoch(history: History, asked: float, name: str) -> Checkpoint:
    if not isinstance(asked, Real):
        raise ConfshiftError(f"{name}={asked!r}: give an epoch, a number, or leave it out")
    for checkpoint in history.main.checkpoints:
        if checkpoint.epoch == asked:
            return checkpoint
    epochs = ", ".join(f"{at:g}" for at in history.main.epochs)
    raise ConfshiftError(f"{name}={asked:g}: the run has no such epoch; it has {epochs}")
