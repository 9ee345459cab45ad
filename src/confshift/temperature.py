"""One temperature: the fit, and what each sample's loss would be at a temperature fitted without it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift.draws import own_generator
from confshift.scoring import Block, blocks

#: Where separable data (no sample wrong at any temperature) ends, whose loss falls with 1/T for ever.
MAX_BETA = math.exp(10)

_SUBSET = 2048
_TOLERANCE = 1e-7
_MAX_PASSES = 60
#: After this many steps, all upwards, find out whether there is an optimum at all.
_PATIENCE = 6
#: Logits up to this size are brought into blocks once for all steps, in bytes.
_MAX_KEPT = 1 << 22


@dataclass(frozen=True, eq=False)
class Curve:
    """Each sample's loss as a function of beta = 1/T near `beta`: value and two derivatives.

    A sample that can't be scored holds NaN and takes no part in a fit.
    """

    beta: float
    loss: NDArray[np.float64]
    slope: NDArray[np.float64]
    curvature: NDArray[np.float64]


def curve_at(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    beta: float,
    parts: Iterable[Block] | None = None,
) -> Curve:
    """Evaluate lse(beta z) - beta z_y and its first two derivatives in beta, for each sample.

    Parameters
    ----------
    logits : ndarray, shape (N, K)
    targets : ndarray of int64, shape (N,)
    beta : float, at least 0
        The inverse temperature.
    parts : iterable of Block, optional
        What :func:`_parts` makes of logits and targets, where that is kept.

    Returns
    -------
    Curve
        Slope E_p z - z_y and curvature Var_p z, p the softmax of beta z. Half and single precision
        logits are exponentiated in single precision and summed in double.
    """
    return Curve(beta, *derivatives(logits, targets, beta, parts))


def derivatives(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    beta: float | NDArray[np.float64],
    parts: Iterable[Block] | None = None,
) -> NDArray[np.float64]:
    """Return loss, slope and curvature of :func:`curve_at`, (3, N); here beta may be one for each sample."""
    columns = np.empty((3, len(targets)))
    for block in _parts(logits, targets) if parts is None else parts:
        rows = block.rows
        own = beta[rows] if isinstance(beta, np.ndarray) else beta
        loss, slope, curvature = columns[:, rows]
        loss[:], slope[:], curvature[:] = _block_curve(block, own)
        # A masked true class has an infinite loss at every temperature: it can't be fitted.
        unusable = ~np.isfinite(loss) | ~np.isfinite(curvature)
        if unusable.any():
            columns[:, rows][:, unusable] = np.nan
    return columns


def _parts(logits: NDArray[np.floating[Any]], targets: NDArray[np.int64]) -> Iterator[Block]:
    return blocks(logits, targets, np.float64 if logits.dtype == np.float64 else np.float32)


def _block_curve(block: Block, beta: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    below, at_target = block.below_top, block.at_target.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        total, first, second = _moments(below, beta, block.axis)
        if not np.isfinite(second).all():  # masked classes: 0 * inf; rare, so checked only here
            masked = np.isneginf(below)
            below = np.where(masked, below.dtype.type(0), below)
            total, first, second = _moments(below, beta, block.axis, masked)
            if np.isinf(second).any():  # logits beyond 1e19, whose squares need double precision
                total, first, second = _moments(below.astype(np.float64), beta, block.axis, masked)
        loss = np.log(total) - beta * at_target
        return loss, first - at_target, np.maximum(second - first * first, 0)


def _moments(
    below: NDArray[Any], beta: Any, axis: int, masked: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of w = exp(beta d) over the classes, and the w-weighted means of d and of d squared."""
    scale = np.asarray(beta, below.dtype)
    weights = np.exp(below * (scale[:, None] if scale.ndim and axis == 1 else scale))
    if masked is not None:
        weights[masked] = 0
    terms = "ji,ji->i" if axis == 0 else "ij,ij->i"
    total = weights.sum(axis=axis).astype(np.float64)
    first = np.einsum(terms, weights, below) / total
    weights *= below
    return total, first, np.einsum(terms, weights, below) / total


def fit(logits: NDArray[np.floating[Any]], targets: NDArray[np.int64], *, seed: int = 0) -> Curve:
    """Find the temperature with the least mean loss; return each sample's curve there.

    Parameters
    ----------
    logits : ndarray, shape (N, K)
    targets : ndarray of int64, shape (N,)
    seed : int
        For the random subset that gives the starting point: the first rows would not do, since folders
        are sorted by class.

    Returns
    -------
    Curve
        At a beta within a Newton step of 1e-4 of the optimum; :func:`optimum` takes that last step, whose
        error is its square. `beta` is 0 where no positive one beats the uniform prediction, and
        :data:`MAX_BETA` where the loss falls for ever (every sample right). Logits on a very small scale
        have their optimum beyond it.

    Notes
    -----
    Temperature scaling: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks",
    ICML 2017, section 4.2. The mean loss is convex in beta, so a safeguarded Newton search can't diverge.
    """
    start = 1.0
    if len(targets) > 2 * _SUBSET:
        rows = np.sort(own_generator(seed).choice(len(targets), _SUBSET, replace=False))
        start = _newton(logits[rows], targets[rows], 1.0, tolerance=3e-2).beta
        start = min(max(start, 1e-3), MAX_BETA / 2)  # the subset's bound need not be the whole set's
    return _newton(logits, targets, start, tolerance=1e-4)


