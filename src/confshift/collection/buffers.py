"""Buffers: the logits of a pass, filled batch by batch, in memory that is reused.

A fresh array costs a page fault for each 4 KB of it: more than a third of a whole evaluation pass where
there are many classes.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from confshift.errors import ConfshiftError

#: Free arrays to keep, whatever the number of runs: two of one split, two of another.
_MAX_FREE = 4
_free: list[Tensor] = []
_lock = threading.Lock()  # arrays come back from the writer's thread


def take(rows: int, classes: int, dtype: torch.dtype) -> Tensor:
    """Return an uninitialised array of at least `rows` rows, an old one if it fits."""
    with _lock:
        for position, array in enumerate(_free):
            fits = rows <= len(array) <= 2 * rows
            if fits and array.shape[1] == classes and array.dtype is dtype:
                return _free.pop(position)
    with torch.inference_mode(False):  # a later pass outside inference mode writes to it too
        return torch.from_numpy(np.empty((rows, classes), str(dtype).removeprefix("torch.")))


def give_back(array: Tensor) -> None:
    """Let the next pass use an array."""
    with _lock:
        _free.append(array)
        del _free[:-_MAX_FREE]


def _start_anew() -> None:
    """In a forked process the other threads are gone, and one may have held the lock."""
    global _lock
    _lock = threading.Lock()
    _free.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


class Rows:
    """The logits and targets of one pass.

    Parameters
    ----------
    rows : int
        The expected number; more are accepted.
    like : torch.Tensor, shape (n, K)
        The logits of a batch: all others must have its K and its dtype. bfloat16 is stored as
        float32, which numpy has and which holds it exactly.
    """

    def __init__(self, rows: int, like: Tensor) -> None:
        self.dtype = like.dtype
        self.classes = like.shape[1]
        self.filled = 0
        dtype = torch.float32 if like.dtype is torch.bfloat16 else like.dtype
        self._logits = take(rows, self.classes, dtype)
        self._targets = torch.from_numpy(np.empty(rows, np.int64))

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Copy the rows of a batch."""
        rows, classes = logits.shape
        if classes != self.classes or logits.dtype is not self.dtype:
            raise ConfshiftError(
                f"a batch has {classes} logits of {logits.dtype} a row, after {self.filled} rows "
                f"with {self.classes} of {self.dtype}; return the same form for every batch (forward= can)"
            )
        end = self.filled + rows
        if end > self._targets.shape[0]:
            self._grow(2 * end)
        self._logits[self.filled : end].copy_(logits)
        self._targets[self.filled : end].copy_(targets)
        self.filled = end

    def select(self, positions: NDArray[np.intp]) -> None:
        """Keep these rows alone."""
        chosen = torch.from_numpy(positions)
        for array in (self._logits, self._targets):
            array[: len(chosen)] = array[chosen]
        self.filled = len(chosen)

    def _grow(self, rows: int) -> None:
        logits = take(rows, self.classes, self._logits.dtype)
        logits[: self.filled].copy_(self._logits[: self.filled])
        targets = torch.from_numpy(np.empty(rows, np.int64))
        targets[: self.filled].copy_(self._targets[: self.filled])
        self.release()
        self._logits, self._targets = logits, targets

    @property
    def logits(self) -> NDArray[np.floating[Any]]:
        """The rows so far, shape (N, K); valid until :meth:`release`."""
        return self._logits.numpy()[: self.filled]

    @property
    def targets(self) -> NDArray[np.int64]:
        """Their targets, shape (N,); not used again."""
        return self._targets.numpy()[: self.filled]

    def release(self) -> None:
        """Say that :attr:`logits` is no longer in use."""
        give_back(self._logits)
