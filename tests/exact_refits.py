"""One temperature, and a temperature with one bias for each class, refitted to the last digit: an oracle.

Nothing here is the library's. A row's probabilities are softmax(beta z + b). The first fit moves beta alone
and minimises the sum of the losses; the second moves beta and b and minimises that sum plus half the sum of
the squared biases. beta is at least 0, and MAX_BETA where the loss falls with it for ever.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

MAX_BETA = math.exp(10)
#: Below this Newton decrement a full step lands within its square.
_NEAR = 1e-10


class Parts(NamedTuple):
    """Each row's loss, and left out under either fit: (N,) each, NaN where the loss is not finite."""

    loss: np.ndarray
    one: np.ndarray  # temperature alone
    joint: np.ndarray  # temperature and biases

    @property
    def scale(self):
        return self.loss - self.one

    @property
    def balance(self):
        return self.one - self.joint


class Rows:
    """The rows with a finite loss: logits (n, K) below each row's largest, and targets (n,)."""

    def __init__(self, logits, targets):
        logits, targets = np.asarray(logits, np.float64), np.asarray(targets)
        at_target = logits[np.arange(len(targets)), targets]
        self.finite = (
            ~np.isnan(logits).any(axis=1) & ~np.isposinf(logits).any(axis=1) & np.isfinite(at_target)
        )
        self.targets = targets[self.finite]
        logits = logits[self.finite]
        self.masked = np.isneginf(logits)
        below = logits - logits.max(axis=1, keepdims=True)
        self.z = np.where(self.masked, 0.0, below)
        self.each = np.arange(len(self.targets))
        self.wrong = logits.argmax(axis=1) != self.targets
        self.hit = self.z[self.each, self.targets] == 0  # right, or tied with the right class

    def __len__(self):
        return len(self.targets)

    @property
    def classes(self):
        return self.z.shape[1]

    def losses(self, theta, rows=slice(None)):
        """Return the losses of some rows, and their probabilities, under theta = (beta,) or (beta, b)."""
        scores = theta[0] * self.z[rows]
        if len(theta) > 1:
            scores = scores + theta[1:]
        scores = np.where(self.masked[rows], -np.inf, scores)
        scores -= scores.max(axis=1, keepdims=True)
        weights = np.exp(scores)
        total = weights.sum(axis=1)
        at_target = scores[np.arange(len(total)), self.targets[rows]]
        return np.log(total) - at_target, weights / total[:, None]

    def derivatives(self, theta):
        """Return the losses (n,), their gradients (n, d) and what the sum of their Hessians needs."""
        losses, p = self.losses(theta)
        mean = (p * self.z).sum(axis=1)
        gradients = np.empty((len(self), len(theta)))
        gradients[:, 0] = mean - self.z[self.each, self.targets]
        if len(theta) > 1:
            gradients[:, 1:] = p
            gradients[self.each, 1 + self.targets] -= 1
        return losses, gradients, p, self.z - mean[:, None]

    def system(self, theta, weights):
        """Return the objective, its gradient (d,) and its Hessian (d, d)."""
        losses, gradients, p, centred = self.derivatives(theta)
        hessian = np.empty((len(theta),) * 2)
        moments = weights[:, None] * p * centred
        hessian[0, 0] = (moments * centred).sum()
        gradient = weights @ gradients
        objective = weights @ losses
        if len(theta) > 1:
            hessian[0, 1:] = hessian[1:, 0] = moments.sum(axis=0)
            hessian[1:, 1:] = np.diag(weights @ p + 1) - (weights[:, None] * p).T @ p
            gradient[1:] += theta[1:]
            objective += theta[1:] @ theta[1:] / 2
        return objective, gradient, hessian


def takes_part(samples, classes):
    """Tell whether a split is large enough for biases: 50 samples a class in the mean, and 100 in all."""
    return samples >= max(50 * classes, 100)


def newton(rows, theta, weights, free):
    """Minimise by Newton steps over the parameters that are free, halving those that do not descend."""
    theta = theta.copy()
    for _ in range(200):
        objective, gradient, hessian = rows.system(theta, weights)
        step = np.zeros(len(theta))
        step[free] = -np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        decrement = -gradient @ step
        if decrement <= _NEAR:
            return theta + step
        while not rows.system(theta + step, weights)[0] < objective and np.any(theta + step != theta):
            step /= 2
        theta += step
    raise AssertionError(f"no convergence: decrement {decrement:g}")


