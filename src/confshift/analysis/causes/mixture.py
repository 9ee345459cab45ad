"""Labels of which a share is random: the mixture of a softmax and equal probabilities, fitted to losses."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.grouping import Codes, group_terms
from confshift.analysis.loss_curves import LossCurves

#: Logits in the part of the samples that is fitted first, and samples at least.
_FIRST, _FEWEST_FIRST = 100_000, 100
#: Bounds of log beta and of logit eps: eps from 6e-6 (nothing) to 0.95.
_BOUNDS = ((-10.0, 10.0), (-12.0, 3.0))
#: Steps of a fit in log beta and logit eps, and where it ends: the last one lowers the mean loss by less.
_LONGEST, _SHORTEST, _MAX_STEPS, _SETTLED = np.array([0.5, 2.0]), 1e-6, 60, 1e-9
#: The same for the part that is fitted first.
_ROUGHLY = 1e-4
#: The same for many samples, times their number: after a step of a fifth of a standard error only its square
#: is missing. The fits without a fold are a standard error from that to all. No last step may be longer.
_SETTLED_OF_MANY, _SETTLED_WITHOUT, _LONGEST_LAST = 0.02, 2.0, 0.2
#: Where the scores of both parameters are as alike as this the samples do not tell them apart.
_SINGULAR = 1e-9


def start_of(rng: np.random.Generator, curves: LossCurves, beta: float) -> tuple[float, float]:
    """Return where the fit of many samples begins: at that of a part of them; `beta` is their best 1/T."""
    start, samples = (beta, 0.02), len(curves.targets)
    size = max(_FEWEST_FIRST, _FIRST // curves.classes)
    if samples <= 2 * size:
        return start
    part = curves.only(np.sort(rng.choice(samples, size, replace=False)))
    settled = _SETTLED_OF_MANY / size if curves.many else _ROUGHLY
    return fit_mixture(part, np.ones(size), start, settled=settled)


def log_mixed(losses: NDArray[np.float64], eps: float, classes: int) -> NDArray[np.float64]:
    """Return the logarithm of the mixture's p_y of samples with these losses at the mixture's temperature."""
    return np.asarray(np.log((1 - eps) * np.exp(-losses) + eps / classes))


class _Mixture(NamedTuple):
    """The logarithm of the mixture's p_y of each sample, and its derivatives, (N,) each."""

    log_p: NDArray[np.float64]
    by_beta: NDArray[np.float64]
    by_eps: NDArray[np.float64]
    twice_by_beta: NDArray[np.float64]
    by_both: NDArray[np.float64]  # twice by eps is -by_eps squared


def _mixture(curves: LossCurves, beta: float, eps: float, rows: Any = slice(None)) -> _Mixture:
    loss, slope, curvature = curves.at(beta, rows)
    uniform = 1 / curves.classes
    p = np.exp(-loss)
    mixed = (1 - eps) * p + eps * uniform
    share = p / mixed
    by_beta, by_eps = (eps - 1) * share * slope, uniform / mixed - share
    twice = (1 - eps) * share * (slope**2 - curvature) - by_beta**2
    return _Mixture(np.log(mixed), by_beta, by_eps, twice, share * slope - by_beta * by_eps)


def fit_mixture(
    curves: LossCurves,
    share: NDArray[np.float64],
    start: tuple[float, float],
    *,
    settled: float | None = None,
) -> tuple[float, float]:
    """Return the beta and eps with the highest likelihood of the samples whose share is 1, not 0.

    By Newton steps in log beta and logit eps, shortened where they lead up; the last one lowers the mean loss
    by less than `settled`: by default 1e-9 nats, of more than 200,000 samples what a step of a fifth of a
    standard error does.
    """
    if settled is None:
        settled = _SETTLED_OF_MANY / len(share) if curves.many else _SETTLED
    at = _place_of(start)
    value, slope, bend = _objective(curves, share, at)
    for _ in range(_MAX_STEPS if math.isfinite(value) else 0):
        step = _newton(at, slope, bend)
        following = np.clip(at + step, *np.transpose(_BOUNDS))
        if _is_last(step, slope, settled, curves.many):
            at = following
            break
        found = _objective(curves, share, following)
        while not found[0] <= value + _SETTLED and np.abs(step).max() > _SHORTEST:
            step = step / 4
            following = np.clip(at + step, *np.transpose(_BOUNDS))
            found = _objective(curves, share, following)
        if not math.isfinite(found[0]):
            break
        at, (value, slope, bend) = following, found
    return _parameters_at(at)


def _is_last(step: NDArray[np.float64], slope: NDArray[np.float64], settled: float, many: bool) -> bool:
    return -float(slope @ step) <= 2 * settled and not (many and np.abs(step).max() > _LONGEST_LAST)


