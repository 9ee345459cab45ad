"""Loaders: what can be known about a loader without running it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch.utils.data import DataLoader, IterableDataset, Subset

from confshift.input_checks import listed_names

_log = logging.getLogger("confshift")

#: Runs and splits already warned about.
_warned: set[tuple[str, str]] = set()


def torch_loader(loader: Any) -> DataLoader[Any] | None:
    """Return the DataLoader that is actually iterated over, or None if there is none.

    accelerate's loader is a DataLoader too, but iterates over its `base_dataloader`.
    """
    inner = getattr(loader, "base_dataloader", loader)
    return inner if isinstance(inner, DataLoader) else None


def batch_count(loader: Any) -> int | None:
    """Return how many batches a pass has, or None if that is not known."""
    inner = torch_loader(loader)
    if inner is not None and isinstance(inner.dataset, IterableDataset):
        return None  # after len() torch warns if the dataset's length was wrong
    return length_of(loader)


def length_of(sized: Any) -> int | None:
    """Return a length, None if there is none: whatever a user's own `__len__` does is only a hint."""
    try:
        return len(sized)
    except Exception:  # len() itself refuses a float, a negative number and one beyond an index
        return None


def warn_of_dropped(loader: Any, *, run: str, split: str) -> None:
    """Warn, once for each run and split, how many samples a loader with `drop_last=True` leaves out.

    A sampler of batches may drop the last one too. A stream, whose length is not known, has no warning.
    """
    inner = torch_loader(loader)
    batched = getattr(inner, "batch_sampler", None) is not None
    batches = getattr(inner, "batch_sampler" if batched else "sampler", None)
    size: Any = getattr(batches, "batch_size", None)
    sampler: Any = getattr(batches, "sampler", None)
    drops = getattr(batches, "drop_last", False) and isinstance(size, int) and size > 0
    total = length_of(sampler) if drops else None
    left_out = (total or 0) % size if drops else 0
    if left_out and (run, split) not in _warned:
        _warned.add((run, split))
        _log.warning(
            "%s: the loader has drop_last=True, so %d of %d samples (%s) are never inspected; "
            "give inspect a loader with drop_last=False",
            *(run, left_out, total, split),
        )


def shard_of(loader: Any) -> tuple[Any, int]:
    """Return what shares a loader's samples out among ranks, and among how many; (None, 1) if nothing does.

    Lightning and accelerate put such samplers into the loaders that they prepare; torchrun scripts do too.
    """
    inner = torch_loader(loader)
    if inner is None:
        return None, 1
    batches = inner.batch_sampler
    parts = [inner.dataset, inner.sampler, batches, getattr(batches, "sampler", None)]
    parts += [getattr(part, "batch_sampler", None) for part in (loader, batches)]  # accelerate's
    parts += [loader.state] if is_dispatched(loader) else []
    return next(((part, ranks) for part in parts if (ranks := _ranks_of(part)) > 1), (None, 1))


def is_dispatched(loader: Any) -> bool:
    """Tell whether accelerate's rank 0 reads the batches of all ranks and gives each its part of them."""
    return hasattr(loader, "_fetch_batches")


def is_shard(loader: Any) -> bool:
    """Tell whether a loader gives the samples of one of several ranks."""
    return shard_of(loader)[1] > 1


def warn_of_shard(loader: Any, *, run: str, split: str, is_joined: bool = False) -> None:
    """Warn, once for each run and split, that a loader gives one rank's part of the samples, not joined."""
    part, ranks = shard_of(loader)
    inner = torch_loader(loader)
    if is_joined or inner is None or ranks == 1 or (run, f"{split} shard") in _warned:
        return
    _warned.add((run, f"{split} shard"))
    _log.warning(
        "%s: the loader gives this process %s samples (%s): a %s for %d ranks shares them out, and this "
        "process belongs to no group of ranks (torch.distributed is not initialised). The checkpoint, its "
        "loss and its accuracy cover that part only. Give inspect a loader without it: "
        "DataLoader(loader.dataset, batch_size=...)",
        *(run, _share_of(part, inner, ranks), split, type(part).__name__, ranks),
    )


def warn_of_missing(loader: Any, ids: ArrayLike | None, *, run: str, split: str) -> None:
    """Warn, once for each run and split, that a pass gave fewer different samples than the dataset has.

    The cause may be a sampler that chooses or draws with replacement, a rank's share that no attribute
    shows, or a `collate_fn` that filters.

    Parameters
    ----------
    ids : array_like, shape (N,), or None
        From the sampler or the content: the user's own ids may be those of groups.
    """
    inner = torch_loader(loader)
    warned = {(run, split), (run, f"{split} shard"), (run, f"{split} missing")} & _warned
    if ids is None or inner is None or isinstance(inner.dataset, IterableDataset) or warned:
        return
    indices = inner.dataset.indices if isinstance(inner.dataset, Subset) else None
    total = length_of(inner.dataset) if indices is None else _different(indices)
    different = _different(ids)
    if total is not None and different < total:
        _warned.add((run, f"{split} missing"))
        _log.warning(
            "%s: the loader gave %d different samples, and its dataset has %d (%s, sampler: %s). The "
            "checkpoint, its loss and its accuracy cover these only. If the others belong to this split too, "
            "give inspect a loader of all samples, with a collate_fn that keeps them: "
            "DataLoader(loader.dataset, batch_size=...)",
            *(run, different, total, split, type(inner.sampler).__name__),
        )


def _different(ids: ArrayLike) -> int:
    """Return how many different ids there are; those of a loader that reads in order ascend."""
    array = np.asarray(ids)
    ascending = array.ndim == 1 and bool((array[1:] > array[:-1]).all())
    return len(array) if ascending else len(np.unique(array))


def _ranks_of(part: Any) -> int:
    """Return among how many ranks a sampler or dataset shares its samples out."""
    for name in ("num_replicas", "num_processes", "world_size"):  # torch's name, accelerate's, many others'
        ranks = getattr(part, name, None)
        if type(ranks) is int:
            return ranks
    return 1


def _share_of(part: Any, loader: DataLoader[Any], ranks: int) -> str:
    """Say how many of all samples a rank gets, padding included, as far as that is known."""
    total = length_of(loader.dataset)
    if total is None:
        return f"1 of every {ranks}"
    samples = getattr(part, "num_samples", None)
    # Shares of whole batches are not equal: with 103 samples in batches of 16 one of two ranks gets 55.
    return f"{samples if type(samples) is int else f'about {-(-total // ranks)}'} of {total}"


def class_names_of(loader: Any, classes: int | None = None) -> tuple[str, ...] | None:
    """Return `loader.dataset.classes` (also through Subsets) where it names classes in order.

    With `classes`, only if there are that many names.
    """
    inner = torch_loader(loader)
    dataset: Any = None if inner is None else inner.dataset
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    names = listed_names(getattr(dataset, "classes", None))
    return names if names is not None and classes in (None, len(names)) else None
