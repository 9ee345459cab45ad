"""What a temperature and one bias for each class repair, and each sample's loss at fits made without it.

The loss has three parts, exactly: scale (what one temperature repairs), class balance (what one bias for each
class repairs beside it) and the rest, what the model knows. Both repairs are fitted to all other samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confshift.draws import own_generator
from confshift.joint import MANY_CLASSES, MANY_SAMPLES, Optimum, Problem
from confshift.refits import TOGETHER, refitted
from confshift.temperature import Curve, derivatives, expand, fit, left_out_betas, optimum

#: The biases take part where a split has so many samples for each class, and so many in all.
SAMPLES_A_CLASS, FEWEST_SAMPLES = 50, 100
#: Of many samples, so many are fitted first.
_FIRST_OF_MANY = 50_000
#: Where fewer are wrong, each of them carries so much of the fit that one step does not lead to its own.
FEW_WRONG = 10

#: A left-out temperature farther off than this, relative to the other, has its loss computed, not expanded.
_NEAR = 0.003
#: From these influences on, g_i' H^-1 g_i in nats, a sample's own fit is made to the end; up to so many
#: numbers a split is small.
_INFLUENTIAL, _INFLUENTIAL_OF_MANY, _SMALL = 0.05, 0.2, 6000
#: With many classes, a sample of no more influence has its left-out loss from the expansion, q nats higher.
_EXPANDED = 0.04
#: The product with a triangular root of H^-1 is made in strips so wide: each leaves out what is 0 above it.
_STRIP = 128
_MAX_STEPS = 60


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
    problem, joint, unit = _joint(logits, targets, curve)
    calibrated = np.full(len(usable), np.nan)
    calibrated[usable] = _calibrated(problem, joint, few)
    return LeftOut(scaled, calibrated, float(joint.theta[0] * unit), joint.theta[1:])


@dataclass(frozen=True, eq=False)
class JointFit:
    """A temperature and biases as :func:`left_out` fits them."""

    beta: float  # 1/T
    biases: NDArray[np.float64]  # (K,) in nats
    optimum: Optimum
    unit: float  # the 1/T that a 1 means in `optimum`
    samples: int


def joint_fit(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.int64], *, start: JointFit | None = None
) -> JointFit:
    """Fit a temperature and biases to samples (N, K) with finite losses.

    `start`, the fit to most of these samples or to some more, saves most passes over the logits: there is
    one optimum, and this ends as near to it. More than 200,000 samples start at the fit to 50,000 of them.
    """
    if start is None and len(targets) > MANY_SAMPLES:
        rows = own_generator(0).choice(len(targets), _FIRST_OF_MANY, replace=False, shuffle=False)
        rows.sort()
        start = joint_fit(logits[rows], targets[rows])
    if start is None:
        curve = fit(logits, targets)
        _, joint, unit = _joint(logits, targets, curve)
    else:
        unit, share = start.unit, len(targets) / start.samples
        joint = Problem(logits, targets, unit).minimised(start.optimum.theta, share * start.optimum.hessian)
    return JointFit(float(joint.theta[0] * unit), joint.theta[1:], joint, unit, len(targets))


def _joint(logits: NDArray[Any], targets: NDArray[np.int64], curve: Curve) -> tuple[Problem, Optimum, float]:
    """Return the problem, its optimum, and the 1/T that a 1 means in it."""
    beta, _ = optimum(curve)
    unit = beta or 1 / (math.sqrt(float(np.nanmean(curve.curvature))) or 1.0)
    start = np.zeros(logits.shape[1] + 1)
    start[0] = beta / unit
    problem = Problem(logits, targets, unit)
    return problem, problem.minimised(start), unit


def _scaled(
    logits: NDArray[Any], targets: NDArray[np.int64], curve: Curve, few: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return each sample's loss at the one temperature fitted to all others."""
    betas, (beta, status) = left_out_betas(curve), optimum(curve)
    if status == "ok":
        influence = curve.slope**2 / max(float(np.nansum(curve.curvature)), 1e-300)
        again = np.flatnonzero(few | (influence > _influential(*logits.shape)))
        betas[again] = _refitted_betas(logits, targets, again, betas[again], beta)
    losses = expand(curve, betas)
    far = np.flatnonzero(np.abs(betas - curve.beta) > _NEAR * curve.beta)
    if len(far):
        losses[far] = Problem(logits[far], targets[far], 1.0).losses(betas[far, None])
    return np.maximum(losses, 0)  # an expansion about a loss near 0 may end below it


def _influential(samples: int, classes: int) -> float:
    """Return from which influence on the fit, in nats, one step does not lead to a sample's own fit.

    In large splits only samples that are far off have their own fit.
    """
    return _INFLUENTIAL if samples * classes <= _SMALL else _INFLUENTIAL_OF_MANY


