"""Sample ids: which sample is which, from the most reliable source: user, sampler, content, order."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    SequentialSampler,
    Subset,
)

from confshift.collection.batches import fields_of
from confshift.collection.content_ids import SAMPLE_IDS_ADVICE, ContentIds
from confshift.collection.loaders import is_dispatched, length_of, torch_loader
from confshift.collection.ranks import rank_and_size
from confshift.errors import ConfshiftError

#: Loaders whose batches, as a pass has shown, do not hold what the sampler's indices say.
_uneven: weakref.WeakSet[DataLoader[Any]] = weakref.WeakSet()


class UnevenBatchError(ConfshiftError):
    """A batch does not hold what the sampler's indices say: the next pass goes by content."""


class IdSource(Protocol):
    """Knows the ids of a pass: receives each batch as the loader gave it, then returns all ids once."""

    @property
    def name(self) -> str:
        """How the ids are known: one of :data:`confshift.predictions.ID_SOURCES`."""

    def add(self, batch: Any, rows: int) -> None:
        """Note a batch of `rows` samples."""

    def newest(self) -> ArrayLike:
        """Return the ids of the batch that was added last."""

    def ids(self) -> ArrayLike | None:
        """Return the ids of all rows, or None: a row's position is its id."""


@contextmanager
def identified(loader: Any, sample_ids: Any = None, place: str = "") -> Iterator[IdSource]:
    """Find the most reliable source of ids for one pass over the loader.

    Parameters
    ----------
    loader : iterable
    sample_ids : array_like, str or callable, optional
        The user's own ids; they come before everything else.
    place : str
        The run and the split, for warnings.

    Yields
    ------
    IdSource
        The samplers are only watched inside this context.
    """
    inner = torch_loader(loader)
    if sample_ids is not None:
        yield of_user(sample_ids, "sample_ids")
    elif isinstance(loader, list | tuple):
        yield _Order()
    elif is_dispatched(loader) and (batches := sequential_ids(loader)) is not None:
        yield _Known(batches)
    elif inner is None or inner in _uneven or not _hands_out_indices(inner) or is_dispatched(loader):
        stream = inner is not None and isinstance(inner.dataset, IterableDataset)
        yield ContentIds(inner.num_workers if stream and inner is not None else 0, place)
    else:
        with _recorded(inner) as record:
            try:
                yield SampledIds(record, inner.dataset, place)
            except UnevenBatchError:
                _uneven.add(inner)
                raise


def _hands_out_indices(loader: DataLoader[Any]) -> bool:
    """Tell whether the sampler's indices say what a batch holds: not if batches overtake one another."""
    overtaking = loader.num_workers > 0 and not getattr(loader, "in_order", True)
    return not isinstance(loader.dataset, IterableDataset) and not overtaking


class _Order:
    name = "order"

    def __init__(self) -> None:
        self._newest = slice(0, 0)

    def add(self, batch: Any, rows: int) -> None:
        self._newest = slice(self._newest.stop, self._newest.stop + rows)

    def newest(self) -> ArrayLike:
        return np.arange(self._newest.start, self._newest.stop)

    def ids(self) -> None:
        return None


def of_user(labels: Any, argument: str) -> IdSource:
    """Return the source of what the user says of each sample: an array, a field's name or a function."""
    if isinstance(labels, str):
        return _FromBatch(lambda batch: _field(batch, labels, argument), argument)
    return _FromBatch(labels, argument) if callable(labels) else _UserArray(labels)


class _UserArray(_Order):
    name = "user"

    def __init__(self, sample_ids: ArrayLike) -> None:
        super().__init__()
        self._ids = sample_ids

    def newest(self) -> ArrayLike:
        return np.asarray(self._ids)[self._newest]

    def ids(self) -> ArrayLike:  # type: ignore[override]
        return self._ids


class _Known:
    name = "sampler"

    def __init__(self, batches: list[NDArray[Any]]) -> None:
        self._batches = batches
        self._seen = 0

    def add(self, batch: Any, rows: int) -> None:
        known = self._batches[self._seen] if self._seen < len(self._batches) else ()
        if len(known) != rows:
            raise ConfshiftError(
                f"batch {self._seen} holds {rows} samples, and its sampler gave {len(known)} for it (does "
                f"collate_fn drop or split samples?); {SAMPLE_IDS_ADVICE}"
            )
        self._seen += 1

    def newest(self) -> NDArray[Any]:
        return self._batches[self._seen - 1]

    def ids(self) -> NDArray[Any]:
        return np.concatenate(self._batches[: self._seen])


