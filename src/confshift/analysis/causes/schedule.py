"""The schedule that recorded learning rates follow: its name, its drops, where it starts again."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Rates that differ by less than this share of the largest are equal.
_ROUNDING = 1e-6
#: So many falls in a row are one decay, not as many drops.
_DECAY = 4
#: A drop is a fall to this share or less; within a decay one that is this much larger than its neighbours.
_DROP, _STANDS_OUT = 0.5, 3.0
#: Rates that differ by less than this share of the largest are of one phase of their cycles.
_SAME_RATE = 0.05
#: A decay has the shape that fits it this well, as a share of its range.
_FIT = 0.01


class Schedule(NamedTuple):
    """What recorded rates do over the checkpoints; positions are those of checkpoints."""

    shape: str  # constant, steps, linear, cosine, exponential, smooth (also of each cycle), rising, cycles
    peak: int  # where a warmup ends; 0 without one
    restarts: NDArray[np.intp]  # the first checkpoint after each jump upwards
    drops: NDArray[np.intp]  # the first checkpoint after each fall to half or less that is no part of a decay


def schedule_of(epochs: NDArray[np.float64], rates: NDArray[np.float64]) -> Schedule:
    """Name the schedule that rates follow.

    Parameters
    ----------
    epochs, rates : ndarray, shape (T,)
        Finite; epochs ascend.

    Examples
    --------
    >>> epochs = np.arange(40.0)
    >>> schedule_of(epochs, np.where(epochs < 20, 0.1, 0.01)).drops
    array([20])
    >>> schedule_of(epochs, 1 + np.cos(math.pi * epochs / 39)).shape
    'cosine'
    """
    moves = np.diff(rates)
    moves[np.abs(moves) <= _ROUNDING * np.abs(rates).max(initial=0.0)] = 0.0
    ups, falls = np.flatnonzero(moves > 0), np.flatnonzero(moves < 0)
    first_fall = falls[0] if len(falls) else len(moves)
    warming, later = ups[ups < first_fall], ups[ups > first_fall]
    peak = int(warming[-1]) + 1 if len(warming) else 0
    if not len(falls):
        rising = peak == len(moves) and peak > 0
        return Schedule("rising" if rising else "constant", 0 if rising else peak, falls, falls)
    if (np.diff(later) == 1).any():
        return Schedule("cycles", peak, falls[:0], falls[:0])
    ends = np.append(later, len(moves))  # of the cycles, where the rate starts again
    starts = np.append(later + 1, peak)
    decays = [
        run
        for run in _runs(falls)
        if _is_decay(run, rates)
        or (len(later) and len(run) > 1 and run[0] in starts and run[-1] + 1 in ends)  # all of a cycle
    ]
    drops = _drops(moves, rates, falls, decays)
    # A drop inside a decay parts it in two of the same shape.
    parts = [part for run in decays for part in _runs(run[~np.isin(run, drops - 1)])]
    longest = max(parts, key=len, default=falls[:0])
    decaying = len(longest) and sum(len(run) for run in decays) > len(falls) / 2
    members = slice(longest[0], longest[-1] + 2) if decaying else slice(0)
    return Schedule(_shape(epochs[members], rates[members]), peak, later + 1, drops)


def same_phase(epochs: NDArray[np.float64], rates: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the earlier checkpoints at about the rate of the last one, where the rate goes up and down.

    A checkpoint late in a cycle knows more than one at the high rate before it: only those of one phase can
    show what a run has lost. Empty where the rate never starts again, or no earlier checkpoint is at that
    rate (within a twentieth of the largest).

    Examples
    --------
    >>> same_phase(np.arange(8.0), np.array([0.1, 0.05, 0.01, 0.1, 0.05, 0.01, 0.1, 0.05]))
    array([1, 4])
    """
    schedule = schedule_of(epochs, rates)
    if schedule.shape != "cycles" and not len(schedule.restarts):
        return np.zeros(0, np.intp)
    near = np.abs(rates - rates[-1]) <= _SAME_RATE * rates.max()
    near[: schedule.peak] = near[-1] = False  # a warmup comes before any cycle
    return np.flatnonzero(near)


def _runs(places: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return ascending places in runs without a gap."""
    return [run for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(run)]


def _is_decay(run: NDArray[np.intp], rates: NDArray[np.float64]) -> bool:
    """Tell whether falls in a row are one decay, rather than each of them a drop by the same factor."""
    if len(run) < _DECAY:
        return False
    before, after = rates[run], rates[run + 1]
    return not ((after <= _DROP * before) & np.isclose(after * before[0], after[0] * before)).all()


def _drops(
    moves: NDArray[np.float64],
    rates: NDArray[np.float64],
    falls: NDArray[np.intp],
    decays: list[NDArray[np.intp]],
) -> NDArray[np.intp]:
    """Return the falls to half or less; in a decay only those that stand out, since its tail halves too."""
    dropped = falls[rates[falls + 1] <= _DROP * rates[falls]]
    sizes = np.pad(np.abs(moves), 1)
    smooth = np.concatenate(decays) if decays else falls[:0]
    around = np.maximum(sizes[dropped], sizes[dropped + 2])
    stands_out = np.abs(moves[dropped]) > _STANDS_OUT * around
    return np.asarray(dropped[stands_out | ~np.isin(dropped, smooth)] + 1)


def _shape(epochs: NDArray[np.float64], rates: NDArray[np.float64]) -> str:
    """Name the curve of a decay, "steps" where there is none.

    A cosine may be left before its end, and be read a little before or after each epoch.
    """
    if not len(rates):
        return "steps"
    if len(rates) <= _DECAY:
        return "smooth"
    time = (epochs - epochs[0]) / (epochs[-1] - epochs[0])
    if _misfit(time, rates) < _FIT:
        return "linear"
    if (rates > 0).all():
        line = np.polynomial.Polynomial.fit(time, np.log(rates), 1)(time)
        if np.abs(np.exp(line) - rates).max() < _FIT * np.ptp(rates):
            return "exponential"
    curves = [
        np.cos(math.pi * share * (time + delay / len(time)))
        for share in np.linspace(0.2, 1.0, 81)
        for delay in (0.0, -0.5, 0.5, -1.0, 1.0)
    ]
    return "cosine" if min(_misfit(curve, rates) for curve in curves) < _FIT else "smooth"


def _misfit(curve: NDArray[np.float64], rates: NDArray[np.float64]) -> float:
    """Return the largest distance of rates from the best a + b curve, as a share of their range."""
    fit = np.polynomial.Polynomial.fit(curve, rates, 1)(curve)
    return float(np.abs(fit - rates).max() / np.ptp(rates))
