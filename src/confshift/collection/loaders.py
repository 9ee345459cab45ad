"""Loaders: what can be known of a loader without running it."""

from __future__ import annotations

import logging
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

__all__ = ["batch_count", "class_names_of", "torch_loader", "warn_of_dropped"]

_log = logging.getLogger("confshift")

#: The runs and splits whose dropped samples were told.
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
    try:
        return len(loader)
    except TypeError:
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
    drops = getattr(batches, "drop_last", False) and isinstance(size, int)
    if not drops or not hasattr(sampler, "__len__"):
        return
    left_out = len(sampler) % size
    if left_out and (run, split) not in _warned:
        _warned.add((run, split))
        _log.warning(
            "%s: the loader has drop_last=True, so %d of %d samples (%s) are never inspected; "
            "give inspect a loader with drop_last=False",
            *(run, left_out, len(sampler), split),
        )


def class_names_of(loader: Any, classes: int) -> list[str] | None:
    """Return `loader.dataset.classes` (also through Subsets) where it is a list of `classes` strings."""
    inner = torch_loader(loader)
    dataset: Any = None if inner is None else inner.dataset
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple) or len(names) != classes:
        return None
    return list(names) if all(isinstance(name, str) for name in names) else None
