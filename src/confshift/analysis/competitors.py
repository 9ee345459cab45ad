"""Which wrong class gained: the share of each in a change of the loss, and scale against shape.

Both read logits, unlike the sums of the other modules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.scoring import blocks

#: Pairs (class, competitor) with a row each; the others are summed in one row "rest".
_MAX_PAIRS = 10_000
#: So many logits are split at a time: they stay in a core's cache between the steps.
_BLOCK = 1 << 17
#: Probabilities whose logarithms are nearer than this have a logarithmic mean by its series.
_NEAR = 1e-3

#: Tuples (class, competitor).
Pairs = list[tuple[int, int]]


def competitor_contributions(
    before: NDArray[np.floating[Any]],
    after: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    losses: NDArray[np.float64] | None = None,
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
    losses : ndarray, shape (2, n), optional
        Before and after, in nats, where they are known: that saves a pass over each side.

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
    logs = [np.array(side, np.float64) for side in (before, after)]
    for a in logs:
        a -= a[samples, targets][:, None]
    if losses is None:
        losses = np.stack([_log_sum_exp(a) for a in logs])
    for a, of_side in zip(logs, losses, strict=True):
        a -= of_side[:, None]
    u, v = logs
    among = _among_all if np.isfinite(u).all() and np.isfinite(v).all() else _among_some
    shares = among(u, v, losses)
    shares[samples, targets] = 0.0
    return shares


def _among_all(
    u: NDArray[np.float64], v: NDArray[np.float64], losses: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the shares of finite logarithms of probabilities, which are overwritten: a few cheap steps."""
    gap = v - u
    near = np.abs(gap) < _NEAR
    middle = np.exp((u[near] + v[near]) / 2)
    p, q = np.exp(u, out=u), np.exp(v, out=v)
    means = np.subtract(q, p, out=q)
    with np.errstate(invalid="ignore", divide="ignore"):
        means /= gap
    means[near] = middle * (1 + gap[near] ** 2 / 24)
    means /= means.sum(axis=1, keepdims=True)
    gap += (losses[1] - losses[0])[:, None]
    return np.multiply(means, gap, out=means)


