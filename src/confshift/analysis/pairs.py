"""Every pair of a run's checkpoints at once: means, intervals and accounts, by products of matrices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.decomposition import kitagawa
from confshift.analysis.grouping import share_of
from confshift.analysis.mapping import add_up
from confshift.analysis.matrices import KEPT_NUMBERS
from confshift.analysis.panel import Panel
from confshift.analysis.significance import accuracy_bounds, skewed_bounds

#: Samples in a block of the products: more would not be faster, and take memory.
_BLOCK = 8192
#: The series whose changes have intervals, by the names of their matrices; and the columns of these.
_SERIES = ("loss", "refinement")
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

    sums = add_up(_Sums(panel), panel)
    loss, scaled, refinement, hedge, mistake = (
        sides(sums.finite.mean(name)) for name in ("loss", "scaled", "refinement", "hedge", "mistake")
    )
    cost, account = kitagawa(hedge, 1 - sides(sums.finite.mean("correct")), mistake)
    forgotten, learned = sides(sums.switched)
    answers, accuracy = sides(sums.answered.counts)[0], sides(sums.answered.mean("correct"))
    columns: dict[str, NDArray[Any]] = {
        "scored": sides(sums.finite.counts)[0].astype(int),
        "answered": answers.astype(int),
        "learned_answers": learned.astype(int),
        "forgotten_answers": forgotten.astype(int),
    }
    quantities = {"loss": loss, "accuracy": accuracy, "refinement": refinement, "cost": cost}
    parts = {"calibration": loss - refinement, "scale": loss - scaled}
    for name, values in {**quantities, **parts}.items():
        columns[f"{name}_before"], columns[f"{name}_after"] = values
    share: NDArray[np.float64] | float = 1.0
    if panel.codes is None:
        for name, powers in sums.powers.items():
            before, after = quantities[name]
            columns[f"{name}_low"], columns[f"{name}_high"] = powers.bounds(after - before, first, second)
    else:
        *bounds_by_groups, share = _by_groups(panel, learned, forgotten)
        columns |= dict(zip(_BOUNDS, bounds_by_groups, strict=True))
    bounds = accuracy_bounds(share * learned, share * forgotten, share * answers)
    columns["accuracy_low"], columns["accuracy_high"] = bounds
    # Where all losses are the same, the means are, but for the rounding of sums over different samples.
    alike = (learned + forgotten == 0) & np.isclose(loss[0], loss[1], rtol=1e-9, atol=0, equal_nan=True)
    for at in np.flatnonzero(alike):
        if panel.same_losses(int(first[at]), int(second[at])):
            columns["accuracy_low"][at] = columns["accuracy_high"][at] = 0.0
    columns |= dict(zip(("hedging", "error_rate", "mistake_cost"), account, strict=True))
    return pd.DataFrame(columns, index=pd.MultiIndex.from_arrays([first, second], names=["before", "after"]))


class _Sums:
    """What adds up over the samples of a panel, of each checkpoint with each other one."""

    def __init__(self, panel: Panel) -> None:
        count = len(panel.checkpoints)
        self.finite = _SharedMeans(count, whole=panel.all_finite)
        self.answered = _SharedMeans(count, whole=panel.all_answered)
        self.switched = np.zeros((count, count))  # right at the checkpoint in the row, wrong at the other
        self.powers = {name: _Powers(count, weighted=panel.weights is not None) for name in _SERIES}

    def add(self, block: Panel) -> None:
        """Add a block of the panel."""
        self.finite.add(block.finite, block.weights)
        self.answered.add(block.answered)
        for name in ("loss", "scaled", "refinement", "hedge", "mistake", "correct"):
            self.finite.add_values(name, block.finite, block.share(getattr(block, name)))
        self.answered.add_values("correct", block.answered, block.correct)
        self.switched += _products(block.correct, block.answered & block.wrong)
        if block.codes is None:
            for name, powers in self.powers.items():
                powers.add(getattr(block, name), block.finite, block.weights)

    def join(self, other: _Sums) -> None:
        """Add what was added to others."""
        self.finite.join(other.finite)
        self.answered.join(other.answered)
        self.switched += other.switched
        for name, powers in self.powers.items():
            powers.join(other.powers[name])


def _by_groups(
    panel: Panel, learned: NDArray[np.float64], forgotten: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the bounds of the changes, by _BOUNDS, and what an answer counts for, shape (5, pairs)."""
    if panel.all_finite:
        return _of_totals(panel, learned, forgotten)
    assert panel.codes is not None
    order = np.argsort(panel.codes, kind="stable")
    starts = np.flatnonzero(np.diff(panel.codes[order], prepend=-1))
    ones = np.ones(len(order))
    weights = ones if panel.weights is None else panel.weights[order]
    # So many checkpoints at a time as a matrix may have; of a large panel one by one.
    step = max(1, KEPT_NUMBERS // max(1, len(order)) - 1)
    count, columns = len(panel.checkpoints), []
    for place in range(count - 1):
        for start in range(place + 1, count, step):
            part = panel.at([place, *range(start, min(start + step, count))])
            bounds: list[NDArray[np.float64]] = []
            finite = part.finite[1:, order] & part.finite[0, order]
            for name in _SERIES:
                values = np.where(part.finite, getattr(part, name), 0.0)[:, order]
                change = _moments(values[1:] - values[0], finite & (weights > 0), starts, weights)
                bounds += skewed_bounds(change.mean, change.spread, change.skewness, change.groups)
            correct, answered = part.correct[:, order].astype(np.float64), part.answered[:, order]
            answers = _moments(correct[1:] - correct[0], answered[1:] & answered[0], starts, ones)
            share = share_of(answers.spread**2, answers.variance, answers.groups, answers.samples)
            columns.append([*bounds, share])
    return np.concatenate(columns, axis=1) if columns else np.empty((len(_BOUNDS) + 1, 0))


def _of_totals(
    panel: Panel, learned: NDArray[np.float64], forgotten: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return `_by_groups` where every loss is finite: all that it takes is each group's sum at each epoch."""
    assert panel.codes is not None
    codes = np.unique(panel.codes, return_inverse=True)[1]
    samples = np.bincount(codes).astype(np.float64)
    weights = samples if panel.weights is None else np.bincount(codes, panel.weights).astype(np.float64)
    pairs = list(zip(*np.triu_indices(len(panel.checkpoints), 1), strict=True))

    def changes(name: str) -> Iterator[NDArray[np.float64]]:
        # Of one series at a time: with millions of groups those of all would fill the memory.
        totals = np.empty((len(panel.checkpoints), len(samples)))
        for of_one, one in zip(totals, panel.ones(), strict=True):
            values = getattr(one, name)[0]
            of_one[:] = np.bincount(codes, values if name == "correct" else one.share(values), len(samples))
        return (totals[after] - totals[before] for before, after in pairs)

    columns: list[Any] = []
    for name in _SERIES:
        columns += zip(
            *(skewed_bounds(*_of_groups(change, weights)) for change in changes(name)), strict=True
        )
    shares, number = [], samples.sum()
    for change, switched, moved in zip(
        changes("correct"), learned + forgotten, learned - forgotten, strict=True
    ):
        _, spread, _, groups = _of_groups(change, samples)
        with np.errstate(invalid="ignore", divide="ignore"):
            within = (switched - moved**2 / number) / (number - 1)
        shares.append(share_of(spread**2, within, groups, number))
    return np.array([*columns, shares], np.float64) if pairs else np.empty((len(_BOUNDS) + 1, 0))


def _of_groups(
    totals: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Return mean, spread and skewness of changes whose sums by group are (G,), and how many groups count."""
    counts = weights > 0
    groups, total = float(counts.sum()), weights.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = totals[counts].sum() / total
        terms = (totals - mean * weights)[counts] * (groups / total)
        spread = np.sqrt((terms**2).sum() / (groups - 1))
        skewness = (terms**3).sum() / groups / spread**3 if spread > 0 else 0.0
    return float(mean), float(spread), float(skewness), groups


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

    def __init__(self, count: int, *, whole: bool) -> None:
        self.whole, self.counts, self.totals = whole, np.zeros((count, count)), np.zeros((count, count))
        self._sums: dict[str, NDArray[np.float64]] = {}

    def add(self, members: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> None:
        """Count the samples of a block, (T, n), and what they weigh."""
        counts = members.shape[1] if self.whole else _products(members, members)
        self.counts += counts
        self.totals += counts if weights is None or self.whole else _products(weights * members, members)

    def add_values(self, name: str, members: NDArray[np.bool_], shares: NDArray[Any]) -> None:
        """Add what the samples of a block add to a mean, (T, n)."""
        if self.whole:
            sums = np.broadcast_to(shares.sum(axis=1)[:, None], self.counts.shape)
        else:
            sums = _products(np.where(members, shares, 0.0), members)
        self._sums[name] = self._sums.get(name, 0.0) + sums

    def join(self, other: _SharedMeans) -> None:
        """Add what was added to others."""
        self.counts += other.counts
        self.totals += other.totals
        for name, sums in other._sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + sums

    def mean(self, name: str) -> NDArray[np.float64]:
        """Return (T, T): of the checkpoint in the row, over what it shares with the one in the column."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means: NDArray[np.float64] = self._sums[name] / self.totals
        return means


def _products(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
    """Return the products (T, T) of two arrays (T, n), summed over the samples."""
    total = np.zeros((len(rows), len(columns)))
    for start in range(0, rows.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        total += rows[:, block].astype(np.float64) @ columns[:, block].astype(np.float64).T
    return total


class _Powers:
    """Sums of the changes of every pair and of their squares and cubes: what the moments follow from.

    A weighted mean errs by the sum of w (change - mean): its square and cube weigh by those of w.
    """

    def __init__(self, count: int, *, weighted: bool) -> None:
        self._weighted = weighted
        self._samples, self._sizes = np.zeros((2, count, count))
        # By exponent of the weight, then of the change; without weights all exponents are one.
        self._sums = np.zeros((3 if weighted else 1, 4, count, count))

    def add(
        self, values: NDArray[np.float64], finite: NDArray[np.bool_], weights: NDArray[np.float64] | None
    ) -> None:
        """Add the samples of a block, values (T, n) where they are finite."""
        for start in range(0, values.shape[1], _BLOCK):
            part = slice(start, start + _BLOCK)
            members = finite[:, part]
            losses = np.where(members, values[:, part], np.nan)
            # A sample's level, the same at most epochs, cancels in every change and would only cost digits.
            a, m = np.where(members, losses - _typical(losses), 0.0), members.astype(np.float64)
            if weights is None:
                self._samples += m @ m.T
                self._add(a, m, np.ones(a.shape[1]), 0)
                continue
            w = weights[part]
            self._samples += (m * (w > 0)) @ m.T
            for exponent in range(3):
                self._add(a, m, w ** (exponent + 1), exponent)

    def _add(
        self, a: NDArray[np.float64], m: NDArray[np.float64], p: NDArray[np.float64], exponent: int
    ) -> None:
        sums, a2 = self._sums[exponent], a * a
        pm, pa, pa2 = p * m, p * a, p * a2
        sizes = pm @ a2.T + pa2 @ m.T
        sums[0] += pm @ m.T
        sums[1] += pm @ a.T - pa @ m.T
        sums[2] += sizes - 2 * pa @ a.T
        sums[3] += pm @ (a2 * a).T - (pa2 * a) @ m.T + 3 * (pa2 @ a.T - pa @ a2.T)
        if exponent == min(1, len(self._sums) - 1):
            self._sizes += sizes

    def join(self, other: _Powers) -> None:
        """Add what was added to others."""
        self._samples += other._samples
        self._sizes += other._sizes
        self._sums += other._sums

    def bounds(
        self, change: NDArray[np.float64], first: NDArray[np.intp], second: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return Hall's interval of the mean change of pairs of positions."""
        samples = self._samples[first, second]
        sums = np.broadcast_to(self._sums, (3, *self._sums.shape[1:]))[:, :, first, second]
        (weight, shares, *_), of_squares, of_cubes = sums
        with np.errstate(invalid="ignore", divide="ignore"):
            mean, scale = shares / weight, samples / weight
            square = of_squares[2] - 2 * mean * of_squares[1] + mean**2 * of_squares[0]
            cube = of_cubes[3] - 3 * mean * of_cubes[2] + 3 * mean**2 * of_cubes[1] - mean**3 * of_cubes[0]
            # A sum of squares about the mean that is within its rounding is that of equal changes.
            square = np.where(square > _EPS * self._sizes[first, second], square, 0.0)
            spread = scale * np.sqrt(square / (samples - 1))
            skewness = np.where(spread > 0, scale**3 * cube / samples / spread**3, 0.0)
        return skewed_bounds(change, spread, skewness, samples)


def _typical(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each sample's median over the epochs at which its loss is finite, 0 where there is none."""
    sorted_losses = np.sort(losses, axis=0)  # NaN last
    middle = np.maximum((np.isfinite(losses).sum(axis=0) - 1) // 2, 0)
    return np.asarray(np.nan_to_num(sorted_losses[middle, np.arange(losses.shape[1])]))
