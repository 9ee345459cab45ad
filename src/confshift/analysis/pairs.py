"""Every pair of a run's checkpoints at once: means, intervals and accounts, by products of matrices."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.decomposition import kitagawa
from confshift.analysis.grouping import share_of
from confshift.analysis.panel import Panel
from confshift.analysis.significance import accuracy_bounds, skewed_bounds

#: Samples in a block of the products: more would not be faster, and take memory.
_BLOCK = 8192
#: The columns of intervals of losses.
_BOUNDS = ("loss_low", "loss_high", "refinement_low", "refinement_high")
#: The relative rounding of a sum of so many products.
_EPS = 1e-13


def pairs_of(panel: Panel) -> pd.DataFrame:
    """Return means, intervals and the account of every pair of checkpoints, the earlier one before.

    Parameters
    ----------
    panel : Panel

    Returns
    -------
    DataFrame
        Indexed by the positions before and after. Over the samples with a finite loss on both sides
        (`scored` of them): loss, refinement, calibration, scale (nats, each `_before` and `_after`),
        cost_before and cost_after (of a mistake, NaN where none is wrong), loss_low, loss_high,
        refinement_low and refinement_high (95 % of the change), and hedging, error_rate, mistake_cost, which
        add up to the change of the loss (nats).
        Over those with an answer on both sides (`answered`): accuracy_before, accuracy_after, accuracy_low,
        accuracy_high (fractions), learned_answers and forgotten_answers.

    Notes
    -----
    Intervals of the loss as in `significance.paired_interval`: they need the first three moments of each
    sample's change, which are sums of products of two checkpoints' losses. Those of the accuracy by
    `significance.accuracy_bounds`, from the answers that switched. With groups, of every pair that one
    checkpoint begins at a time; so where classes have weights.
    """
    first, second = np.triu_indices(len(panel.checkpoints), 1)

    def sides(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (2, pairs) of (T, T), whose row is the checkpoint and whose column is the other one."""
        return np.stack([values[first, second], values[second, first]])

    over_finite = _SharedMeans(panel.finite, panel.weights)
    over_answered = _SharedMeans(panel.answered)
    loss, scaled, refinement = (
        sides(over_finite.mean(values)) for values in (panel.loss, panel.scaled, panel.refinement)
    )
    rate = 1 - sides(over_finite.mean(panel.correct))
    hedge, mistake = sides(over_finite.mean(panel.hedge)), sides(over_finite.mean(panel.mistake))
    cost, account = kitagawa(hedge, rate, mistake)
    forgotten, learned = sides(_sums(panel.correct, panel.answered & ~panel.correct))
    answers, accuracy = sides(over_answered.counts)[0], sides(over_answered.mean(panel.correct))
    columns: dict[str, NDArray[Any]] = {
        "scored": sides(over_finite.counts)[0].astype(int),
        "answered": answers.astype(int),
        "learned_answers": learned.astype(int),
        "forgotten_answers": forgotten.astype(int),
    }
    quantities = {"loss": loss, "accuracy": accuracy, "refinement": refinement, "cost": cost}
    parts = {"calibration": loss - refinement, "scale": loss - scaled}
    for name, values in {**quantities, **parts}.items():
        columns[f"{name}_before"], columns[f"{name}_after"] = values
    share: NDArray[np.float64] | float = 1.0
    if panel.codes is None and panel.weights is None:
        samples = sides(over_finite.counts)[0]
        for name, values, (before, after) in (
            ("loss", panel.loss, loss),
            ("refinement", panel.refinement, refinement),
        ):
            bounds = _mean_bounds(values, panel.finite, after - before, samples, first, second)
            columns[f"{name}_low"], columns[f"{name}_high"] = bounds
    else:
        *bounds_by_units, by_groups = _by_units(panel)
        columns |= dict(zip(_BOUNDS, bounds_by_units, strict=True))
        share = 1.0 if panel.codes is None else by_groups
    bounds = accuracy_bounds(share * learned, share * forgotten, share * answers)
    columns["accuracy_low"], columns["accuracy_high"] = bounds
    for at in np.flatnonzero(learned + forgotten == 0):
        if panel.same_losses(first[at], second[at]):
            columns["accuracy_low"][at] = columns["accuracy_high"][at] = 0.0
    columns |= dict(zip(("hedging", "error_rate", "mistake_cost"), account, strict=True))
    return pd.DataFrame(columns, index=pd.MultiIndex.from_arrays([first, second], names=["before", "after"]))


def _by_units(panel: Panel) -> NDArray[np.float64]:
    """Return the bounds of the changes, by _BOUNDS, and what an answer counts for, shape (5, pairs)."""
    codes = np.arange(len(panel.targets)) if panel.codes is None else panel.codes
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    finite, answered = panel.finite[:, order], panel.answered[:, order]
    losses = [np.where(finite, values[:, order], 0.0) for values in (panel.loss, panel.refinement)]
    correct = panel.correct[:, order].astype(np.float64)
    weights = np.ones(len(order)) if panel.weights is None else panel.weights[order]
    ones, columns = np.ones(len(order)), []
    for place in range(len(correct) - 1):
        later = slice(place + 1, None)
        bounds: list[NDArray[np.float64]] = []
        for values in losses:
            members = finite[later] & finite[place] & (weights > 0)
            change = _moments(values[later] - values[place], members, starts, weights)
            bounds += skewed_bounds(change.mean, change.spread, change.skewness, change.groups)
        answers = _moments(correct[later] - correct[place], answered[later] & answered[place], starts, ones)
        share = share_of(answers.spread**2, answers.variance, answers.groups, answers.samples)
        columns.append([*bounds, share])
    return np.concatenate(columns, axis=1) if columns else np.empty((len(_BOUNDS) + 1, 0))


