"""The exact split of a change of the mean loss: by account, by cell, by class.

Every split adds up to the change of the mean loss, to the rounding of the sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.grouping import mean_error
from confshift.analysis.mapping import add_up
from confshift.analysis.matrices import Matrix
from confshift.analysis.panel import Panel
from confshift.tasks import label_numbers

#: By whether a sample was right before and is right after. Order: 2 * wrong before + wrong after.
TRANSITIONS = ("stayed_right", "forgotten", "learned", "stayed_wrong")
#: By the sign of the change of a sample's loss.
DIRECTIONS = ("up", "down", "unchanged")
#: Of the account of a change of the cross-entropy.
ACCOUNT = ("hedging", "error_rate", "mistake_cost")
_PARTS = {"scale": Panel.scale, "balance": Panel.balance, "refinement": Panel.refinement}
CELLS = pd.MultiIndex.from_product([TRANSITIONS, DIRECTIONS], names=["transition", "direction"])


def account_of(panel: Panel, before: int, after: int) -> pd.DataFrame:
    """Split the change into hedging, the number of mistakes, and the cost of a mistake.

    L = H + e C, with H the mean hedge, e the error rate and C the mean mistake of the wrong samples, each
    weighted as the loss is;
    the product's change is shared symmetrically between its factors.

    Parameters
    ----------
    panel : Panel
        Samples with a finite loss at both checkpoints.
    before, after : int
        Positions in the panel.

    Returns
    -------
    DataFrame
        Index hedging, error_rate, mistake_cost, and with label smoothing label_smoothing, what that adds to
        the mean loss; columns before, after (of H, e and C) and contribution, in nats.

    Notes
    -----
    E. M. Kitagawa, "Components of a Difference Between Two Rates", JASA 50 (1955), 1168-1194. Where
    no sample is wrong on one side, C is undefined there, and the other side's is used for both: the whole
    product's change then counts as a change of the rate.
    """
    pair = panel.at([before, after])
    hedge, mistake, rate = pair.mean(pair.hedge), pair.mean(pair.mistake), 1 - pair.mean(pair.correct)
    cost, contribution = kitagawa(hedge, rate, mistake)
    account = pd.DataFrame(
        {
            "before": [hedge[0], rate[0], cost[0]],
            "after": [hedge[1], rate[1], cost[1]],
            "contribution": contribution,
        },
        index=pd.Index(ACCOUNT, name="part"),
    )
    if (smoothing := pair.smoothing) is not None:
        first, last = smoothing.mean(axis=1)
        with np.errstate(invalid="ignore"):  # infinite where a class has a probability of 0
            account.loc["label_smoothing"] = [first, last, last - first]
    return account


def kitagawa(
    hedge: NDArray[np.float64], rate: NDArray[np.float64], mistake: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the costs (2, ...) of a mistake and the three contributions (3, ...) of `account_of`.

    Parameters
    ----------
    hedge, rate, mistake : ndarray, shape (2, ...)
        Mean hedge, error rate and mean mistake, before and after.
    """
    # A wrong answer that ties with the true class costs nothing, but counts in the rate.
    cost = np.divide(mistake, rate, out=np.full(rate.shape, np.nan), where=rate > 0)
    finite_cost = np.where(np.isnan(cost), cost[::-1], cost)
    finite_cost = np.where(np.isnan(finite_cost), 0.0, finite_cost)
    parts = [
        hedge[1] - hedge[0],
        finite_cost.mean(axis=0) * (rate[1] - rate[0]),
        rate.mean(axis=0) * (finite_cost[1] - finite_cost[0]),
    ]
    return cost, np.stack(parts)


def cell_codes(panel: Panel, before: int, after: int) -> NDArray[np.intp]:
    """Return each sample's cell as a position in CELLS; meaningless where a side's loss is not finite."""
    wrong = panel.at([before, after]).wrong
    return _codes(wrong[0], wrong[1], panel.changes(before, after))


def _codes(
    wrong_before: NDArray[np.bool_], wrong_after: NDArray[np.bool_], change: NDArray[np.float64]
) -> NDArray[np.intp]:
    # Bytes, for speed: 3 * transition + direction, by what each condition adds to the position.
    codes = np.int8(6) * wrong_before + np.int8(3) * wrong_after + (change <= 0) + (change == 0)
    return np.asarray(codes, np.intp)


def cells_of(panel: Panel, before: int, after: int) -> pd.DataFrame:
    """Split the change by transition and by the direction of each sample's loss.

    Returns
    -------
    DataFrame
        Indexed by transition and direction, always 12 rows. `contribution` in nats with its standard
        error (by groups where the panel has them); `hedge` + `mistake` and `calibration` + `refinement`
        each add up to it, `scale` + `balance` to `calibration`;
        `confidence_up_samples` and `confidence_up_contribution`: the part with a higher top
        probability than before (for a wrong sample not the same as a higher loss);
        `same_label_samples`: the part with the same predicted label.
    """
    return pd.DataFrame(cell_columns(panel, before, after), index=CELLS)


