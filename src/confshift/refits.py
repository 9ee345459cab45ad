"""Joint fits of a temperature and biases, each to all samples but one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from confshift.joint import Optimum, Problem

#: Fits without one sample are made together, of so many numbers in all.
TOGETHER, _NEARBY_TOGETHER = 1 << 17, 1 << 20
_STEPS, _MAX_HALVINGS = 12, 20
#: Of a large split so few are made one by one, of all samples: that costs no more.
_FEW_FITS = 8
#: Such a fit is at its end where the last step lowered the sum of the losses by less, in nats.
_SETTLED, _SETTLED_NEARBY = 1e-8, 1e-4
#: Samples whose probabilities spread so, 1 - sum p^2, may bend; at least so many, at most so many numbers.
_SPREAD, _FEWEST_UNSURE, _MOST_UNSURE = 0.01, 1024, 1 << 22
#: So many samples bend in each fit.
_BENT = 32
#: No step may be longer, where the curvature is that of the model: in nats, its square root.
_LONGEST = 3.0
#: A fit farther away, d' H d in nats, needs all samples: where a few wrong ones carry the fit to all.
_NEARBY = 2.0


def refitted(
    problem: Problem,
    whole: Optimum,
    samples: NDArray[np.int64],
    starts: NDArray[np.float64],
    losses: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return for some samples the optimum of all others, beta within a factor of two of that of all.

    `losses` are those of all samples, (N,), at the optimum of all.
    """
    beta, found, together = whole.theta[0], starts.copy(), TOGETHER // problem.logits.size
    settled = np.zeros(len(samples), bool)
    if together <= 1 and len(samples) > _FEW_FITS:
        found, settled = _Nearby(problem, whole, samples, losses).minimised()
    elif together > 1 and whole.inverse[0, 0] > 0:
        for start in range(0, len(samples), together):
            some = slice(start, start + together)
            found[some], settled[some] = _Without(problem, samples[some]).minimised(starts[some], beta)
    for alone in np.flatnonzero(~settled):
        rest = problem.only(np.delete(np.arange(len(problem.targets)), samples[alone]))
        found[alone] = rest.minimised(starts[alone], whole.hessian).theta
    beyond = (found[:, 0] < beta / 2) | (found[:, 0] > 2 * beta)
    found[beyond, 0] = found[beyond, 0].clip(beta / 2, 2 * beta)
    found[beyond, 1:] = starts[beyond, 1:]
    return found


