"""Is a series of epoch means rising beyond its own jitter from epoch to epoch?"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.jitter import ENOUGH, FEWEST, jitter_test

#: So many epochs after the minimum are needed before a rise can be called lasting.
TAIL = 4

#: With fewer epochs after the minimum no autocorrelation can be estimated.
_ENOUGH = 8


class Persistence(NamedTuple):
    """What the course of the epoch means shows; amounts in the unit of the series."""

    rising: bool  # beyond jitter
    settled: int  # epochs after the initial fall
    tail: int  # epochs after the minimum
    trend_p: float  # Mann-Kendall, one-sided; 1 where the tail is too short
    autocorrelation: float  # at lag 1, about the line after the minimum; NaN where there are too few
    # The fields of `jitter.JitterTest`; NaN where there are too few epochs.
    level: float
    level_critical: float
    slow_level_critical: float
    jitter_sd: float
    hinge: float
    hinge_critical: float
    shape: float
    shape_critical: float


def persistence_of(
    means: NDArray[np.float64],
    covariance: NDArray[np.float64] | None = None,
    *,
    alpha: float,
    repeated: bool = False,
) -> Persistence:
    """Test whether a series of epoch means has risen beyond epoch-to-epoch jitter.

    The initial fall is cut off; then `jitter.jitter_test`, which allows for jitter that is correlated from
    epoch to epoch. It asks much of fewer than 16 epochs. Down to 8 of them a Mann-Kendall trend at alpha / 2
    counts too, which takes jitter for independent: on the epochs strictly after the minimum, which are
    exchangeable under exchangeable jitter although the minimum was selected; on means of three epochs where
    there are twelve or more. Fewer than 8 epochs are never called rising.

    Parameters
    ----------
    means : ndarray, shape (T,)
    covariance : ndarray, shape (T, T), optional
        Of their sampling errors, which are allowed for beside the jitter; none by default.
    alpha : float
    repeated : bool
        Whether the question is asked after every epoch, not once at the end. Then the jitter test has larger
        critical values, which hold for all looks together, and the trend does not count: under correlated
        jitter one of many looks at it would be wrong too often.
    """
    series = _after_fall(means)
    tail = series[int(np.argmin(series)) + 1 :]
    trend_p = mann_kendall(_blocks(tail))
    settled = len(series)
    known = None if covariance is None else covariance[-settled:, -settled:]
    test = jitter_test(series, known, repeated=repeated)
    few = FEWEST <= settled < ENOUGH and not repeated
    rising = test.rising or (few and trend_p < alpha / 2)
    return Persistence(rising, settled, len(tail), trend_p, _autocorrelation(tail), *test)


def _after_fall(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the series from the first epoch on that is not above the median of itself and those after it.

    A start near the minimum, which was selected, would make what follows look like a rise.
    """
    for start in range(len(means) - 1):
        if means[start] <= np.median(means[start:]):
            return means[start:]
    return means[-1:]


def _blocks(tail: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return means of three consecutive epochs, without the oldest remainder; short tails as they are."""
    size = 3 if len(tail) >= 12 else 1
    count = len(tail) // size
    means = tail[len(tail) - count * size :].reshape(count, size).mean(axis=1)
    # The order in which three equal numbers are added must not break a tie.
    return np.asarray(np.round(means, 12))


def mann_kendall(values: NDArray[Any]) -> float:
    """Return the one-sided p-value of an upward trend; 1 below four values.

    Normal approximation with continuity correction and the variance for ties.

    Notes
    -----
    H. B. Mann, "Nonparametric tests against trend", Econometrica 13 (1945), 245-259; M. G. Kendall, "Rank
    Correlation Methods", 4th ed. (1970), chapter 4.

    Examples
    --------
    >>> round(mann_kendall(np.arange(6.0)), 4), mann_kendall(np.zeros(6))
    (0.0043, 1.0)
    """
    from scipy.special import ndtr

    size = len(values)
    if size < TAIL:
        return 1.0
    score = float(np.sign(values[None, :] - values[:, None])[np.triu_indices(size, 1)].sum())
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    variance = (size * (size - 1) * (2 * size + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    if variance <= 0:
        return 1.0
    return float(ndtr(-(score - np.sign(score)) / math.sqrt(variance)))


def _autocorrelation(tail: NDArray[np.float64]) -> float:
    """Return the lag-1 autocorrelation about a line."""
    if len(tail) < _ENOUGH:
        return math.nan
    place = np.arange(len(tail)) - (len(tail) - 1) / 2
    centred = tail - tail.mean()
    residual = centred - place * (place @ centred) / (place @ place)
    total = float(residual @ residual)
    if total <= 1e-24 * float(tail @ tail):
        return 0.0
    return float(residual[1:] @ residual[:-1]) / total
