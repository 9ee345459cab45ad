"""Is a part of a change more than so large a share of it? Parts sample by sample, and their errors.

See `Comparison.beyond_share`. Parts that were chosen because they are large are judged a second time,
each half of the samples as the other half chooses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.comparison import Comparison
from confshift.analysis.competitors import pair_changes
from confshift.analysis.decomposition import ACCOUNT
from confshift.analysis.panel import Panel
from confshift.analysis.significance import Interval


class Part(NamedTuple):
    """A part of a change that was chosen because it is large; each of shape (N,), in nats a sample."""

    chosen: NDArray[np.float64]  # as all samples choose it
    held_out: NDArray[np.float64]  # of each half of the samples, as the other half chooses it


class Excess(NamedTuple):
    """By how much a part is more than a share of the change, in nats."""

    chosen: Interval
    held_out: Interval
    share_se: float  # the standard error of the part divided by the change


def excess_of(comparison: Comparison, part: Part, share: float) -> Excess:
    """Return by how much a part is more than so large a share of the change; by groups where given."""
    chosen, held_out = (comparison.beyond_share(terms, share) for terms in part)
    total = float(comparison.panel.mean(_change(comparison)))
    if not total:
        return Excess(chosen, held_out, math.nan)
    error = comparison.beyond_share(part.chosen, float(comparison.panel.mean(part.chosen)) / total).se
    return Excess(chosen, held_out, error / abs(total))


def _change(comparison: Comparison) -> NDArray[np.float64]:
    return comparison.panel.changes(0, 1)


def part_of_classes(comparison: Comparison, few: int) -> Part:
    """Return the part of the `few` classes that add most to the change."""
    change = _change(comparison)
    chosen, held_out = largest_classes(
        comparison.added, comparison.panel.targets, comparison.second_half, few
    )
    return Part(change * chosen, change * held_out)


def largest_classes(
    change: NDArray[np.float64], targets: NDArray[np.int64], second_half: NDArray[np.bool_], few: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which samples are of the `few` classes that add most to a change.

    Parameters
    ----------
    change : ndarray, shape (N,)
        What each sample adds, in nats.
    targets : ndarray, shape (N,)
    second_half : ndarray of bool, shape (N,)
        See `grouping.second_half`.
    few : int

    Returns
    -------
    chosen, held_out : ndarray of bool, shape (N,)
        Held out: the classes are chosen on one half and looked up in the other, and the other way round. If
        the same samples chose and measured them, noise alone would look like a few classes.
    """
    halves = (~second_half, second_half)
    sums = np.stack([np.bincount(targets[half], change[half], targets.max() + 1) for half in halves])
    order = np.argsort(-np.stack([sums.sum(axis=0), *sums]), axis=1, kind="stable")[:, :few]
    whole, of_first, of_second = (np.isin(targets, classes) for classes in order)
    return whole, np.where(second_half, of_first, of_second)


def part_of_pair(comparison: Comparison) -> Part:
    """Return the part of the true class and the wrong class that add most to the change. Reads the logits."""
    second, pairs, panel = comparison.second_half, comparison.largest_pairs, comparison.panel
    whole, first_half, second_half = (
        pair_changes(*comparison.logits, panel.targets, *pair, panel.loss) for pair in pairs
    )
    return Part(whole, np.where(second, first_half, second_half))


def handful_of(
    change: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return numbers whose mean is what the 1 % of samples that rose most add, and whose spread is its error.

    Parameters
    ----------
    change : ndarray, shape (N,)
    weights : ndarray, shape (N,), optional
        What each sample counts for: the mean is then weighted, and so is what a sample adds.

    Returns
    -------
    ndarray, shape (N,)
        The influence function of a mean beyond a quantile; at least one sample is beyond it.
    """
    number = max(1, round(len(change) / 100))
    added = change if weights is None else weights * change
    limit = max(float(np.partition(added, -number)[-number]), 0.0)
    beyond = np.maximum(added - limit, 0.0)
    if weights is not None:
        beyond = np.divide(beyond, weights, out=np.zeros_like(beyond), where=weights > 0)
    return np.asarray(beyond + limit * number / len(change))


def is_larger(comparison: Comparison, one: str, other: str) -> bool:
    """Tell whether one part of `Comparison.account` is larger than another, beyond the error of both."""
    terms = dict(zip(ACCOUNT, account_terms(comparison.panel), strict=True))
    return bool(comparison.interval(terms[one] - terms[other]).low > 0)


def account_terms(panel: Panel) -> NDArray[np.float64]:
    """Return numbers whose means, weighted, are the contributions of `account_of`; the spreads their errors'.

    Parameters
    ----------
    panel : Panel
        Two checkpoints, of samples with a finite loss at both.

    Returns
    -------
    ndarray, shape (3, N)
        Of hedging, error rate and mistake cost.
    """
    wrong, mistake = panel.wrong, panel.mistake
    rate, mean_mistake = panel.mean(wrong), panel.mean(mistake)
    sides = [side for side in (0, 1) if rate[side] > 0]
    cost = [float(mean_mistake[side] / rate[side]) for side in sides]
    errors = np.zeros(len(panel.targets))
    for side, own in zip(sides, cost, strict=True):  # one at a time, as they may have millions of samples
        errors += (rate[1] - rate[0]) * (mistake[side] - own * wrong[side]) / rate[side]
    errors += sum(cost) * (wrong[1].astype(np.float64) - wrong[0])
    errors /= max(len(sides), 1)  # the cost of one side counts for both where the other has none
    hedge = panel.hedge
    return np.stack([hedge[1] - hedge[0], errors, mistake[1] - mistake[0] - errors])