class _Nearby:
    """Joint fits of a large split, each to all samples but one, by what is known at the fit to all.

    The way to such a fit is short: the sum of all losses is taken to second order along it, but for the few
    samples that bend most, which are computed. The one left out is left out of both.
    """

    def __init__(
        self, problem: Problem, whole: Optimum, samples: NDArray[np.int64], losses: NDArray[np.float64]
    ) -> None:
        self.problem, self.theta, self.samples = problem, whole.theta, samples
        self.rows = self._unsure(losses)
        self.bent = min(_BENT, len(self.rows))
        self.unsure, self.own = (
            _Points(problem, self.rows, whole.theta),
            _Points(problem, samples, whole.theta),
        )
        hessian = problem.hessian(whole.theta, np.union1d(self.rows, samples))
        self.hessian = hessian.astype(problem.work)
        self.inverse, free = np.zeros_like(self.hessian), slice(0 if whole.inverse[0, 0] > 0 else 1, None)
        self.inverse[free, free] = np.linalg.inv(self.hessian[free, free])

    def _unsure(self, losses: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the samples that may bend: the unsure, none of which has hardly a loss."""
        size = min(max(int((losses > _SPREAD / 2).sum()), _FEWEST_UNSURE), len(losses))
        rows = np.sort(np.argpartition(-losses, size - 1)[:size])
        most = max(_MOST_UNSURE // self.problem.logits.shape[1], 1)
        if size <= _FEWEST_UNSURE:
            return rows
        some, spread = self.problem.only(rows), np.empty(size)
        for block in some.blocks():
            weights, total, _ = some.at(block, self.theta[0], self.theta[1:])
            spread[block.rows] = 1 - np.einsum("ij,ij->i", weights, weights) / total**2
        size = min(max(int((spread > _SPREAD).sum()), _FEWEST_UNSURE), most)
        return rows[np.sort(np.argpartition(-spread, size - 1)[:size])]

    def minimised(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the minima, (R, K + 1), and which are."""
        found = np.tile(self.theta, (len(self.samples), 1))
        settled = np.zeros(len(self.samples), bool)
        together = max(1, _NEARBY_TOGETHER // (self.bent * self.problem.logits.shape[1]))
        for start in range(0, len(self.samples), together):
            some = np.arange(start, min(start + together, len(self.samples)))
            moves, settled[some] = self._moves(some)
            found[some] += moves
        return found, settled

    def _moves(self, some: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return how far each fit moves, by quasi-Newton steps from the Hessian of all."""
        own = self.own.gradients[some]
        moves = own @ self.inverse
        bent = self._bent(some, moves)
        slopes, pairs = self._slopes(some, bent, moves), _Pairs(self.inverse)
        for _ in range(_STEPS):
            steps = pairs.steps(slopes)
            missing = -(slopes * steps).sum(axis=1)
            if (missing <= _SETTLED_NEARBY).all():
                break
            steps *= np.minimum(1, _LONGEST / np.sqrt(np.maximum(missing, 1e-30)))[:, None]
            for _ in range(_MAX_HALVINGS):
                following = self._slopes(some, bent, moves + steps)
                too_far = (following * steps).sum(axis=1) > 0.9 * missing
                if not too_far.any():
                    break
                steps[too_far] /= 2
            pairs.append(steps, following - slopes)
            moves, slopes = moves + steps, following
        moves += steps
        near = ((moves @ self.hessian) * moves).sum(axis=1) <= _NEARBY
        return moves.astype(np.float64), near & (missing <= _SETTLED_NEARBY)

    def _bent(self, some: NDArray[np.int64], moves: NDArray[Any]) -> _Points:
        """Return for each fit the samples whose logits its moves spread most, (R, m)."""
        spread = -self.unsure.spread(moves).T
        spread[self.samples[some, None] == self.rows] = 0
        return self.unsure.only(np.argpartition(spread, self.bent - 1, axis=1)[:, : self.bent])

    def _slopes(self, some: NDArray[np.int64], bent: _Points, moves: NDArray[Any]) -> NDArray[Any]:
        """Return the gradients of all losses but each fit's own, (R, K + 1)."""
        own = self.own.only(some[:, None]).change(moves)
        slopes: NDArray[Any] = moves @ self.hessian - self.own.gradients[some] - own
        slopes += bent.change(moves, self.theta)
        return slopes


class _Points:
    """Samples at the fit to all, in one row or in several, (..., K)."""

    def __init__(self, problem: Problem, rows: NDArray[np.int64], theta: NDArray[np.float64]) -> None:
        some = problem.only(rows)
        classes = problem.logits.shape[1]
        self.z, self.p = (np.empty((len(rows), classes), problem.work) for _ in range(2))
        self.masked = np.empty((len(rows), classes), bool) if some.has_masked else None
        self.gradients = np.empty((len(rows), classes + 1), problem.work)
        for block in some.blocks():
            self.gradients[block.rows], _ = some.gradients(block, theta)
            self.z[block.rows] = block.z * problem.work(problem.unit)
            if self.masked is not None and block.masked is not None:
                self.masked[block.rows] = block.masked
        self.p[:] = self.gradients[:, 1:]
        self.p[np.arange(len(rows)), problem.targets[rows]] += 1

    def only(self, which: NDArray[np.int64]) -> _Points:
        """Return some of them; `which` may have more dimensions."""
        points = object.__new__(_Points)
        points.z, points.p = self.z[which], self.p[which]
        points.masked = None if self.masked is None else self.masked[which]
        return points

    def spread(self, moves: NDArray[Any]) -> NDArray[Any]:
        """Return the variance of what each move adds to the logits of each sample, (samples, moves)."""
        first = self.p * self.z
        scale, biases = moves[:, 0], moves[:, 1:].T
        mean = first.sum(axis=1)[:, None] * scale + self.p @ biases
        square: NDArray[Any] = np.einsum("ij,ij->i", first, self.z)[:, None] * scale**2
        square += 2 * (first @ (biases * scale)) + self.p @ biases**2
        square -= mean**2
        return square

    def change(self, moves: NDArray[Any], theta: NDArray[np.float64] | None = None) -> NDArray[Any]:
        """Return how the sum of the gradients changes along each move, to first order: (R, K + 1).

        With `theta` it is what that order leaves out: the change itself less the first order's.
        """
        added = self.z * moves[:, :1, None] + moves[:, None, 1:]
        change = added - np.einsum("rmk,rmk->rm", self.p, added)[:, :, None]
        change *= self.p
        if theta is not None:
            added += self.z * self.z.dtype.type(theta[0])
            added += theta[1:].astype(self.z.dtype)
            if self.masked is not None:
                added[self.masked] = -np.inf
            added -= added.max(axis=2, keepdims=True)
            np.exp(added, out=added)
            added /= added.sum(axis=2, keepdims=True)
            added -= self.p
            change = added - change
        columns = np.einsum("rmk,rmk->r", change, self.z)[:, None], change.sum(axis=1)
        return np.concatenate(columns, axis=1)


class _Pairs:
    """Steps and the changes of the gradients along them, of several fits at once, about one inverse."""

    def __init__(self, inverse: NDArray[Any]) -> None:
        self.inverse, self.pairs = inverse, list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]()

    def append(self, steps: NDArray[Any], changes: NDArray[Any]) -> None:
        """Add a pair for each fit, but where rounding leaves it no curvature."""
        curvature = (steps * changes).sum(axis=1, keepdims=True)
        kept = curvature > 1e-12
        self.pairs.append((steps * kept, changes * kept, kept / np.where(kept, curvature, 1)))

    def steps(self, slopes: NDArray[Any]) -> NDArray[Any]:
        """Return each fit's quasi-Newton step (L-BFGS; Nocedal and Wright, 2006, section 7.2)."""
        slopes, factors = slopes.copy(), []
        for moved, change, inverse in reversed(self.pairs):
            factors.append((moved * slopes).sum(axis=1, keepdims=True) * inverse)
            slopes -= factors[-1] * change
        steps: NDArray[Any] = -(slopes @ self.inverse)
        for (moved, change, inverse), factor in zip(self.pairs, reversed(factors), strict=True):
            steps -= moved * (factor + (change * steps).sum(axis=1, keepdims=True) * inverse)
        return steps


class _Without:
    """Joint fits of a small split, each to all samples but one: R at once, by Newton steps."""

    def __init__(self, problem: Problem, samples: NDArray[np.int64]) -> None:
        blocks = list(problem.blocks())
        self.z = np.concatenate([block.z for block in blocks]).astype(np.float64) * problem.unit
        self.masked = np.concatenate([block.masked for block in blocks]) if problem.has_masked else None
        self.at_target = self.z[np.arange(len(self.z)), problem.targets]
        each, classes = np.arange(len(samples)), self.z.shape[1]
        self.kept = np.ones((len(samples), len(self.z)))  # (R, N)
        self.kept[each, samples] = 0
        self.counts = np.tile(np.bincount(problem.targets, minlength=classes), (len(samples), 1))  # (R, K)
        self.counts[each, problem.targets[samples]] -= 1
        self.ridge = problem.ridge

    def minimised(
        self, starts: NDArray[np.float64], beta: float
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the minima, (R, K + 1), and which are: not those beyond a factor of two of `beta`."""
        theta, failed = starts, np.zeros(len(starts), bool)
        for _ in range(_STEPS):
            gradient, hessian = self._derivatives(theta)
            steps = -np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
            missing = -(gradient * steps).sum(axis=1)
            theta = theta + steps
            failed |= ~((theta[:, 0] >= beta / 2) & (theta[:, 0] <= 2 * beta))
            theta[failed] = starts[failed]
            if (failed | (missing <= _SETTLED)).all():
                break
        return theta, ~failed & (missing <= _SETTLED)

    def _derivatives(self, theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the gradients (R, K + 1) and the Hessians (R, K + 1, K + 1)."""
        p = self._probabilities(theta)
        first = np.einsum("rnk,nk->rn", p, self.z)
        mass, weighted = p.sum(axis=1), p * self.z
        gradient, hessian = np.empty(theta.shape), np.empty((*theta.shape, theta.shape[1]))
        gradient[:, 0] = (first - self.kept * self.at_target).sum(axis=1)
        gradient[:, 1:] = mass - self.counts + self.ridge * theta[:, 1:]
        hessian[:, 1:, 1:] = -p.transpose(0, 2, 1) @ p
        diagonal = np.arange(1, theta.shape[1])
        hessian[:, diagonal, diagonal] += mass + self.ridge
        cross = weighted.sum(axis=1) - np.einsum("rn,rnk->rk", first, p)
        hessian[:, 0, 1:] = hessian[:, 1:, 0] = cross
        # Without the one sample that has any, beta has no curvature: such a step leads far away.
        spread = np.einsum("rnk,nk->r", weighted, self.z) - (first * first).sum(axis=1)
        hessian[:, 0, 0] = np.maximum(spread, 1e-300)
        return gradient, hessian

    def _probabilities(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probabilities, (R, N, K); those of the sample left out are 0."""
        p = theta[:, :1, None] * self.z + theta[:, None, 1:]
        if self.masked is not None:
            p[:, self.masked] = -np.inf
        p -= p.max(axis=2, keepdims=True)
        np.exp(p, out=p)
        p *= (self.kept / p.sum(axis=2))[:, :, None]
        return p
