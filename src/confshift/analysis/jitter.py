"""Does a series of epoch means end higher than jitter explains, even where jitter wanders slowly?"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Where a hinge may lie, and where a ramp may start and how long it may be: shares of the series.
_HINGES = (0.0, 0.2, 0.4, 0.6, 0.75)
_STARTS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75)
_LENGTHS = (0.08, 0.2, 0.4, 1.0)

#: The level compares means of three epochs (of two where there are fewer than 10). It measures the jitter
#: about each by differences at these lags: in half of the series, but at least and at most in so many epochs.
_WINDOW = 3
_NEIGHBOURHOOD = 12, 17
_LAGS = (1, 3)

#: Jitter below this is rounding; relative to the largest mean where that is above 1.
_ROUNDING = 1e-9

#: Fewer epochs after the initial fall say nothing of jitter; the least that `_CRITICAL` knows.
FEWEST = 8

#: Below so many epochs the critical values are so large that even clear rises stay below them.
ENOUGH = 16


class Critical(NamedTuple):
    """What the statistics rarely exceed in flat normal jitter, autoregressive with up to 0.8."""

    hinge: float  # hinge or shape is beyond its value in 5 % at the worst coefficient
    shape: float
    slow_level: float  # in 1 % at the worst coefficient
    level: float  # in 2.5 % at 0: jitter that is independent from epoch to epoch


#: By number of epochs; made by tests/benchmarks/jitter_critical.py.
_CRITICAL = {
    8: Critical(5.83, 9.78, 11.87, 3.73),
    9: Critical(5.39, 9.36, 6.44, 2.44),
    10: Critical(5.60, 9.03, 6.60, 2.22),
    13: Critical(4.69, 7.65, 6.76, 2.29),
    16: Critical(4.21, 6.42, 6.32, 2.21),
    20: Critical(3.65, 5.38, 6.13, 2.20),
    26: Critical(3.23, 4.28, 6.75, 2.28),
    32: Critical(3.00, 3.70, 7.04, 2.37),
    40: Critical(2.76, 3.25, 7.50, 2.45),
    52: Critical(2.56, 2.89, 7.66, 2.47),
    64: Critical(2.45, 2.65, 7.79, 2.48),
    80: Critical(2.36, 2.50, 7.92, 2.50),
    100: Critical(2.30, 2.37, 8.15, 2.51),
    140: Critical(2.21, 2.26, 8.28, 2.56),
    200: Critical(2.17, 2.22, 8.50, 2.59),
}

#: So many times these values are asked: real jitter is not quite such jitter, and its size may change.
_ALLOWANCE = Critical(hinge=1.4, shape=1.4, slow_level=1.0, level=1.0)

#: The same where the question is asked after every epoch. Then flat runs raise an alarm at any of 100 looks
#: in 5 % at most, in 10 % where jitter is autoregressive with 0.8.
_ALLOWANCE_AT_LOOKS = Critical(hinge=2.4, shape=2.4, slow_level=1.8, level=1.0)

#: Of the sampling error of hinge and shape, which is known and not estimated from the series, a rise must be
#: beyond so many standard errors, together with what is asked for jitter.
_SAMPLING = 2.0


class JitterTest(NamedTuple):
    """Three statistics of the rise of a series, each beside what jitter rarely exceeds."""

    level: float = math.nan
    level_critical: float = math.nan  # where jitter is independent from epoch to epoch
    slow_level_critical: float = math.nan
    jitter_sd: float = math.nan  # from epoch to epoch
    hinge: float = math.nan
    hinge_critical: float = math.nan
    shape: float = math.nan
    shape_critical: float = math.nan

    @property
    def rising(self) -> bool:
        """Whether jitter is no explanation."""
        return (
            self.hinge > self.hinge_critical
            or self.shape > self.shape_critical
            or self.level > self.slow_level_critical
        )


def jitter_test(
    series: NDArray[np.float64], covariance: NDArray[np.float64] | None = None, *, repeated: bool = False
) -> JitterTest:
    """Test whether a series of epoch means ends higher than correlated jitter explains.

    Parameters
    ----------
    series : ndarray, shape (n,)
        Epoch means after the initial fall; with fewer than 8 the answer is NaN.
    covariance : ndarray, shape (n, n), optional
        Of their sampling errors, which hinge and shape allow for beside the jitter; none by default.
    repeated : bool
        Whether the question is asked after every epoch, not once at the end.
    """
    if len(series) < FEWEST:
        return JitterTest()
    critical = critical_values(len(series), repeated=repeated)
    found, jitter = level(series[None])
    fitted = [f(series[None], covariance, repeated=repeated) for f in (hinge, shape)]
    return JitterTest(
        float(found[0]),
        critical.level,
        critical.slow_level,
        float(jitter[0]),
        *(float(one[0]) for value_and_critical in fitted for one in value_and_critical),
    )


class _Regressions(NamedTuple):
    """D least-squares fits to a series of n epochs, and the contrast of epochs that is asked of each."""

    bases: NDArray[np.float64]  # (D, n, 3): orthonormal columns, zero where a fit has only two
    contrasts: NDArray[np.float64]  # (D, n)
    # With r the lag-1 autocorrelation of the residuals, (n r + bias) / (n - lost) is nearly unbiased.
    bias: NDArray[np.float64]  # (D, 1)
    lost: NDArray[np.float64]  # (D, 1)
    largest: float  # what the autocorrelation is at most taken for
    freedom: NDArray[np.float64]  # (D, 1): degrees of freedom of the innovations


def hinge(
    series: NDArray[np.float64], covariance: NDArray[np.float64] | None = None, *, repeated: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how clearly each series rises along a line that begins at one of five places.

    For each place t0 the series is regressed on 1 and (t - t0)+. The statistic is the largest of the slopes
    over their standard errors.

    Parameters
    ----------
    series : ndarray, shape (R, n)
        Epoch means after the initial fall, n >= 8.
    covariance : ndarray, shape (n, n), optional
        Of their sampling errors; none by default.
    repeated : bool
        Whether the question is asked after every epoch.

    Returns
    -------
    tuple of ndarray, shape (R,)
        Statistic; its critical value.
    """
    epochs = series.shape[1]
    critical = np.full(len(series), critical_values(epochs, repeated=repeated).hinge)
    return np.asarray(_fitted(series, _hinges(epochs), covariance).over(critical).max(axis=0)), critical


