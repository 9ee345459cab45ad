"""Which checkpoints of a run are best, and which two of them a look at its loss compares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from confshift.analysis.matrices import Matrix
from confshift.analysis.panel import Panel
from confshift.analysis.unscored import enough_answers
from confshift.checkpoint import Checkpoint

#: What a checkpoint can be best by, and whether more is better.
CRITERIA = {"loss": False, "refinement_loss": False, "accuracy": True}
_MATRICES: dict[str, Matrix[Any]] = {
    "loss": Panel.loss,
    "refinement_loss": Panel.refinement,
    "accuracy": Panel.correct,
}


def best_rows(panel: Panel, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the checkpoints that are best by each criterion, as `History.best` has them."""
    columns = ["epoch", *(name + end for name in CRITERIA for end in ("", "_se"))]
    columns += ["finite_loss", "nonfinite_samples", "temperature", "fit_status"]
    positions = [best_position(panel, criterion) for criterion in CRITERIA]
    return table.iloc[positions][columns].set_index(pd.Index(CRITERIA, name="criterion"))


def pair_by_loss(panel: Panel) -> tuple[Checkpoint, Checkpoint]:
    """Return the best checkpoint by loss and the last; where the last is the best, the first and the last.

    Checkpoints at which most samples have no answer, or no sample has a finite loss that it also has at the
    other, are passed over, unless all are like that.
    """
    last = len(panel.checkpoints) - 1
    scored, answering = panel.counts.finite > 0, enough_answers(panel)
    for ends in (scored & answering, scored & ~answering):
        for end in np.flatnonzero(ends)[::-1].tolist():
            pair = panel.checkpoints[start_of(panel, end)], panel.checkpoints[end]
            if share_finite(*pair):
                return pair
    return panel.checkpoints[start_of(panel, last)], panel.checkpoints[last]


def share_finite(first: Checkpoint, last: Checkpoint) -> bool:
    """Tell whether some sample has a finite loss at both checkpoints."""
    return bool((first.finite & last.finite).any())


def start_of(panel: Panel, last: int) -> int:
    """Return the best position by loss up to the last one, or the first if that is the last one."""
    scored = panel.counts.finite[: last + 1] > 0
    answering = scored & enough_answers(panel)[: last + 1]
    first = int(np.argmax(answering if answering.any() else scored))
    best = best_position(panel, "loss", end=last + 1)
    return best if best != last else first


def best_position(panel: Panel, criterion: str, *, end: int | None = None) -> int:
    """Return the first position with the best mean, of those at which the fewest samples are left out."""
    of_answers = criterion == "accuracy"
    usable = Panel.answered if of_answers else Panel.finite
    counts = (panel.counts.answered if of_answers else panel.counts.finite)[:end]
    places = np.flatnonzero(counts == counts.max())
    shared = panel.at(places.tolist()).at_all(usable)
    has_shared = bool(shared.any())
    weights = None if of_answers else panel.weights
    sums = []
    for place in places.tolist():
        one = panel.one(place)
        # A checkpoint must not win by the samples that it leaves out.
        members = shared if has_shared else usable.of(one)[0]
        values = np.where(members, _MATRICES[criterion].of(one)[0], 0.0)
        if weights is not None:
            total = (members * weights).sum()
            values = values * weights / total if total > 0 else np.full(1, np.inf)
        sums.append(values.sum())
    return int(places[np.argmax(sums) if CRITERIA[criterion] else np.argmin(sums)])
