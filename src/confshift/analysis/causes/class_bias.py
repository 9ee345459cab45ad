"""Is a class's mean probability higher than its frequency? A score test beside the temperature."""

from __future__ import annotations

import math
from collections.abc import Iterator
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


class _Moments(NamedTuple):
    """Of each unit, a sample or a group, the sum over its m samples of (d, s), K + 1 numbers e."""

    total: NDArray[np.float64]  # (K + 1,) the sum of e
    counted: NDArray[np.float64]  # (K + 1,) the sum of m e
    products: NDArray[np.float64]  # (K + 1, K + 1) the sum of e e'
    squares: float  # the sum of m squared
    units: int
    drift: NDArray[np.float64]  # (K,) how the sum of the p changes with beta
    curvature: float  # of the sum of the losses in beta

    def plus(self, other: tuple[Any, ...]) -> _Moments:
        """Return the moments of these units and others."""
        return _Moments(*(one + more for one, more in zip(self, other, strict=True)))


def _residual_moments(
    logits: NDArray[Any], targets: NDArray[np.int64], beta: float, *, fitted: bool, codes: Codes | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int]:
    """Return the mean residual, the covariance of a unit, the mean probabilities, the number of units.

    Units are the samples, or groups of them: see `grouping.group_terms`.

    A residual is d = onehot(y) - p, plus s v, what the sample does to every p through beta: its slope s, and
    the change v of the mean p over the curvature. The extra term adds up to 0 where beta is optimal. The
    moments of d + s v follow from those of d and s, so that one pass over the logits finds v as well.
    """
    samples, classes = logits.shape
    moments = _Moments(0.0, 0.0, 0.0, 0, 0, 0.0, 0.0)  # type: ignore[arg-type]
    for rows, begins in _units_in_blocks(samples, max(1, _ROWS // classes), codes):
        moments = moments.plus(_moments(logits[rows], targets[rows], beta, begins))
    units, mean = moments.units, moments.total / samples
    products = moments.products + moments.squares * np.outer(mean, mean)
    products -= np.outer(moments.counted, mean) + np.outer(mean, moments.counted)
    probability = np.bincount(targets, minlength=classes) / samples - mean[:-1]
    v = moments.drift / moments.curvature if fitted and moments.curvature > 0 else np.zeros(classes)
    covariance = products[:-1, :-1] + products[-1, -1] * np.outer(v, v)
    covariance += np.outer(products[:-1, -1], v) + np.outer(v, products[-1, :-1])
    covariance *= (units / samples) ** 2 / max(units - 1, 1)
    return mean[:-1] + mean[-1] * v, covariance, probability, units


def _units_in_blocks(
    samples: int, size: int, codes: Codes | None
) -> Iterator[tuple[Any, NDArray[np.intp] | None]]:
    """Yield rows, about `size` of them; with groups whole ones, and where each begins among the rows."""
    if codes is None:
        yield from ((slice(start, start + size), None) for start in range(0, samples, size))
        return
    order = np.argsort(codes, kind="stable")
    begins = np.flatnonzero(np.diff(codes[order], prepend=-1))
    ends, first = np.append(begins[1:], samples), 0
    while first < len(begins):
        last = max(first + 1, int(np.searchsorted(ends, begins[first] + size, side="right")))
        yield order[begins[first] : ends[last - 1]], begins[first:last] - begins[first]
        first = last


def _moments(
    logits: NDArray[Any], targets: NDArray[np.int64], beta: float, begins: NDArray[np.intp] | None
) -> tuple[Any, ...]:
    """Return the fields of `_Moments` for some samples."""
    each = np.arange(len(targets))
    z = np.array(logits, np.float64)
    z -= z.max(axis=1, keepdims=True)
    np.maximum(z, -1e15, out=z)  # a masked class has weight 0, and gives no NaN
    values = np.empty((len(z), z.shape[1] + 1))
    p = np.exp(np.multiply(z, beta, out=values[:, :-1]), out=values[:, :-1])
    p /= p.sum(axis=1, keepdims=True)
    mean = np.einsum("ij,ij->i", p, z)
    values[:, -1] = mean - z[each, targets]
    z -= mean[:, None]
    weighted = p * z
    drift, curvature = weighted.sum(axis=0), float(np.einsum("ij,ij->", weighted, z))
    np.negative(p, out=p)
    p[each, targets] += 1
    if begins is None:
        total = values.sum(axis=0)
        return total, total, values.T @ values, len(z), len(z), drift, curvature
    members, values = np.diff(begins, append=len(z)), np.add.reduceat(values, begins, axis=0)
    sums = values.sum(axis=0), members @ values, values.T @ values
    return *sums, int((members**2).sum()), len(members), drift, curvature