class _FromBatch:
    name = "user"

    def __init__(self, pick: Callable[[Any], Any], argument: str) -> None:
        self._pick, self._argument = pick, argument
        self._parts: list[NDArray[Any]] = []

    def add(self, batch: Any, rows: int) -> None:
        part = self._pick(batch)
        # A copy: a worker's tensors live in shared memory, and each of them holds a file open.
        part = np.array(part.cpu().numpy() if isinstance(part, torch.Tensor) else part)
        if part.shape != (rows,):
            raise ConfshiftError(
                f"{self._argument} gave shape {part.shape} for a batch of {rows} samples; expected ({rows},)"
            )
        self._parts.append(part)

    def newest(self) -> ArrayLike:
        return self._parts[-1]

    def ids(self) -> NDArray[Any]:
        return np.concatenate(self._parts)


def _field(batch: Any, name: str, argument: str) -> Any:
    fields = fields_of(batch)
    if fields is None and hasattr(batch, "_asdict"):
        fields = batch._asdict()
    if fields is None:
        raise ConfshiftError(
            f"{argument}={name!r}: a batch is a {type(batch).__name__}, without named fields; pass a "
            "function of the batch"
        )
    if name not in fields:
        raise ConfshiftError(
            f"{argument}={name!r}: no such field in a batch; pass one of {list(fields)}, or a function "
            "of the batch"
        )
    return fields[name]


class _Recorder:
    """Stands in for a sampler and remembers what it hands out; it runs in the main process only."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.handed_out: list[Any] | None = None  # of the newest pass; None before the first
        self.is_exhausted = False
        self.is_watched = True  # until the pass ends, or whoever wanted it is gone

    def __iter__(self) -> Iterator[Any]:
        handed_out: list[Any] = []
        self.handed_out, self.is_exhausted = handed_out, False
        in_order = type(self.sampler) is BatchSampler and type(self.sampler.sampler) is SequentialSampler
        start = 0
        for indices in self.sampler:
            if in_order and handed_out:  # known without a look, and an array of them takes less to keep
                handed_out.append(np.arange(start, start + len(indices)))
            else:
                handed_out.append(indices)
            start += len(indices) if in_order else 0
            yield indices
        self.is_exhausted = True

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        if name == "sampler":  # not set yet, while a copy is being made
            raise AttributeError(name)
        return getattr(self.sampler, name)


@contextmanager
def _recorded(loader: DataLoader[Any]) -> Iterator[_Recorder]:
    """Record what the loader's sampler gives, for one pass."""
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    recorder = _Recorder(getattr(loader, name))
    _put_sampler(loader, name, recorder)
    try:
        yield recorder
    finally:
        recorder.is_watched = False
        sampler = getattr(loader, name)
        while isinstance(sampler, _Recorder) and not sampler.is_watched:  # a later one may be around this one
            sampler = sampler.sampler
        _put_sampler(loader, name, sampler)


def _put_sampler(loader: DataLoader[Any], name: str, sampler: Any) -> None:
    vars(loader)[name] = sampler  # DataLoader refuses a plain assignment
    running = getattr(loader, "_iterator", None)  # persistent workers: the live iterator holds it too
    if running is not None:
        running._index_sampler = sampler


