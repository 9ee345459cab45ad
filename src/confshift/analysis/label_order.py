"""Do the outputs stand for the classes that the targets name? An assignment on the confusion matrix."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LabelOrder", "label_order"]


class LabelOrder(NamedTuple):
    """Whether the outputs would fit the targets better under other names."""

    accuracy: float
    matched_accuracy: float  # with the outputs renamed; the names were found on the other samples
    gain_se: float  # of the difference
    taken_for: NDArray[np.int64]  # (K,) the output that each class is matched with


def label_order(predicted: NDArray[np.integer[Any]], targets: NDArray[np.int64], classes: int) -> LabelOrder:
    """Match the outputs with the classes by assignment on the confusion matrix.

    Each half of the samples is renamed by the other half's matching: in the same half, a few samples for
    each class would be matched by chance.

    Parameters
    ----------
    predicted, targets : ndarray, shape (N,)
    classes : int

    Notes
    -----
    H. W. Kuhn, "The Hungarian method for the assignment problem", Naval Research Logistics Quarterly 2
    (1955), 83-97; solved by `scipy.optimize.linear_sum_assignment`.
    """
    order = np.argsort(targets, kind="stable")
    half = np.empty(len(targets), np.intp)
    half[order] = np.arange(len(targets)) % 2
    right = np.empty(len(targets))
    for side in (0, 1):
        names = _matching(predicted[half != side], targets[half != side], classes)
        here = half == side
        right[here] = predicted[here] == names[targets[here]]
    plain = predicted == targets
    difference = right - plain
    return LabelOrder(
        float(plain.mean()),
        float(right.mean()),
        float(difference.std() / math.sqrt(len(targets))),
        _matching(predicted, targets, classes),
    )


def _matching(
    predicted: NDArray[np.integer[Any]], targets: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Return for each class the output that makes the most samples right; its own where equal."""
    from scipy.optimize import linear_sum_assignment

    confusion = np.bincount(targets * classes + predicted, minlength=classes**2).astype(np.float64)
    confusion = confusion.reshape(classes, classes)
    np.fill_diagonal(confusion, confusion.diagonal() + 0.5 / classes)
    return np.asarray(linear_sum_assignment(confusion, maximize=True)[1], np.int64)
