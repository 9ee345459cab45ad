"""Millions of numbers in order: samples by their confidence, and the few largest of many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The smallest 1 - confidence with a bucket of its own; a bucket for each 1024th of an octave above it.
_LEAST_DOUBT, _SHIFT = 2.0**-63, 13


def by_confidence(
    confidence: NDArray[np.float64], correct: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return confidences in ascending order, and beside each whether it was right; ties in any order.

    Parameters
    ----------
    confidence : ndarray, shape (N,)
        In [0, 1].
    correct : ndarray, shape (N,)
        Of bool, or of 0 and 1.

    Notes
    -----
    Two to four times as fast as `argsort`. As an integer, a number below 2 leaves two bits free, and the
    order is the same: the last bit holds the answer, so that nothing has to be fetched by its place in the
    order. Of millions, first the buckets are put in order, which numpy does by counting where keys have 16
    bits; then only neighbours change places.
    """
    values = np.ascontiguousarray(confidence, np.float64)
    if (values[1:] >= values[:-1]).all():  # what this returned for one statistic is passed to another
        return values, np.asarray(correct, bool)
    keys = values.view(np.uint64) << np.uint64(1)
    keys |= np.asarray(correct, bool)
    doubt = np.maximum(1 - values, _LEAST_DOUBT).astype(np.float32)
    buckets = ~(doubt.view(np.uint32) >> _SHIFT).astype(np.uint16)  # one octave is 1024, 64 are all there are
    keys = keys[np.argsort(buckets, kind="stable")]
    keys.sort(kind="stable")
    return (keys >> np.uint64(1)).view(np.float64), (keys & np.uint64(1)).astype(bool)


def largest(values: NDArray[np.float64], number: int) -> NDArray[np.intp]:
    """Return the places of the largest values, in descending order, the first of equal ones first; NaN last.

    Parameters
    ----------
    values : ndarray, shape (N,)
    number : int
        How many places to return; N where that is less.
    """
    negative = -values
    if 0 < number < len(values):
        bound = np.partition(negative, number - 1)[number - 1]
        if not np.isnan(bound):
            places = np.flatnonzero(negative <= bound)
            return places[np.argsort(negative[places], kind="stable")[:number]]
    return np.argsort(negative, kind="stable")[:number]
