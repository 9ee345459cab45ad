"""Linear maps of the logits: biases, a scale a class, a matrix; with their losses on samples left out."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift import temperature
from confshift.analysis.grouping import Codes, codes_at, folds_of
from confshift.draws import own_generator
from confshift.joint import MANY_SAMPLES, Problem
from confshift.recalibration import SAMPLES_A_CLASS as FEWEST_A_CLASS
from confshift.recalibration import JointFit, joint_fit

#: Biases alone; a scale for each class beside them; a weight for each pair of classes beside them.
Kind = Literal["biases", "vector", "matrix"]

#: Scales and matrices are fitted where a split has so many samples for each class.
SAMPLES_A_CLASS = 100
#: A matrix has a weight for each pair of classes: with more classes its fits take too long.
MOST_CLASSES = 100
_FOLDS = 5
#: Logits read by one fit.
READ = 4_000_000
_MAX_STEPS = 200


class Fit(NamedTuple):
    """Scores are weights * beta * centred z + biases."""

    beta: float  # 1/T of the point that the ridge pulls to
    weights: NDArray[np.float64]  # (K,) of each class, or (K, K) of each pair, in units of beta
    biases: NDArray[np.float64]  # (K,) in nats


class CrossFit(NamedTuple):
    """A map fitted to all samples, and what the fits to four of five folds say of the fifth."""

    whole: Fit
    rows: NDArray[np.intp]  # (n,) the samples that were read
    losses: NDArray[np.float64]  # (n,) of each by the fit to the other folds, in nats
    hits: NDArray[np.bool_]  # (n,) whether that fit predicts it right


def why_not(kind: Kind, samples: int, classes: int) -> str:
    """Say why a split can't have a map of this kind; "" where it can."""
    if kind == "biases":
        return ""
    name = "scales" if kind == "vector" else "a matrix"
    if classes == 2:
        return f"two classes: {name} can do nothing that temperature and biases can't"
    if kind == "matrix" and classes > MOST_CLASSES:
        return f"takes too long for more than {MOST_CLASSES} classes"
    if samples < SAMPLES_A_CLASS * classes:
        return f"needs {SAMPLES_A_CLASS} samples a class"
    return "takes too long for so many classes" if SAMPLES_A_CLASS * classes > READ // classes else ""


