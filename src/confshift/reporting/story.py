"""What a page is about: one run, or the best of two runs against each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.comparison import Comparison, compare
from confshift.analysis.history import History, summarize
from confshift.analysis.panel import stack
from confshift.checkpoint import Checkpoint
from confshift.findings.change import about_change
from confshift.findings.diagnosis import choose_pair, diagnose
from confshift.findings.finding import Finding
from confshift.findings.headline import difference, headline
from confshift.findings.wording import epoch
from confshift.reporting.payload import carried_history, places_of
from confshift.reporting.thumbnails import Thumbnail, Thumbnails, show_inputs
from confshift.storage.run import Run

__all__ = ["Source", "Story", "tell_run", "tell_two_runs"]

#: Samples whose inputs are shown.
_MAX_THUMBNAILS = 2_000

#: Where checkpoints come from.
Source = Run | Iterable[Checkpoint]


@dataclass(frozen=True, eq=False)
class Story:
    """What a page is about."""

    title: str
    verdict: str
    names: tuple[str, ...]  # of the runs
    histories: tuple[History, ...]  # of one run, or of two
    comparison: Comparison
    findings: tuple[Finding, ...]
    problems: pd.DataFrame
    thumbnail: Thumbnail | None

    @property
    def history(self) -> History:
        """The history of the run, of two the first."""
        return self.histories[0]

    @property
    def two_runs(self) -> bool:
        """Whether two runs are compared; then the page compares one checkpoint of each and no others."""
        return len(self.histories) > 1

    @property
    def called(self) -> tuple[str, str]:
        """What the two compared checkpoints are called in a sentence."""
        before, after = (
            f"epoch {epoch(one.epoch)}" for one in (self.comparison.before, self.comparison.after)
        )
        return (f"A ({before})", f"B ({after})") if self.two_runs else (before, after)

    @cached_property
    def carried(self) -> History:
        """The history of the checkpoints that the page carries."""
        if self.two_runs:
            panel = stack([self.comparison.before, self.comparison.after])
            return History(((self.history.panels[0][0], panel),))
        return carried_history(self.history, self.comparison, self.history.rise)

    @cached_property
    def inputs(self) -> tuple[NDArray[np.intp], Thumbnails]:
        """The samples whose inputs are shown, as positions in the panel: those that changed most."""
        if self.thumbnail is None:
            return np.empty(0, np.intp), Thumbnails("", [], [])
        panel = self.carried.main
        before, after = places_of(self.carried, self.comparison)
        change = panel.loss[after] - panel.loss[before] if before != after else panel.loss[after]
        shown = np.argsort(-np.abs(np.nan_to_num(change)), kind="stable")[:_MAX_THUMBNAILS]
        return shown, show_inputs(self.thumbnail, list(panel.sample_ids[shown]))


def tell_run(
    run: Source,
    history: History,
    *,
    before: float | None,
    after: float | None,
    title: str | None,
    thumbnail: Thumbnail | None,
) -> Story:
    """Tell the story of one run."""
    name = _name(run, "Run")
    comparison = compare(*choose_pair(history, before=before, after=after))
    findings = tuple(diagnose(history, before=before, after=after))
    verdict, problems = headline(history, comparison), _problems([run])
    return Story(title or name, verdict, (name,), (history,), comparison, findings, problems, thumbnail)


def tell_two_runs(
    run: Source,
    other: Source,
    *,
    before: float | None,
    after: float | None,
    title: str | None,
    thumbnail: Thumbnail | None,
) -> Story:
    """Tell how another run differs: from the best checkpoint of the first to the best of the other."""
    histories = summarize(run), summarize(other)
    names = _name(run, "first run"), _name(other, "second run")
    chosen = [_chosen(history, at) for history, at in zip(histories, (before, after), strict=True)]
    comparison = compare(*chosen)
    called = tuple(f"{name} (epoch {epoch(one.epoch)})" for name, one in zip(names, chosen, strict=True))
    findings = tuple(about_change(comparison, called=(called[0], called[1])))
    verdict = difference(comparison, first=names[0], second=names[1])
    problems = _problems([run, other])
    whole = title or f"{names[0]} against {names[1]}"
    return Story(whole, verdict, names, histories, comparison, findings, problems, thumbnail)


def _chosen(history: History, at: float | None) -> Checkpoint:
    wanted = history.best.loc["loss", "epoch"] if at is None else at
    return choose_pair(history, before=wanted)[0]


def _name(run: Source, otherwise: str) -> str:
    return run.name if isinstance(run, Run) else otherwise


def _problems(runs: list[Source]) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(), *(run.problems for run in runs if isinstance(run, Run))])