def shape(
    series: NDArray[np.float64], covariance: NDArray[np.float64] | None = None, *, repeated: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far each series ends above where it was, along the course that fits it best.

    A course is a level, a ramp from t0 to t1 and a line after it: a step, a rise that saturates, a rise that
    is partly taken back. Of a grid of courses the one with the least residual variance counts. The statistic
    is its end minus its level over the standard error of that. Where jitter falls with the learning rate,
    its standard error rests on the few epochs before, and the critical value is that of so few.

    Parameters
    ----------
    series, covariance, repeated
        As in :func:`hinge`.

    Returns
    -------
    tuple of ndarray, shape (R,)
        Statistic; its critical value.
    """
    found = _fitted(series, _courses(series.shape[1]), covariance)
    best = found.residual.argmin(axis=0)[None]
    chosen = _Contrasts(*(np.take_along_axis(values, best, axis=0) for values in found))
    critical = _critical("shape", chosen.effective[0], repeated=repeated)
    return chosen.over(critical)[0], critical


def level(series: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far the last window of each series lies above its lowest earlier one, and the jitter.

    The level is in standard deviations that two such windows differ by under independent jitter of this
    size: the larger one of the two neighbourhoods. It needs no shape of the rise; but local differences see
    little of slow jitter, so its critical value for that is large.

    Parameters
    ----------
    series : ndarray, shape (R, n)
        Epoch means after the initial fall, n >= 8.

    Returns
    -------
    tuple of ndarray, shape (R,)
        Level; standard deviation of the jitter, in the unit of the series.
    """
    epochs = series.shape[1]
    window = _WINDOW if epochs >= 10 else _WINDOW - 1
    means = np.lib.stride_tricks.sliding_window_view(series, window, axis=1).mean(axis=2)
    earlier, last = means[:, : epochs - 2 * window + 1], means[:, -1]
    lowest = np.argmin(earlier, axis=1)
    rise = last - np.take_along_axis(earlier, lowest[:, None], axis=1)[:, 0]
    ends = lowest + window // 2, np.full(len(series), epochs - 1 - window // 2)
    jitter = np.maximum(*(_jitter(series, centre) for centre in ends))
    jitter = np.maximum(jitter, _rounding(series))
    return rise / (jitter * math.sqrt(2 / window)), jitter


def _jitter(series: NDArray[np.float64], centre: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the robust standard deviation from epoch to epoch around a centre of each row."""
    epochs = series.shape[1]
    length = min(epochs, int(np.clip(epochs // 2, *_NEIGHBOURHOOD)))
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


def critical_values(epochs: int, *, repeated: bool = False) -> Critical:
    """Return what jitter rarely makes the statistics exceed.

    Between the tabulated numbers of epochs by linear interpolation; beyond 200 those of 200.

    Parameters
    ----------
    epochs : int
        After the initial fall; at least 8.
    repeated : bool
        Whether the question is asked after every epoch, not once at the end.
    """
    return Critical(*(float(_critical(name, epochs, repeated=repeated)) for name in Critical._fields))


def _critical(name: str, epochs: ArrayLike, *, repeated: bool) -> NDArray[np.float64]:
    """Return what is asked of one statistic, for each number of epochs."""
    tabulated = [getattr(row, name) for row in _CRITICAL.values()]
    allowance = getattr(_ALLOWANCE_AT_LOOKS if repeated else _ALLOWANCE, name)
    return np.asarray(allowance * np.interp(np.asarray(epochs), list(_CRITICAL), tabulated))


class _Contrasts(NamedTuple):
    """What D regressions found in R series; shape (D, R)."""

    values: NDArray[np.float64]
    jitter: NDArray[np.float64]  # the variance of the values by jitter
    sampling: NDArray[np.float64]  # that by sampling error
    residual: NDArray[np.float64]  # the variance of the residuals
    effective: NDArray[np.float64]  # so many epochs would have their kurtosis if normal

    def over(self, critical: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values in standard errors that `critical` is to be asked of.

        The larger it is the less sampling error adds: it is asked for the uncertainty of the jitter, which
        is estimated; the sampling error is known.
        """
        sampling = np.square(_SAMPLING / critical) * self.sampling
        return np.asarray(self.values / np.sqrt(self.jitter + sampling))


def _fitted(
    series: NDArray[np.float64], fits: _Regressions, covariance: NDArray[np.float64] | None
) -> _Contrasts:
    """Return each contrast of each series, and what jitter and sampling error may add to it.

    The variance by jitter is that of independent jitter times the long-run variance over the variance.
    Both come from a first-order autoregression of the residuals. Sampling error does not: beside jitter of
    its own size it is far from such an autoregression, and its covariance is known.
    """
    epochs = series.shape[1]
    residuals = series - (series @ fits.bases) @ fits.bases.transpose(0, 2, 1)
    effective = _effective(residuals)
    correlation = _correlation(residuals, effective, fits)
    squares = np.square(residuals[..., 1:] - correlation[..., None] * residuals[..., :-1])
    # Where jitter changes, as it does when the learning rate drops, that of the epochs compared counts.
    weights = np.square(fits.contrasts[:, 1:])
    weights *= (epochs - 1) / weights.sum(axis=1, keepdims=True)
    largest = np.maximum(squares.sum(axis=2), (squares @ weights[..., None])[..., 0])
    deviation = np.sqrt(largest / fits.freedom) / (1 - correlation)
    deviation = np.maximum(deviation, _rounding(series))
    norms = np.linalg.norm(fits.contrasts, axis=1)
    sampling = np.zeros_like(norms)
    if covariance is not None:
        sampling = ((fits.contrasts @ covariance) * fits.contrasts).sum(axis=1)
    return _Contrasts(
        fits.contrasts @ series.T,
        np.square(norms[:, None] * deviation),
        np.broadcast_to(sampling[:, None], deviation.shape),
        np.square(residuals).sum(axis=2) / fits.freedom,
        effective,
    )


def _effective(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many normal values would have the kurtosis of the residuals (D, R, n).

    A few large residuals among small ones, as before a drop of the learning rate, say no more about jitter
    than a short series does.
    """
    squares = np.square(residuals)
    total, fourth = squares.sum(axis=2), np.square(squares).sum(axis=2)
    epochs = residuals.shape[2]
    spread = np.divide(3 * total**2, fourth, out=np.full_like(total, epochs), where=fourth > 0)
    return np.asarray(np.clip(spread, FEWEST, epochs))


def _correlation(
    residuals: NDArray[np.float64], effective: NDArray[np.float64], fits: _Regressions
) -> NDArray[np.float64]:
    """Return the lag-1 autocorrelation of residuals (D, R, n), freed of most of its bias."""
    total = np.square(residuals).sum(axis=2)
    products = (residuals[..., 1:] * residuals[..., :-1]).sum(axis=2)
    correlation = np.divide(products, total, out=np.zeros_like(total), where=total > 0)
    divisor = np.maximum(effective - fits.lost, 4)
    return np.asarray(np.clip((effective * correlation + fits.bias) / divisor, -0.3, fits.largest))


@lru_cache(maxsize=256)
def _hinges(epochs: int) -> _Regressions:
    time, last = np.arange(epochs), epochs - 1
    starts = [share * last for share in _HINGES if last - share * last >= 3.5]
    designs = [np.stack([np.ones(epochs), np.maximum(0, time - start)], axis=1) for start in starts]
    each = np.ones((len(designs), 1))
    bases, contrasts = _solved(designs, [[0, 1]] * len(designs))
    return _Regressions(bases, contrasts, 2 * each, 5 * each, 0.95, (epochs - 4) * each)


@lru_cache(maxsize=256)
def _courses(epochs: int) -> _Regressions:
    time, last = np.arange(epochs), epochs - 1
    designs, ends = [], []
    for start, length in product(_STARTS, _LENGTHS):
        begin = start * last
        end = min(begin + max(length * last, 1.5), last)
        if last - begin < 3.5 or (length < 1 and end > 0.95 * last):
            continue
        terms = [np.ones(epochs), np.clip((time - begin) / (end - begin), 0, 1)]
        weights = [0.0, 1.0]
        if last - end >= 4:
            terms.append(np.maximum(0, time - end))
            weights.append(last - end)
        designs.append(np.stack(terms, axis=1))
        ends.append(weights)
    count = np.array([[len(weights)] for weights in ends], dtype=np.float64)
    bases, contrasts = _solved(designs, ends)
    return _Regressions(bases, contrasts, 1 + count / 2, 3 + count, 0.9, epochs - 1 - count)


def _solved(
    designs: list[NDArray[np.float64]], weights: list[list[float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a basis of each design, and the epochs' weights in the weighted sum of its coefficients."""
    bases = np.zeros((len(designs), len(designs[0]), 3))
    for basis, design in zip(bases, designs, strict=True):
        basis[:, : design.shape[1]] = np.linalg.qr(design)[0]
    inverses = map(np.linalg.pinv, designs)
    return bases, np.stack([np.array(row) @ inverse for row, inverse in zip(weights, inverses, strict=True)])


def _rounding(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return below what jitter of each row of (R, n) is rounding."""
    return np.asarray(_ROUNDING * np.maximum(1, np.abs(series).max(axis=1)))
