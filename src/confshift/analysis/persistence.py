"""Is a series of epoch means rising beyond its own jitter from epoch to epoch?"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: So many epochs after the minimum are needed before a rise can be called lasting.
TAIL = 4

#: Above this lag-1 autocorrelation the jitter is not treated as independent from epoch to epoch.
CORRELATED = 0.5

_WINDOW = 3
_NEIGHBOURHOOD = 17
_LAGS = (1, 3)
_NULL_SERIES = 4000
#: The initial fall is not jitter: it ends where this share of the way from first to lowest is left.
_FALL_LEFT = 0.1
#: The level is in units of the larger of two local jitters, as in its critical value. That is on average this
#: many times the jitter of the whole tail (40 independent epochs).
_LARGER_OF_TWO = 1.2
#: With fewer epochs after the minimum no autocorrelation can be estimated.
_ENOUGH = 8


class Persistence(NamedTuple):
    """What the epoch means alone show; amounts in the unit of the series."""

    rising: bool  # beyond jitter: by trend, by level or both
    tail: int  # epochs after the minimum
    trend_p: float  # Mann-Kendall, one-sided; 1 where the tail is too short
    level: float  # last window above the lowest one, in standard deviations of the jitter
    level_critical: float  # what jitter alone exceeds with probability alpha / 2; NaN where not tested
    jitter_sd: float  # from epoch to epoch; NaN where there are too few epochs
    autocorrelation: float  # at lag 1, about the line after the minimum; NaN where there are too few


def persistence_of(
    means: NDArray[np.float64], *, alpha: float, look_alpha: float | None = None
) -> Persistence:
    """Test whether a series of epoch means has risen beyond epoch-to-epoch jitter.

    Two arms at alpha / 2 each, after the initial fall is cut off. Trend: Mann-Kendall on the epochs
    strictly after the minimum, which are exchangeable under exchangeable jitter although the minimum was
    selected; on means of three epochs where there are twelve or more. Level: the mean of the last window
    against the lowest earlier one, in units of the local jitter, against its Monte-Carlo null with the
    selection included; it sees a rise that has stopped or partly come back.

    Jitter that is correlated from epoch to epoch makes both arms reject too often. So above a lag-1
    autocorrelation r of 0.5 after the minimum, the level must also exceed its critical value in units of the
    jitter there times sqrt((1 + r) / (1 - r)), where that is the larger unit. Both r and the jitter are taken
    after the minimum: a smooth rise after a drop of the learning rate is autocorrelated too, but hardly
    jitters, and its r says nothing about the large jitter before the drop.

    Parameters
    ----------
    means : ndarray, shape (T,)
    alpha : float
    look_alpha : float, optional
        With repeated looks: the part of alpha for this one. All of it goes to the trend, since the
        Monte-Carlo null of the level is too coarse for so small a part.
    """
    series = _after_fall(means)
    tail = series[int(np.argmin(series)) + 1 :]
    trend_p = mann_kendall(_blocks(tail))
    level, critical, jitter = math.nan, math.nan, math.nan
    if len(series) >= 2 * _WINDOW + 2:
        window = _window(len(series))
        levels, jitters = _level(series[None], window)
        level, jitter = float(levels[0]), float(jitters[0])
        critical = _level_critical(len(series), window, 1 - alpha / 2)
    rising = trend_p < alpha / 2 or level > critical if look_alpha is None else trend_p < look_alpha
    correlation = _autocorrelation(tail)
    if correlation > CORRELATED:
        slow = _LARGER_OF_TWO * float(_deviation(tail[None])[0])
        slow *= math.sqrt((1 + correlation) / (1 - correlation))
        rising = rising and level * (jitter / slow if slow > jitter > 0 else 1.0) > critical
    return Persistence(rising, len(tail), trend_p, level, critical, jitter, correlation)


def _after_fall(means: NDArray[np.float64]) -> NDArray[np.float64]:
    lowest = means.min()
    return means[int(np.argmax(means <= lowest + _FALL_LEFT * (means[0] - lowest))) :]


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


def _window(epochs: int) -> int:
    return _WINDOW if epochs >= 10 else _WINDOW - 1


def _level(series: NDArray[np.float64], window: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the level statistic and the jitter of each row of (R, T)."""
    epochs = series.shape[1]
    means = np.lib.stride_tricks.sliding_window_view(series, window, axis=1).mean(axis=2)
    earlier, last = means[:, : epochs - 2 * window + 1], means[:, -1]
    lowest = np.argmin(earlier, axis=1)
    rise = last - np.take_along_axis(earlier, lowest[:, None], axis=1)[:, 0]
    ends = lowest + window // 2, np.full(len(series), epochs - 1 - window // 2)
    jitter = np.maximum(*(_jitter(series, centre) for centre in ends))
    with np.errstate(divide="ignore", invalid="ignore"):
        level = rise / (jitter * math.sqrt(2 / window))
    return np.where(rise == 0, 0.0, level), jitter


def _jitter(series: NDArray[np.float64], centre: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the robust standard deviation from epoch to epoch around a centre of each row."""
    epochs = series.shape[1]
    length = min(epochs, _NEIGHBOURHOOD)
    start = np.clip(centre - length // 2, 0, epochs - length)
    return _deviation(np.take_along_axis(series, start[:, None] + np.arange(length), axis=1))


def _deviation(local: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the robust standard deviation from epoch to epoch of each row.

    Second differences take out a local line; the larger of two lags is less easily fooled by jitter that
    is correlated from epoch to epoch. var(x[t+k] - 2 x[t] + x[t-k]) is 6 sigma^2 for independent jitter.
    """
    deviations = [
        np.median(np.abs(local[:, 2 * lag :] - 2 * local[:, lag:-lag] + local[:, : -2 * lag]), axis=1)
        for lag in _LAGS
        if local.shape[1] >= 2 * lag + 3
    ]
    return np.asarray(1.4826 / math.sqrt(6) * np.max(deviations, axis=0))


@lru_cache(maxsize=1024)
def _level_critical(epochs: int, window: int, quantile: float) -> float:
    """Return the quantile of the level statistic over independent normal jitter, by simulation."""
    series = np.random.default_rng(0).standard_normal((_NULL_SERIES, epochs))
    return float(np.quantile(_level(series, window)[0], quantile))


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