def _newton(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.int64], start: float, *, tolerance: float
) -> Curve:
    """Newton steps inside a shrinking bracket; stop when the step is small, BEFORE testing the bracket.

    (Rounding in the slope would otherwise send the last steps into bisection.)
    """
    low, high, beta = 0.0, math.inf, start
    parts = list(_parts(logits, targets)) if logits.nbytes <= _MAX_KEPT else None
    curve = curve_at(logits, targets, beta, parts)
    for passes in range(_MAX_PASSES):
        slope, curvature = _totals(curve)
        step = -slope / curvature if curvature > 0 else (math.copysign(math.inf, -slope) if slope else 0.0)
        if abs(step) <= tolerance * beta:
            return curve
        low, high = (low, beta) if slope > 0 else (beta, high)
        if passes == _PATIENCE and math.isinf(high) and _separable(logits, targets, ~np.isnan(curve.slope)):
            return curve_at(logits, targets, MAX_BETA, parts)
        proposal = beta + step
        if not low < proposal < high:
            proposal = _within(low, high, beta, slope, curvature)
        if proposal < _TOLERANCE:
            at_zero = curve_at(logits, targets, 0.0, parts)
            if _totals(at_zero)[0] >= 0:
                return at_zero
        if beta < MAX_BETA <= proposal and _separable(logits, targets, ~np.isnan(curve.slope)):
            return curve_at(logits, targets, MAX_BETA, parts)
        beta = proposal
        curve = curve_at(logits, targets, beta, parts)
    return curve


def _separable(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.int64], usable: NDArray[np.bool_]
) -> bool:
    """Tell whether every usable sample's true class has the largest logit: then the loss falls for ever."""
    return all(bool((block.at_target[usable[block.rows]] == 0).all()) for block in blocks(logits, targets))


def _totals(curve: Curve) -> tuple[float, float]:
    usable = ~np.isnan(curve.slope)
    return float(curve.slope[usable].sum()), float(curve.curvature[usable].sum())


def _within(low: float, high: float, beta: float, slope: float, curvature: float) -> float:
    """Return a beta where Newton's leaves the bracket: Newton in log beta downwards, a leap upwards."""
    if slope > 0:
        # No curvature at all: beta is too large by many orders of magnitude, and so are the logits.
        down = beta * math.exp(-slope / (slope + beta * curvature)) if curvature > 0 else beta / 1024
        return down if low < down < high else (low + high) / 2
    return min(4 * beta, (low + high) / 2) if math.isfinite(high) else 4 * beta


def optimum(curve: Curve) -> tuple[float, str]:
    """Return the optimal beta and a status: "ok", "uniform" (beta 0), "separable" (`MAX_BETA`) or "unscored".

    A curve is "unscored" if none of its samples can be scored; its beta then means nothing.
    """
    return optimum_of(curve.beta, sums_of(curve.slope, curve.curvature))


class Sums(NamedTuple):
    """What `optimum` depends on beside beta: sums over the samples that can be scored."""

    slope: float = 0.0
    curvature: float = 0.0
    scored: int = 0
    rising: int = 0  # how many slopes are above 0


def sums_of(slope: NDArray[np.float64], curvature: NDArray[np.float64]) -> Sums:
    """Return the sums over some samples, of the columns of a curve; those of other samples may be added."""
    missing = np.isnan(slope)
    all_scored = not missing.any()
    slopes, curvatures = (
        np.ascontiguousarray(column) if all_scored else column[~missing] for column in (slope, curvature)
    )
    return Sums(float(slopes.sum()), float(curvatures.sum()), len(slopes), int((slopes > 0).sum()))


def optimum_of(beta: float, sums: Sums) -> tuple[float, str]:
    """Return :func:`optimum` of a curve at `beta` whose samples have these sums."""
    if not sums.scored:
        return beta, "unscored"
    if beta == 0.0:
        return 0.0, "uniform"
    if beta == MAX_BETA and not sums.rising:
        return MAX_BETA, "separable"
    step = -sums.slope / sums.curvature if sums.curvature > 0 else 0.0
    return max(beta + step, 0.0), "ok"


def left_out_betas(curve: Curve) -> NDArray[np.float64]:
    """Return for each sample the beta fitted to all the others, by one Newton step from `curve.beta`.

    beta_-i = beta0 - (G - g_i) / (H - h_i), G and H the sums of slopes and curvatures. Deterministic:
    no folds, no seed. At a bound, or where the fit depends on a single sample, it is beta itself.
    """
    beta, status = optimum(curve)
    betas = np.where(np.isnan(curve.slope), np.nan, beta)
    if status != "ok":
        return betas
    slope, curvature = _totals(curve)
    rest = curvature - curve.curvature
    usable = rest > 1e-9 * curvature
    betas[usable] = curve.beta - (slope - curve.slope[usable]) / rest[usable]
    # No sample may move the fit by more than a factor of two: beyond that, the expansion means nothing.
    return np.clip(betas, beta / 2, 2 * beta)


def expand(curve: Curve, betas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each sample's loss at its beta, to second order about `curve.beta`; needs no logits."""
    move = betas - curve.beta
    return curve.loss + curve.slope * move + curve.curvature * move * move / 2