def minimise(rows, theta, weights=None):
    """Return the minimiser with beta at least 0, from the start theta = (beta,) or (beta, b).

    The objective is convex: where its free minimum lies below beta = 0, that on the bound is the answer.
    Rows that are all right have none; there the answer is MAX_BETA without biases.
    """
    weights = np.ones(len(rows)) if weights is None else weights
    if rows.hit[weights > 0].all():
        return np.concatenate([[MAX_BETA], np.zeros(len(theta) - 1)])
    free = np.ones(len(theta), bool)
    if np.ptp(rows.z, axis=1)[weights > 0].max() > 0:
        found = newton(rows, theta, weights, free)
        if found[0] >= 0:
            return found
        theta = np.concatenate([[0.0], found[1:]])
    free[0] = False
    return newton(rows, theta, weights, free) if len(theta) > 1 else theta


def fits(rows):
    """Return theta of both fits, (1,) and (K + 1,), in sample."""
    spread = rows.z.std() or 1.0
    one = minimise(rows, np.array([1 / spread]))
    return one, minimise(rows, np.concatenate([one, np.zeros(rows.classes)]))


def steps(rows, theta):
    """Return each row's (d,) step from the fit of all rows towards the fit without it: H^-1 g_i, (n, d)."""
    _, gradients, _, _ = rows.derivatives(theta)
    hessian = rows.system(theta, np.ones(len(rows)))[2]
    size = np.sqrt(np.diag(hessian))  # the scale of beta is not that of b
    size[size == 0] = 1
    return np.linalg.lstsq(hessian / np.outer(size, size), (gradients / size).T, rcond=None)[0].T / size


def refitted(rows, theta, which, factor=math.inf):
    """Return the losses of the rows `which`, each under the fit of all the others, to convergence.

    `factor` bounds how many times beta may become as large: the others may be all right.
    """
    starts, found = theta + steps(rows, theta), np.empty(len(which))
    for at, row in enumerate(which):
        weights = np.ones(len(rows))
        weights[row] = 0
        left_out = minimise(rows, starts[row] if theta[0] > 0 else theta, weights)
        left_out[0] = left_out[0].clip(theta[0] / factor, factor * theta[0]) if theta[0] > 0 else left_out[0]
        found[at] = rows.losses(left_out, slice(row, row + 1))[0][0]
    return found


def exactly(logits, targets):
    """Leave out each row and refit, by brute force: Parts."""
    return _parts(logits, targets, lambda rows, theta: refitted(rows, theta, range(len(rows))))


def by_definition(logits, targets, refit_above=math.inf):
    """Take one step for each row, as the library promises to, and evaluate its loss there: Parts.

    Where fewer than ten rows are wrong, those are refitted, and so is a row whose loss rises, to first order,
    by more than `refit_above` nats where it is left out. beta moves by no more than a factor of two.
    """

    def stepped(rows, theta):
        left_out = theta + steps(rows, theta)
        if len(theta) == 1:  # without the row's own curvature
            _, gradients, p, centred = rows.derivatives(theta)
            own = (p * centred**2).sum(axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                left_out = theta + gradients / (own.sum() - own)[:, None]
        if theta[0] == 0 or rows.hit.all():
            left_out[:, 0] = theta[0]
        left_out[:, 0] = left_out[:, 0].clip(theta[0] / 2, 2 * theta[0])
        each = (slice(row, row + 1) for row in range(len(rows)))
        found = np.array([rows.losses(t, row)[0][0] for t, row in zip(left_out, each, strict=True)])
        far = (steps(rows, theta) * rows.derivatives(theta)[1]).sum(axis=1) > refit_above
        again = np.flatnonzero(far | rows.wrong if rows.wrong.sum() < 10 else far)
        found[again] = refitted(rows, theta, again, factor=2)
        return found

    return _parts(logits, targets, stepped)


def folded(logits, targets, folds=10, seed=0):
    """Fit on all folds but one, and take that one's losses: Parts."""

    def held_out(rows, theta):
        order, found = np.random.default_rng(seed).permutation(len(rows)), np.empty(len(rows))
        for fold in range(folds):
            part = order[fold::folds]
            weights = np.ones(len(rows))
            weights[part] = 0
            found[part] = rows.losses(minimise(rows, theta, weights), part)[0]
        return found

    return _parts(logits, targets, held_out)


def _parts(logits, targets, left_out):
    rows = Rows(logits, targets)
    one, joint = fits(rows)
    columns = [rows.losses(np.ones(1))[0], left_out(rows, one)]
    shared = rows.hit.all() or not takes_part(len(targets), rows.classes)
    columns.append(columns[1] if shared else left_out(rows, joint))
    whole = np.full((3, len(targets)), np.nan)
    whole[:, rows.finite] = columns
    return Parts(*whole)
