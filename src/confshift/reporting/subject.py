"""What a page is about: one run, or the best checkpoints of two runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.attributes import Slices
from confshift.analysis.comparison import Comparison, comparison_of
from confshift.analysis.history import History
from confshift.analysis.objective import Objective
from confshift.analysis.stacking import stack
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.answer import Answer, answer_run
from confshift.findings.change import about_change
from confshift.findings.commands import Places
from confshift.findings.diagnosis import answers, choose_pair
from confshift.findings.diverged import shows_divergence, without_explanations
from confshift.findings.question import Finding
from confshift.findings.two_runs import answer_two_runs
from confshift.findings.wording import Vocabulary, epoch, vocabulary_of
from confshift.reporting.page_data import places_of, thin_history
from confshift.reporting.thumbnails import Thumbnail, Thumbnails, show_inputs
from confshift.storage.run import Run

#: Samples whose inputs are shown.
_MAX_THUMBNAILS = 2_000

#: A run, or the checkpoints of one.
Source = Run | Iterable[Checkpoint]


def as_source(run: Source | str | os.PathLike[str]) -> Source:
    """Open a run given by its path; return anything else as it is."""
    return Run(run) if isinstance(run, (str, os.PathLike)) else run


@dataclass(frozen=True, eq=False)
class Story:
    """What a page is about: runs, the comparison, the findings."""

    title: str
    answer: Answer
    names: tuple[str, ...]  # of the runs
    histories: tuple[History, ...]  # of one run, or of two
    comparison: Comparison
    findings: tuple[Finding, ...]
    problems: pd.DataFrame
    thumbnail: Thumbnail | None
    places: Places  # the paths of the runs, as they were given

    @property
    def verdict(self) -> str:
        """Action, why and remarks of the answer."""
        return self.answer.text

    @property
    def words(self) -> Vocabulary:
        """What the rows are called on the page."""
        attributes = self.comparison.attributes
        return vocabulary_of(self.history.main, self.title, *self.names, attributes=attributes)

    @property
    def history(self) -> History:
        """The history of the run, or of the first of two."""
        return self.histories[0]

    @property
    def two_runs(self) -> bool:
        """Whether two runs are compared; then the page compares one checkpoint of each and no others."""
        return len(self.histories) > 1

    @property
    def side_names(self) -> tuple[str, str]:
        """The names of the two compared checkpoints in a sentence."""
        before, after = (
            f"epoch {epoch(checkpoint.epoch)}"
            for checkpoint in (self.comparison.before, self.comparison.after)
        )
        return (f"A ({before})", f"B ({after})") if self.two_runs else (before, after)

    @cached_property
    def page_history(self) -> History:
        """The history of the checkpoints on the page."""
        if self.two_runs:
            return History(((self.history.split, self.comparison.whole),), groups=self.history.groups)
        return thin_history(self.history, self.comparison, self.history.rise)

    @cached_property
    def inputs(self) -> tuple[NDArray[np.intp], Thumbnails]:
        """The samples that changed most, as positions in the panel, and the thumbnails of their inputs."""
        if self.thumbnail is None:
            return np.empty(0, np.intp), Thumbnails("", [], [])
        panel = self.page_history.main
        before, after = places_of(self.page_history, self.comparison)
        change = panel.changes(before, after) if before != after else panel.one(after).loss[0]
        size = np.abs(np.nan_to_num(change, posinf=0.0, neginf=0.0))
        shown = np.argsort(-size, kind="stable")[:_MAX_THUMBNAILS]
        return shown, show_inputs(self.thumbnail, list(panel.sample_ids[shown]))


def tell_run(
    run: Source,
    history: History,
    *,
    before: float | None,
    after: float | None,
    title: str | None,
    thumbnail: Thumbnail | None,
    slices: Slices | None = None,
) -> Story:
    """Tell the story of one run."""
    name = _name(run, "Run")
    pair = choose_pair(history, before=before, after=after)
    comparison = history.compare(*pair).by(slices, history.groups)
    findings = tuple(answers(history, comparison))
    answer, problems = answer_run(history, comparison, findings), _problems([run])
    return Story(
        title or name, answer, (name,), (history,), comparison, findings, problems, thumbnail, _places(run)
    )


def trained_alike(first: History, second: History) -> tuple[History, History]:
    """Return two histories of one loss: that of both where it is the same, else the plain one."""
    objective, other = (history.main.objective for history in (first, second))
    if objective.same_as(other):
        return first, second
    doubt = "the runs are trained with different class weights or label smoothing: losses are the plain ones"
    plain = Objective(doubt=doubt)
    return first.trained_by(plain), second.trained_by(plain)


def tell_two_runs(
    runs: tuple[Source, Source],
    histories: tuple[History, History],
    *,
    before: float | None,
    after: float | None,
    title: str | None,
    thumbnail: Thumbnail | None,
    slices: Slices | None = None,
) -> Story:
    """Tell how another run differs: from the best checkpoint of the first to the best of the other."""
    names = _names(*runs)
    first, second = (
        _checkpoint_of(history, side, at)
        for history, side, at in zip(histories, ("before", "after"), (before, after), strict=True)
    )
    # A run against itself still needs two checkpoints.
    other = copy(second) if second is first else second
    comparison = _compare(first, other, names, histories[0]).by(slices, histories[0].groups)
    findings = tuple(_about_the_worse(comparison, histories))
    answer, problems = answer_two_runs(comparison, histories, names, findings), _problems(runs)
    start = names[0] if isinstance(runs[0], Run) else names[0].capitalize()
    whole = title or f"{start} against {names[1]}"
    return Story(whole, answer, names, histories, comparison, findings, problems, thumbnail, _places(*runs))


def _compare(first: Checkpoint, second: Checkpoint, names: tuple[str, str], history: History) -> Comparison:
    try:
        whole = stack([first, second], groups=history.groups, objective=history.main.objective)
        return comparison_of(first, second, whole)
    except ConfshiftError as error:
        raise ConfshiftError(f"{names[0]} and {names[1]}: {error}") from error


def _about_the_worse(comparison: Comparison, histories: tuple[History, History]) -> list[Finding]:
    """Answer why one run has the higher loss, as the later side: the questions are about a rise."""
    rising, letters = comparison, "AB"
    before, after = comparison.infinite_samples
    falls = comparison.change.loc["loss", "change"] < 0
    if bool(before) > bool(after) or (falls and bool(before) == bool(after)):
        rising = comparison_of(comparison.after, comparison.before, comparison.whole.at([1, 0]))
        rising = replace(rising, attributes=comparison.attributes)
        letters, histories = letters[::-1], (histories[1], histories[0])
    sides = (rising.before, rising.after)
    lower, higher = (
        f"{letter} (epoch {epoch(checkpoint.epoch)})"
        for letter, checkpoint in zip(letters, sides, strict=True)
    )
    worse = histories[1]
    findings = about_change(rising, names=(lower, higher), wrong_labels=worse.labels_look_wrong)
    return without_explanations(findings, worse.divergence) if shows_divergence(worse, rising) else findings


def _checkpoint_of(history: History, side: str, at: float | None) -> Checkpoint:
    chosen_epoch = history.best.loc["loss", "epoch"] if at is None else at
    return choose_pair(history, **{side: chosen_epoch})[("before", "after").index(side)]


def _places(*runs: Source) -> Places:
    named = zip(("RUN", "OTHER"), runs, strict=False)
    return {name: run.path for name, run in named if isinstance(run, Run)}


def _name(run: Source, otherwise: str) -> str:
    return run.name if isinstance(run, Run) else otherwise


def _names(run: Source, other: Source) -> tuple[str, str]:
    """Return two names that distinguish the runs."""
    names = _name(run, "first run"), _name(other, "second run")
    if names[0] != names[1]:
        return names
    if isinstance(run, Run) and isinstance(other, Run):
        longer = tuple(f"{side.path.resolve().parent.name}/{side.name}" for side in (run, other))
        if longer[0] != longer[1]:
            return longer[0], longer[1]
    return f"{names[0]} (first)", f"{names[1]} (second)"


def _problems(runs: Sequence[Source]) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(), *(run.problems for run in runs if isinstance(run, Run))])
