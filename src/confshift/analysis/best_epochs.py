"""Which checkpoints of a run are best, and which two of them a look at its loss compares."""

from __future__ import annotations

import numpy as np
import pandas as pd

from confshift.analysis.panel import Panel
from confshift.analysis.unscored import enough_answers
from confshift.checkpoint import Checkpoint

#: What a checkpoint can be best by, and whether more is better.
CRITERIA = {"loss": False, "refinement_loss": False, "accuracy": True}


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
    scored, answering = panel.finite.any(axis=1), enough_answers(panel)
    for ends in (scored & answering, scored & ~answering):
        for end in np.flatnonzero(ends)[::-1].tolist():
            pair = panel.checkpoints[start_of(panel, end)], panel.checkpoints[end]
            if share_finite(*pair):
                return pair
    return panel.checkpoints[start_of(panel, last)], panel.checkpoints[last]


def share_finite(first: Checkpoint, last: Checkpoint) -> bool:
    """Tell whether some sample has a finite loss at both checkpoints."""
    return bool((first.columns["finite"] & last.columns["finite"]).any())


def start_of(panel: Panel, last: int) -> int:
    """Return the best position by loss up to the last one, or the first if that is the last one."""
    scored = panel.finite[: last + 1].any(axis=1)
    answering = scored & enough_answers(panel)[: last + 1]
    first = int(np.argmax(answering if answering.any() else scored))
    best = best_position(panel, "loss", end=last + 1)
    return best if best != last else first


def best_position(panel: Panel, criterion: str, *, end: int | None = None) -> int:
    """Return the first position with the best mean, of those at which the fewest samples are left out."""
    values = {"loss": panel.loss, "refinement_loss": panel.refinement, "accuracy": panel.correct}[criterion]
    usable = (panel.answered if criterion == "accuracy" else panel.finite)[:end]
    counts = usable.sum(axis=1)
    places = np.flatnonzero(counts == counts.max())
    shared = usable[places].all(axis=0)
    # A checkpoint must not win by the samples that it leaves out.
    members = shared if shared.any() else usable[places]
    sums = np.where(members, values[places], 0.0)
    if panel.weights is not None and criterion != "accuracy":
        sums = sums * panel.weights / (members * panel.weights).sum(axis=-1, keepdims=True)
    sums = sums.sum(axis=1)
    return int(places[np.argmax(sums) if CRITERIA[criterion] else np.argmin(sums)])
