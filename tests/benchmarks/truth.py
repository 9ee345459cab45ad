"""What was true of a training, on a test half that no rule sees; nothing here is confshift's.

What a model knows is measured by the loss that the best temperature and the best bias for each class leave,
fitted to the test half itself by scipy. With fewer than SAMPLES_A_CLASS test samples for each class in the
mean, biases would fit noise, and a temperature alone is fitted. An output that is not finite counts as a
guess that is the same for all classes.

A quantity got worse where it is higher at the end than it was at its best. Both are means over a tenth of the
epochs in a row (three at least), as a single epoch is the best by luck. The best such stretch is looked for
on one part of the test half and measured on the other, and the other way round; the interval, 95 %, is from a
bootstrap of the samples.

    worse      the interval lies above 0, and the change is MATTERS or more
    not worse  the interval lies below TWICE that
    open       neither
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

SAMPLES_A_CLASS = 50
MATTERS, TWICE = 0.01, 0.02  # nats
DRAWS = 2000


class Change(NamedTuple):
    """From the best stretch of epochs to the last one, in nats."""

    amount: float
    low: float
    high: float

    @property
    def answer(self) -> str:
        """One of worse, not worse, open."""
        if self.low > 0 and self.amount >= MATTERS:
            return "worse"
        return "not worse" if self.high < TWICE else "open"


def finite(logits: NDArray) -> NDArray:
    """Return the logits with guesses in place of rows that are not finite."""
    logits = logits.astype(float)
    return np.where(np.isfinite(logits).all(axis=-1, keepdims=True), logits, 0.0)


def losses_of(logits: NDArray, targets: NDArray) -> NDArray:
    """Return the loss of each sample, in nats."""
    return -log_softmax(logits.astype(float), axis=1)[np.arange(len(targets)), targets]


def best_map(logits: NDArray, targets: NDArray, *, biases: bool) -> tuple[float, NDArray]:
    """Return (beta, b) for which softmax(beta z + b) has the lowest loss; without biases b is 0."""
    logits = logits.astype(float)
    classes = np.eye(logits.shape[1])[targets]
    free = slice(None) if biases else slice(1)

    def objective(at: NDArray) -> tuple[float, NDArray]:
        scores = at[0] * logits + (at[1:] if biases else 0.0)
        slope = (softmax(scores, axis=1) - classes) / len(targets)
        gradient = np.append((slope * logits).sum(), slope.sum(axis=0))
        return float(losses_of(scores, targets).mean()), gradient[free]

    start = np.append(1 / max(1.0, logits.std()), np.zeros(logits.shape[1]))[free]
    bounds = ([(0, 100)] + [(None, None)] * logits.shape[1])[free]
    found = minimize(objective, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    return float(found[0]), found[1:] if biases else np.zeros(logits.shape[1])


def repaired(logits: NDArray, targets: NDArray) -> NDArray:
    """Return the logits with the best temperature and biases: their loss is what the model does not know."""
    beta, bias = best_map(logits, targets, biases=len(targets) >= SAMPLES_A_CLASS * logits.shape[1])
    return beta * logits + bias


def change_of(losses: NDArray, seed: int = 0) -> Change:
    """Return by how much losses (T, N) are higher at the end than at their best."""
    epochs, samples = losses.shape
    length = min(max(3, round(epochs / 10)), epochs)
    sums = np.cumsum(np.vstack([np.zeros(samples), losses]), axis=0)
    stretches = (sums[length:] - sums[:-length]) / length
    random = np.random.default_rng(seed)
    first = np.isin(np.arange(samples), random.permutation(samples)[: samples // 2])
    change = np.empty(samples)
    for part in (first, ~first):
        best = int(np.argmin(stretches[:, ~part].mean(axis=1)))
        change[part] = stretches[-1, part] - stretches[best, part]
    means = [change[random.integers(0, samples, samples)].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Change(float(change.mean()), float(low), float(high))