class _Moments(NamedTuple):
    """Of changes (P, N) of the samples of P pairs, each of shape (P,)."""

    samples: NDArray[np.float64]
    groups: NDArray[np.float64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]  # over the samples, where all weigh the same
    spread: NDArray[np.float64]  # of `grouping.unit_terms`
    skewness: NDArray[np.float64]


def _moments(
    changes: NDArray[np.float64],
    members: NDArray[np.bool_],
    starts: NDArray[np.intp],
    weights: NDArray[np.float64],
) -> _Moments:
    """Return the moments of the changes of members; samples are sorted by group, which begin at `starts`."""
    sizes = np.add.reduceat(members, starts, axis=1, dtype=np.float64)
    samples, groups = sizes.sum(axis=1), (sizes > 0).sum(axis=1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(members, weights, 0.0)
        total = shares.sum(axis=1)
        mean = (shares * changes).sum(axis=1) / total
        centred = shares * (changes - mean[:, None])
        variance = (centred**2).sum(axis=1) / (samples - 1)
        terms = np.add.reduceat(centred, starts, axis=1) * (groups / total)[:, None]
        spread = np.sqrt((terms**2).sum(axis=1) / (groups - 1))
        skewness = np.where(spread > 0, (terms**3).sum(axis=1) / groups / spread**3, 0.0)
    return _Moments(samples, groups, mean, variance, spread, skewness)


class _SharedMeans:
    """Means of each checkpoint over the samples that it shares with each other one."""

    def __init__(self, members: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> None:
        self.members, self.weights, self.whole = members, weights, bool(members.all())
        count = len(members)
        samples = float(members.shape[1])
        self.counts = np.full((count, count), samples) if self.whole else _sums(members, members)
        self.totals = self.counts if weights is None or self.whole else _sums(weights * members, members)

    def mean(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return (T, T): of the checkpoint in the row, over what it shares with the one in the column."""
        if self.weights is not None:
            values = np.where(self.weights != 0, self.weights * values, 0.0)
        if self.whole:
            return np.broadcast_to(values.mean(axis=1)[:, None], self.counts.shape)
        terms = np.where(self.members, values, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            means: NDArray[np.float64] = _sums(terms, self.members) / self.totals
        return means


def _sums(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
    """Return the products (T, T) of two arrays (T, N), summed over the samples block by block."""
    total = np.zeros((len(rows), len(columns)))
    for start in range(0, rows.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        total += rows[:, block].astype(np.float64) @ columns[:, block].astype(np.float64).T
    return total


def _mean_bounds(
    values: NDArray[np.float64],
    finite: NDArray[np.bool_],
    change: NDArray[np.float64],
    samples: NDArray[np.float64],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the interval of the mean change of every pair, of values (T, N) where they are finite."""
    count, total = values.shape
    sums, squares, cubes, sizes = (np.zeros((count, count)) for _ in range(4))
    for start in range(0, total, _BLOCK):
        block = slice(start, start + _BLOCK)
        members = finite[:, block]
        losses = np.where(members, values[:, block], np.nan)
        # A sample's level, the same at most epochs, cancels in every change and would only cost digits.
        a = np.where(members, losses - _typical(losses), 0.0)
        m = members.astype(np.float64)
        a2 = a * a
        sums += m @ a.T - a @ m.T
        sizes += a2 @ m.T + m @ a2.T
        squares += a2 @ m.T + m @ a2.T - 2 * a @ a.T
        cubes += m @ (a2 * a).T - (a2 * a) @ m.T + 3 * (a2 @ a.T - a @ a2.T)
    parts = (total[first, second] for total in (sums, squares, cubes))
    return _bounds(change, samples, *parts, rounding=_EPS * sizes[first, second])


def _typical(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each sample's median over the epochs at which its loss is finite, 0 where there is none."""
    sorted_losses = np.sort(losses, axis=0)  # NaN last
    middle = np.maximum((np.isfinite(losses).sum(axis=0) - 1) // 2, 0)
    return np.asarray(np.nan_to_num(sorted_losses[middle, np.arange(losses.shape[1])]))


def _bounds(
    change: NDArray[np.float64],
    samples: NDArray[np.float64],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
    cubes: NDArray[np.float64],
    *,
    rounding: NDArray[np.float64] | float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Hall's interval of a mean change, from sums of the changes, of their squares and cubes.

    A sum of squares about the mean that is within `rounding` is that of equal changes.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums / samples
        central = squares - samples * mean**2
        spread = np.sqrt(np.where(central > rounding, central, 0.0) / (samples - 1))
        third = cubes / samples - 3 * mean * squares / samples + 2 * mean**3
        skewness = np.where(spread > 0, third / spread**3, 0.0)
    return skewed_bounds(change, spread, skewness, samples)
