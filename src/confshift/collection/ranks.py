"""Ranks: the processes of one distributed training, which agree before a pass and bring their rows together.

What they say to each other goes through the store of torch.distributed, which a missing rank cannot block for
longer than a timeout; rows go to rank 0 through a gloo group, whatever the training's own backend is.
"""

from __future__ import annotations

import json
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from confshift.errors import ConfshiftError

_log = logging.getLogger("confshift")
_T = TypeVar("_T")

#: How long a rank waits before it says for whom, in seconds.
_PATIENCE = 10
#: gloo's messages are bounded by an int.
_PIECE = 1 << 28
#: The number of calls so far, and the group for rows, by the store of the process group they belong to.
_calls: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_groups: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def rank_and_size() -> tuple[int, int]:
    """Return this process's rank and how many there are; (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class Ranks:
    """One evaluation that every rank takes part in.

    Parameters
    ----------
    place : str
        What is evaluated, for messages: the split.
    timeout : float
        How long to wait for another rank, in seconds.
    """

    def __init__(self, place: str, timeout: float) -> None:
        self.rank, self.size = rank_and_size()
        self.place = place
        self._timeout = timeout
        self._store = dist.distributed_c10d._get_default_store()
        number = _calls[self._store] = _calls.get(self._store, 0) + 1
        self._prefix = f"confshift/{number}"

    def agree(
        self, stage: str, action: Callable[[], _T], words: Callable[[_T], dict[str, Any]]
    ) -> tuple[_T, list[dict[str, Any]]]:
        """Do something on every rank, and return its result and what each rank says of its own.

        Raises
        ------
        ConfshiftError
            On every rank, where one fails (which raises its own error) or does not come within the timeout.
        """
        try:
            result = action()
            said = words(result)
        except BaseException as error:
            reason = str(error) if isinstance(error, ConfshiftError) else f"{type(error).__name__}: {error}"
            self._say(stage, {"failure": reason})
            raise
        self._say(stage, said)
        answers = self._hear(stage)
        for rank, answer in enumerate(answers):
            if "failure" in answer:
                raise ConfshiftError(f"{self.place}: rank {rank} of {self.size}: {answer['failure']}")
        return result, answers

    def _say(self, stage: str, words: dict[str, Any]) -> None:
        try:
            self._store.set(f"{self._prefix}/{stage}/{self.rank}", json.dumps(words))
        except RuntimeError as error:
            raise self._lost(error) from error

    def _hear(self, stage: str) -> list[dict[str, Any]]:
        keys = [f"{self._prefix}/{stage}/{rank}" for rank in range(self.size)]
        given_up = f"{self._prefix}/{stage}/given up"
        try:
            if not self._come(keys, min(_PATIENCE, self._timeout)):
                _log.warning("%s: rank %d waits for %s", self.place, self.rank, self._missing(keys))
                if not self._come(keys, self._timeout - _PATIENCE):
                    self._store.set(given_up, self._on_missing(keys))
            if self._store.check([given_up]):  # also by a rank for which this one came too late
                raise ConfshiftError(f"{self.place}: {self._store.get(given_up).decode()}")
            return [json.loads(self._store.get(key)) for key in keys]
        except RuntimeError as error:
            raise self._lost(error) from error

    def _come(self, keys: list[str], seconds: float) -> bool:
        """Wait for keys. The store's own wait would write warnings of its own to stderr."""
        end, pause = time.monotonic() + seconds, 0.001
        while not self._store.check(keys):
            if time.monotonic() > end:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return True

    def _missing(self, keys: list[str]) -> str:
        ranks = [str(rank) for rank, key in enumerate(keys) if not self._store.check([key])]
        return f"{'rank' if len(ranks) == 1 else 'ranks'} {', '.join(ranks)}"

    def _on_missing(self, keys: list[str]) -> str:
        return (
            f"{self._missing(keys)} of {self.size} did not come within {self._timeout:g} s (timeout=). The "
            "samples are shared out among the ranks, so every rank must make this call, not only the main "
            "process"
        )

    def _lost(self, error: RuntimeError) -> ConfshiftError:
        first = str(error).splitlines()[0]
        return ConfshiftError(
            f"{self.place}: rank {self.rank} lost the other ranks, one of which has probably ended ({first})"
        )

    def gather(self, arrays: list[NDArray[Any]], shapes: list[list[Any]]) -> list[list[NDArray[Any]]]:
        """Send arrays to rank 0, which returns those of every rank; the others return [].

        `shapes[rank]` lists (dtype, shape) of that rank's arrays, in their order.
        """
        try:
            if self.rank:
                _send(arrays, 0, self._group())
                return []
            group = self._group()
            return [arrays, *(_receive(shapes[rank], rank, group) for rank in range(1, self.size))]
        except RuntimeError as error:
            raise self._lost(error) from error

    def share(self, arrays: list[NDArray[Any]], shapes: list[Any]) -> list[NDArray[Any]]:
        """Send arrays from rank 0 to all others, and return them on each."""
        try:
            if self.rank:
                return _receive(shapes, 0, self._group())
            for rank in range(1, self.size):
                _send(arrays, rank, self._group())
            return arrays
        except RuntimeError as error:
            raise self._lost(error) from error

    def _group(self) -> Any:
        group = _groups.get(self._store)
        if group is None:
            limit = timedelta(seconds=max(self._timeout, 1))
            group = _groups[self._store] = dist.new_group(backend="gloo", timeout=limit)
        return group


def described(arrays: list[NDArray[Any]]) -> list[list[Any]]:
    """Return (dtype, shape) of each array, JSON-able."""
    return [[array.dtype.str, list(array.shape)] for array in arrays]


def _pieces(array: NDArray[Any]) -> Iterator[torch.Tensor]:
    """Yield the bytes of a contiguous array as tensors that share its memory."""
    flat = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
    for start in range(0, len(flat), _PIECE):
        yield torch.from_numpy(flat[start : start + _PIECE])


def _send(arrays: list[NDArray[Any]], to: int, group: Any) -> None:
    for array in arrays:
        for piece in _pieces(np.ascontiguousarray(array)):
            dist.send(piece, to, group=group)


def _receive(shapes: list[Any], source: int, group: Any) -> list[NDArray[Any]]:
    arrays = [np.empty(tuple(shape), np.dtype(dtype)) for dtype, shape in shapes]
    for array in arrays:
        for piece in _pieces(array):
            dist.recv(piece, source, group=group)
    return arrays
