"""Vector scaling: a scale and a bias for each class, with its loss and accuracy on samples left out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift.recalibration import SAMPLES_A_CLASS as FEWEST_A_CLASS
from confshift.recalibration import joint_fit

#: Scales are fitted where a split has so many samples for each class.
SAMPLES_A_CLASS = 100
_FOLDS = 5
#: Logits read by one fit.
READ = 4_000_000
_MAX_STEPS = 200


class CrossFit(NamedTuple):
    """Scores are scales * beta * centred z + biases: fitted to all samples, and to four of five folds."""

    beta: float  # 1/T of temperature and biases, the point that the ridge pulls to
    scales: NDArray[np.float64]  # (K,) in units of beta
    biases: NDArray[np.float64]  # (K,) in nats
    rows: NDArray[np.intp]  # (n,) the samples that were read
    losses: NDArray[np.float64]  # (n,) of each by the fit to the other folds, in nats
    hits: NDArray[np.bool_]  # (n,) whether that fit predicts it right


def why_no_scales(samples: int, classes: int) -> str:
    """Say why a split can't have a scale for each class; "" where it can."""
    if classes == 2:
        return "two classes: scales can do nothing that temperature and biases can't"
    if samples < SAMPLES_A_CLASS * classes:
        return f"needs {SAMPLES_A_CLASS} samples a class"
    return "takes too long for so many classes" if SAMPLES_A_CLASS * classes > READ // classes else ""


def centred(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return each row minus the mean of its finite logits: scales must not see a constant of the row."""
    values = np.asarray(logits, np.float64)
    masked = np.isneginf(values)
    counts = np.maximum((~masked).sum(axis=-1, keepdims=True), 1)
    means: NDArray[np.float64] = np.where(masked, 0.0, values).sum(axis=-1, keepdims=True) / counts
    return values - means


def scaled(logits: NDArray[Any], scales: Any, biases: Any) -> NDArray[np.float64]:
    """Return scales * centred logits + biases; masked classes stay masked, whatever their scale."""
    values = centred(logits)
    with np.errstate(invalid="ignore"):  # 0 * inf
        return np.asarray(np.where(np.isneginf(values), values, values * scales + biases))


def losses_and_hits(
    scores: NDArray[np.float64], targets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the loss of each sample in nats, and whether its target has the highest score."""
    top = scores.max(axis=1)
    total = np.exp(scores - top[:, None]).sum(axis=1)
    losses = np.log(total) + top - scores[np.arange(len(targets)), targets]
    return losses, scores.argmax(axis=1) == targets


def cross_fit(logits: NDArray[np.floating[Any]], targets: NDArray[np.int64], *, scales: bool) -> CrossFit:
    """Fit biases and scales to all samples, and to four of five folds for the fifth.

    Parameters
    ----------
    logits : ndarray, shape (N, K)
        Finite losses. Beyond four million logits a fixed subset is read, of 50 samples a class or more.
    targets : ndarray of int64, shape (N,)
    scales : bool
        Whether classes have a scale each; else they are 1, and the fit is that of temperature and biases.

    Returns
    -------
    CrossFit

    Notes
    -----
    Minimises the sum of the losses + half the squared distance from temperature and biases, the scales in
    units of 1/T: a few samples of a class are no reason to leave them. C. Guo, G. Pleiss, Y. Sun and
    K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
    """
    random, rows, classes = np.random.default_rng(0), np.arange(len(targets)), logits.shape[1]
    limit = max(READ // classes, FEWEST_A_CLASS * classes)
    if len(rows) > limit:
        rows = np.sort(random.choice(rows, limit, replace=False))
        logits, targets = logits[rows], targets[rows]
    fold = random.permutation(len(rows)) % _FOLDS
    losses, hits = np.empty(len(rows)), np.empty(len(rows), bool)
    for left_out in range(_FOLDS):
        test = fold == left_out
        beta, sizes, biases = _fitted(logits[~test], targets[~test], scales)
        losses[test], hits[test] = losses_and_hits(scaled(logits[test], beta * sizes, biases), targets[test])
    return CrossFit(*_fitted(logits, targets, scales), rows, losses, hits)


def _fitted(
    logits: NDArray[Any], targets: NDArray[np.int64], scales: bool
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return beta, scales and biases."""
    samples, classes = logits.shape
    beta, joint = joint_fit(logits, targets)
    if not scales:
        return beta, np.ones(classes), joint
    from scipy.optimize import minimize

    units = centred(logits) * beta
    masked = np.isneginf(units)
    units[masked] = 0.0
    each, centre = np.arange(samples), np.r_[np.ones(classes), joint]
    means = np.bincount(targets, units[each, targets], classes), np.bincount(targets, minlength=classes)

    def objective(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = units * theta[:classes]
        scores += theta[classes:]
        scores[masked] = -np.inf
        at_target = scores[each, targets].sum()
        top = scores.max(axis=1)
        scores -= top[:, None]
        p = np.exp(scores, out=scores)
        total = p.sum(axis=1)
        p /= total[:, None]
        away = theta - centre
        value = np.log(total).sum() + top.sum() - at_target + away @ away / 2
        slope = np.r_[np.einsum("ij,ij->j", p, units) - means[0], p.sum(axis=0) - means[1]] + away
        return float(value) / samples, slope / samples

    bounds: list[tuple[float | None, float | None]] = [(0.0, None)] * classes + [(None, None)] * classes
    theta = minimize(
        objective,
        centre,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _MAX_STEPS, "ftol": 1e-10, "gtol": 1e-7},
    ).x
    return beta, theta[:classes], theta[classes:]
