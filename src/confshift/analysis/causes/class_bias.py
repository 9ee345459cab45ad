"""Is a class's mean probability higher than its frequency? A score test beside the temperature."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.grouping import Codes

#: The covariance is K by K.
MAX_CLASSES = 1000
_ROWS = 1 << 18


class ClassBias(NamedTuple):
    """Whether mean probability and frequency differ by class, beyond what a temperature explains."""

    statistic: float  # Hotelling's T squared
    degrees: int
    p_value: float
    classes: pd.DataFrame


def class_bias_test(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    *,
    beta: float,
    fitted: bool = True,
    codes: Codes | None = None,
) -> ClassBias:
    """Test whether each class's mean probability equals its frequency, at the fitted temperature.

    Parameters
    ----------
    logits : ndarray, shape (N, K)
        Of samples with a finite loss.
    targets : ndarray of int64, shape (N,)
    beta : float
        1/T as fitted to these samples.
    fitted : bool
        Whether beta is an optimum inside its range, so that its own error counts.
    codes : ndarray of int, shape (N,), optional
        Of groups that err together: the covariance is then that of their sums.

    Returns
    -------
    ClassBias
        `classes` is indexed by class: frequency, probability (mean, at this temperature), excess
        (probability - frequency) and excess_se. Where no class can differ (every probability is 0 or 1
        and right), or there are not more groups than classes, the p-value is NaN. With at least five samples,
        or groups, for each class the test has its level.

    Notes
    -----
    The score test for a bias in each class (A. Alexandari, A. Kundaje, A. Shrikumar, "Maximum Likelihood
    with Bias-Corrected Calibration is Hard-To-Beat at Label Shift Adaptation", ICML 2020), with the
    samples' own covariance, so that it holds for a model that no temperature calibrates; beta's error
    enters by its influence function. P-value by Hotelling's F, which pays for the estimated covariance.
    """
    from scipy.special import fdtrc

    samples, classes = logits.shape
    mean, covariance, probability, units = _residual_moments(
        logits, targets, beta, fitted=fitted, codes=codes
    )
    frequency = np.bincount(targets, minlength=classes) / samples
    table = pd.DataFrame(
        {
            "frequency": frequency,
            "probability": probability,
            "excess": probability - frequency,
            "excess_se": np.sqrt(np.maximum(covariance.diagonal(), 0) / units),
        },
        index=pd.RangeIndex(classes, name="class"),
    )
    values, vectors = np.linalg.eigh(covariance)
    # The residuals of a sample add up to 0, so one direction is always empty.
    usable = values > 1e-9 * max(float(values[-1]), 1e-300)
    degrees = int(usable.sum()) if values[-1] > 1e-12 else 0
    if degrees == 0 or units <= degrees:
        return ClassBias(math.nan, degrees, math.nan, table)
    statistic = float(units * ((vectors[:, usable].T @ mean) ** 2 / values[usable]).sum())
    ratio = statistic * (units - degrees) / (degrees * (units - 1))
    p_value = float(fdtrc(degrees, units - degrees, ratio))
    return ClassBias(statistic, degrees, p_value, table)


def _residual_moments(
    logits: NDArray[Any], targets: NDArray[np.int64], beta: float, *, fitted: bool, codes: Codes | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int]:
    """Return the mean residual, the covariance of a unit, the mean probabilities, the number of units.

    Units are the samples, or groups of them: see `grouping.group_terms`.

    A residual is onehot(y) - p, plus what the sample does to every p through beta: its slope over the
    curvature, times the derivative of the mean p. The extra term adds up to 0 where beta is optimal.
    """
    samples, classes = logits.shape
    drift, curvature = np.zeros(classes), 0.0
    parts = [
        slice(start, start + max(1, _ROWS // classes))
        for start in range(0, samples, max(1, _ROWS // classes))
    ]
    for rows in parts if fitted else ():
        p, centred, slope = _probabilities(logits[rows], targets[rows], beta)
        drift += (p * centred).sum(axis=0)
        curvature += float((p * centred**2).sum())
    influence = drift / curvature if curvature > 0 else drift
    sums, products, total = np.zeros(classes), np.zeros((classes, classes)), np.zeros(classes)
    members = None if codes is None else np.bincount(codes)
    by_group = np.zeros((0 if members is None else len(members), classes))
    for rows in parts:
        p, _, slope = _probabilities(logits[rows], targets[rows], beta)
        residual = slope[:, None] * influence - p
        residual[np.arange(len(p)), targets[rows]] += 1
        sums += residual.sum(axis=0)
        total += p.sum(axis=0)
        if codes is None:
            products += residual.T @ residual
        else:
            np.add.at(by_group, codes[rows], residual)
    mean, units = sums / samples, samples
    if members is None:
        products -= samples * np.outer(mean, mean)
    else:
        by_group = (by_group - members[:, None] * mean)[members > 0]
        units = len(by_group)
        products = by_group.T @ by_group * (units / samples) ** 2
    return mean, products / max(units - 1, 1), total / samples, units


def _probabilities(
    logits: NDArray[Any], targets: NDArray[np.int64], beta: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return softmax(beta z), z about its mean under it, and that mean minus the true class's z."""
    z = np.asarray(logits, np.float64)
    z = np.maximum(z - z.max(axis=1, keepdims=True), -1e15)  # a masked class has weight 0, and gives no NaN
    p = np.exp(beta * z)
    p /= p.sum(axis=1, keepdims=True)
    mean = (p * z).sum(axis=1)
    return p, z - mean[:, None], mean - z[np.arange(len(z)), targets]