def centred(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return each row minus the mean of its finite logits: weights must not see a constant of the row."""
    values = np.asarray(logits, np.float64)
    masked = np.isneginf(values)
    counts = np.maximum((~masked).sum(axis=-1, keepdims=True), 1)
    means: NDArray[np.float64] = np.where(masked, 0.0, values).sum(axis=-1, keepdims=True) / counts
    return values - means


def mapped(logits: NDArray[Any], weights: NDArray[np.float64], biases: Any) -> NDArray[np.float64]:
    """Return weights * centred logits + biases; a masked class stays so, and is the row's mean to others."""
    if weights.ndim == 1 and weights[0] > 0 and (weights == weights[0]).all():  # the mean moves all alike
        return np.asarray(weights[0] * np.asarray(logits, np.float64) + biases)
    values = centred(logits)
    masked = np.isneginf(values)
    with np.errstate(invalid="ignore"):  # 0 * inf
        moved = _weighted(np.where(masked, 0.0, values), weights) + biases
    return np.asarray(np.where(masked, -np.inf, moved))


def _weighted(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return values * weights if weights.ndim == 1 else values @ weights.T


def losses_and_hits(
    scores: NDArray[np.float64], targets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the loss of each sample in nats, and whether its target has the highest score."""
    top = scores.max(axis=1)
    total = np.exp(scores - top[:, None]).sum(axis=1)
    losses = np.log(total) + top - scores[np.arange(len(targets)), targets]
    return losses, scores.argmax(axis=1) == targets


def cross_fit(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    kind: Kind,
    *,
    codes: Codes | None = None,
) -> CrossFit:
    """Fit a map to all samples, and to four of five folds for the fifth.

    Parameters
    ----------
    logits : ndarray, shape (N, K)
        Finite losses. Beyond four million logits a fixed subset is read, of 50 samples a class or more.
    targets : ndarray of int64, shape (N,)
    kind : {"biases", "vector", "matrix"}
    codes : ndarray of int, shape (N,), optional
        Of groups that err together: no group is in two folds.

    Returns
    -------
    CrossFit
        The rows and folds are the same for each kind.

    Notes
    -----
    A vector minimises the sum of the losses + half the squared distance from temperature and biases, the
    scales in units of 1/T: a few samples of a class are no reason to leave them. C. Guo, G. Pleiss, Y. Sun
    and K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.

    A matrix minimises the sum of the losses + K |b|^2 + K |v|^2 + K (K - 1) |M|^2, where I + diag(v) + M are
    its weights in units of 1/T of one temperature, and M has no diagonal. E. Berta, D. Holzmueller,
    M. I. Jordan and F. Bach, "Structured Matrix Scaling for Multi-Class Calibration", arXiv 2511.03685, with
    the ridge and the strengths that their package probmetrics 1.3 has by default; they fit to logarithms of
    probabilities mixed with a little of equal ones, here logits are centred: the map stays linear in them.

    Biases of more than 200,000 samples: each fit without a fold is one Newton step away from that to all. The
    losses so left out are off by less than a hundredth of their standard error, in the mean.
    """
    random, rows, classes = own_generator(0), np.arange(len(targets)), logits.shape[1]
    limit = max(READ // classes, FEWEST_A_CLASS * classes)
    if len(rows) > limit:
        rows = np.sort(random.choice(rows, limit, replace=False))
        logits, targets = logits[rows], targets[rows]
    fold = folds_of(random, len(rows), _FOLDS, codes_at(codes, rows))
    if kind == "biases" and len(rows) > MANY_SAMPLES:
        return _biases_of_many(logits, targets, fold, rows)
    losses, hits = np.empty(len(rows)), np.empty(len(rows), bool)
    joint = None if kind == "matrix" else joint_fit(logits, targets)
    whole = _fitted(logits, targets, kind, joint)
    for left_out in range(_FOLDS):
        test, others = np.flatnonzero(fold == left_out), np.flatnonzero(fold != left_out)
        some = logits[others], targets[others]
        fit = _fitted(*some, kind, None if joint is None else joint_fit(*some, start=joint), start=whole)
        scores = mapped(logits[test], fit.beta * fit.weights, fit.biases)
        losses[test], hits[test] = losses_and_hits(scores, targets[test])
    return CrossFit(whole, rows, losses, hits)


def _biases_of_many(
    logits: NDArray[Any], targets: NDArray[np.int64], fold: NDArray[np.int8], rows: NDArray[np.intp]
) -> CrossFit:
    """Return `cross_fit` of biases: one step from the fit to all samples leads to that without a fold.

    A fold moves the fit by a standard error, and what is then missing is the square of that.
    """
    joint = joint_fit(logits, targets)
    problem, whole, classes = Problem(logits, targets, joint.unit), joint.optimum, logits.shape[1]
    sums, folds = np.zeros((_FOLDS, classes + 1)), np.arange(_FOLDS)[:, None]
    for block in problem.blocks():
        gradients, _ = problem.gradients(block, whole.theta)
        sums += (fold[block.rows] == folds).astype(gradients.dtype) @ gradients
    slopes = sums.sum(axis=0) - sums
    slopes[:, 1:] += problem.ridge * whole.theta[1:] - slopes[:, 1:].mean(axis=1, keepdims=True)
    share = 1 - np.bincount(fold, minlength=_FOLDS) / len(fold)
    without = (whole.theta - slopes @ whole.inverse / share[:, None]).astype(problem.work)
    np.maximum(without[:, 0], 0, out=without[:, 0])
    losses, hits = np.empty(len(rows)), np.empty(len(rows), bool)
    for block in problem.blocks():
        own = without[fold[block.rows]]
        found = problem.at(block, own[:, :1], own[:, 1:])
        losses[block.rows] = found.loss
        hits[block.rows] = found.weights.argmax(axis=1) == block.targets
    return CrossFit(Fit(joint.beta, np.ones(classes), joint.biases), rows, losses, hits)


def _fitted(
    logits: NDArray[Any],
    targets: NDArray[np.int64],
    kind: Kind,
    joint: JointFit | None,
    *,
    start: Fit | None = None,
) -> Fit:
    """Return the best map of a kind; `start` is near it, which saves steps: there is one optimum.

    `joint`: temperature and biases fitted to these samples; a matrix does without.
    """
    classes = logits.shape[1]
    if joint is None:
        beta, _ = temperature.optimum(temperature.fit(logits, targets))
        of_pairs = np.full((classes, classes), 2.0 * classes * (classes - 1))
        np.fill_diagonal(of_pairs, 2.0 * classes)
        ridge = np.r_[of_pairs.ravel(), np.full(classes, 2.0 * classes)]
        return _minimised(logits, targets, Fit(beta, np.eye(classes), np.zeros(classes)), ridge, start)
    centre = Fit(joint.beta, np.ones(classes), joint.biases)
    return centre if kind == "biases" else _minimised(logits, targets, centre, np.ones(2 * classes), start)


def _minimised(
    logits: NDArray[Any],
    targets: NDArray[np.int64],
    centre: Fit,
    ridge: NDArray[np.float64],
    start: Fit | None,
) -> Fit:
    """Return the minimiser of the losses + half the squared distance from `centre`, weighted by `ridge`."""
    from scipy.optimize import minimize

    samples, classes = logits.shape
    units = centred(logits) * centre.beta
    masked = np.isneginf(units)
    units[masked] = 0.0
    each, shape, origin = np.arange(samples), centre.weights.shape, _flat(centre)

    def objective(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, biases = theta[:-classes].reshape(shape), theta[-classes:]
        scores = _weighted(units, weights)
        scores += biases
        scores[masked] = -np.inf
        at_target = scores[each, targets].sum()
        top = scores.max(axis=1)
        scores -= top[:, None]
        p = np.exp(scores, out=scores)
        total = p.sum(axis=1)
        p /= total[:, None]
        away = theta - origin
        value = np.log(total).sum() + top.sum() - at_target + away @ (ridge * away) / 2
        p[each, targets] -= 1
        by_weights = np.einsum("ij,ij->j", p, units) if len(shape) == 1 else p.T @ units
        slope = np.r_[by_weights.ravel(), p.sum(axis=0)] + ridge * away
        return float(value) / samples, slope / samples

    # A scale below 0 would turn the order of a class around.
    lowest = [0.0 if len(shape) == 1 else None] * centre.weights.size + [None] * classes
    theta = minimize(
        objective,
        origin if start is None else _flat(start),
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, None) for low in lowest],
        options={"maxiter": _MAX_STEPS, "ftol": 1e-10, "gtol": 1e-7},
    ).x
    return Fit(centre.beta, theta[:-classes].reshape(shape), theta[-classes:])


def _flat(fit: Fit) -> NDArray[np.float64]:
    return np.concatenate([fit.weights.ravel(), fit.biases])