class SampledIds:
    """Ids from the sampler's indices, or by content if the loader never uses its sampler."""

    def __init__(self, record: _Recorder, dataset: Any, place: str) -> None:
        self._record = record
        self._dataset = dataset
        self._place = place
        self._content: ContentIds | None = None
        self._parts: list[NDArray[Any]] = []

    @property
    def name(self) -> str:
        """Return "sampler", or "content" where the loader never uses its sampler."""
        return "sampler" if self._content is None else "content"

    def add(self, batch: Any, rows: int) -> None:
        """Note a batch of `rows` samples."""
        if not self._parts and self._content is None and not self._one_index_a_row(rows):
            self._content = ContentIds(place=self._place)
        if self._content is not None:
            self._content.add(batch, rows)
        else:
            self.add_rows(rows)

    def add_rows(self, rows: int) -> None:
        """Note so many rows of the next batch, by the sampler's indices alone.

        Raises
        ------
        UnevenBatchError
            Where there is not one index for each row.
        """
        part = np.asarray(self._handed_out(len(self._parts)))
        part = part if part.ndim else part[None]
        if part.shape != (rows,) or part.dtype.kind not in "iuU":
            raise UnevenBatchError(
                f"batch {len(self._parts)} holds {rows} samples and the sampler gave {part.size} indices of "
                f"type {part.dtype} for it (does collate_fn drop or split samples?); {SAMPLE_IDS_ADVICE}"
            )
        self._parts.append(part)

    def check_whole(self) -> None:
        """Refuse batches that are not those of one whole pass over the loader."""
        handed_out, added = self._record.handed_out or [], len(self._parts)
        total = length_of(self._record)
        if added == len(handed_out) and (self._record.is_exhausted or added == total):
            return
        raise ConfshiftError(
            f"the rows are not the loader's: {added} batches were added, and a pass over it has "
            f"{'more' if total is None else total}. Add every batch; where a part is meant, pass sample_ids= "
            "with each of its batches"
        )

    @property
    def has_begun(self) -> bool:
        """Whether the loader was iterated over, and asked its sampler."""
        return self._record.handed_out is not None

    def _handed_out(self, batch: int) -> Any:
        handed_out = self._record.handed_out or []
        return handed_out[batch] if batch < len(handed_out) else []

    def _one_index_a_row(self, rows: int) -> bool:
        """Tell whether there is an index per row: not with an iterator of its own, or ready-made batches."""
        return self._record.handed_out is not None and (rows == 1 or np.ndim(self._handed_out(0)) > 0)

    def newest(self) -> ArrayLike:
        """Return the ids of the batch that was added last."""
        if self._content is not None:
            return self._content.newest()
        return _in_whole_dataset(self._parts[-1], self._dataset)

    def ids(self) -> ArrayLike:
        """Return the ids of all rows: in the whole data set, also through a Subset."""
        if self._content is not None:
            return self._content.ids()
        return _in_whole_dataset(np.concatenate(self._parts), self._dataset)


def sequential_ids(loader: Any) -> list[NDArray[Any]] | None:
    """Return the ids of each batch of a loader that reads in order, for a pass that is over; else None.

    The sampler is asked once more, and no data is loaded. On one of several ranks they are this rank's.
    """
    inner = torch_loader(loader)
    sampler: Any = None if inner is None else inner.batch_sampler
    while sampler is not None and not isinstance(sampler, SequentialSampler | DistributedSampler):
        sampler = getattr(sampler, "sampler", None) or getattr(sampler, "batch_sampler", None)
    if (
        inner is None
        or sampler is None
        or getattr(sampler, "shuffle", False)
        or not _hands_out_indices(inner)
    ):
        return None
    batches = [_in_whole_dataset(np.asarray(indices), inner.dataset) for indices in inner.batch_sampler or ()]
    return _dispatched(batches, loader.split_batches) if is_dispatched(loader) and batches else batches


def _dispatched(batches: list[NDArray[Any]], split: bool) -> list[NDArray[Any]]:
    """Return this rank's part of the batches that accelerate's rank 0 reads.

    It shares out each batch, or as many together as there are ranks; the last is filled up from the first.
    """
    rank, size = rank_and_size()
    together = 1 if split else size
    shared = [np.concatenate(batches[i : i + together]) for i in range(0, len(batches), together)]
    rows = [len(indices) // size for indices in shared]
    if len(shared[-1]) % size:
        shared[-1] = np.concatenate([shared[-1], shared[0][:size]])
        rows[-1] += 1
    return [indices[rank * own : (rank + 1) * own] for indices, own in zip(shared, rows, strict=True)]


def _in_whole_dataset(ids: NDArray[Any], dataset: Any) -> NDArray[Any]:
    """Map a Subset's own indices to those of the dataset below, through all Subsets."""
    while isinstance(dataset, Subset):
        ids = np.asarray(dataset.indices)[ids]
        dataset = dataset.dataset
    return ids
