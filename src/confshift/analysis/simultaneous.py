"""Comparisons of one epoch with all the others at once, valid however the others were chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

#: Goes through numbers (T, N) in blocks (T, n), each with its place among the samples.
Blocks = Callable[[], Iterable[tuple[slice, NDArray[np.float64]]]]

#: Two checkpoints whose difference varies less than this, relative to their own variance, are identical:
#: what is left is rounding.
_IDENTICAL = 1e-12

#: Draws in a block: T times as many numbers stay in the cache.
_BLOCK = 250

#: Where the number of looks is not known, half of alpha is spent after so many.
_HALF_SPENT = 100


@dataclass(frozen=True, eq=False)
class EpochMeans:
    """The means of T checkpoints over the same samples, and their joint sampling error.

    Attributes
    ----------
    means : ndarray, shape (T,)
    covariance : ndarray, shape (T, T)
        Of the means: checkpoints scored on the same samples err together.
    units : int
        How many independent samples, or groups of samples, the error is estimated from.
    """

    means: NDArray[np.float64]
    covariance: NDArray[np.float64]
    units: int

    @cached_property
    def standard_errors(self) -> NDArray[np.float64]:
        """Of the paired differences, shape (T, T); 0 between identical checkpoints."""
        variance = np.diag(self.covariance)
        levels = variance[:, None] + variance[None, :]
        variances = levels - 2 * self.covariance
        return np.sqrt(np.where(variances > _IDENTICAL * levels, variances, 0.0))

    @cached_property
    def t_values(self) -> NDArray[np.float64]:
        """Row t, column s: mean t minus mean s, in standard errors; 0 between identical checkpoints."""
        return (self.means[:, None] - self.means[None, :]) * self.inverse_errors

    @cached_property
    def inverse_errors(self) -> NDArray[np.float64]:
        """One over the standard errors; 0 where they are 0, so that such a pair never is the maximum."""
        errors = self.standard_errors
        return np.divide(1.0, errors, out=np.zeros_like(errors), where=errors > 0)


def mean_errors(
    values: NDArray[np.float64] | Blocks,
    *,
    groups: NDArray[np.intp] | None = None,
    weights: NDArray[np.float64] | None = None,
) -> EpochMeans:
    """Return the means of each checkpoint with their covariance.

    Parameters
    ----------
    values : ndarray, shape (T, N), or function
        One number for each checkpoint and sample; finite. A function goes through them in blocks, anew at
        each of two calls.
    groups : ndarray of int, shape (N,), optional
        Samples of one group (patient, document) err together; codes may have gaps. Groups of one sample give
        the same as no groups.
    weights : ndarray, shape (N,), optional
        What each sample counts for, 1 on average.
    """
    blocks: Blocks = values if callable(values) else lambda: [(slice(None), values)]
    counted = None if weights is None else weights > 0
    if weights is not None and counted is not None and counted.any():
        weights = weights / weights[counted].mean()

    def share(place: slice) -> NDArray[np.float64] | float:
        return 1.0 if weights is None else weights[place]

    first, seen = np.zeros((0, 1)), 0
    total, changes = np.zeros(1), np.zeros((1, 1))
    for place, numbers in blocks():
        first = first if len(first) else numbers[:, :1]
        total = total + (share(place) * numbers).sum(axis=1)
        # From the first sample: exactly 0 for copies of one.
        changes = changes + (share(place) * (numbers - first)).sum(axis=1, keepdims=True)
        seen += numbers.shape[1]
    samples = seen if counted is None else int(counted.sum())
    shift = changes / max(samples, 1)
    terms = ((place, share(place) * (numbers - first - shift)) for place, numbers in blocks())
    if groups is None:
        products, units = sum(block @ block.T for _, block in terms), samples
    else:
        of_groups = _totals(terms, len(total), groups, counted)
        products, units = of_groups @ of_groups.T, of_groups.shape[1]
    if units < 2:  # one group's sum of terms is 0 but for rounding, which must not pass for a sampling error
        products = np.zeros((len(total), len(total)))
    scale = units / max(units - 1, 1) / max(samples, 1) ** 2
    return EpochMeans(total / max(samples, 1), scale * np.asarray(products), units)


def _totals(
    terms: Iterable[tuple[slice, NDArray[np.float64]]],
    epochs: int,
    groups: NDArray[np.intp],
    counted: NDArray[np.bool_] | None,
) -> NDArray[np.float64]:
    """Return the sums of terms by group, of the groups in which a sample counts, shape (T, G)."""
    codes = np.unique(groups, return_inverse=True)[1]
    members = np.bincount(codes, counted) > 0
    totals = np.zeros((epochs, len(members)))
    for place, block in terms:
        for of_epoch, row in zip(totals, block, strict=True):
            of_epoch += np.bincount(codes[place], row, len(members))
    return totals if members.all() else totals[:, members]


@dataclass(frozen=True, eq=False)
class Maxima:
    """Draws of the largest t-value of each epoch where all epochs have the same expectation.

    Arrays have shape (T, draws): against every earlier epoch, and against every other one.
    """

    earlier: NDArray[np.float64]
    others: NDArray[np.float64]


def maxima(series: EpochMeans, *, draws: int = 4000, seed: int = 0) -> Maxima:
    """Draw sampling errors of all means jointly, and keep each epoch's largest t-value.

    Each epoch has its own normal multipliers, and a triangular root of the covariance mixes them. The
    distribution is that of the Gaussian multiplier bootstrap over samples, at a cost that doesn't grow with
    N, and adding an epoch leaves the draws of earlier epochs unchanged.

    Notes
    -----
    V. Chernozhukov, D. Chetverikov, K. Kato, "Gaussian approximations and multiplier bootstrap for maxima
    of sums of high-dimensional random vectors", Annals of Statistics 41 (2013), 2786-2819.
    """
    epochs = len(series.means)
    multipliers = np.random.default_rng(seed).standard_normal((epochs, draws))
    errors = _triangular_root(series.covariance) @ multipliers
    parts = [
        _block_maxima(np.ascontiguousarray(errors[:, first : first + _BLOCK]), series.inverse_errors)
        for first in range(0, draws, _BLOCK)
    ]
    earlier, later = np.concatenate(parts, axis=2)
    return Maxima(earlier, np.maximum(earlier, later))


def _block_maxima(errors: NDArray[np.float64], inverse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest t-value against every earlier and against every later epoch, (2, T, draws)."""
    earlier, later = np.zeros((2, *errors.shape))
    for epoch in range(1, len(errors)):
        t_values = errors[epoch] - errors[:epoch]
        t_values *= inverse[epoch, :epoch, None]
        earlier[epoch] = t_values.max(axis=0)
        np.minimum(later[:epoch], t_values, out=later[:epoch])
    return np.stack([np.maximum(earlier, 0), -later])


