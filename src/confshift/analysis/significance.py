"""Two checkpoints, chosen beforehand: the interval of a mean difference, the test of two error rates."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """An estimate with its standard error and two-sided interval."""

    estimate: float
    se: float
    low: float
    high: float


def paired_interval(differences: NDArray[Any], *, level: float = 0.95) -> Interval:
    """Return the mean of per-sample differences with Hall's skewness-adjusted t interval.

    Loss differences are skewed to the right where few samples explode; the plain t interval then
    misses on the high side. Closed form, no resampling.

    Parameters
    ----------
    differences : ndarray, shape (N,)
        After minus before, one for each sample; finite.
    level : float
        Two-sided coverage.

    Returns
    -------
    Interval
        NaN bounds where N is below 3, equal bounds where all differences are equal.

    Notes
    -----
    P. Hall, "On the removal of skewness by transformation", JRSS B 54 (1992), 221-228: with
    k = skewness / sqrt(N), the statistic t + k t^2/3 + k^2 t^3/27 + k/6 is near normal; the interval is
    the mean minus its inverse, (3/k) (cbrt(1 + k (q - k/6)) - 1), times the standard error.

    Examples
    --------
    >>> interval = paired_interval(np.array([0.0, 0.1, -0.1, 0.2, 0.3]))
    >>> round(interval.estimate, 3), round(interval.low, 3), round(interval.high, 3)
    (0.1, -0.096, 0.296)
    """
    samples = len(differences)
    mean = float(np.mean(differences)) if samples else math.nan
    if samples < 3:
        return Interval(mean, math.nan, math.nan, math.nan)
    centred = differences - mean
    spread = float(np.sqrt(np.sum(centred**2) / (samples - 1)))
    se = spread / math.sqrt(samples)
    if spread <= 1e-15 * abs(mean) or spread == 0:
        return Interval(mean, 0.0, mean, mean)
    skewness = float(np.mean((centred / spread) ** 3))
    low, high = skewed_bounds(mean, spread, skewness, samples, level=level)
    return Interval(mean, se, float(low), float(high))


def skewed_bounds(
    mean: ArrayLike, spread: ArrayLike, skewness: ArrayLike, samples: ArrayLike, *, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bounds of `paired_interval` from the moments of the differences; arrays are broadcast.

    Parameters
    ----------
    mean, spread, skewness : array_like
        Of the differences; the spread with N - 1 in its denominator, the skewness about it.
    samples : array_like
        N; the bounds are NaN where it is below 3, and the mean where the spread is 0.
    level : float
        Two-sided coverage.
    """
    from scipy.special import stdtrit

    mean, spread, skewness, samples = (
        np.asarray(moment, float) for moment in (mean, spread, skewness, samples)
    )
    q = stdtrit(np.maximum(1, samples - 1), 0.5 + level / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        se, k = spread / np.sqrt(samples), skewness / np.sqrt(samples)
    enough, spread_out = samples >= 3, spread > 0
    bounds = [
        np.where(enough, np.where(spread_out, mean - se * _unskew(quantile, k), mean), np.nan)
        for quantile in (q, -q)
    ]
    return bounds[0], bounds[1]


def _unskew(q: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
    skewed = np.abs(k) >= 1e-9
    divisor = np.where(skewed, k, 1.0)
    return np.where(skewed, 3 / divisor * (np.cbrt(1 + k * (q - k / 6)) - 1), q)


class Switches(NamedTuple):
    """Samples whose answer switched between right and wrong, and the test that both ways are as likely."""

    learned: int
    forgotten: int
    p_value: float  # two-sided, exact; 1 where none switched


def mcnemar(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Switches:
    """Test whether more samples were forgotten than learned, or the other way round.

    Parameters
    ----------
    before, after : ndarray of bool, shape (N,)
        Whether each sample was right.

    Notes
    -----
    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12 (1947), 153-157; exact, by the binomial distribution.

    Examples
    --------
    >>> mcnemar(np.array([True, True, False, True]), np.array([False, True, False, False]))
    Switches(learned=0, forgotten=2, p_value=0.5)
    """
    from scipy.special import bdtr

    learned, forgotten = int((~before & after).sum()), int((before & ~after).sum())
    p_value = 2 * float(bdtr(min(learned, forgotten), learned + forgotten, 0.5))
    return Switches(learned, forgotten, min(1.0, p_value))
