"""Which checkpoints and samples a verdict on a rise is over, where not every loss is finite."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.panel import Panel
from confshift.analysis.persistence import TAIL
from confshift.analysis.series import STATUSES, Series

#: A checkpoint is judged where at least this share of the samples has an answer.
_ENOUGH = 0.5
#: "Does not rise" is not said where more of the samples than this were never judged.
_FEW = 0.01


class InUse(NamedTuple):
    """What a series is judged by; checkpoints as positions in the panel."""

    eligible: NDArray[np.intp]  # where enough samples have an answer
    infinite: NDArray[np.intp]  # of these, where the mean is infinite
    positions: NDArray[np.intp]  # whose means are held against each other
    usable: NDArray[np.bool_]  # (T, N): which numbers there are
    samples: NDArray[np.bool_]  # (N,): those with a number at all the positions

    @property
    def _infinite_at_end(self) -> bool:
        return len(self.infinite) > 0 and bool(self.infinite[-1] == self.eligible[-1])

    def infinite_samples(self, panel: Panel) -> int:
        """Count the samples that make the last mean infinite."""
        return int(panel.infinite[self.eligible[-1]].sum()) if self._infinite_at_end else 0

    @property
    def ends_infinite(self) -> bool:
        """Whether the last mean is infinite, and some earlier one is not."""
        return self._infinite_at_end and len(np.setdiff1d(self.positions, self.infinite)) > 0


def enough_answers(panel: Panel) -> NDArray[np.bool_]:
    """Tell at which checkpoints enough samples have an answer to speak of the checkpoint at all."""
    return np.asarray(panel.answered.mean(axis=1) >= _ENOUGH)


def in_use(panel: Panel, *, losses: bool = True) -> InUse:
    """Choose what to judge: losses, whose means may be infinite, or answers.

    An infinite mean can be neither the lowest one nor tested: where some means are finite, those are held
    against each other, over all samples with an answer; where none is, all of them are, over the samples
    whose loss is finite throughout.
    """
    eligible = np.flatnonzero(enough_answers(panel))
    usable = panel.finite if losses else panel.answered
    infinite = eligible[panel.infinite[eligible].any(axis=1)] if losses else eligible[:0]
    positions = np.setdiff1d(eligible, infinite)
    if not len(positions):
        positions = eligible[usable[eligible].mean(axis=1) >= _ENOUGH]
    samples = np.asarray(usable[positions].all(axis=0))
    if not len(positions) or not samples.any():
        positions, samples = positions[:0], np.zeros(len(panel.targets), dtype=bool)
    return InUse(eligible, infinite, positions, usable, samples)


def judged_flat(panel: Panel, used: InUse) -> bool:
    """Tell whether "does not rise" can be said: what was left out can't hide a rise.

    Not where the last checkpoint was left out, or every mean is infinite; nor where a sample is judged at
    some checkpoints and not at others, or too many at none.
    """
    if not len(used.positions) or used.positions[-1] != len(panel.epochs) - 1:
        return False
    if used.positions[-1] in used.infinite:
        return False
    sometimes = used.usable[used.positions].any(axis=0) & ~used.samples
    return not sometimes.any() and bool((~used.samples).mean() <= _FEW)


def infinite_end(panel: Panel, values: NDArray[np.float64], series: Series, used: InUse) -> dict[str, Any]:
    """Return what `judge_series` can't say of a series whose last mean is infinite and others are not.

    That is a rise beyond sampling error, of whatever size. It is lasting where as many checkpoints in a row
    are infinite at the end as it takes after the lowest one to tell any rise from jitter.

    Parameters
    ----------
    panel : Panel
    values : ndarray, shape (T, N)
        What the series is the mean of.
    series : Series
        The finite means.
    used : InUse
    """
    best = int(np.argmin(series.errors.means))
    tail = len(used.eligible) - 1 - int(np.searchsorted(used.eligible, used.positions[best]))
    lasting = int((used.eligible > used.positions[-1]).sum())
    status = "too_few_epochs" if tail < TAIL else "systematic" if lasting >= TAIL else "within_jitter"
    last = used.eligible[-1]
    shared = panel.finite[used.positions[best]] & panel.finite[last]
    unknown = ("resolution", "critical_value", "trend_p", "level", "level_critical", "jitter_sd")
    return {
        **dict.fromkeys((*unknown, "autocorrelation"), math.nan),
        **dict.fromkeys(("amount", "lower_bound", "upper_bound", "last_value", "statistic"), math.inf),
        "verdict": STATUSES[status].verdict,
        "status": status,
        "since": float(series.epochs[-1]),
        "best_epoch": float(series.epochs[best]),
        "best_value": float(series.errors.means[best]),
        "last_epoch": float(panel.epochs[last]),
        "finite_best_value": _mean(values[used.positions[best], shared]),
        "finite_last_value": _mean(values[last, shared]),
        "finite_samples": int(shared.sum()),
        "fall": float(series.errors.means[0] - series.errors.means[best]),
        "rising": lasting >= TAIL,
        "tail": tail,
        "epochs": len(used.eligible),
    }


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan
