"""Loaders: what can be known of a loader without running it."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

__all__ = ["batch_count", "class_names_of", "generators_of", "torch_loader"]


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


def generators_of(loader: Any) -> list[torch.Generator]:
    """Return the random generators that a pass over the loader draws from, beside the global ones."""
    inner = torch_loader(loader)
    if inner is None:
        return []
    sampler = inner.sampler
    batch_sampler = inner.batch_sampler
    parts = [inner, sampler, batch_sampler, getattr(batch_sampler, "sampler", None)]
    found = [getattr(part, "generator", None) for part in parts]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


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
