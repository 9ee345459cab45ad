"""Loaders: what can be known of a loader without running it."""

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
    """Return the DataLoader that is really iterated, or None where there is none.

    accelerate's loader says that it is a DataLoader, but iterates its `base_dataloader`.
    """
    inner = getattr(loader, "base_dataloader", loader)
    return inner if isinstance(inner, DataLoader) else None


def batch_count(loader: Any) -> int | None:
    """Return how many batches a pass has, or None where that is not known."""
    inner = torch_loader(loader)
    if inner is not None and isinstance(inner.dataset, IterableDataset):
        return None  # asking makes torch warn later, when the dataset was wrong about its length
    return _length_of(loader)


def _length_of(sized: Any) -> int | None:
    """Return a length, None where there is none: what a user's own `__len__` raises or returns is a hint."""
    try:
        return len(sized)
    except Exception:  # len() itself refuses a float, a negative number and one beyond an index
        return None


def warn_of_dropped(loader: Any, *, run: str, split: str) -> None:
    """Say, once for each run and split, how many samples a loader with `drop_last=True` leaves out.

    A sampler of batches may drop the last one too. How long a stream is is not known, so it is not told.
    """
    inner = torch_loader(loader)
    batched = getattr(inner, "batch_sampler", None) is not None
    batches = getattr(inner, "batch_sampler" if batched else "sampler", None)
    size: Any = getattr(batches, "batch_size", None)
    sampler: Any = getattr(batches, "sampler", None)
    drops = getattr(batches, "drop_last", False) and isinstance(size, int) and size > 0
    total = _length_of(sampler) if drops else None
    left_out = (total or 0) % size if drops else 0
    if left_out and (run, split) not in _warned:
        _warned.add((run, split))
        _log.warning(
            "%s: the loader has drop_last=True, so %d of %d samples (%s) are never inspected; "
            "give inspect a loader with drop_last=False",
            *(run, left_out, total, split),
        )


def warn_of_shard(loader: Any, *, run: str, split: str) -> None:
    """Say, once for each run and split, that a loader gives one of several ranks' samples only.

    Lightning and accelerate put such samplers into the loaders that they prepare; torchrun scripts do too.
    """
    inner = torch_loader(loader)
    if inner is None or (run, f"{split} shard") in _warned:
        return
    batches = inner.batch_sampler
    parts = [inner.dataset, inner.sampler, batches, getattr(batches, "sampler", None)]
    parts += [getattr(part, "batch_sampler", None) for part in (loader, batches)]  # accelerate's
    found = [(part, _ranks_of(part)) for part in parts]
    for part, ranks in found:
        if ranks > 1:
            _warned.add((run, f"{split} shard"))
            _log.warning(
                "%s: the loader gives this process %s samples (%s): a %s for %d ranks shares them out. What "
                "is saved, loss and accuracy are of that part only. Give inspect a loader without it, on one "
                "rank: DataLoader(loader.dataset, batch_size=...)",
                *(run, _share_of(part, inner, ranks), split, type(part).__name__, ranks),
            )
            return


def warn_of_missing(loader: Any, ids: ArrayLike | None, *, run: str, split: str) -> None:
    """Say, once for each run and split, that a pass gave fewer different samples than the dataset has.

    Whatever leaves them out: a sampler that chooses or draws with replacement, a rank's share that no
    attribute tells of, a `collate_fn` that filters.

    Parameters
    ----------
    ids : array_like, shape (N,), or None
        By the sampler or by content: ids of the user's own may be those of groups.
    """
    inner = torch_loader(loader)
    told = {(run, split), (run, f"{split} shard"), (run, f"{split} missing")} & _warned
    if ids is None or inner is None or isinstance(inner.dataset, IterableDataset) or told:
        return
    indices = inner.dataset.indices if isinstance(inner.dataset, Subset) else None
    total = _length_of(inner.dataset) if indices is None else len(np.unique(np.asarray(indices)))
    different = len(np.unique(ids))
    if total is not None and different < total:
        _warned.add((run, f"{split} missing"))
        _log.warning(
            "%s: the loader gave %d different samples, and its dataset has %d (%s, sampler: %s). What is "
            "saved, loss and accuracy are of these only. Where the others belong to this split too, give "
            "inspect a loader of all of them, with a collate_fn that keeps them: "
            "DataLoader(loader.dataset, batch_size=...)",
            *(run, different, total, split, type(inner.sampler).__name__),
        )


def _ranks_of(part: Any) -> int:
    """Return among how many ranks a sampler or dataset shares its samples out."""
    for name in ("num_replicas", "num_processes", "world_size"):  # torch's name, accelerate's, many others'
        ranks = getattr(part, name, None)
        if type(ranks) is int:
            return ranks
    return 1


def _share_of(part: Any, loader: DataLoader[Any], ranks: int) -> str:
    """Say how many samples of how many a rank gets, padding included, where that is known."""
    total = _length_of(loader.dataset)
    if total is None:
        return f"1 of every {ranks}"
    given = getattr(part, "num_samples", None)
    # Shares of whole batches are not equal: with 103 samples in batches of 16 one of two ranks gets 55.
    return f"{given if type(given) is int else f'about {-(-total // ranks)}'} of {total}"


def class_names_of(loader: Any, classes: int | None = None) -> tuple[str, ...] | None:
    """Return `loader.dataset.classes` (also through Subsets) where it names classes in order.

    Only as many as `classes`, where that is given.
    """
    inner = torch_loader(loader)
    dataset: Any = None if inner is None else inner.dataset
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    names = listed_names(getattr(dataset, "classes", None))
    return names if names is not None and classes in (None, len(names)) else None
