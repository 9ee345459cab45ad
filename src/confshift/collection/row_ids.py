"""Row ids: of the labels, tokens and pixels of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confshift.collection.layouts import Layout
from confshift.errors import ConfshiftError


def row_ids(samples: NDArray[Any], places: NDArray[np.int64], layout: Layout) -> NDArray[Any]:
    """Return sample * 2**bits + place for each row, or the sample's id where it has one row.

    A sample whose id is text has its rank among all of them for a number; its text is the rows' group.

    Parameters
    ----------
    samples : array, shape (N,)
        The id of each row's sample, int64 or text.
    places : int64 array, shape (N,)
    layout : Layout

    Raises
    ------
    ConfshiftError
        Where the number of a sample is too large.
    """
    if not layout.axes:
        return samples
    numbers = samples if samples.dtype.kind in "iu" else np.unique(samples, return_inverse=True)[1]
    bits = layout.bits
    limit = 1 << (63 - bits)
    if len(numbers) and not -limit <= int(numbers.min()) <= int(numbers.max()) < limit:
        largest = max(int(numbers.max()), -int(numbers.min()))
        raise ConfshiftError(
            f"sample_ids go up to {largest}, and the ids of {2**bits} places in each sample leave room for "
            f"{limit - 1}; pass them as text"
        )
    return (numbers.astype(np.int64) << bits) | places


def as_ids(sample_ids: ArrayLike) -> NDArray[Any]:
    """Return ids as an array of integers or text."""
    array = np.asarray(sample_ids)
    return array if array.dtype.kind in "iu" else array.astype(str)
