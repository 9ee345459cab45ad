"""Which checkpoints and samples a verdict on a rise is over, where not every loss is finite."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.matrices import Matrix
from confshift.analysis.panel import Panel
from confshift.analysis.persistence import TAIL, Persistence
from confshift.analysis.series import STATUSES, Series

#: A checkpoint is judged where at least this share of the samples has an answer.
_ENOUGH = 0.5
#: If more than this share of the samples was never judged, the verdict is never "does not rise".
_FEW = 0.01


class Selection(NamedTuple):
    """The checkpoints and samples that a series is judged by; checkpoints as positions in the panel."""

    eligible: NDArray[np.intp]  # where enough samples have an answer
    infinite: NDArray[np.intp]  # of these, where the mean is infinite
    positions: NDArray[np.intp]  # whose means are compared
    samples: NDArray[np.bool_]  # (N,): those with a number at all the positions
    losses: bool  # whether it is losses that are judged

    def usable(self, panel: Panel) -> NDArray[np.bool_]:
        """Return whether a sample of a panel has a number, (T, N)."""
        return panel.finite if self.losses else panel.answered

    @property
    def _infinite_at_end(self) -> bool:
        return len(self.infinite) > 0 and bool(self.infinite[-1] == self.eligible[-1])

    def infinite_samples(self, panel: Panel) -> int:
        """Count the samples that make the last mean infinite."""
        return int(panel.counts.infinite[self.eligible[-1]]) if self._infinite_at_end else 0

    @property
    def ends_infinite(self) -> bool:
        """Whether the last mean is infinite, and some earlier one is not."""
        return self._infinite_at_end and len(np.setdiff1d(self.positions, self.infinite)) > 0


def enough_answers(panel: Panel) -> NDArray[np.bool_]:
    """Return at which checkpoints enough samples have an answer to judge the checkpoint."""
    return np.asarray(panel.counts.answered >= _ENOUGH * len(panel.targets))


def select(panel: Panel, *, losses: bool = True) -> Selection:
    """Choose what to judge: losses, whose means may be infinite, or answers.

    An infinite mean is never the lowest one and can't be tested. So the checkpoints with a finite mean are
    compared, over the samples with a number at all of them; where no mean is finite, the checkpoints at which
    at least half of the samples have a finite loss, over the samples whose loss is finite at all of those.
    """
    eligible = np.flatnonzero(enough_answers(panel))
    usable = Panel.finite if losses else Panel.answered
    infinite = eligible[panel.counts.infinite[eligible] > 0] if losses else eligible[:0]
    positions = np.setdiff1d(eligible, infinite)
    if not len(positions):
        numbers = panel.counts.finite if losses else panel.counts.answered
        positions = eligible[numbers[eligible] >= _ENOUGH * len(panel.targets)]
    samples = panel.at(positions.tolist()).at_all(usable)
    if not len(positions) or not samples.any():
        positions, samples = positions[:0], np.zeros(len(panel.targets), dtype=bool)
    return Selection(eligible, infinite, positions, samples, losses)


def judged_flat(panel: Panel, selection: Selection) -> bool:
    """Return whether "does not rise" is justified: no rise can hide in what was left out.

    It may hide where the last checkpoint was left out, every mean is infinite, a sample has a number at only
    some of the checkpoints, or too many samples have none.
    """
    if not len(selection.positions) or selection.positions[-1] != len(panel.epochs) - 1:
        return False
    if selection.positions[-1] in selection.infinite:
        return False
    judged = panel.at(selection.positions.tolist())
    partly = any((selection.usable(one)[0] & ~selection.samples).any() for one in judged.ones())
    return not partly and bool((~selection.samples).mean() <= _FEW)


def infinite_end(panel: Panel, values: Matrix[Any], series: Series, selection: Selection) -> dict[str, Any]:
    """Return the row for a series whose last mean is infinite and others are not.

    `judge_series` can't judge it. It is a rise beyond any sampling error, and a lasting one where as many
    checkpoints in a row are infinite at the end as a rise must last to be distinguished from jitter.

    Parameters
    ----------
    panel : Panel
    values : Matrix
        The numbers that the series averages.
    series : Series
        The finite means.
    selection : Selection
    """
    best = int(np.argmin(series.errors.means))
    tail = len(selection.eligible) - 1 - int(np.searchsorted(selection.eligible, selection.positions[best]))
    infinite_tail = int((selection.eligible > selection.positions[-1]).sum())
    status = "too_few_epochs" if tail < TAIL else "systematic" if infinite_tail >= TAIL else "within_jitter"
    last = int(selection.eligible[-1])
    pair = panel.at([int(selection.positions[best]), last])
    shared = pair.take(pair.at_all(Panel.finite))
    before, after = shared.mean(values.of(shared)) if len(shared.targets) else (math.nan, math.nan)
    not_estimated = [name for name in Persistence._fields if name != "settled"]
    return {
        **dict.fromkeys(("resolution", "critical_value", *not_estimated), math.nan),
        **dict.fromkeys(("amount", "lower_bound", "upper_bound", "last_value", "statistic"), math.inf),
        "verdict": STATUSES[status].verdict,
        "status": status,
        "since": float(series.epochs[-1]),
        "best_epoch": float(series.epochs[best]),
        "best_value": float(series.errors.means[best]),
        "last_epoch": float(panel.epochs[last]),
        "finite_best_value": float(before),
        "finite_last_value": float(after),
        "finite_samples": len(shared.targets),
        "fall": float(series.errors.means[0] - series.errors.means[best]),
        "rising": infinite_tail >= TAIL,
        "tail": tail,
        "epochs": len(selection.eligible),
    }
