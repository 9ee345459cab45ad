"""Which wrong class gained: the share of each in a change of the loss, and scale against shape.

Both read logits, unlike the sums of the other modules.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.scoring import blocks

#: Pairs (class, competitor) with a row each; the others are summed in one row "rest".
_MAX_PAIRS = 10_000
#: So many logits are split at a time.
_BLOCK = 2_000_000

#: Tuples (class, competitor).
Pairs = list[tuple[int, int]]


def competitor_contributions(
    before: NDArray[np.floating[Any]], after: NDArray[np.floating[Any]], targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Split each sample's change of loss exactly among the wrong classes.

    With a_j = z_j - z_y and weights w_j proportional to the logarithmic mean of p_j before and after,
    the change of the loss is the sum over j of w_j times the change of a_j. Only log-odds against the
    true class enter, so adding a constant to a row changes nothing; exchanging the two sides changes the
    sign and nothing else.

    Parameters
    ----------
    before, after : ndarray, shape (n, K)
    targets : ndarray, shape (n,)

    Returns
    -------
    ndarray, shape (n, K)
        In nats; 0 at the true class; each row adds up to the change of the loss. A class masked (logit
        -inf) on both sides gets 0; one masked on a single side gets the limit, the change of its probability
        over the sum of the logarithmic means.

    Notes
    -----
    The Sato-Vartia log-change index, known in energy studies as LMDI-II: K. Sato, "The Ideal Log-Change
    Index Number", Review of Economics and Statistics 58 (1976); Y. Vartia, "Ideal Log-Change Index
    Numbers", Scandinavian Journal of Statistics 3 (1976).
    """
    samples = np.arange(len(targets))
    sides = [np.asarray(side, np.float64) for side in (before, after)]
    odds = [side - side[samples, targets][:, None] for side in sides]
    logs = [a - _log_sum_exp(a)[:, None] for a in odds]
    means = _log_mean(logs[0], logs[1])
    top = means.max(axis=1, keepdims=True)
    weights = np.exp(means - top)
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shares = weights / total * (odds[1] - odds[0])
    masked = np.isneginf(odds[0]) | np.isneginf(odds[1])
    if masked.any():
        limit = (np.exp(logs[1] - top) - np.exp(logs[0] - top)) / total
        shares = np.where(masked, limit, shares)
    shares[samples, targets] = 0.0
    return np.asarray(shares)


def _log_sum_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    top = values.max(axis=1)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).sum(axis=1)))