def _place_of(parameters: tuple[float, float]) -> NDArray[np.float64]:
    beta, eps = parameters
    return np.asarray(np.clip([math.log(beta), math.log(eps / (1 - eps))], *np.transpose(_BOUNDS)))


def _parameters_at(at: NDArray[np.float64]) -> tuple[float, float]:
    return math.exp(at[0]), 1 / (1 + math.exp(-at[1]))


def fits_without(
    curves: LossCurves, fold: NDArray[np.int8], some: list[int], start: tuple[float, float]
) -> dict[int, tuple[float, float]]:
    """Return, for some folds, the beta and eps fitted to all others; `start` is the fit to all.

    Of many samples one step from the fit to all leads to each, and one pass adds up what these steps take.
    """
    if not curves.many:
        return {left_out: fit_mixture(curves, _without(fold, left_out), start) for left_out in some}
    at, found, folds = _place_of(start), dict[int, tuple[float, float]](), int(fold.max()) + 1
    sums = np.zeros((6, folds))
    for rows in curves.blocks():
        columns = _columns(_mixture(curves, *start, rows))
        sums += [np.bincount(fold[rows], column, folds) for column in columns]
    rest, samples = sums.sum(axis=1, keepdims=True) - sums, len(fold) - np.bincount(fold)
    for left_out in some:
        _, slope, bend = _derivatives(at, rest[:, left_out] / samples[left_out])
        step = _newton(at, slope, bend)
        if _is_last(step, slope, _SETTLED_WITHOUT / len(fold), many=True):
            found[left_out] = _parameters_at(np.clip(at + step, *np.transpose(_BOUNDS)))
        else:
            found[left_out] = fit_mixture(curves, _without(fold, left_out), start)
    return found


def _without(fold: NDArray[np.int8], left_out: int) -> NDArray[np.float64]:
    return np.asarray(fold != left_out, np.float64)


def _objective(
    curves: LossCurves, share: NDArray[np.float64], at: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return minus the mean log likelihood, its gradient (2,) and its Hessian (2, 2)."""
    sums = np.zeros(6)
    for rows in curves.blocks():
        sums += [column @ share[rows] for column in _columns(_mixture(curves, *_parameters_at(at), rows))]
    return _derivatives(at, sums / share.sum())


def _columns(found: _Mixture) -> tuple[NDArray[np.float64], ...]:
    return (*found, -(found.by_eps**2))


def _derivatives(
    at: NDArray[np.float64], means: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return what `_objective` does, from the means of `_columns`, (6,)."""
    beta, eps = _parameters_at(at)
    value, by_beta, by_eps, twice, both, twice_eps = (-means).tolist()
    rate = eps * (1 - eps)
    slope = np.array([beta * by_beta, rate * by_eps])
    cross = beta * rate * both
    bend = [beta**2 * twice + slope[0], rate**2 * twice_eps + (1 - 2 * eps) * slope[1]]
    return value, slope, np.array([[bend[0], cross], [cross, bend[1]]])


def _newton(
    at: NDArray[np.float64], slope: NDArray[np.float64], bend: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a step downwards: Newton's where the Hessian is positive, none beyond a bound."""
    low, high = np.transpose(_BOUNDS)
    free = ~((at <= low) & (slope > 0) | (at >= high) & (slope < 0))
    step = np.zeros(2)
    if free.any():
        values, vectors = np.linalg.eigh(bend[np.ix_(free, free)])
        values = np.maximum(np.abs(values), 1e-12)
        step[free] = -vectors @ (vectors.T @ slope[free] / values)
    shorter = np.minimum(1.0, _LONGEST / np.maximum(np.abs(step), 1e-12)).min()
    return np.asarray(shorter * step)


def floor_error(curves: LossCurves, beta: float, eps: float, codes: Codes | None) -> float:
    """Return the error of eps, by the outer product of scores; with groups by a sandwich of totals."""
    information, scores = np.zeros((2, 2)), list[NDArray[np.float64]]()
    for rows in curves.blocks():
        found = _mixture(curves, beta, eps, rows)
        score = np.stack([beta * found.by_beta, found.by_eps])
        information += score @ score.T
        if codes is not None:
            scores.append(score)
    if not np.linalg.det(information) > _SINGULAR * information.diagonal().prod():
        return math.nan
    inverse = np.linalg.inv(information)
    if codes is None:
        return math.sqrt(inverse[1, 1])
    terms = np.stack([group_terms(of_parameter, codes) for of_parameter in np.hstack(scores)])
    totals = terms * len(codes) / terms.shape[1]
    return math.sqrt((inverse @ (totals @ totals.T) @ inverse)[1, 1])
