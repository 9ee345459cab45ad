"""The verdict on one series of epoch means: does it rise, and where may its minimum be?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.jitter import ENOUGH, FEWEST
from confshift.analysis.persistence import TAIL, Persistence, persistence_of
from confshift.analysis.simultaneous import (
    Blocks,
    EpochMeans,
    Maxima,
    critical_value,
    critical_values,
    maxima,
    mean_errors,
    sequential_values,
)

#: The chance of calling a series rising that does not rise.
ALPHA = 0.05


class Status(NamedTuple):
    """A judgement of a series: the verdict it stands for, and its words in two kinds of sentence."""

    verdict: str
    clause: str  # about the change between two epochs, in the headline
    course: str = ""  # about where a run ends, against its best epoch; "" where no sentence says that


#: Every status of a series, by its name in `History.rise`.
STATUSES = {
    "systematic": Status("yes", "that is systematic", "a systematic rise"),
    "small": Status("yes", "that is systematic, but little", "a systematic rise, but little"),
    "flat": Status("no", "that is within noise", "within noise"),
    "within_jitter": Status(
        "cannot tell",
        "that is real between these two, but within the jitter from epoch to epoch",
        "within the jitter from epoch to epoch",
    ),
    "setback": Status(
        "cannot tell",
        "that is real, and what a sudden rise in between has left",
        "what a sudden rise in between has left",
    ),
    "below_resolution": Status(
        "cannot tell",
        "this many samples can't tell whether that is systematic",
        "too little for this many samples to tell",
    ),
    "unscored": Status(
        "cannot tell",
        "what was left out can't tell whether that is systematic",
        "too much was left out to tell whether systematically",
    ),
    "too_few_epochs": Status("not applicable", "too few epochs to call it systematic or not"),
}

#: With fewer samples (or groups) than this, not finding a rise does not mean that there is none.
FEW = 100

#: How often the question is asked: once, after every epoch, or after each of a planned number of epochs.
Looks = Literal["once", "every epoch"] | int

_POWER_80 = 0.84  # normal quantile

#: Means that differ by less than this are equal.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Series:
    """One quantity over the epochs in use: its means with their sampling error, and draws of it."""

    epochs: NDArray[np.float64]
    errors: EpochMeans
    null: Maxima
    drops: tuple[int, ...] = ()  # positions of the first epochs after the learning rate fell for good

    @property
    def baseline(self) -> int:
        """The position of the lowest mean before the last epoch."""
        return int(np.argmin(self.errors.means[:-1]))

    @property
    def at_the_last_rates(self) -> NDArray[np.float64]:
        """The means since the last drop of the learning rate that is not after the lowest one.

        A lower learning rate jitters less: what the epochs before it did says nothing of those that are
        compared. All means where too few would be left to test for jitter alone.
        """
        means = self.errors.means
        latest = min(self.baseline, len(means) - ENOUGH)
        return means[max((drop for drop in self.drops if drop <= latest), default=0) :]

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """The epochs that are statistically tied with the lowest one.

        Indexed by epoch; columns value (the mean), statistic (the largest t-value against any other
        epoch; 0 for the lowest), critical_value and in_set.
        """
        statistic = self.errors.t_values.max(axis=1, initial=0)
        critical = critical_values(self.null.others, alpha=ALPHA, units=self.errors.units)
        table = {"value": self.errors.means, "statistic": statistic, "critical_value": critical}
        frame = pd.DataFrame(table, index=pd.Index(self.epochs, name="epoch"))
        return frame.assign(in_set=statistic <= critical)

    @property
    def last_candidate(self) -> float:
        """The latest epoch before the last one that is statistically tied with the lowest."""
        members = np.flatnonzero(self.candidates["in_set"].to_numpy()[:-1])
        return float(self.epochs[members[-1]])


def series_of(
    values: NDArray[np.float64] | Blocks,
    epochs: NDArray[np.float64],
    *,
    groups: NDArray[np.intp] | None = None,
    weights: NDArray[np.float64] | None = None,
    drops: tuple[int, ...] = (),
) -> Series:
    """Average each checkpoint, values as of `mean_errors`, with the joint error of the means."""
    errors = mean_errors(values, groups=groups, weights=weights)
    return Series(epochs, errors, maxima(errors), drops)


def judge_series(series: Series, *, looks: Looks = "once") -> dict[str, Any]:
    """Return verdict, status and numbers of one series; see `History.rise`.

    Series of fewer than two epochs have NaN for every number.
    """
    epochs, errors = series.epochs, series.errors
    count = len(epochs)
    counts = {"epochs": count, "units": errors.units}
    if count < 2:
        return {
            "verdict": STATUSES["too_few_epochs"].verdict,
            "status": "too_few_epochs",
            **_NO_NUMBERS,
            **counts,
        }
    once, planned = looks == "once", looks if isinstance(looks, int) else None
    critical = (
        critical_value(series.null.earlier[-1], alpha=ALPHA, units=errors.units)
        if once
        else sequential_values(series.null.earlier, alpha=ALPHA, planned=planned, units=errors.units)[-1]
    )
    numbers = _numbers(series, critical)
    beyond = bool(numbers["statistic"] > critical)
    # Where sampling error explains the rise, the question is whether it may hide a drift.
    means = series.at_the_last_rates
    covariance = errors.covariance[-len(means) :, -len(means) :] if beyond else None
    persistence = persistence_of(means, covariance, alpha=ALPHA, repeated=not once)
    status = _status(count, beyond, persistence, numbers, errors.units)
    since = series.last_candidate if beyond else math.nan
    if status == "within_jitter" and _is_setback(series, since=since, left=numbers["amount"]):
        status = "setback"
    return {
        "verdict": STATUSES[status].verdict,
        "status": status,
        **numbers,
        "since": since,
        **persistence._asdict(),
        **counts,
    }


_NO_NUMBERS = dict.fromkeys(
    (
        *(
            "amount",
            "lower_bound",
            "upper_bound",
            "resolution",
            "best_epoch",
            "best_value",
            "last_epoch",
            "last_value",
        ),
        *("fall", "statistic", "critical_value", "since", *Persistence._fields),
    ),
    math.nan,
) | {"rising": False, "settled": 0, "tail": 0}


def _numbers(series: Series, critical: float) -> dict[str, float]:
    """Return how far the last epoch lies above the earlier ones, and which rise could have been detected."""
    means, error = series.errors.means, series.errors.standard_errors[-1, :-1]
    best = series.baseline
    rises = means[-1] - means[:-1]
    has_spread = error > 0
    return {
        "amount": float(rises[best]),
        "lower_bound": float((rises - critical * error)[has_spread].max()) if has_spread.any() else math.nan,
        "upper_bound": float((rises + critical * error).max()),
        "resolution": float((critical + _POWER_80) * error[best]) if has_spread[best] else math.nan,
        "best_epoch": float(series.epochs[best]),
        "best_value": float(means[best]),
        "last_epoch": float(series.epochs[-1]),
        "last_value": float(means[-1]),
        "fall": float(means[0] - means[best]),
        "statistic": float(series.errors.t_values[-1, :-1].max()),
        "critical_value": critical,
    }


def _status(
    epochs: int, beyond: bool, persistence: Persistence, numbers: Mapping[str, float], units: int
) -> str:
    if epochs < TAIL + 1 or (beyond and (persistence.tail < TAIL or persistence.settled < FEWEST)):
        return "too_few_epochs"
    if numbers["amount"] < _ROUNDING:
        return "flat"
    if beyond:
        return "systematic" if persistence.rising else "within_jitter"
    unresolved = units < FEW or math.isnan(numbers["resolution"])
    return "below_resolution" if persistence.rising or unresolved else "flat"


#: A hump is so many times the jitter from epoch to epoch, and this share of all that the series moved.
_JITTERS, _SHARE = 15.0, 0.1
#: At least this share of it was taken back; all but this share of it counts as taken back.
_TAKEN_BACK, _REST = 0.5, 0.1
#: A normal variable is this many times as wide as the median of its size; a second difference sqrt(6) times.
_MEDIAN_SIZE = 0.6745 * math.sqrt(6)


class Hump(NamedTuple):
    """The largest rise of a series that later epochs took back, NaN where there is none."""

    hump: float = math.nan  # its height above the lowest epoch before
    hump_epoch: float = math.nan
    hump_until: float = math.nan  # the first epoch at which it was taken back, as far as it was
    hump_left: float = math.nan  # how much of it is left there; 0 or less where the series went lower


def hump_of(errors: EpochMeans, epochs: NDArray[np.float64]) -> Hump:
    """Find the largest rise that was taken back, where it is far beyond jitter and sampling error.

    Parameters
    ----------
    errors : EpochMeans
        Of T epochs.
    epochs : ndarray, shape (T,)
    """
    means = errors.means
    if len(means) < 4:
        return Hump()
    lowest_before, lowest_after = (
        np.minimum.accumulate(means)[:-2],
        np.minimum.accumulate(means[::-1])[::-1][2:],
    )
    up, down = means[1:-1] - lowest_before, means[1:-1] - lowest_after
    top = int(np.argmax(np.minimum(up, down))) + 1
    start, end = int(np.argmin(means[:top])), top + 1 + int(np.argmin(means[top + 1 :]))
    height, back = up[top - 1], down[top - 1]
    jitter = float(np.median(np.abs(np.diff(means, 2)))) / _MEDIAN_SIZE
    beyond = min(height, back) > max(_JITTERS * jitter, _SHARE * float(np.ptp(means)))
    limit = math.sqrt(2 * math.log(20 * len(means) ** 2))  # of the largest of so many t-values
    told = errors.t_values[top, start] > limit and errors.t_values[top, end] > limit
    if not (beyond and told and back >= _TAKEN_BACK * height):
        return Hump()
    low_again = np.flatnonzero(means[top + 1 :] <= means[start] + _REST * height)
    until = top + 1 + int(low_again[0]) if len(low_again) else end
    return Hump(float(height), float(epochs[top]), float(epochs[until]), float(means[until] - means[start]))


#: What a sudden rise left is so many times the jitter on either side of it, in so many epochs.
_LEFT, _SIDE = 5.0, 8


def _is_setback(series: Series, *, since: float, left: float) -> bool:
    """Tell whether a series ends higher because of one sudden rise that it has not made up for.

    Most of the rise of a hump came in one step, every epoch from there on is measurably worse than the lowest
    (the last that is not is `since`), and what is left of it is far beyond the jitter before and after. The
    hump itself, which a test for trends takes for jitter, is not in that.
    """
    means, epochs = series.errors.means, series.epochs
    hump = hump_of(series.errors, epochs)
    if math.isnan(hump.hump):
        return False
    top = int(np.flatnonzero(epochs == hump.hump_epoch)[0])
    start = int(np.argmin(means[:top]))
    steps = np.diff(means[start : top + 1])
    step = start + 1 + int(np.argmax(steps))
    sides = means[max(0, step - _SIDE) : step], means[top + 1 :]
    if min(map(len, sides)) < _SIDE // 2 or not since < epochs[step]:
        return False
    jitter = max(float(np.median(np.abs(np.diff(side, 2)))) for side in sides) / _MEDIAN_SIZE
    return bool(steps.max() >= hump.hump / 2 and left > _LEFT * jitter)