def _log_mean(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log of the logarithmic mean of e^u and e^v; stable where they are nearly equal."""
    top = np.maximum(u, v)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.abs(u - v)
        near = -gap / 2 + gap * gap / 24
        far = np.log(-np.expm1(-gap) / gap)
    # A side at -inf (probability 0): the mean is 0.
    return np.where(np.isfinite(gap), top + np.where(gap < 1e-6, near, far), -np.inf)


def competitors_of(
    before: NDArray[np.floating[Any]],
    after: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    *,
    class_labels: pd.Index[str],
    second_half: NDArray[np.bool_],
    weights: NDArray[np.float64] | None = None,
) -> tuple[pd.DataFrame, Pairs]:
    """Sum the competitors' shares over the samples of each true class, whose weights are alike.

    Returns
    -------
    table : DataFrame
        Columns class, class_name, competitor, competitor_name, contribution (nats), largest first by
        size; they add up to the change of the mean loss. Beyond 10,000 pairs each true class has its largest
        ones (10,000 / the number of true classes, at least 10), and the last row, with class and competitor
        -1, named "rest", is the sum of all others.
    largest_pairs : list of three tuples (class, competitor)
        The pair that adds most, over all samples, those not in the second half, and those in it.
    """
    samples, classes = before.shape
    largest_pairs: Pairs = [(-1, -1)] * 3
    highest = np.full(3, -np.inf)
    pairs: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    rest = 0.0
    order = np.argsort(targets, kind="stable")
    present, starts = np.unique(targets[order], return_index=True)
    limit = max(10, _MAX_PAIRS // len(present))
    for label, rows in zip(present, np.split(order, starts[1:]), strict=True):
        halves = np.zeros((2, classes))
        for part in np.array_split(rows, max(1, len(rows) * classes // _BLOCK)):
            # Sorted, so that a memory map is read forwards.
            part = np.sort(part)
            shares = competitor_contributions(before[part], after[part], targets[part])
            of_second = second_half[part]
            halves += [shares[~of_second].sum(axis=0), shares[of_second].sum(axis=0)]
        halves *= 1.0 if weights is None else weights[rows[0]]
        sums = halves.sum(axis=0) / samples
        for at, contributions in enumerate([sums, *halves]):
            competitor = int(contributions.argmax())
            if contributions[competitor] > highest[at]:
                highest[at], largest_pairs[at] = contributions[competitor], (int(label), competitor)
        by_size = np.argsort(-np.abs(sums), kind="stable")
        rest += sums[by_size[limit:]].sum()
        largest = by_size[:limit][sums[by_size[:limit]] != 0]
        pairs.append((np.full(len(largest), label), largest, sums[largest]))
    columns = map(np.concatenate, zip(*pairs, strict=True))
    table = pd.DataFrame(dict(zip(("class", "competitor", "contribution"), columns, strict=True)))
    table = table.sort_values("contribution", key=np.abs, ascending=False, ignore_index=True, kind="stable")
    table.insert(1, "class_name", class_labels[table["class"]])
    table.insert(3, "competitor_name", class_labels[table["competitor"]])
    if limit < classes:
        table.loc[len(table)] = [-1, "rest", -1, "rest", rest]
    return table, largest_pairs


def pair_changes(
    before: NDArray[np.floating[Any]],
    after: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    true: int,
    competitor: int,
) -> NDArray[np.float64]:
    """Return what one competitor adds to the change of each sample of one true class; 0 for the others."""
    changes = np.zeros(len(targets))
    rows = np.flatnonzero(targets == true)
    for part in np.array_split(rows, max(1, before[:1].size * len(rows) // _BLOCK)):
        shares = competitor_contributions(before[part], after[part], targets[part])
        changes[part] = shares[:, competitor]
    return changes


def scale_parts(
    before: NDArray[np.floating[Any]], after: NDArray[np.floating[Any]], targets: NDArray[np.int64]
) -> tuple[float, NDArray[np.float64]]:
    """Split each sample's change of loss into the growth of the logits' scale and the rest, their shape.

    kappa is the ratio of the root mean squares of the row-centred logits; the scale part is the change
    along z -> kappa z, averaged over the two orders (before or after the change of shape).

    Returns
    -------
    kappa : float
        How many times larger the logits became.
    scale : ndarray, shape (N,)
        In nats; the shape part is the change of the loss minus this. Where the logits only grew, the shape
        part is 0. A side whose logits are all equal (a head that starts at zero) is the same at any scale.
    """
    size_a, size_b = _centred_size(before), _centred_size(after)
    before_scaled = _losses(before, targets, size_b / size_a if size_a else 1.0)
    after_scaled = _losses(after, targets, size_a / size_b if size_b else 1.0)
    before_losses, after_losses = _losses(before, targets, 1.0), _losses(after, targets, 1.0)
    kappa = size_b / size_a if size_a else math.inf if size_b else 1.0
    return kappa, ((before_scaled - before_losses) + (after_losses - after_scaled)) / 2


def _centred_size(logits: NDArray[np.floating[Any]]) -> float:
    """Root mean square of the logits about their row means, over the finite ones."""
    total, count = 0.0, 0
    for start in range(0, len(logits), 4096):
        part = np.asarray(logits[start : start + 4096], np.float64)
        part = np.where(np.isfinite(part), part, np.nan)
        total += float(np.nansum((part - np.nanmean(part, axis=1, keepdims=True)) ** 2))
        count += int(np.isfinite(part).sum())
    return math.sqrt(total / count)


def _losses(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.int64], factor: float
) -> NDArray[np.float64]:
    losses = np.empty(len(targets))
    factor = max(factor, np.finfo(np.float64).tiny)  # at 0 a masked class would be 0 * inf
    for block in blocks(logits, targets):
        losses[block.rows] = np.log(np.exp(factor * block.below_top).sum(axis=block.axis))
        losses[block.rows] -= factor * block.at_target
    return losses
