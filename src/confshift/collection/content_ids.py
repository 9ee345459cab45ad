"""Content ids: where no index identifies a sample, its content does."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from confshift.collection.batches import fields_of
from confshift.errors import ConfshiftError

_log = logging.getLogger("confshift")

SAMPLE_IDS_ADVICE = (
    "pass sample_ids=: an array for the whole pass in the loader's order, the name of a field of the batch, "
    "or a function batch -> ids"
)


#: Runs and splits already warned about.
_warned: set[str] = set()


class ContentIds:
    """Ids from the samples themselves: a hash of everything a batch holds for a row, its label included.

    Parameters
    ----------
    workers : int
        Of the loader of a stream: each may yield all of it.
    place : str
        The run and the split, for warnings.
    """

    name = "content"

    def __init__(self, workers: int = 0, place: str = "") -> None:
        self._workers = workers
        self._place = place
        self._counts: Counter[bytes] = Counter()
        self._ids: dict[bytes, list[str]] = {}  # of each sample, by the number of its earlier copies
        self._rows: list[tuple[bytes, int]] = []
        self._newest = 0

    def add(self, batch: Any, rows: int) -> None:
        """Take note of a batch that holds `rows` samples."""
        columns = [column for column in _columns(batch) if len(column) == rows]
        if not columns:
            raise ConfshiftError(
                f"can't tell which sample is which: nothing in a batch (a {type(batch).__name__}) has a row "
                f"for each of its {rows} samples; {SAMPLE_IDS_ADVICE}"
            )
        for row in range(rows):
            digest = hashlib.blake2b(digest_size=16)
            for column in columns:
                digest.update(_bytes(column[row]))
            # Copies with equal labels differ in their number alone: they may change places.
            sample = digest.digest()
            number = self._counts[sample]
            self._counts[sample] += 1
            digest.update(number.to_bytes(8, "little"))
            self._ids.setdefault(sample, []).append(digest.hexdigest())
            self._rows.append((sample, number))
        self._newest = rows

    def newest(self) -> NDArray[Any]:
        """Return the ids of the batch that was added last; copies may turn out to share one."""
        return np.array([self._ids[sample][number] for sample, number in self._rows[-self._newest :]])

    def ids(self) -> NDArray[Any]:
        """Return the ids of all rows, 32 hexadecimal digits each.

        Copies share an id where the whole stream came several times.
        """
        repeats = self._repeats()
        numbered = ((sample, number % (self._counts[sample] // repeats)) for sample, number in self._rows)
        return np.array([self._ids[sample][number] for sample, number in numbered])

    def _repeats(self) -> int:
        """Return how often a stream gave all of its samples, and warn, once, of samples that came again."""
        rows, different = len(self._rows), len(self._counts)
        repeats = math.gcd(*self._counts.values())
        if rows == different or self._place in _warned:
            return max(repeats, 1)
        _warned.add(self._place)
        if repeats > 1:
            _log.warning(
                "%s: each of %d samples came %s times (%d rows). They are counted once; %s",
                *(self._place, rows // repeats, repeats, rows, self._remedy(repeats)),
            )
        else:
            _log.warning(
                "%s: the loader gave %d rows, and only %d of them are different. If the others are copies, "
                "they count as samples of their own, and verdicts are more certain than the data allow: let "
                "the loader yield each sample once in a pass, and its workers (%d) share a stream out",
                *(self._place, rows, different, self._workers),
            )
        return repeats

    def _remedy(self, repeats: int) -> str:
        workers = self._workers
        if workers < 2 or repeats % workers:
            return "let the dataset or loader yield each sample once in a pass"
        return (
            f"each of the loader's {workers} workers yields the whole stream: to share it out, use "
            "torch.utils.data.get_worker_info() in the dataset's __iter__, or num_workers=0"
        )


def _columns(batch: Any) -> Iterator[Any]:
    """Walk over every array and list of strings or numbers in a batch."""
    if isinstance(batch, torch.Tensor):
        if batch.ndim:
            yield _raw(batch)
    elif isinstance(batch, np.ndarray):
        if batch.ndim:
            yield batch
    elif isinstance(batch, list | tuple) and all(
        isinstance(part, str | bytes | int | float) for part in batch
    ):
        yield batch
    elif isinstance(batch, list | tuple):
        for part in batch:
            yield from _columns(part)
    else:
        fields: Mapping[str, Any] = fields_of(batch) or {}
        for name in fields:
            yield from _columns(fields[name])


def _raw(tensor: torch.Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype is torch.bfloat16:  # unknown to numpy
        tensor = tensor.view(torch.int16)
    return tensor.numpy()


def _bytes(value: Any) -> bytes:
    return value.tobytes() if isinstance(value, np.ndarray | np.generic) else repr(value).encode()
