"""How confident the answers are, epoch by epoch: the axes, bins and curves of the reliability charts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.grouping import codes_at
from confshift.analysis.panel import Panel
from confshift.analysis.reliability import isotonic_curve, reliability_bins

_PLACES = np.array([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999])
#: The axis of log-odds reaches at least from 10 % to 99 %.
_LOWEST, _HIGHEST = 2, 5
_BINS = {"probability": 20, "odds": 24}


def odds_ticks(panel: Panel) -> NDArray[np.float64]:
    """Return the log-odds that get a tick; the first and the last bound the axis.

    At most 1 % of the confidences lie below the axis, and at most 10 % of any one checkpoint's above it,
    unless those are above 99.9999 %.
    """
    below, answers, highest = np.zeros(len(_PLACES)), 0, [0.5]
    for one in panel.ones():
        confidences = np.sort(one.confidence[one.answered])
        if len(confidences):
            below += np.searchsorted(confidences, _PLACES, side="left")
            answers += len(confidences)
            highest.append(float(np.quantile(confidences, 0.9)))
    low = int((below <= 0.01 * answers).sum()) - 1 if answers else _LOWEST
    high = int(np.searchsorted(_PLACES, max(highest)))
    places = _PLACES[max(0, min(low, _LOWEST)) : max(high, _HIGHEST) + 1]
    return np.asarray(np.log(places / (1 - places)))


def confidence_bins(panel: Panel, edges: NDArray[np.float64]) -> dict[str, list[list[int]]]:
    """Count right and wrong answers (T lists) by confidence; the end bins include what lies outside."""
    counts: dict[str, list[list[int]]] = {"right": [], "wrong": []}
    for one in panel.ones():
        usable = one.answered[0]
        bins = np.clip(np.searchsorted(edges, one.confidence[0], side="left") - 1, 0, len(edges) - 2)
        for kind, members in (("right", one.correct[0]), ("wrong", one.wrong[0])):
            numbers = np.bincount(bins[usable & members], minlength=len(edges) - 1)
            counts[kind].append([int(number) for number in numbers])
    return counts


def bin_edges(ticks: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return the edges of both axes, as probabilities."""
    odds = np.linspace(ticks[0], ticks[-1], _BINS["odds"] + 1)
    return {"probability": np.linspace(0, 1, _BINS["probability"] + 1), "odds": 1 / (1 + np.exp(-odds))}


def reliability_dots(panel: Panel) -> list[list[list[float]]]:
    """Return for each epoch the equal-mass bins: confidence, accuracy, low, high, samples."""
    columns = ["confidence", "accuracy", "accuracy_low", "accuracy_high", "samples"]
    dots = []
    for one in panel.ones():
        usable = one.answered[0]
        codes = codes_at(panel.codes, usable)
        bins = reliability_bins(
            one.confidence[0][usable], one.correct[0][usable], binning="equal_mass", codes=codes
        )
        dots.append(_rounded(bins[columns].to_numpy()))
    return dots


def isotonic_curves(panel: Panel) -> list[list[list[float]]]:
    """Return for each epoch the corners of the isotonic curve: confidence, accuracy."""
    curves = []
    for one in panel.ones():
        usable = one.answered[0]
        corners = pd.DataFrame({"confidence": [], "accuracy": []})
        if usable.any():
            corners = isotonic_curve(one.confidence[0][usable], one.correct[0][usable])
        curves.append(_rounded(corners.to_numpy()))
    return curves


def _rounded(rows: NDArray[Any]) -> list[list[float]]:
    """Round to the digits that a picture can show, up to a confidence of 1 - 1e-6."""
    short: list[list[float]] = np.round(rows.astype(np.float64), 9).tolist()
    return short
