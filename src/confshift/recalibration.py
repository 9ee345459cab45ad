"""What a temperature and one bias for each class repair, and each sample's loss at fits made without it.

The loss has three parts, exactly: scale (what one temperature repairs), class balance (what one bias for each
class repairs beside it) and the rest, what the model knows. Both repairs are fitted to all other samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift.scoring import Block, blocks
from confshift.temperature import Curve, curve_at, expand, fit, left_out_betas, optimum

#: The biases take part where a split has so many samples for each class, and so many in all.
SAMPLES_A_CLASS, FEWEST_SAMPLES = 50, 100
#: Where fewer are wrong, each of them carries so much of the fit that one step does not lead to its own.
FEW_WRONG = 10

#: Stop where the next step would lower the mean loss by less, in nats, and take it: what is then missing is
#: about the square of that.
_TOLERANCE, _TOLERANCE_OF_FEW, _FEW_SAMPLES = 1e-6, 1e-11, 10_000
#: What the mean loss may seem to rise by rounding.
_ROUNDING = 1e-7
_MAX_STEPS = 60
_SMALLEST = 1e-9
#: With more classes than the first number the Hessian is that of a random part, of so many samples a class.
_MANY_CLASSES, _PART_A_CLASS = 256, 20
#: Biases so far apart, in nats, could leave a row nothing but zeros.
_FAR = 40.0
#: How far the parameters may move (root mean square) until the Hessian is computed anew.
_FAR_OF_FEW, _FAR_OF_MANY = 0.02, 0.3
#: A left-out temperature farther off than this, relative to the other, has its loss computed, not expanded.
_NEAR = 0.003
#: From these influences on, g_i' H^-1 g_i in nats, a sample's own fit is made to the end; up to so many
#: numbers a split is small.
_INFLUENTIAL, _INFLUENTIAL_OF_MANY, _SMALL = 0.05, 0.2, 6000
#: A beta that grows so many times has no end: every sample is right.
_ENDLESS = 1e3


@dataclass(frozen=True, eq=False)
class LeftOut:
    """The joint fit of a split, and each sample's loss at the two fits to all other samples."""

    scaled: NDArray[np.float64]  # (N,) at one temperature, in nats; NaN where a sample can't be fitted
    calibrated: NDArray[np.float64]  # (N,) at a temperature and biases, in nats
    beta: float  # 1/T of the joint fit; NaN where biases take no part
    biases: NDArray[np.float64]  # (K,) in nats, their sum 0; (0,) where biases take no part


def biases_take_part(samples: int, classes: int) -> bool:
    """Tell whether a split is large enough for a bias a class: by its size alone, so alike at every epoch."""
    return samples >= max(SAMPLES_A_CLASS * classes, FEWEST_SAMPLES)


def left_out(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.int64], curve: Curve, wrong: NDArray[np.bool_]
) -> LeftOut:
    """Fit a temperature and biases; return each sample's loss at the fits to all the others.

    Parameters
    ----------
    logits : ndarray, shape (N, K)
    targets : ndarray of int64, shape (N,)
    curve : Curve
        The fit of one temperature to these samples, from :func:`temperature.fit`.
    wrong : ndarray of bool, shape (N,)
        The samples whose prediction is wrong.

    Returns
    -------
    LeftOut
        The loss at temperature and biases is that at the temperature alone where the split has fewer than 50
        samples a class or 100 in all, and where every sample is right.

    Notes
    -----
    s = beta z + b minimises the sum of the losses + the sum of b^2 / 2, so the sum of the biases is 0 and an
    absent class has a finite one; multiplying the logits changes nothing. The fit without sample i is one
    Newton step away, theta + H^-1 g_i, its beta within a factor of two of the other; fits without a sample of
    large influence, and without a wrong one where fewer than 10 are wrong, are made to the end.

    A. Alexandari, A. Kundaje and A. Shrikumar, "Maximum Likelihood with Bias-Corrected Calibration is
    Hard-To-Beat at Label Shift Adaptation", ICML 2020.
    """
    usable = ~np.isnan(curve.loss)
    few = wrong & usable
    few = few if few.sum() < FEW_WRONG else np.zeros_like(few)
    scaled = _scaled(logits, targets, curve, few)
    status = optimum(curve)[1]
    if status in ("unscored", "separable") or not biases_take_part(*logits.shape):
        return LeftOut(scaled, scaled, math.nan, np.empty(0))
    if not usable.all():
        logits, targets, few = logits[usable], targets[usable], few[usable]
    problem, joint, beta = _joint(logits, targets, curve)
    calibrated = np.full(len(usable), np.nan)
    calibrated[usable] = problem.left_out(joint, few)
    return LeftOut(scaled, calibrated, beta, joint.theta[1:])


