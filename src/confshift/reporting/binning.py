"""How confident the answers are, epoch by epoch: the axes, bins and curves of the reliability charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.mapping import of_each
from confshift.analysis.panel import Panel
from confshift.analysis.reliability import isotonic_curve, reliability_bins
from confshift.analysis.sorting import by_confidence

_PLACES = np.array([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999])
#: The axis of log-odds reaches at least from 10 % to 99 %.
_LOWEST, _HIGHEST = 2, 5
_BINS = {"probability": 20, "odds": 24}
_DOTS = ["confidence", "accuracy", "accuracy_low", "accuracy_high", "samples"]


def odds_ticks(panel: Panel) -> NDArray[np.float64]:
    """Return the log-odds that get a tick; the first and the last bound the axis.

    At most 1 % of the confidences lie below the axis, and at most 10 % of any one checkpoint's above it,
    unless those are above 99.9999 %.
    """
    below, answers, highest = zip(*of_each(_extent_of, panel), strict=True)
    low = int((np.sum(below, axis=0) <= 0.01 * sum(answers)).sum()) - 1 if sum(answers) else _LOWEST
    high = int(np.searchsorted(_PLACES, max(0.5, *highest)))
    places = _PLACES[max(0, min(low, _LOWEST)) : max(high, _HIGHEST) + 1]
    return np.asarray(np.log(places / (1 - places)))


def _extent_of(one: Panel) -> tuple[NDArray[np.intp], int, float]:
    """Return how many confidences are below each place, how many there are, and their 90 % quantile."""
    confidences = one.take(one.answered[0]).confidence[0]
    highest = float(np.quantile(confidences, 0.9)) if len(confidences) else 0.0
    below = [np.count_nonzero(confidences < place) for place in _PLACES]  # sooner than all are sorted
    return np.array(below), len(confidences), highest


def bin_edges(ticks: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return the edges of both axes, as probabilities."""
    odds = np.linspace(ticks[0], ticks[-1], _BINS["odds"] + 1)
    return {"probability": np.linspace(0, 1, _BINS["probability"] + 1), "odds": 1 / (1 + np.exp(-odds))}


def confidences(panel: Panel, edges: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return what the charts show of the confidences of each of T checkpoints.

    Returns
    -------
    dict
        "reliability": "dots" (T lists of equal-mass bins: confidence, accuracy, low, high, samples) and
        "isotonic" (T lists of the corners of the isotonic curve: confidence, accuracy). "bins": for each
        scale of `edges` the edges, and the numbers of right and of wrong answers between them (T lists each);
        the end bins include what lies outside.
    """
    dots, curves = (list(values) for values in zip(*of_each(_curves_of, panel), strict=True))
    counts = of_each(_counts_of, panel, tuple(tuple(ends.tolist()) for ends in edges.values()))
    bins = {
        scale: {"edges": ends.tolist(), **_by_kind(list(of_scale))}
        for (scale, ends), of_scale in zip(edges.items(), zip(*counts, strict=True), strict=True)
    }
    return {"reliability": {"dots": dots, "isotonic": curves}, "bins": bins}


def confidence_bins(panel: Panel, edges: NDArray[np.float64]) -> dict[str, list[list[int]]]:
    """Count right and wrong answers (T lists) by confidence; the end bins include what lies outside."""
    return _by_kind([_counts_of(one, [edges])[0] for one in panel.ones()])


def _by_kind(counts: list[list[list[int]]]) -> dict[str, list[list[int]]]:
    return {"right": [right for right, _ in counts], "wrong": [wrong for _, wrong in counts]}


def _curves_of(one: Panel) -> tuple[list[list[float]], list[list[float]]]:
    """Return the dots and the isotonic curve of a checkpoint."""
    part = one.take(one.answered[0])
    # In order for both; with groups, the bins need each sample's group beside it.
    columns = part.confidence[0], part.correct[0]
    confidence, correct = by_confidence(*columns) if part.codes is None else columns
    bins = reliability_bins(confidence, correct, binning="equal_mass", codes=part.codes)
    corners = isotonic_curve(confidence, correct).to_numpy() if len(correct) else np.empty((0, 2))
    return _rounded(bins[_DOTS].to_numpy()), _rounded(corners)


def _counts_of(one: Panel, scales: Sequence[Sequence[float] | NDArray[np.float64]]) -> list[list[list[int]]]:
    """Return the numbers of right and of wrong answers of a checkpoint between the edges of each scale."""
    part = one.take(one.answered[0])
    confidence, correct = by_confidence(part.confidence[0], part.correct[0])
    upto = np.append(0, np.cumsum(correct))
    counts = []
    for edges in scales:
        inner = np.searchsorted(confidence, edges[1:-1], side="right")
        places = np.concatenate([[0], inner, [len(confidence)]])
        right = np.diff(upto[places])
        counts.append([right.tolist(), (np.diff(places) - right).tolist()])
    return counts


def _rounded(rows: NDArray[Any]) -> list[list[float]]:
    """Round to the digits that a picture can show, up to a confidence of 1 - 1e-6."""
    short: list[list[float]] = np.round(rows.astype(np.float64), 9).tolist()
    return short
