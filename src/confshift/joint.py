"""The joint fit of a temperature and one bias for each class: its sums over the samples, and its steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift.draws import own_generator

#: Stop where the next step would lower the mean loss by less, in nats, and take it: what is then missing is
#: about the square of that. The first fit, to a part of the samples, is no better than its samples are.
_TOLERANCE, _TOLERANCE_OF_FEW, _FEW_SAMPLES = 3e-6, 1e-11, 10_000
#: Fits to more samples than this end where their error is far below the standard error.
MANY_SAMPLES = 200_000
#: What the mean loss may seem to rise by rounding.
_ROUNDING = 1e-7
_MAX_STEPS = 60
_SMALLEST = 1e-9
#: A random part of so many samples, and so many a class, is fitted first where it is less than half of them.
_PART, _PART_A_CLASS = 4000, 20
#: With more classes than this the Hessian is that of the part.
MANY_CLASSES = 256
#: Biases so far apart, in nats, could leave a row nothing but zeros.
_FAR = 40.0
#: With more classes than this a Hessian costs as much as several steps of iterative scaling, and so many come
#: first.
_SCALE_AGAIN, _SCALINGS = 512, 3
#: How far the parameters may move (root mean square) until the Hessian is computed anew.
_FAR_OF_FEW, _FAR_OF_MANY = 0.02, 0.3
#: A beta that grows so many times has no end: every sample is right.
_ENDLESS = 1e3
#: Blocks of about so many numbers stay in a core's cache; so many in all are kept between the passes.
_BLOCK, _KEPT = 1 << 17, 1 << 21
#: Below this width the classes come first in memory: a row is too short to be added up fast.
_NARROW = 32


class Block(NamedTuple):
    """Some samples."""

    rows: slice
    z: NDArray[np.floating[Any]]  # (n, K) logits below the top; masked ones are 0
    masked: NDArray[np.bool_] | None  # (n, K); None where no logit is
    targets: NDArray[np.int64]  # (n,)


class _Softmax(NamedTuple):
    """Some samples at one point of a fit."""

    weights: NDArray[np.floating[Any]]  # (n, K) probabilities times `total`
    total: NDArray[np.floating[Any]]  # (n,)
    loss: NDArray[np.float64]  # (n,)


def _softmax(block: Block, beta: Any, biases: NDArray[Any], apart: float) -> _Softmax:
    """Return the softmax of beta z + b; `beta` is a number or (n, 1), `biases` (K,) or (n, K)."""
    scores = block.z * beta
    scores += biases
    if block.masked is not None:
        scores[block.masked] = -np.inf
    if apart > _FAR:  # else no row's largest is far below 0
        scores -= scores.max(axis=1, keepdims=True)
    at_target = scores[np.arange(len(scores)), block.targets].astype(np.float64)
    weights = np.exp(scores, out=scores)
    total = np.einsum("ij->i", weights)  # several times as fast as sum
    # Rounding could leave a loss just below 0.
    return _Softmax(weights, total, np.maximum(np.log(total.astype(np.float64)) - at_target, 0))


class _Sums(NamedTuple):
    """The objective of the joint fit over all samples, and its derivatives."""

    objective: float
    gradient: NDArray[np.float64]  # (K + 1,)
    hessian: NDArray[np.float64]  # (K + 1, K + 1); empty where it wasn't asked for


class Optimum(NamedTuple):
    """Where the objective is least, and its second derivatives near there."""

    theta: NDArray[np.float64]  # (K + 1,): beta in the problem's units, then the biases
    inverse: NDArray[np.float64]  # (K + 1, K + 1) of a Hessian near it; 0 for a beta at its bound
    hessian: NDArray[np.float64]


class Problem:
    """The joint fit of some samples with finite losses. `unit` is the beta that the parameter 1 means."""

    def __init__(
        self, logits: NDArray[Any], targets: NDArray[np.int64], unit: float, *, ridge: float = 1.0
    ) -> None:
        self.top = logits[np.arange(len(logits)), logits.argmax(axis=1)]  # several times as fast as max
        if not _SMALLEST < unit < 1 / _SMALLEST:  # squares of such logits would leave single precision
            with np.errstate(invalid="ignore", over="ignore"):
                logits = (logits.astype(np.float64) - self.top[:, None]) * unit
            self.top, unit = np.zeros(len(logits)), 1.0
        self.logits, self.targets, self.unit, self.ridge = logits, targets, unit, ridge
        self.work: Any = np.float64 if logits.dtype == np.float64 else np.float32
        with np.errstate(over="ignore"):
            widest = self.work(logits.min()) - self.work(self.top.max())
        self.has_masked = bool(np.isneginf(widest))  # or none, and logits farther apart than any others
        self.part: Problem | None = None
        self.kept = list(self._walk()) if logits.size <= _KEPT else None

    def blocks(self) -> Iterator[Block]:
        """Walk over the samples; rows keep their order."""
        return self._walk() if self.kept is None else iter(self.kept)

    def _walk(self) -> Iterator[Block]:
        samples, classes = self.logits.shape
        size = max(classes, _BLOCK // classes)
        for start in range(0, samples, size):
            rows = slice(start, min(samples, start + size))
            z, masked = self._below_top(rows), None
            if self.has_masked:
                masked = np.isneginf(z)
                z[masked] = 0
            yield Block(rows, z, masked, self.targets[rows])

    def _below_top(self, rows: slice) -> NDArray[Any]:
        part = self.logits[rows]
        z = self.empty(*part.shape)
        with np.errstate(over="ignore"):
            np.subtract(part, self.top[rows, None], out=z, dtype=self.work)
        return z

    def empty(self, samples: int, classes: int, more: int = 0) -> NDArray[Any]:
        """Return room for numbers of a block, and for more columns."""
        if classes < _NARROW:
            return np.empty((classes + more, samples), self.work).T
        return np.empty((samples, classes + more), self.work)

    def minimised(
        self,
        start: NDArray[np.float64],
        hessian: NDArray[np.float64] | None = None,
    ) -> Optimum:
        """Return the optimum, by Newton steps that are halved where they go up.

        The objective is convex, so halving ends. The Hessian, which costs more than all else, stays while
        the steps are short, and they correct it (BFGS; Nocedal and Wright, 2006, section 7.2).
        """
        samples = len(self.targets)
        few = samples < _FEW_SAMPLES
        tolerance, far = (_TOLERANCE_OF_FEW, _FAR_OF_FEW) if few else (_TOLERANCE, _FAR_OF_MANY)
        if hessian is None:
            for _ in range(_SCALINGS if len(start) > _SCALE_AGAIN else 1):
                start = self._scaled(start)
        theta, sums = start, self._sums(start, hessian=hessian is None)
        model = _Model(start, sums.hessian if hessian is None else hessian, has_beta=start[0] > 0)
        for _ in range(_MAX_STEPS):
            if theta[0] == 0 and model.has_beta != (sums.gradient[0] < 0):  # it leaves its bound, or stays
                model = _Model(model.theta, model.hessian, has_beta=not model.has_beta)
            step = model.step(theta, sums.gradient)
            if -float(sums.gradient @ step) / 2 <= tolerance * samples or theta[0] > _ENDLESS:
                break
            allowed = sums.objective + _ROUNDING * samples
            renew = model.is_stale(theta + step, far)
            following = self._sums(theta + step, hessian=renew)
            for _ in range(_MAX_STEPS):
                if following.objective <= allowed:
                    break
                step = step / 2
                following = self._sums(theta + step, hessian=renew)
            model.pairs.append((step, following.gradient - sums.gradient))
            theta, sums = theta + step, following
            if renew:
                model = _Model(theta, sums.hessian, has_beta=model.has_beta)
        theta = theta + step
        theta[1:] -= theta[1:].mean()
        return Optimum(theta, model.inverse, model.hessian)

    def _scaled(self, start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a better start by a step of iterative scaling: each class is given the mass of its samples.

        It leads so much farther than a Newton step would that one Hessian is mostly enough. (J. N. Darroch
        and D. Ratcliff, "Generalized Iterative Scaling for Log-Linear Models", Ann. Math. Stat. 43, 1972.)
        """
        wanted = np.bincount(self.targets, minlength=len(start) - 1) + self.ridge
        surplus = self._sums(start, hessian=False).gradient[1:] - self.ridge * start[1:]
        return np.append(start[0], start[1:] + np.log(wanted / np.maximum(wanted + surplus, self.ridge)))

    def _size_of_part(self) -> int:
        size = max(_PART, _PART_A_CLASS * self.logits.shape[1])
        return size if 2 * size < len(self.targets) else len(self.targets)

    def only(self, rows: NDArray[np.int64]) -> Problem:
        """Return the problem of some of the samples."""
        return Problem(self.logits[rows], self.targets[rows], self.unit, ridge=self.ridge)

    def _part(self) -> Problem:
        """Return the problem of a random part of the samples: folders are sorted by class."""
        if self.part is None:
            samples, size = len(self.targets), self._size_of_part()
            rows = np.sort(own_generator(0).choice(samples, size, replace=False))
            ridge = self.ridge * size / samples
            self.part = Problem(self.logits[rows], self.targets[rows], self.unit, ridge=ridge)
        return self.part

    def _sums(self, theta: NDArray[np.float64], *, hessian: bool) -> _Sums:
        size = self._size_of_part()
        if hessian and len(theta) > MANY_CLASSES and size < len(self.targets):
            part = self._part()._sums(theta, hessian=True)
            return self._sums(theta, hessian=False)._replace(hessian=part.hessian * len(self.targets) / size)
        return self._sums_of_all(theta, hessian=hessian)

    def hessian(self, theta: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the second derivatives; with many classes, a few samples stand for those not in `rows`."""
        rest = np.delete(np.arange(len(self.targets)), rows)
        if len(theta) <= MANY_CLASSES or len(rest) <= _PART:
            return self._sums_of_all(theta, hessian=True).hessian
        few = np.sort(own_generator(0).choice(rest, _PART, replace=False))
        exact, sample = (self.only(some)._sums_of_all(theta, hessian=True).hessian for some in (rows, few))
        sample[np.arange(1, len(theta)), np.arange(1, len(theta))] -= self.ridge
        return exact + sample * len(rest) / _PART

    def _sums_of_all(self, theta: NDArray[np.float64], *, hessian: bool) -> _Sums:
        biases, classes = theta[1:], len(theta) - 1
        objective = self.ridge * float(biases @ biases) / 2
        gradient = np.r_[0.0, self.ridge * biases]
        gradient[1:] -= np.bincount(self.targets, minlength=classes)
        second = np.diag(np.r_[0.0, np.full(classes, self.ridge)]) if hessian else np.empty((0, 0))
        unit, each, outer = self.unit, np.arange(1, classes + 1), np.zeros((), self.work)
        for block in self.blocks():
            p, total, losses = self.at(block, theta[0], theta[1:])
            z, inverse = block.z, 1 / total
            first = np.einsum("ij,ij->i", p, z) * inverse
            mass = (inverse @ p).astype(np.float64)
            objective += float(losses.sum())
            gradient[0] += unit * (first - z[np.arange(len(z)), block.targets]).sum(dtype=np.float64)
            gradient[1:] += mass
            if hessian:
                p *= inverse[:, None]
                outer = outer + p.T @ p
                second[each, each] += mass
                cross = first @ p
                p *= z
                second[0, 1:] += unit * (np.ones(len(z), p.dtype) @ p - cross)
                spread = np.einsum("ij,ij->i", p, z) - first * first
                second[0, 0] += unit * unit * spread.sum(dtype=np.float64)
        # The probabilities of a sample add up to 1, so that only rounding can move all biases together.
        gradient[1:] -= gradient[1:].mean() - self.ridge * biases.mean()
        if hessian:
            second[1:, 0] = second[0, 1:]
            second[1:, 1:] -= outer
        return _Sums(objective, gradient, second)

    def at(self, block: Block, beta: Any, biases: NDArray[Any], apart: float | None = None) -> _Softmax:
        """Return the softmax of samples at a point, or each at its own: (n, 1) and (n, K).

        `apart` is a bound of the differences of biases, where one is known.
        """
        scale = np.asarray(beta * self.unit, self.work)
        apart = float(np.ptp(biases)) if apart is None else apart
        return _softmax(block, scale, biases.astype(self.work, copy=False), apart)

    def gradients(self, block: Block, theta: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return each sample's gradient, (n, K + 1), and its loss, (n,)."""
        rows = np.arange(len(block.z))
        weights, total, loss = self.at(block, theta[0], theta[1:])
        gradients = self.empty(len(rows), weights.shape[1], more=1)
        p = np.multiply(weights, (1 / total)[:, None], out=gradients[:, 1:])
        mean = np.einsum("ij,ij->i", p, block.z)
        gradients[:, 0] = self.unit * (mean - block.z[rows, block.targets])
        p[rows, block.targets] -= 1
        return gradients, loss

    def losses(self, own: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each sample's loss at parameters of its own, (N, K + 1), or (N, 1) without biases."""
        losses, none = np.empty(len(own)), np.zeros(self.logits.shape[1])
        for block in self.blocks():
            theta = own[block.rows]
            biases = theta[:, 1:] if theta.shape[1] > 1 else none
            losses[block.rows] = self.at(block, theta[:, :1], biases).loss
        return losses


class _Model:
    """The Hessian at one point, its inverse, and what later steps say of it.

    Without `has_beta` that of the biases alone: beta stays at 0, its bound.
    """

    def __init__(self, theta: NDArray[np.float64], hessian: NDArray[np.float64], *, has_beta: bool) -> None:
        self.theta, self.hessian, self.has_beta = theta, hessian, has_beta
        self.inverse = np.zeros_like(hessian)
        free = slice(0 if has_beta and hessian[0, 0] > 0 else 1, None)
        self.inverse[free, free] = np.linalg.inv(hessian[free, free])
        self.pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

    def is_stale(self, theta: NDArray[np.float64], far: float) -> bool:
        """Tell whether another Hessian is worth its cost."""
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
