"""A recalibration of logits, and what it makes of a mean loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confshift.analysis import linear_maps

#: Numbers in one block of logits.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Recalibrator:
    """A map of logits: z / temperature + biases; with weights, these times (z - its mean) / temperature."""

    method: str
    temperature: float
    biases: tuple[float, ...]  # by class, in nats
    scales: tuple[float, ...]  # by class, beside the temperature; all 1 but for "vector"
    matrix: tuple[tuple[float, ...], ...] = ()  # (K, K), a row for each new logit; empty but for "matrix"

    def apply(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """Return recalibrated logits, (..., K); masked classes (minus infinity) stay masked."""
        if self.matrix or set(self.scales) != {1.0}:
            weights = np.divide(self.matrix or self.scales, self.temperature)
            return linear_maps.mapped(logits, weights, np.array(self.biases))
        return np.asarray(np.asarray(logits, np.float64) / self.temperature + np.array(self.biases))

    def mean_loss(
        self,
        logits: NDArray[Any],
        targets: NDArray[np.int64],
        class_weights: NDArray[np.float64] | None = None,
    ) -> tuple[float, float]:
        """Return mean loss and accuracy of samples with a finite loss; NaN where there are none.

        Where classes have weights the mean loss is the weighted one; the accuracy never is.
        """
        if not len(targets):
            return math.nan, math.nan
        weights = np.ones(len(targets)) if class_weights is None else class_weights[targets]
        sums = np.zeros(2)
        for rows in _blocks(logits):
            losses, hits = linear_maps.losses_and_hits(self.apply(logits[rows]), targets[rows])
            sums += (weights[rows] * losses).sum(), hits.sum()
        total = float(weights.sum())
        return float(sums[0] / total) if total else math.nan, float(sums[1] / len(targets))


def _blocks(logits: NDArray[Any]) -> Iterator[slice]:
    size = max(1, _BLOCK // logits.shape[1])
    return (slice(start, start + size) for start in range(0, len(logits), size))