def joint_fit(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.int64]
) -> tuple[float, NDArray[np.float64]]:
    """Return 1/T and the biases (K,) that :func:`left_out` fits, of samples (N, K) with finite losses."""
    _, joint, beta = _joint(logits, targets, fit(logits, targets))
    return beta, joint.theta[1:]


def _joint(
    logits: NDArray[Any], targets: NDArray[np.int64], curve: Curve
) -> tuple[_Problem, _Optimum, float]:
    """Return the problem, its optimum, and the 1/T of that in the unit of these logits."""
    beta, _ = optimum(curve)
    unit = beta or 1 / (math.sqrt(float(np.nanmean(curve.curvature))) or 1.0)
    start = np.zeros(logits.shape[1] + 1)
    start[0] = beta / unit
    problem = _Problem(logits, targets, unit)
    joint = problem.minimised(start)
    return problem, joint, float(joint.theta[0] * unit)


def _scaled(
    logits: NDArray[Any], targets: NDArray[np.int64], curve: Curve, few: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return each sample's loss at the one temperature fitted to all others."""
    betas, (beta, status) = left_out_betas(curve), optimum(curve)
    if status == "ok":
        influence = curve.slope**2 / max(float(np.nansum(curve.curvature)), 1e-300)
        for sample in np.flatnonzero(few | (influence > _influential(*logits.shape))):
            betas[sample] = _refitted(logits, targets, int(sample), betas[sample], beta)
    losses = expand(curve, betas)
    far = np.flatnonzero(np.abs(betas - curve.beta) > _NEAR * curve.beta)
    if len(far):
        for block in blocks(logits[far], targets[far]):
            rows = far[block.rows]
            losses[rows] = _softmax(block, targets[rows], betas[rows, None], np.zeros(1)).loss
    return np.maximum(losses, 0)  # an expansion about a loss near 0 may end below it


def _influential(samples: int, classes: int) -> float:
    """Return from which influence on the fit, in nats, one step does not lead to a sample's own fit.

    A fit to the end costs as much as that to all: in large splits only samples that are far off have one.
    """
    return _INFLUENTIAL if samples * classes <= _SMALL else _INFLUENTIAL_OF_MANY


def _refitted(
    logits: NDArray[Any], targets: NDArray[np.int64], sample: int, start: float, beta_of_all: float
) -> float:
    """Return the beta that is best for all samples but one, within a factor of two of that of all."""
    beta, low, high = start, beta_of_all / 2, 2 * beta_of_all
    for _ in range(_MAX_STEPS):
        others = curve_at(logits, targets, beta)
        others.slope[sample] = others.curvature[sample] = np.nan
        slope, curvature = np.nansum(others.slope), np.nansum(others.curvature)
        # A Newton step, but in log beta where it is long, lest it leads beyond 0.
        bend = curvature * beta  # may be too small for a number, and then says nothing
        step = -slope / bend if bend > 0 else math.copysign(math.inf, -slope)
        proposed = min(max(beta * math.exp(min(max(step, -1.0), 1.0)), low), high)
        if abs(proposed - beta) < 1e-9 * beta:
            break
        beta = proposed
    return beta


class _Softmax(NamedTuple):
    """Some samples at one point of a fit."""

    z: NDArray[np.floating[Any]]  # (n, K) logits below the top; masked ones are 0
    weights: NDArray[np.floating[Any]]  # (n, K) probabilities times `total`
    total: NDArray[np.floating[Any]]  # (n,)
    loss: NDArray[np.float64]  # (n,)


def _softmax(block: Block, targets: NDArray[np.int64], beta: Any, biases: NDArray[Any]) -> _Softmax:
    """Return the softmax of beta z + b; `beta` is a number or (n, 1), `biases` (K,) or (n, K)."""
    z, masked = block.below_top.T if block.axis == 0 else block.below_top, None
    if np.isneginf(z.sum()):  # masked classes, rare
        masked = np.isneginf(z)
        z = np.where(masked, z.dtype.type(0), z)
    scores = z * beta
    scores += biases
    if masked is not None:
        scores[masked] = -np.inf
    if np.ptp(biases) > _FAR:  # else no row's largest is far below 0
        scores -= scores.max(axis=1, keepdims=True)
    at_target = scores[np.arange(len(targets)), targets].astype(np.float64)
    weights = np.exp(scores, out=scores)
    total = weights.sum(axis=1)
    # Rounding could leave a loss just below 0.
    return _Softmax(z, weights, total, np.maximum(np.log(total.astype(np.float64)) - at_target, 0))


class _Sums(NamedTuple):
    """The objective of the joint fit over all samples, and its derivatives."""

    objective: float
    gradient: NDArray[np.float64]  # (K + 1,)
    hessian: NDArray[np.float64]  # (K + 1, K + 1); empty where it wasn't asked for


class _Optimum(NamedTuple):
    theta: NDArray[np.float64]  # (K + 1,): beta in the problem's units, then the biases
    inverse: NDArray[np.float64]  # (K + 1, K + 1) of a Hessian near it; 0 for a beta at its bound
    hessian: NDArray[np.float64]


class _Problem:
    """The joint fit of some samples with finite losses. `unit` is the beta that the parameter 1 means."""

    def __init__(
        self, logits: NDArray[Any], targets: NDArray[np.int64], unit: float, *, ridge: float = 1.0
    ) -> None:
        if not _SMALLEST < unit < 1 / _SMALLEST:  # squares of such logits would leave single precision
            with np.errstate(invalid="ignore", over="ignore"):
                below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
                logits, unit = below * unit, 1.0
        self.logits, self.targets, self.unit, self.ridge = logits, targets, unit, ridge
        self.work: Any = np.float64 if logits.dtype == np.float64 else np.float32

    def minimised(self, start: NDArray[np.float64], hessian: NDArray[np.float64] | None = None) -> _Optimum:
        """Return the optimum, by Newton steps that are halved where they go up.

        The objective is convex, so halving ends. The Hessian, which costs more than all else, stays while
        the steps are short, and they correct it (BFGS; Nocedal and Wright, 2006, section 7.2).
        """
        samples = len(self.targets)
        tolerance = samples * (_TOLERANCE if samples >= _FEW_SAMPLES else _TOLERANCE_OF_FEW)
        theta, sums = start, self._sums(start, hessian=hessian is None)
        model = _Model(start, sums.hessian if hessian is None else hessian)
        for _ in range(_MAX_STEPS):
            step = model.step(theta, sums.gradient)
            if -float(sums.gradient @ step) / 2 <= tolerance or theta[0] > _ENDLESS:
                break
            allowed = sums.objective + _ROUNDING * samples
            following = self._sums(theta + step, hessian=model.is_stale(theta + step))
            for _ in range(_MAX_STEPS):
                if following.objective <= allowed:
                    break
                step = step / 2
                following = self._sums(theta + step, hessian=model.is_stale(theta + step))
            model.pairs.append((step, following.gradient - sums.gradient))
            theta, sums = theta + step, following
            if len(sums.hessian):
                model = _Model(theta, sums.hessian)
        theta = theta + step
        theta[1:] -= theta[1:].mean()
        return _Optimum(theta, model.inverse, model.hessian)

    def _part(self, size: int) -> _Problem:
        """Return the problem of a random part of the samples: folders are sorted by class."""
        samples = len(self.targets)
        rows = np.sort(np.random.default_rng(0).choice(samples, size, replace=False))
        ridge = self.ridge * size / samples
        return _Problem(self.logits[rows], self.targets[rows], self.unit, ridge=ridge)

    def _sums(self, theta: NDArray[np.float64], *, hessian: bool) -> _Sums:
        size = _PART_A_CLASS * (len(theta) - 1)
        if hessian and len(theta) > _MANY_CLASSES and len(self.targets) > 2 * size:
            part = self._part(size)._sums(theta, hessian=True)
            return self._sums(theta, hessian=False)._replace(hessian=part.hessian * len(self.targets) / size)
        biases, classes = theta[1:], len(theta) - 1
        objective = self.ridge * float(biases @ biases) / 2
        gradient = np.r_[0.0, self.ridge * biases]
        second = np.diag(np.r_[0.0, np.full(classes, self.ridge)]) if hessian else np.empty((0, 0))
        unit, each = self.unit, np.arange(1, classes + 1)
        for block in blocks(self.logits, self.targets, self.work):
            targets = self.targets[block.rows]
            z, p, first, losses = self._probabilities(block, theta)
            ones = np.ones(len(targets), p.dtype)
            mass = (ones @ p).astype(np.float64)
            objective += float(losses.sum())
            residual = first - z[np.arange(len(targets)), targets]
            gradient[0] += unit * residual.sum(dtype=np.float64)
            gradient[1:] += mass - np.bincount(targets, minlength=classes)
            if hessian:
                second[1:, 1:] -= p.T @ p
                second[each, each] += mass
                cross = first @ p
                p *= z
                second[0, 1:] += unit * (ones @ p - cross)
                spread = np.einsum("ij,ij->i", p, z) - first * first
                second[0, 0] += unit * unit * spread.sum(dtype=np.float64)
        # The probabilities of a sample add up to 1, so that only rounding can move all biases together.
        gradient[1:] -= gradient[1:].mean() - self.ridge * biases.mean()
        if hessian:
            second[1:, 0] = second[0, 1:]
        return _Sums(objective, gradient, second)

    def _probabilities(
        self, block: Block, theta: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        """Return logits and probabilities, (n, K), the mean logit under these and the loss, (n,)."""
        z, p, total, losses = self._softmax(block, theta[0], theta[1:])
        p /= total[:, None]
        return z, p, np.einsum("ij,ij->i", p, z), losses

    def _softmax(self, block: Block, beta: Any, biases: NDArray[Any]) -> _Softmax:
        scale = np.asarray(beta * self.unit, self.work)
        return _softmax(block, self.targets[block.rows], scale, biases.astype(self.work, copy=False))

    def left_out(self, optimum: _Optimum, few: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return each sample's loss at the fit to all others, (n,)."""
        theta, losses = optimum.theta, np.empty(len(self.targets))
        inverse = optimum.inverse.astype(self.work)
        for block in blocks(self.logits, self.targets, self.work):
            targets = self.targets[block.rows]
            z, p, first, _ = self._probabilities(block, theta)
            residual = self.unit * (first - z[np.arange(len(targets)), targets])
            own = p @ inverse[1:]
            own -= inverse[1 + targets]
            own += residual[:, None] * inverse[0]
            p[np.arange(len(targets)), targets] -= 1
            influence = np.einsum("ij,ij->i", p, own[:, 1:]) + residual * own[:, 0]
            refits = few[block.rows] | (influence > _influential(*self.logits.shape))
            own += theta.astype(self.work)
            np.clip(own[:, 0], theta[0] / 2, 2 * theta[0], out=own[:, 0])
            for row in np.flatnonzero(refits):
                own[row] = self._refitted(block.rows.start + int(row), own[row].astype(np.float64), optimum)
            losses[block.rows] = self._softmax(block, own[:, :1], own[:, 1:]).loss
        return losses

    def _refitted(self, sample: int, start: NDArray[np.float64], whole: _Optimum) -> NDArray[np.float64]:
        """Return the optimum of all samples but one, its beta within a factor of two of that of all."""
        logits, targets = np.delete(self.logits, sample, axis=0), np.delete(self.targets, sample)
        theta = _Problem(logits, targets, self.unit, ridge=self.ridge).minimised(start, whole.hessian).theta
        if whole.theta[0] / 2 <= theta[0] <= 2 * whole.theta[0]:
            return theta
        return np.append(np.clip(theta[0], whole.theta[0] / 2, 2 * whole.theta[0]), start[1:])


class _Model:
    """The Hessian at one point, its inverse, and what later steps say of it."""

    def __init__(self, theta: NDArray[np.float64], hessian: NDArray[np.float64]) -> None:
        self.theta, self.hessian = theta, hessian
        self.inverse = np.zeros_like(hessian)
        free = slice(0 if theta[0] > 0 and hessian[0, 0] > 0 else 1, None)
        self.inverse[free, free] = np.linalg.inv(hessian[free, free])
        self.pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

    def is_stale(self, theta: NDArray[np.float64]) -> bool:
        """Tell whether another Hessian is worth its cost."""
        far = _FAR_OF_MANY if len(theta) > _MANY_CLASSES else _FAR_OF_FEW
        return bool(np.sqrt(np.mean((theta - self.theta) ** 2)) > far)

    def step(self, theta: NDArray[np.float64], gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the step to the model's minimum where beta is not negative."""
        slope, factors = gradient.copy(), []
        for moved, change in reversed(self.pairs):
            factors.append(moved @ slope / (moved @ change))
            slope -= factors[-1] * change
        step = -(self.inverse @ slope)
        for (moved, change), factor in zip(self.pairs, reversed(factors), strict=True):
            step -= moved * (factor + change @ step / (moved @ change))
        if theta[0] + step[0] < 0:
            step[0] = -theta[0]
            step[1:] = -np.linalg.solve(self.hessian[1:, 1:], gradient[1:] + step[0] * self.hessian[1:, 0])
        return step
