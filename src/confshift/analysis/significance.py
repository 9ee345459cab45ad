"""Two checkpoints, chosen beforehand: intervals of a mean difference and of a change of accuracy."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confshift.analysis.grouping import Codes, counted_share, group_terms

#: Halvings of [-1, 1] until nothing is left of a bound's error.
_HALVINGS = 54


class Interval(NamedTuple):
    """An estimate with its standard error and two-sided interval."""

    estimate: float
    se: float
    low: float
    high: float


def paired_interval(
    differences: NDArray[Any], *, level: float = 0.95, codes: Codes | None = None
) -> Interval:
    """Return the mean of per-sample differences with Hall's skewness-adjusted t interval.

    Loss differences are skewed to the right where few samples explode; the plain t interval then
    misses on the high side. Closed form, no resampling.

    Parameters
    ----------
    differences : ndarray, shape (N,)
        After minus before, one for each sample; finite.
    level : float
        Two-sided coverage.
    codes : ndarray of int, shape (N,), optional
        Of groups that err together: the interval is then over groups, see `grouping.group_terms`.

    Returns
    -------
    Interval
        NaN bounds where N, or the number of groups, is below 3, equal bounds where all differences are equal.

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
    if codes is not None:
        differences = group_terms(differences, codes)
    samples = len(differences)
    mean = float(np.mean(differences)) if samples else math.nan
    if samples < 3:
        return Interval(mean, math.nan, math.nan, math.nan)
    centred = differences - mean
    spread = float(np.sqrt(np.sum(centred**2) / (samples - 1)))
    se = spread / math.sqrt(samples)
    if spread <= 1e-15 * abs(mean) or spread == 0:
        return Interval(mean, 0.0, mean, mean)
    scaled = centred / spread
    skewness = float(np.mean(scaled * scaled * scaled))  # a power of 3 takes fifty times as long
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


def accuracy_bounds(
    learned: ArrayLike, forgotten: ArrayLike, samples: ArrayLike, *, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the interval of a change of accuracy, after minus before; arrays are broadcast.

    It depends on how many answers switched and how they split, not on a spread: it holds where one or two
    samples switched, and has a width where none did. It excludes 0 exactly where `mcnemar` rejects at
    1 - level.

    Parameters
    ----------
    learned, forgotten : array_like
        Samples that were wrong and are right, and the other way round. Not whole where they are counts that
        groups leave of larger ones.
    samples : array_like
        N, with those that did not switch; the bounds are NaN where it is 0 or NaN.
    level : float
        Two-sided coverage.

    Returns
    -------
    low, high : ndarray
        Fractions, mirrored where learned and forgotten are exchanged.

    Notes
    -----
    The union of two intervals. The score interval of T. Tango, "Equivalence test and confidence interval for
    the difference in proportions for the paired-sample design", Statistics in Medicine 17 (1998), 891-908,
    covers a true change, but excludes 0 also where McNemar's exact test does not reject. The exact one of
    C. J. Clopper, E. S. Pearson, Biometrika 26 (1934), 404-413, for the share learned of those that switched,
    agrees with that test, but takes the number that switched as given: where all switched one way, it ends
    at the estimate.

    Examples
    --------
    >>> low, high = accuracy_bounds(2, 9, 300)
    >>> round(float(low), 4), round(float(high), 4)
    (-0.0503, 0.0013)
    """
    learned, forgotten, samples = np.broadcast_arrays(
        *(np.asarray(counts, np.float64) for counts in (learned, forgotten, samples))
    )
    known = samples > 0
    total = np.where(known, samples, 1.0)
    low = _lower_bound(learned, forgotten, total, level)
    high = -_lower_bound(forgotten, learned, total, level)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def accuracy_interval(correct: NDArray[np.bool_], codes: Codes | None = None) -> tuple[float, float]:
    """Return `accuracy_bounds` of two checkpoints, correct of shape (2, N); by groups where given."""
    before, after = correct
    share = 1.0 if codes is None else counted_share(after.astype(np.float64) - before, codes)
    learned, forgotten = (~before & after).sum(), (before & ~after).sum()
    low, high = accuracy_bounds(share * learned, share * forgotten, share * len(after))
    return float(low), float(high)


def _lower_bound(
    gained: NDArray[np.float64], lost: NDArray[np.float64], samples: NDArray[np.float64], level: float
) -> NDArray[np.float64]:
    from scipy.special import betaincinv, ndtri

    switched = gained + lost
    share = np.where(gained > 0, betaincinv(np.maximum(gained, 1e-9), lost + 1, 0.5 - level / 2), 0.0)
    conditional = np.where(switched > 0, (2 * share - 1) * switched / samples, 0.0)
    q = float(ndtri(0.5 + level / 2))
    low, high = np.full(samples.shape, -1.0), (gained - lost) / samples
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        far = _score(gained, lost, samples, middle) > q
        low, high = np.where(far, middle, low), np.where(far, high, middle)
    return np.asarray(np.minimum(conditional, low))


def _score(
    gained: NDArray[np.float64],
    lost: NDArray[np.float64],
    samples: NDArray[np.float64],
    change: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return Tango's score: the distance from a supposed change in the standard errors that it implies."""
    linear = (2 * samples - gained + lost) * change - gained - lost
    constant = -lost * change * (1 - change)
    root = np.sqrt(np.maximum(linear**2 - 8 * samples * constant, 0.0))
    rate = np.maximum((root - linear) / (4 * samples), 0.0)  # of samples lost, the likeliest one
    variance = np.maximum(samples * (2 * rate + change * (1 - change)), 1e-300)
    return np.asarray((gained - lost - samples * change) / np.sqrt(variance))


class Switches(NamedTuple):
    """Samples whose answer switched between right and wrong, and the test that both ways are as likely."""

    learned: int
    forgotten: int
    p_value: float  # two-sided, exact but for groups; 1 where none switched


def mcnemar(before: NDArray[np.bool_], after: NDArray[np.bool_], *, codes: Codes | None = None) -> Switches:
    """Test whether more samples were forgotten than learned, or the other way round.

    Parameters
    ----------
    before, after : ndarray of bool, shape (N,)
        Whether each sample was right.
    codes : ndarray of int, shape (N,), optional
        Of groups that err together: then a sample counts for less in the test, see `grouping.counted_share`.

    Notes
    -----
    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12 (1947), 153-157; exact, by the binomial distribution.

    Examples
    --------
    >>> mcnemar(np.array([True, True, False, True]), np.array([False, True, False, False]))
    Switches(learned=0, forgotten=2, p_value=0.5)
    """
    from scipy.special import betainc

    learned, forgotten = int((~before & after).sum()), int((before & ~after).sum())
    share = 1.0 if codes is None else counted_share(after.astype(np.float64) - before, codes)
    fewer, more = share * min(learned, forgotten), share * max(learned, forgotten)
    # The tail of a binomial distribution, which the incomplete beta function continues between whole counts.
    p_value = 2 * float(betainc(more, fewer + 1, 0.5)) if more else 1.0
    return Switches(learned, forgotten, p_value if math.isnan(p_value) else min(1.0, p_value))