def _triangular_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return L with L L' = covariance, row by row, also where checkpoints are identical (a zero column)."""
    size = len(covariance)
    root = np.zeros((size, size))
    for k in range(size):
        column = covariance[k:, k] - root[k:, :k] @ root[k, :k]
        if column[0] > 1e-13 * covariance[k, k]:
            root[k:, k] = column / math.sqrt(column[0])
    return root


def critical_value(null: NDArray[np.float64], *, alpha: float, units: int) -> float:
    """Return what the null draws exceed with probability alpha, widened for few units.

    The errors are estimated from `units` samples or groups, so the normal quantile becomes the quantile of
    Student's t with units - 1 degrees of freedom; from a few hundred units on they hardly differ.
    """
    return float(critical_values(null[None], alpha=alpha, units=units)[0])


def critical_values(null: NDArray[np.float64], *, alpha: float, units: int) -> NDArray[np.float64]:
    """Return `critical_value` of each row of draws (n, draws)."""
    return _widened(np.quantile(null, 1 - alpha, axis=1), units)


def _widened(quantiles: NDArray[np.float64], units: int) -> NDArray[np.float64]:
    from scipy.special import ndtr, stdtrit

    return np.asarray(stdtrit(max(units - 1, 1), ndtr(quantiles)))


def spending(look: int, *, planned: int | None) -> float:
    """Return the share of alpha that may be used up to a look (1 is the first).

    Linear where the number of looks is planned; else look / (look + 100), which never runs out. (The
    usual logarithmic spending gives half of alpha to the first look, and less than a draw in thousands to
    the fortieth.)

    Notes
    -----
    K. K. G. Lan, D. L. DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70
    (1983), 659-663.

    Examples
    --------
    >>> spending(10, planned=40), spending(100, planned=None)
    (0.25, 0.5)
    """
    return min(1.0, look / planned) if planned else look / (look + _HALF_SPENT)


def sequential_values(
    earlier: NDArray[np.float64], *, alpha: float, planned: int | None, units: int
) -> NDArray[np.float64]:
    """Return the critical value of each epoch if the question is asked after every epoch.

    Parameters
    ----------
    earlier : ndarray, shape (T, draws)
        `Maxima.earlier`. At each look as many draws may cross for the first time as `spending` allows; where
        it allows none, the limit is the largest draw.
    alpha : float
        The chance that any look of the whole training crosses where nothing rises.
    planned : int or None
        The number of looks of the training, where it is known.

    Returns
    -------
    ndarray, shape (T,)
        inf at the first epoch, which has none before it.
    """
    epochs, draws = earlier.shape
    limits, alive = np.full(epochs, math.inf), np.ones(draws, dtype=bool)
    for look in range(1, epochs):
        crossings = math.floor(alpha * spending(look, planned=planned) * draws) - int((~alive).sum())
        values = earlier[look][alive]
        place = len(values) - max(crossings, 0) - 1
        limits[look] = np.partition(values, place)[place]
        alive &= earlier[look] <= limits[look]
    return _widened(np.array(limits), units)
