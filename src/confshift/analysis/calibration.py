"""How far confidence is from accuracy, with null values; and the accuracy that biases give."""

from __future__ import annotations

import math
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.grouping import Codes, codes_at, counted_share, key_of, mean_error
from confshift.analysis.linear_maps import READ, cross_fit
from confshift.analysis.significance import mcnemar
from confshift.analysis.sorting import by_confidence
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.recalibration import SAMPLES_A_CLASS

_BINS = 15
_GRID = 2000
#: Samples whose numbers stay in a core's cache between one step and the next.
_BLOCK = 1 << 15
_FIRST_WIDTH = 1e-4
_WIDTH_TOLERANCE = 1e-6


class CalibrationErrors(NamedTuple):
    """Top-label calibration of one checkpoint; all but the p-value are fractions."""

    confidence_gap: float  # mean confidence minus accuracy; positive is over-confident
    confidence_gap_se: float
    ece: float  # 15 equal-width bins, for comparison with papers
    ece_null: float  # what a perfectly calibrated model of these confidences would show
    smooth_ece: float
    ecce: float  # largest cumulative difference, in standard deviations
    ecce_p: float  # its p-value under perfect calibration


def calibration_errors(
    confidence: NDArray[Any], correct: NDArray[Any], codes: Codes | None = None
) -> CalibrationErrors:
    """Measure the calibration of the top label.

    Parameters
    ----------
    confidence : ndarray, shape (N,)
        Top probabilities, in [0, 1].
    correct : ndarray of bool, shape (N,)
    codes : ndarray of int, shape (N,), optional
        Of groups that err together: what is expected of a calibrated model then counts groups.

    Returns
    -------
    CalibrationErrors
        All NaN where there are no samples.
    """
    if not len(confidence):
        return CalibrationErrors(*[math.nan] * len(CalibrationErrors._fields))
    gaps = confidence - correct
    gap = float(gaps.mean())
    ece, null = expected_calibration_error(confidence, correct, codes=codes)
    statistic, p_value = cumulative_differences(confidence, correct, codes=codes)
    return CalibrationErrors(
        gap,
        mean_error(gaps, codes),
        ece,
        null,
        smooth_calibration_error(confidence, correct),
        statistic,
        p_value,
    )


def expected_calibration_error(
    confidence: NDArray[Any], correct: NDArray[Any], *, bins: int = _BINS, codes: Codes | None = None
) -> tuple[float, float]:
    """Return the expected calibration error over equal-width bins, and its null value.

    Bins are closed on the right, so a confidence of exactly 1 is in the last. Binning alone makes the
    error positive: under perfect calibration its expectation is about sqrt(2/pi) times the sum of
    n_b/N sqrt(v_b/n_b), v_b the mean of c (1 - c) in bin b. Where the samples of a group err together
    (`codes`), v_b is larger by as much as accuracy minus confidence, about its mean in the bin, varies more
    in sums over groups than from sample to sample.

    Notes
    -----
    C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
    section 2.

    Examples
    --------
    >>> error, null = expected_calibration_error(np.array([0.9, 0.9, 0.6]), np.array([1, 0, 1]))
    >>> round(error, 3)
    0.4
    """
    gaps, variance = np.zeros((2, bins))
    for start in range(0, len(confidence), _BLOCK):
        some, right = confidence[start : start + _BLOCK], correct[start : start + _BLOCK]
        index = _bin_numbers(some, bins)
        gaps += np.bincount(index, some - right, bins)
        variance += np.bincount(index, some * (1 - some), bins)
    error = np.abs(gaps).sum() / len(confidence)
    if codes is not None:
        index = _bin_numbers(confidence, bins)
        residuals, squares = _residuals(confidence, correct, index), np.zeros(bins)
        for place in range(bins):  # one by one: of millions of groups, all bins at once would fill the memory
            inside = index == place
            squares[place] = (np.bincount(codes[inside], residuals[inside]) ** 2).sum()
        each = np.bincount(index, residuals**2, bins)
        variance *= np.divide(squares, each, out=np.ones(bins), where=each > 0)
    null = math.sqrt(2 / math.pi) * np.sqrt(np.maximum(variance, 0)).sum() / len(confidence)
    return float(error), float(null)


def _bin_numbers(confidence: NDArray[Any], bins: int) -> NDArray[np.intp]:
    return np.asarray(np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1))


