"""The draw: a part of the rows, chosen by their ids: the same at every epoch and on every rank."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SEED = 0x9E3779B97F4A7C15


class Draw:
    """Chooses rows while they come: those with the lowest keys, in memory for three times as many.

    Parameters
    ----------
    wanted : int
        How many rows to choose.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._keys = np.empty(0, np.uint64)
        self._threshold: np.uint64 | None = None

    def admit(
        self, ids: NDArray[Any], members: NDArray[np.int64], places: NDArray[np.int64]
    ) -> NDArray[np.intp]:
        """Return which rows of a batch may be among those to choose.

        Parameters
        ----------
        ids : array, shape (n,)
            Of the batch's samples.
        members, places : int64 arrays
            Of each row: the position of its sample in the batch, and its place in the sample.
        """
        keys = _keys(_numbers(ids)[members], places)
        admitted = np.arange(len(keys))
        if self._threshold is not None:
            admitted = np.flatnonzero(keys <= self._threshold)
        self._keys = np.concatenate([self._keys, keys[admitted]])
        return admitted

    def choose(self, *, is_last: bool = False) -> NDArray[np.intp] | None:
        """Return which of the rows admitted so far to keep; None: all, for now."""
        if len(self._keys) <= (self.wanted if is_last else 2 * self.wanted):
            return None
        chosen = lowest(self._keys, self.wanted)
        self._keys = self._keys[chosen]
        if len(chosen) == self.wanted:
            self._threshold = self._keys.max()
        return chosen


def keys_of(samples: NDArray[Any], places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a pseudo-random number for each row, by its sample's id and its place in it."""
    return _keys(_numbers(samples), places)


def _numbers(ids: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a number for each id: of text, a hash."""
    if ids.dtype.kind in "iu":
        return ids.astype(np.int64).view(np.uint64)
    texts, members = np.unique(ids, return_inverse=True)
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts.tolist()]
    return np.frombuffer(b"".join(digests), np.uint64)[members]


def _keys(numbers: NDArray[np.uint64], places: NDArray[np.int64]) -> NDArray[np.uint64]:
    return _mixed(_mixed(numbers + np.uint64(_SEED)) + places.astype(np.uint64))


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finaliser of splitmix64: a bijection whose results look independent."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def lowest(keys: NDArray[np.uint64], rows: int) -> NDArray[np.intp]:
    """Return the positions of the rows with the lowest keys, one for each key, in their order."""
    _, first = np.unique(keys, return_index=True)
    return np.sort(first[:rows])