def _among_some(
    u: NDArray[np.float64], v: NDArray[np.float64], losses: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the shares where classes are masked."""
    means = _log_mean(u, v)
    top = means.max(axis=1, keepdims=True)
    weights = np.exp(means - top)
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shares = weights / total * (v - u + (losses[1] - losses[0])[:, None])
    limit = (np.exp(v - top) - np.exp(u - top)) / total
    return np.asarray(np.where(np.isneginf(u) | np.isneginf(v), limit, shares))


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
    losses: NDArray[np.float64] | None = None,
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
    limit = max(10, _MAX_PAIRS // len(np.unique(targets)))
    for first, halves in _sums_of_classes(before, after, targets, second_half, losses):
        label = int(targets[first])
        halves *= 1.0 if weights is None else weights[first]
        sums = halves.sum(axis=0) / samples
        for at, contributions in enumerate([sums, *halves]):
            competitor = int(contributions.argmax())
            if contributions[competitor] > highest[at]:
                highest[at], largest_pairs[at] = contributions[competitor], (label, competitor)
        listed = _largest(sums, limit)
        rest += sums.sum() - sums[listed].sum()
        listed = listed[sums[listed] != 0]
        pairs.append((np.full(len(listed), label), listed, sums[listed]))
    columns = map(np.concatenate, zip(*pairs, strict=True))
    table = pd.DataFrame(dict(zip(("class", "competitor", "contribution"), columns, strict=True)))
    table = table.sort_values("contribution", key=np.abs, ascending=False, ignore_index=True, kind="stable")
    table.insert(1, "class_name", class_labels[table["class"]])
    table.insert(3, "competitor_name", class_labels[table["competitor"]])
    if limit < classes:
        table.loc[len(table)] = [-1, "rest", -1, "rest", rest]
    return table, largest_pairs


def _sums_of_classes(
    before: NDArray[Any],
    after: NDArray[Any],
    targets: NDArray[np.int64],
    second_half: NDArray[np.bool_],
    losses: NDArray[np.float64] | None,
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield for each true class its first sample and the sums of its shares over each half, (2, K).

    A block holds samples of several classes: with many classes each has few, and numpy would be busy with
    its own overhead.
    """
    classes = before.shape[1]
    order = np.lexsort((second_half, targets))
    part_of = 2 * targets[order] + second_half[order]
    size, first, halves = max(1, _BLOCK // classes), order[0], np.zeros((2, classes))
    for start in range(0, len(order), size):
        rows, parts = order[start : start + size], part_of[start : start + size]
        shares = _contributions(before, after, targets, losses, rows)
        begins = np.flatnonzero(np.diff(parts, prepend=-1))
        for begin, end in pairwise([*begins, len(rows)]):
            if targets[rows[begin]] != targets[first]:
                yield int(first), halves
                first, halves = rows[begin], np.zeros((2, classes))
            halves[parts[begin] % 2] += shares[begin:end].sum(axis=0)
    yield int(first), halves


def _contributions(
    before: NDArray[Any],
    after: NDArray[Any],
    targets: NDArray[np.int64],
    losses: NDArray[np.float64] | None,
    rows: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Return `competitor_contributions` of some samples."""
    own, labels = None if losses is None else losses[:, rows], targets[rows]
    if own is not None and before.shape[1] == 2:  # the one competitor has it all
        shares = np.zeros((len(rows), 2))
        shares[np.arange(len(rows)), 1 - labels] = own[1] - own[0]
        return shares
    return competitor_contributions(before[rows], after[rows], labels, own)


def _largest(values: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Return where the largest by size are, in their order; of equal ones the first. Sorts few others."""
    sizes = np.abs(values)
    # So many stretches have a value as large as `least`.
    tops = np.maximum.reduceat(sizes, np.arange(0, len(sizes), max(1, len(sizes) // (8 * count))))
    least = np.partition(tops, -count)[-count] if count < len(tops) else 0.0
    some = np.flatnonzero(sizes >= least)
    return some[np.argsort(-sizes[some], kind="stable")][:count]


def pair_changes(
    before: NDArray[np.floating[Any]],
    after: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    true: int,
    competitor: int,
    losses: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return what one competitor adds to the change of each sample of one true class; 0 for the others."""
    changes = np.zeros(len(targets))
    rows = np.flatnonzero(targets == true)
    for part in np.array_split(rows, max(1, before.shape[1] * len(rows) // _BLOCK)):
        changes[part] = _contributions(before, after, targets, losses, part)[:, competitor]
    return changes


def scale_parts(
    before: NDArray[np.floating[Any]],
    after: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    losses: NDArray[np.float64] | None = None,
) -> tuple[float, NDArray[np.float64]]:
    """Split each sample's change of loss into the growth of the logits' scale and the rest, their shape.

    kappa is the ratio of the root mean squares of the row-centred logits; the scale part is the change
    along z -> kappa z, averaged over the two orders (before or after the change of shape).

    Parameters
    ----------
    before, after : ndarray, shape (N, K)
    targets : ndarray, shape (N,)
    losses : ndarray, shape (2, N), optional
        Before and after, in nats, where they are known: that saves a pass over each side.

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
    if losses is None:
        losses = np.stack([_losses(side, targets, 1.0) for side in (before, after)])
    kappa = size_b / size_a if size_a else math.inf if size_b else 1.0
    return kappa, ((before_scaled - losses[0]) + (losses[1] - after_scaled)) / 2


def _centred_size(logits: NDArray[np.floating[Any]]) -> float:
    """Root mean square of the logits about their row means, over the finite ones."""
    total, count = 0.0, 0
    size = max(1, _BLOCK // logits.shape[1])
    for start in range(0, len(logits), size):
        part = np.array(logits[start : start + size], np.float64)
        means, members = part.mean(axis=1), part.size
        if not np.isfinite(means).all():
            masked = ~np.isfinite(part)
            members -= int(masked.sum())
            part[masked] = np.nan
            means = np.nanmean(part, axis=1)
            part[masked] = np.broadcast_to(means[:, None], part.shape)[masked]
        part -= means[:, None]
        total += float(np.einsum("ij,ij->", part, part))
        count += members
    return math.sqrt(total / count)


def _losses(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.int64], factor: float
) -> NDArray[np.float64]:
    losses = np.empty(len(targets))
    factor = max(factor, np.finfo(np.float64).tiny)  # at 0 a masked class would be 0 * inf
    for block in blocks(logits, targets):
        at_target = factor * block.at_target
        below = np.multiply(block.below_top, factor, out=block.below_top)
        losses[block.rows] = np.log(np.exp(below, out=below).sum(axis=block.axis)) - at_target
    return losses
