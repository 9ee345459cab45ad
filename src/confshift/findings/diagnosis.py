"""diagnose(): answer every question, in the order in which a reader needs the answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from numbers import Real

from confshift.analysis.attributes import Slices
from confshift.analysis.comparison import Comparison
from confshift.analysis.grouping import Groups
from confshift.analysis.history import History, summarize
from confshift.analysis.objective import ClassWeight, Smoothing
from confshift.analysis.series import Looks
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.best_checkpoint import best_checkpoint
from confshift.findings.causes import about_causes
from confshift.findings.change import about_change
from confshift.findings.diverged import diverged, shows_divergence, without_explanations, without_steps
from confshift.findings.question import Finding
from confshift.findings.rise import about_rise
from confshift.findings.run_kind import kind_of, run_kind
from confshift.findings.start import about_start
from confshift.findings.told import within_choice
from confshift.findings.wording import vocabulary_of


def diagnose(
    run: Iterable[Checkpoint] | History | Comparison,
    *,
    before: float | None = None,
    after: float | None = None,
    looks: Looks | None = None,
    groups: Groups | None = None,
    class_weight: ClassWeight = "stored",
    label_smoothing: Smoothing = "stored",
    slices: Slices | None = None,
) -> list[Finding]:
    """Answer the questions that people ask about a run.

    Parameters
    ----------
    run : Run, iterable of Checkpoint, History or Comparison
        A comparison answers the questions about the change only.
    before, after : float, optional
        Epochs to compare; without them those that the verdict on the run is about, see `History.pair`: the
        best by loss, or by what gets worse while the loss hides it, and the last. `before` alone is compared
        with the last, `after` alone with the best of those before it. If you pass both, they are compared in
        that order.
    looks : {"once", "every epoch"} or int, optional
        How often you ask whether the run rises; by default "once", or what a History has. "once" means at the
        end, with a 5 % chance of a false alarm. If you ask like that after each epoch, a flat run sooner or
        later raises one: "every epoch" spreads the 5 % over all epochs to come, a number over that many
        planned epochs, which finds a rise sooner.
    groups : sequence of length N or mapping from sample id, or "rows", optional
        Samples with the same label (patient, document, series of frames) err together: the findings about
        the rise and the intervals of a change then count groups, not samples. A sequence follows ascending
        sample id. Default: the groups of a History, or those that the run was saved with, if any; "rows"
        counts each row for itself all the same.
    class_weight, label_smoothing
        As in `summarize`; "stored" leaves those of a History.
    slices : DataFrame, Series or mapping, optional
        As in `compare`: the subsets of the samples that the finding `few_subsets` asks about.

    Returns
    -------
    list of Finding
        One for every question; those that can't be answered or do not apply say so.

    Raises
    ------
    ConfshiftError
        Where the run is empty or holds no such epoch, its checkpoints can't be paired, or `looks` or
        `groups`, `class_weight`, `label_smoothing` or `slices` can't be used.
    """
    if isinstance(run, Comparison):
        run = run.by(slices, groups)
        words = vocabulary_of(run.whole, attributes=run.attributes)
        return [finding.said_in(words) for finding in about_change(run)]
    history = _history_of(run, looks, groups, class_weight, label_smoothing)
    pair = choose_pair(history, before=before, after=after)
    comparison = history.compare(*pair).by(slices, history.groups)
    words = vocabulary_of(history.main, attributes=comparison.attributes)
    return [finding.said_in(words) for finding in answers(history, comparison)]


def answers(history: History, comparison: Comparison) -> list[Finding]:
    """Answer every question about a run and about two of its checkpoints.

    Where the run diverged, that comes first; nothing about its last checkpoints is then explained or advised.
    """
    overfitting = "overfitting" in kind_of(history) or bool(history.divergence)
    by_choice = [name for name in ("loss", "error_rate") if within_choice(history, comparison, name)]
    about_run, about_divergence = [*about_rise(history), run_kind(history)], [diverged(history)]
    about_pair = [
        *about_change(
            comparison,
            overfitting=overfitting,
            by_choice=by_choice,
            keep=history.recommendation.epoch,
            wrong_labels=history.labels_look_wrong,
        ),
        *about_causes(history, comparison),
    ]
    if history.divergence:
        about_run, about_divergence = about_divergence, without_steps(about_run)
    if shows_divergence(history, comparison):
        about_pair = without_explanations(about_pair, history.divergence)
    return [
        *about_run,
        *about_divergence,
        *about_pair,
        best_checkpoint(history),
        *about_start(history),
    ]


def _history_of(
    run: Iterable[Checkpoint] | History,
    looks: Looks | None,
    groups: Groups | None,
    class_weight: ClassWeight,
    label_smoothing: Smoothing,
) -> History:
    """Return the history of a run; of a History, one with those of these options that are set."""
    if isinstance(run, History):
        looks = run.looks if looks is None else looks
        if groups is None and _is_stored(class_weight) and _is_stored(label_smoothing):
            return run if looks == run.looks else replace(run, looks=looks)
        split, objective = run.split, run.main.objective
        groups = run.groups if groups is None else groups
        class_weight = objective.class_weights if _is_stored(class_weight) else class_weight
        label_smoothing = objective.smoothing if _is_stored(label_smoothing) else label_smoothing
        run = [checkpoint for _, panel in run.panels for checkpoint in panel.checkpoints]
    else:
        split = "val"
    return summarize(
        run,
        split=split,
        looks="once" if looks is None else looks,
        groups=groups,
        class_weight=class_weight,
        label_smoothing=label_smoothing,
    )


def _is_stored(given: ClassWeight | Smoothing) -> bool:
    return isinstance(given, str) and given == "stored"


def choose_pair(
    history: History, *, before: float | None = None, after: float | None = None
) -> tuple[Checkpoint, Checkpoint]:
    """Return the two checkpoints to compare: those of the epochs given, else the history's own pair.

    With `before` alone the later one is the run's last. With `after` alone the earlier one is the
    one to compare it with if the run had ended there. So a comparison runs backwards only if both epochs are
    given in that order. An epoch without another to compare it with is compared with itself.
    """
    if before is None and after is not None:
        return history.pair_ending_at(_at_epoch(history, after, "after"))
    first, last = history.pair
    return (
        first if before is None else _at_epoch(history, before, "before"),
        last if after is None else _at_epoch(history, after, "after"),
    )


def _at_epoch(history: History, epoch: float, name: str) -> Checkpoint:
    if not isinstance(epoch, Real):
        raise ConfshiftError(f"{name}={epoch!r}: give an epoch, a number, or leave it out")
    for checkpoint in history.main.checkpoints:
        if checkpoint.epoch == epoch:
            return checkpoint
    epochs = ", ".join(f"{known_epoch:g}" for known_epoch in history.main.epochs)
    raise ConfshiftError(f"{name}={epoch:g}: the run has no such epoch; it has {epochs}")