def _residuals(
    confidence: NDArray[Any], correct: NDArray[Any], index: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return accuracy minus confidence about its mean in each bin: what calibration leaves to chance."""
    gaps = correct - confidence
    means = np.bincount(index, gaps) / np.maximum(np.bincount(index), 1)
    return np.asarray(gaps - means[index], np.float64)


def smooth_calibration_error(confidence: NDArray[Any], correct: NDArray[Any]) -> float:
    """Return the smooth calibration error: no bins, a bandwidth that equals the error it gives.

    The residuals (correct - c)/N are smoothed over [0, 1] by a Gaussian reflected at the ends; the
    error is the integral of the absolute value, at the width sigma where both are equal. On a grid of
    2000 cells the reflected Gaussian is a diagonal of the cosine transform. Always positive: it has a
    floor that shrinks with N.

    Notes
    -----
    J. Blasiok, P. Nakkiran, "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing", ICLR
    2024, section 3.
    """
    from scipy.fft import dct, idct

    grid = np.zeros(_GRID)
    for start in range(0, len(confidence), _BLOCK):
        some = confidence[start : start + _BLOCK]
        place = np.clip(some * _GRID - 0.5, 0, _GRID - 1)
        cell = np.minimum(place.astype(np.intp), _GRID - 2)
        share, residual = place - cell, correct[start : start + _BLOCK] - some
        grid += np.bincount(cell, residual * (1 - share), _GRID)
        grid += np.bincount(cell + 1, residual * share, _GRID)
    waves = dct(grid / len(confidence))
    decay = (np.pi * np.arange(_GRID)) ** 2 / 2

    def error(width: float) -> float:
        return float(np.abs(idct(waves * np.exp(-decay * width**2))).sum())

    # A wider kernel gives a smaller error, so the fixed point lies between any width and its error.
    # Trying that error next converges fast where it hardly depends on the width; the midpoint always does.
    low, high, value, halve = 0.0, 1.0, _FIRST_WIDTH, False
    while high - low > _WIDTH_TOLERANCE:
        width = (low + high) / 2 if halve else value
        value, halve = error(width), not halve
        low, high = max(low, min(width, value)), min(high, max(width, value))
    return low


def cumulative_differences(
    confidence: NDArray[Any], correct: NDArray[Any], *, codes: Codes | None = None
) -> tuple[float, float]:
    """Return the largest cumulative difference of accuracy and confidence, and its p-value.

    Sorted by confidence, the running mean of correct - c is a Brownian motion under perfect
    calibration. In units of its final standard deviation; needs no bins. The p-value is NaN where every
    confidence is 0 or 1. Samples with the same confidence enter together, because their order is arbitrary
    (folders are sorted by class). Where the samples of a group err together (`codes`), the standard deviation
    is larger by the root of the design effect; see `grouping.counted_share`.

    Notes
    -----
    I. Arrieta-Ibarra, P. Gujral, J. Tannen, M. Tygert, C. Xu, "Metrics of Calibration for Probabilistic
    Predictions", JMLR 23 (2022), section 2 (ECCE-MAD).
    """
    spread = math.sqrt(float((confidence * (1 - confidence)).sum()))
    if spread == 0:
        return math.nan, math.nan
    ordered, right = by_confidence(confidence, correct)
    last_of_ties = np.append(ordered[1:] != ordered[:-1], True)
    running = np.cumsum(right - ordered)[last_of_ties]
    statistic = (
        float(np.abs(running).max()) / spread * math.sqrt(calibration_share(confidence, correct, codes))
    )
    return statistic, _excursion_p_value(statistic)


def calibration_share(confidence: NDArray[Any], correct: NDArray[Any], codes: Codes | None = None) -> float:
    """Return what a sample counts for where accuracy is compared with confidence: 1 without groups."""
    if codes is None:
        return 1.0
    return counted_share(_residuals(confidence, correct, _bin_numbers(confidence, _BINS)), codes)


def _excursion_p_value(bound: float) -> float:
    """P(sup |B(t)| > bound) of a Brownian motion on [0, 1], by the reflection principle."""
    from scipy.special import ndtr

    if math.isnan(bound):
        return math.nan
    odd = 2 * np.arange(50) + 1
    signs = np.where(np.arange(50) % 2, -1.0, 1.0)
    # For a tiny bound 50 terms are too few, but the p-value is 1 anyway.
    return float(np.clip(4 * (signs * ndtr(-odd * bound)).sum(), 0, 1)) if bound > 0.1 else 1.0


class CalibratedAccuracy(NamedTuple):
    """What biases do to the accuracy of a checkpoint.

    Attributes
    ----------
    value : float
        A fraction of the samples with an answer; NaN where it is not known.
    p_value : float
        McNemar's exact test that biases make as many answers right as wrong, over the samples that were read;
        1 where there are no biases.
    """

    value: float
    p_value: float = 1.0


#: Of checkpoints that are still in use: a report asks for those of the best and of the one to keep.
_accuracies: WeakKeyDictionary[Checkpoint, dict[bytes, CalibratedAccuracy]] = WeakKeyDictionary()


def calibrated_accuracy(checkpoint: Checkpoint, codes: Codes | None = None) -> CalibratedAccuracy:
    """Return the accuracy with temperature and biases, each fold predicted by the fit to the other four.

    Parameters
    ----------
    checkpoint : Checkpoint
    codes : ndarray of int, shape (N,), optional
        Of groups that err together, for the test; no group is in two folds.

    Returns
    -------
    CalibratedAccuracy
        The accuracy as it is where biases take no part: a temperature changes no answer. NaN where the logits
        can't be read, and where there are too many classes for a quick fit.
    """
    known, key = _accuracies.setdefault(checkpoint, {}), key_of(codes)
    if key not in known:
        known[key] = _with_biases(checkpoint, codes)
    return known[key]


def _with_biases(checkpoint: Checkpoint, codes: Codes | None) -> CalibratedAccuracy:
    if not math.isfinite(checkpoint.joint_temperature):
        return CalibratedAccuracy(checkpoint.accuracy)
    classes = len(checkpoint.class_names)
    if SAMPLES_A_CLASS * classes > READ // classes:
        return CalibratedAccuracy(math.nan, math.nan)
    try:
        logits, targets = checkpoint.scored_logits
    except ConfshiftError:
        return CalibratedAccuracy(math.nan, math.nan)
    finite = checkpoint.finite
    folds = cross_fit(logits, targets, "biases", codes=codes_at(codes, finite))
    rows = np.flatnonzero(finite)[folds.rows]
    before = checkpoint.scores.correct[rows]
    # Answers with an infinite loss stay wrong; where not all samples were read, these say what changes.
    share = finite.sum() / checkpoint.scores.answered.sum()
    more = float(folds.hits.mean() - before.mean())
    test = mcnemar(before, folds.hits, codes=codes_at(codes, rows))
    return CalibratedAccuracy(float(checkpoint.accuracy + share * more), test.p_value)