def cell_columns(panel: Panel, before: int, after: int) -> dict[str, NDArray[Any]]:
    """Return the columns of `cells_of` as arrays, each of 12 numbers in the order of CELLS."""
    codes, pair = cell_codes(panel, before, after), panel.at([before, after])
    samples = len(codes)

    def difference(of: Matrix[np.float64]) -> NDArray[np.float64]:
        sides = of.of(pair)
        return np.asarray(sides[1] - sides[0])

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(codes, panel.share(values), len(CELLS)) / max(samples, 1)

    def count(members: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(codes, members, len(CELLS)).astype(np.int64)

    change, hedging = difference(Panel.loss), difference(Panel.hedge)
    contribution = mean(change)
    # By the logarithm of the top probability, which still differs where both are 1.0 in float64.
    more_confident = hedging < 0
    return {
        "samples": np.bincount(codes, minlength=len(CELLS)),
        "contribution": contribution,
        "contribution_se": _contribution_errors(panel, codes, panel.share(change)),
        "hedge": mean(hedging),
        "mistake": mean(difference(Panel.mistake)),
        "calibration": mean(difference(Panel.calibration)),
        "refinement": mean(difference(Panel.refinement)),
        "confidence_up_samples": count(more_confident),
        "confidence_up_contribution": mean(np.where(more_confident, change, 0.0)),
        "same_label_samples": count(np.equal(*pair.predicted)),
        "scale": mean(difference(Panel.scale)),
        "balance": mean(difference(Panel.balance)),
    }


def _contribution_errors(
    panel: Panel, cells: NDArray[np.intp], change: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the standard error of each cell's sum of shares / N, over groups where given."""
    samples, number, groups, weights = len(cells), len(CELLS), panel.codes, panel.weights
    if not samples:
        return np.full(number, np.nan)
    if groups is None:
        beside = change if weights is None else weights * change
        heavy = 1.0 if weights is None else float((weights**2).mean())
        mean, square, product = (
            np.bincount(cells, values, number) / samples for values in (change, change * change, beside)
        )
        terms, spread = samples, np.maximum(square - mean * (2 * product - heavy * mean), 0)
    else:
        groups = np.unique(groups, return_inverse=True)[1]
        sizes = np.bincount(groups, weights)
        terms = len(sizes)
        totals = np.bincount(groups * number + cells, change, terms * number).reshape(terms, number)
        away = (totals - np.outer(sizes, totals.sum(axis=0) / samples)) * terms / samples
        spread = (away**2).mean(axis=0)
    return np.sqrt(spread / (terms - 1)) if terms > 1 else np.full(number, np.nan)


def pairwise_cells(panel: Panel) -> Iterator[tuple[int, int, NDArray[np.float64], NDArray[np.int64]]]:
    """Yield (before, after, contributions (12,), samples (12,)) for every pair of checkpoints.

    Samples without a finite loss on either side are left out of that pair.
    """
    sums = add_up(_PairSums(len(panel.checkpoints)), panel)
    for before, after in combinations(range(len(panel.checkpoints)), 2):
        cells, counts = sums.cells[before, after], sums.counts[before, after]
        cells[counts == 0] = 0.0  # but for rounding
        yield before, after, cells / (sums.totals[before, after] or 1), counts.astype(np.int64)


#: So many changes from one checkpoint to all later ones are in the processor's cache together, of so many
#: samples at least.
_NUMBERS, _FEWEST = 100_000, 512


class _PairSums:
    """Sums over samples of every pair (T, T, 12), by cell, filled above the diagonal.

    What is a product of two checkpoints' numbers is added up by products of matrices: the samples of each
    transition and their whole change. So pair by pair there is only what rose; what fell is the difference.
    """

    def __init__(self, count: int) -> None:
        self.cells, self.counts = np.zeros((2, count, count, len(CELLS)))
        self.totals = np.zeros((count, count))

    def add(self, block: Panel) -> None:
        """Add a block of a panel."""
        together = max(_FEWEST, _NUMBERS // max(1, len(block.checkpoints)))
        for start in range(0, len(block.targets), together):
            self._add(block, slice(start, start + together))

    def join(self, other: _PairSums) -> None:
        """Add what was added to others."""
        self.cells += other.cells
        self.counts += other.counts
        self.totals += other.totals

    def _add(self, block: Panel, some: slice) -> None:
        finite, wrong = block.finite[:, some], block.wrong[:, some]
        loss = np.where(finite, block.loss[:, some], 0.0)
        weights = 1.0 if block.weights is None else block.weights[some]
        states = np.stack([finite & ~wrong, finite & wrong]).astype(np.float64)  # right, wrong
        for transition, (start, end) in enumerate(product(states, states)):
            down = len(DIRECTIONS) * transition + DIRECTIONS.index("down")
            shares, counts = weights * start, start @ end.T
            self.counts[:, :, down] += counts
            self.totals += counts if block.weights is None else shares @ end.T
            self.cells[:, :, down] += shares @ (end * loss).T - (shares * loss) @ end.T
        usable, single = None if finite.all() else finite, states.astype(np.float32)
        for before in range(len(loss) - 1):
            later = slice(before + 1, None)
            change = loss[later] - loss[before]
            rises, stays = change > 0, change == 0
            if usable is not None:
                both = usable[later] & usable[before]
                rises, stays, change = rises & both, stays & both, np.where(both, change, 0.0)
            rise = _by_transition(np.maximum(change, 0.0), states[:, before], states[1, later], weights)
            counts = _by_transition(rises.astype(np.float32), single[:, before], single[1, later])
            self._move(before, DIRECTIONS.index("up"), counts, rise)
            if stays.any():
                counts = _by_transition(stays.astype(np.float32), single[:, before], single[1, later])
                self._move(before, DIRECTIONS.index("unchanged"), counts, 0.0)

    def _move(
        self, before: int, direction: int, counts: NDArray[Any], cells: NDArray[np.float64] | float
    ) -> None:
        """Move what rose, or stayed, out of what fell: of the pairs that begin at a checkpoint."""
        later, down = slice(before + 1, None), DIRECTIONS.index("down")
        for sums, numbers in ((self.counts, counts), (self.cells, cells)):
            sums[before, later, direction :: len(DIRECTIONS)] += numbers
            sums[before, later, down :: len(DIRECTIONS)] -= numbers


def _by_transition(
    values: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any], weights: NDArray[np.float64] | float = 1.0
) -> NDArray[Any]:
    """Return the sums by transition, (A, 4), of values (A, n), whose samples start (2, n) right or wrong.

    `ends` (A, n) says which are wrong after. Single precision counts exactly.
    """
    shares = starts if isinstance(weights, float) else weights * starts
    total, wrong_after = values @ shares.T, (values * ends) @ shares.T
    return np.stack([total - wrong_after, wrong_after], axis=2).reshape(len(values), 4)


def classes_of(panel: Panel, answered: Panel, before: int, after: int) -> pd.DataFrame:
    """Split the change by true class.

    Parameters
    ----------
    panel, answered : Panel
        The samples with a finite loss at both checkpoints, and those with an answer at both.
    before, after : int
        Positions in the panels.

    Returns
    -------
    DataFrame
        Indexed by class: class_name, samples (with a finite loss), answered_samples, weight (of its samples
        in the mean loss, a fraction); accuracy, loss,
        confidence, confidence_gap (mean confidence minus accuracy) before and after, all but the loss over
        the answered samples; contribution in nats (the classes add up to the change), its parts scale,
        balance and refinement, and its 12 cells as `<transition>_<direction>`. NaN where a class has no
        sample.
    """
    classes = len(panel.class_names)
    columns = {"class_name": panel.class_labels}
    columns |= columns_by(panel, answered, panel.targets, answered.targets, classes, before, after)
    return pd.DataFrame(columns, index=pd.RangeIndex(classes, name="class"))


def columns_by(
    panel: Panel,
    answered: Panel,
    parts: NDArray[np.integer[Any]],
    answered_parts: NDArray[np.integer[Any]],
    number: int,
    before: int,
    after: int,
) -> dict[str, Any]:
    """Return the columns of `classes_of` for any division into a number of parts.

    Parameters
    ----------
    panel, answered, before, after
        As in `classes_of`.
    parts, answered_parts : ndarray of int
        The part of each sample in the two panels.
    number : int
    """
    total = len(parts)

    def count(of: NDArray[Any]) -> NDArray[np.intp]:
        return np.bincount(of, minlength=number)

    def added(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(parts, panel.share(values), number) / max(total, 1)

    def mean(of: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
        sums, samples = np.bincount(of, values, number), count(of)
        means: NDArray[np.float64] = np.divide(sums, samples, out=np.full(number, np.nan), where=samples > 0)
        return means

    weight = added(np.ones(total))
    columns: dict[str, Any] = {
        "samples": count(parts),
        "answered_samples": count(answered_parts),
        "weight": weight,
    }
    for side, at in (("before", before), ("after", after)):
        one, with_answer = panel.one(at), answered.one(at)
        correct, confidence = with_answer.correct[0], with_answer.confidence[0]
        columns[f"accuracy_{side}"] = mean(answered_parts, correct)
        columns[f"loss_{side}"] = losses = mean(parts, one.loss[0])
        if panel.weights is not None:  # where a part has no weight, its plain mean stays
            np.divide(added(one.loss[0]), weight, out=losses, where=weight > 0)
        columns[f"confidence_{side}"] = mean(answered_parts, confidence)
        columns[f"confidence_gap_{side}"] = mean(answered_parts, confidence - correct)
    change, pair = panel.changes(before, after), panel.at([before, after])
    columns["contribution"] = added(change)
    for part, matrix in _PARTS.items():
        values = matrix.of(pair)
        columns[part] = added(values[1] - values[0])
    codes = parts * len(CELLS) + cell_codes(panel, before, after)
    table = np.bincount(codes, panel.share(change), number * len(CELLS)).reshape(number, len(CELLS))
    for position, (transition, direction) in enumerate(CELLS):
        columns[f"{transition}_{direction}"] = table[:, position] / total
    return columns


def labels_of(panel: Panel, answered: Panel, before: int, after: int) -> pd.DataFrame:
    """Split the change by the labels of a multi-label task.

    Parameters
    ----------
    panel, answered : Panel
        The rows whose loss is finite on both sides, and those with an answer on both.
    before, after : int
        Positions of two checkpoints in both.

    Returns
    -------
    DataFrame
        Indexed by label, its name; samples (rows with a finite loss), answered_samples, positives (the share
        of these that have the label); accuracy, over them, and loss, weighted as it is trained, before and
        after; contribution in nats
        (the labels add up to the change) and contribution_se, over groups where given. NaN where a label has
        no rows; no row where the labels have no names.
    """
    names = panel.label_names
    if not names:
        panel, answered = (part.take(np.zeros(len(part.targets), bool)) for part in (panel, answered))
    labels, of_answered = (
        label_numbers(part.sample_ids.astype(np.int64), len(names)) for part in (panel, answered)
    )

    every = columns_by(panel, answered, labels, of_answered, len(names), before, after)
    answers = every["answered_samples"]
    positives = np.bincount(of_answered, answered.targets, len(names))
    columns: dict[str, Any] = {
        "samples": every["samples"],
        "answered_samples": answers,
        "positives": np.divide(positives, answers, out=np.full(len(names), np.nan), where=answers > 0),
    }
    for side in ("before", "after"):
        columns[f"accuracy_{side}"] = every[f"accuracy_{side}"]
        columns[f"loss_{side}"] = np.where(every["weight"] > 0, every[f"loss_{side}"], np.nan)
    columns["contribution"] = every["contribution"]
    change = panel.changes(before, after)
    columns["contribution_se"] = [
        mean_error(panel.terms(np.where(labels == label, change, 0.0))) for label in range(len(names))
    ]
    return pd.DataFrame(columns, index=pd.Index(names, name="label"))


def concentration_of(changes: NDArray[np.float64]) -> pd.DataFrame:
    """Tell how few samples carry a rise.

    Parameters
    ----------
    changes : ndarray, shape (N,)
        What each sample adds to the change of the mean loss, times N: its own, weighted, in nats.

    Returns
    -------
    DataFrame
        Indexed by quantity, column value: `top_1_percent`, `top_5_percent`, `top_10_percent` (share of
        the gross rise, the sum of the positive changes, in that share of ALL samples; NaN without a rise);
        `cancelling_samples` (the fewest whose removal leaves no rise; 0 where there is none);
        `cancelling_share` (their share of the gross rise);
        `effective_samples` (N divided by the kurtosis of the changes: below about 7 the mean is
        dominated by a handful).
    """
    samples = len(changes)
    falling = np.sort(changes)[::-1]
    gross = falling[falling > 0].sum()
    rows: dict[str, float] = {}
    for percent in (1, 5, 10):
        top = falling[: max(1, round(samples * percent / 100))]
        rows[f"top_{percent}_percent"] = float(top[top > 0].sum() / gross) if gross > 0 else np.nan
    # Summed from the lowest up, how many samples can stay without a rise; exact if all changes are positive.
    without_rise = np.flatnonzero(np.cumsum(falling[::-1]) <= 0)
    cancelling = samples - (int(without_rise[-1]) + 1 if len(without_rise) else 0)
    rows["cancelling_samples"] = float(cancelling)
    rows["cancelling_share"] = float(falling[:cancelling].sum() / gross) if gross > 0 else np.nan
    centred = changes - changes.mean()
    squares = centred**2
    fourth = (squares**2).mean()
    rows["effective_samples"] = float(samples * squares.mean() ** 2 / fourth) if fourth > 0 else np.nan
    return pd.DataFrame({"value": pd.Series(rows)}).rename_axis("quantity")