def _refitted_betas(
    logits: NDArray[Any],
    targets: NDArray[np.int64],
    samples: NDArray[np.int64],
    starts: NDArray[np.float64],
    beta_of_all: float,
) -> NDArray[np.float64]:
    """Return for some samples the beta best for all others, within a factor of two of that of all."""
    betas, pending = starts.copy(), np.arange(len(samples))
    for _ in range(_MAX_STEPS):
        slope, curvature = _without(logits, targets, samples[pending], betas[pending])
        # A Newton step, but in log beta where it is long, lest it leads beyond 0.
        bend = curvature * betas[pending]  # may be too small for a number, and then says nothing
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            step = np.where(bend > 0, -slope / bend, -np.copysign(np.inf, slope)).clip(-1.0, 1.0)
        proposed = (betas[pending] * np.exp(step)).clip(beta_of_all / 2, 2 * beta_of_all)
        moves = np.abs(proposed - betas[pending]) > 1e-5 * betas[pending]  # the error is its square
        betas[pending], pending = proposed, pending[moves]
        if not len(pending):
            break
    return betas


def _without(
    logits: NDArray[Any], targets: NDArray[np.int64], samples: NDArray[np.int64], betas: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums of the slopes and of the curvatures of all samples but one, each at a beta."""
    slopes, curvatures = np.empty(len(samples)), np.empty(len(samples))
    together = max(1, TOGETHER // logits.size)
    for start in range(0, len(samples), together):
        some = slice(start, start + together)
        copies, each = len(samples[some]), np.arange(len(samples[some]))
        tiled = (np.tile(logits, (copies, 1)), np.tile(targets, copies)) if copies > 1 else (logits, targets)
        _, slope, curvature = derivatives(*tiled, np.repeat(betas[some], len(targets)))
        for sums, terms in ((slopes, slope), (curvatures, curvature)):
            terms = terms.reshape(copies, len(targets))
            terms[each, samples[some]] = 0
            sums[some] = np.nansum(terms, axis=1)
    return slopes, curvatures


def _calibrated(problem: Problem, whole: Optimum, few: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each sample's loss at the joint fit to all others, (n,).

    With many classes the product with H^-1 would cost more than the fit. Half of it gives the influence q of
    each sample, and its loss is higher by q, to first order. What is missing is at most q / 2, as a sample's
    own share of the Hessian is at most all of it, and in the mean much less: it is the share times q / 2.
    """
    losses, at_whole, rows, part = np.empty(len(few)), np.empty(len(few)), np.arange(len(few)), problem
    limit = _influential(*problem.logits.shape)
    if problem.logits.shape[1] > MANY_CLASSES:
        losses, influence = _expanded(problem, whole)
        at_whole = losses - influence
        rows = np.flatnonzero(few | (influence > _EXPANDED))
        if not len(rows):
            return losses
        part = problem.only(rows)
    inverse, apart = whole.inverse.astype(problem.work), float(np.ptp(whole.theta[1:]))
    influential, starts = [rows[:0]], [np.empty((0, len(inverse)))]
    for block in part.blocks():
        gradients, at_whole[rows[block.rows]] = part.gradients(block, whole.theta)
        own = gradients @ inverse if gradients.flags.c_contiguous else (inverse @ gradients.T).T
        influence = np.einsum("ij,ij->i", gradients, own)
        own += whole.theta.astype(part.work)
        np.clip(own[:, 0], whole.theta[0] / 2, 2 * whole.theta[0], out=own[:, 0])
        some = rows[block.rows]
        # No bias moves farther than by the root of the influence, as H is at least the identity there.
        farthest = apart + 2 * math.sqrt(float(influence.max()))
        losses[some] = part.at(block, own[:, :1], own[:, 1:], farthest).loss
        again = few[some] | (influence > limit)
        influential.append(some[again])
        starts.append(own[again].astype(np.float64))
    again = np.concatenate(influential)
    if len(again):
        refits = refitted(problem, whole, again, np.concatenate(starts), at_whole)
        losses[again] = problem.only(again).losses(refits)
    return losses


def _expanded(problem: Problem, whole: Optimum) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each sample's left-out loss to first order, and its influence."""
    losses, influence = np.empty(len(problem.targets)), np.empty(len(problem.targets))
    root = _root(whole).astype(problem.work)
    for block in problem.blocks():
        gradients, losses[block.rows] = problem.gradients(block, whole.theta)
        influence[block.rows] = _squared_lengths(gradients, root)
    return losses + influence, influence


def _root(whole: Optimum) -> NDArray[np.float64]:
    """Return a lower triangle whose product with its transpose is H^-1."""
    root, free = np.zeros_like(whole.inverse), slice(0 if whole.inverse[0, 0] > 0 else 1, None)
    root[free, free] = np.linalg.cholesky(whole.inverse[free, free])
    return root


def _squared_lengths(gradients: NDArray[Any], root: NDArray[Any]) -> NDArray[np.float64]:
    """Return |g root|^2 of each row of gradients; `root` is a lower triangle."""
    lengths = np.zeros(len(gradients))
    for start in range(0, len(root), _STRIP):
        strip = gradients[:, start:] @ root[start:, start : start + _STRIP]
        lengths += np.einsum("ij,ij->i", strip, strip)
    return lengths
