"""Reliability of the top label: bins with intervals, the isotonic curve, the consistency band."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.grouping import Codes, share_of
from confshift.analysis.sorting import by_confidence
from confshift.draws import own_generator

BINNINGS = ("equal_mass", "equal_width")


def wilson_interval(
    successes: NDArray[Any], trials: NDArray[Any], *, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Wilson's score interval of a share; NaN where there were no trials.

    Notes
    -----
    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22
    (1927), 209-212.

    Examples
    --------
    >>> low, high = wilson_interval(np.array([99.0]), np.array([100.0]))
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.946], [0.998])
    """
    from scipy.special import ndtri

    z = float(ndtri(0.5 + level / 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = successes / trials
        centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
        half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)


def reliability_bins(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    *,
    binning: str,
    bins: int = 15,
    codes: Codes | None = None,
) -> pd.DataFrame:
    """Group samples by confidence and compare with their accuracy.

    Parameters
    ----------
    confidence, correct : ndarray, shape (N,)
    binning : {"equal_mass", "equal_width"}
        Equal mass keeps tied confidences together, so bins may differ in size and be fewer.
    bins : int
    codes : ndarray of int, shape (N,), optional
        Of groups that err together: the samples of a bin then count for as many as `grouping.counted_share`
        says.

    Returns
    -------
    DataFrame
        One row per bin that holds samples: bin, edge_low, edge_high, confidence, accuracy, accuracy_low,
        accuracy_high (Wilson, 95 %), samples. Bins are closed on the right.
    """
    return pd.DataFrame(bin_columns(confidence, correct, binning=binning, bins=bins, codes=codes))


def bin_columns(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    *,
    binning: str,
    bins: int = 15,
    codes: Codes | None = None,
) -> dict[str, NDArray[Any]]:
    """Return the columns of `reliability_bins` as arrays; empty where there are no samples."""
    sorted_confidence, right = by_confidence(confidence, correct)
    if binning == "equal_width" or not len(sorted_confidence):
        edges = np.linspace(0, 1, bins + 1)
    else:
        # The smallest confidence with at least q/bins of the samples at or below it.
        places = -(-np.arange(1, bins) * len(sorted_confidence) // bins) - 1
        edges = np.concatenate([[0.0], np.unique(sorted_confidence[np.maximum(places, 0)]), [1.0]])
    upto = np.searchsorted(sorted_confidence, edges, side="right")
    upto[0] = 0  # a confidence of exactly 0 is in the first bin
    samples = np.diff(upto)
    bin_numbers = np.flatnonzero(samples)
    samples = samples[bin_numbers]
    hits = np.add.reduceat(right.astype(np.float64), upto[bin_numbers])
    share: NDArray[np.float64] | float = 1.0
    if codes is not None:
        order, places = np.argsort(confidence), np.repeat(np.arange(len(samples)), samples)
        share = _shares(correct[order] - (hits / samples)[places], places, codes[order], len(samples))
    low, high = wilson_interval(share * hits, share * samples)
    return {
        "bin": bin_numbers,
        "edge_low": edges[bin_numbers],
        "edge_high": edges[bin_numbers + 1],
        "confidence": np.add.reduceat(sorted_confidence, upto[bin_numbers]) / samples,
        "accuracy": hits / samples,
        "accuracy_low": low,
        "accuracy_high": high,
        "samples": samples,
    }


def _shares(
    residuals: NDArray[np.float64], places: NDArray[np.intp], codes: Codes, bins: int
) -> NDArray[np.float64]:
    """Return `grouping.counted_share` of the samples in each bin; residuals are about the bin's mean."""
    ends = np.searchsorted(places, np.arange(bins + 1))
    samples, groups, squares = np.diff(ends), np.zeros(bins, np.intp), np.zeros(bins)
    for place in range(bins):  # one by one: of millions of groups, all bins at once would fill the memory
        inside = slice(ends[place], ends[place + 1])
        groups[place] = np.count_nonzero(np.bincount(codes[inside]))
        squares[place] = (np.bincount(codes[inside], residuals[inside]) ** 2).sum()
    within = np.bincount(places, residuals**2, bins) / np.maximum(samples - 1, 1)
    between = squares * (groups / samples) ** 2 / np.maximum(groups - 1, 1)
    return share_of(between, within, groups, samples)


def isotonic_curve(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> pd.DataFrame:
    """Fit accuracy as a non-decreasing function of confidence (CORP), and return its corners.

    Returns
    -------
    DataFrame
        Columns confidence and accuracy: the first and the last confidence of each level of the step function
        (one row where they are the same).

    Notes
    -----
    T. Dimitriadis, T. Gneiting, A. Jordan, "Stable reliability diagrams for probabilistic classifiers",
    PNAS 118 (2021).
    """
    sorted_confidence, right = by_confidence(confidence, correct)
    levels = _pool(sorted_confidence, right)
    first = np.flatnonzero(np.r_[True, levels[1:] != levels[:-1]])
    last = np.r_[first[1:] - 1, len(levels) - 1]
    ends = np.unique(np.concatenate([first, last]))
    return pd.DataFrame({"confidence": sorted_confidence[ends], "accuracy": levels[ends]})


def _pool(sorted_confidence: NDArray[np.float64], correct: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the best non-decreasing fit; equal confidences get one value."""
    from scipy.optimize import isotonic_regression  # scikit-learn's would import all of scipy.stats, a second

    new = np.r_[True, sorted_confidence[1:] != sorted_confidence[:-1]]
    first = np.flatnonzero(new)
    samples = np.diff(np.r_[first, len(sorted_confidence)])
    hits = np.add.reduceat(correct.astype(np.float64), first)
    # Neighbours that do not rise have one level: of millions of samples a few are left to pool.
    runs = np.flatnonzero(np.r_[True, np.diff(hits / samples) > 0])
    weights = np.add.reduceat(samples, runs)
    levels: NDArray[np.float64] = isotonic_regression(
        np.add.reduceat(hits, runs) / weights, weights=weights
    ).x
    return np.repeat(levels, weights)


def consistency_band(
    confidence: NDArray[np.float64],
    *,
    share: float = 1.0,
    level: float = 0.9,
    draws: int = 100,
    seed: int = 0,
    max_samples: int = 10_000,
    points: int = 100,
) -> pd.DataFrame:
    """Return where the isotonic curve of a perfectly calibrated model with these confidences would lie.

    Outcomes are redrawn with the confidences as their true probabilities, and the curve refitted.

    Parameters
    ----------
    confidence : ndarray, shape (N,)
    share : float
        What a sample counts for, where those of a group err together: so large a random part is used. No band
        where it is NaN, as for one group.
    level : float
        Pointwise coverage of the band.
    draws, seed, max_samples : int
        Above `max_samples` a random subset is used; the band is then a little too wide.
    points : int
        Places along the confidences, at equal mass.

    Returns
    -------
    DataFrame
        Columns confidence, low, high.

    Notes
    -----
    J. Broecker, L. A. Smith, "Increasing the Reliability of Reliability Diagrams", Weather and
    Forecasting 22 (2007), 651-661.
    """
    random = own_generator(seed)
    samples = 0 if math.isnan(share) else min(math.ceil(share * len(confidence)), max_samples)
    if len(confidence) > samples:
        confidence = random.choice(confidence, samples, replace=False)
    if not len(confidence):
        return pd.DataFrame({"confidence": [], "low": [], "high": []}, dtype=float)
    sorted_confidence = np.sort(confidence)
    places = np.unique(np.linspace(0, len(sorted_confidence) - 1, points).round().astype(int))
    curves = np.empty((draws, len(places)))
    for draw in range(draws):
        curves[draw] = _pool(sorted_confidence, random.random(len(sorted_confidence)) < sorted_confidence)[
            places
        ]
    low, high = np.quantile(curves, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return pd.DataFrame({"confidence": sorted_confidence[places], "low": low, "high": high})
