"""Checks: is a sample the same each time it is fetched? Tried on a few, at a run's first checkpoint."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from confshift.collection.batches import fields_of
from confshift.collection.loaders import torch_loader

_log = logging.getLogger("confshift")

_MAX_SAMPLES = 4
#: How deep, and how far into one container, a sample is examined.
_MAX_DEPTH = 6
_MAX_PARTS = 10_000


def check_samples(loader: Any) -> dict[str, Any]:
    """Fetch the first samples of the first batch twice, and compare them.

    If the loader has workers, this starts another one: a file that the dataset opens on first use, or a
    counter that it changes, stays there.

    Parameters
    ----------
    loader : iterable
        The loader, after the pass.

    Returns
    -------
    dict
        JSON-able, with a "status": "passed" or "failed" with "samples", how many were fetched, "count", how
        many of them changed, and "where": "dataset" or "collate_fn"; "not made", with the "reason".
    """
    try:
        result = _compared(loader)
    except Exception as error:  # a failing check must not end the inspection
        result = _not_made(f"{type(error).__name__}: {error}")
    if result["status"] == "failed":
        _log.warning(
            "%d of %d samples changed when they were fetched again (in the %s), so each epoch is measured on "
            "other inputs; give inspect a loader without random transforms",
            *(result["count"], result["samples"], result["where"]),
        )
    return result


def _not_made(reason: str) -> dict[str, Any]:
    return {"status": "not made", "reason": reason}


def _compared(loader: Any) -> dict[str, Any]:
    inner = torch_loader(loader)
    if inner is None:
        return _not_made(f"a {type(loader).__name__} has no dataset to fetch a sample from again")
    if isinstance(inner.dataset, IterableDataset):
        return _not_made("a stream can't fetch a sample again")
    if inner.batch_sampler is None:
        return _not_made("the dataset makes whole batches")
    keys = _first_keys(inner.batch_sampler)
    random_collation = inner.collate_fn is not default_collate
    once_more = DataLoader(
        inner.dataset,
        batch_sampler=[keys, keys],
        num_workers=min(1, inner.num_workers),
        collate_fn=_Digests(inner.collate_fn if random_collation else None),
        worker_init_fn=inner.worker_init_fn,
        multiprocessing_context=inner.multiprocessing_context,
        timeout=inner.timeout,
    )
    first, second = once_more
    changed = sum(a != b for a, b in zip(first[0], second[0], strict=True))
    where = "dataset" if changed or first[1] == second[1] else "collate_fn"
    if where == "collate_fn":
        changed = len(keys)
    status = "failed" if changed else "passed"
    return {"status": status, "samples": len(keys), "count": changed, "where": where}


def _first_keys(batch_sampler: Any) -> list[Any]:
    """Return the sampler's first keys; it is run again only if the pass did not record them."""
    handed_out = getattr(batch_sampler, "handed_out", None)
    return list(handed_out[0] if handed_out else next(iter(batch_sampler)))[:_MAX_SAMPLES]


class _Digests:
    """Stands in for a `collate_fn`, so that only digests leave the worker."""

    def __init__(self, collate: Callable[[Any], Any] | None) -> None:
        self._collate = collate

    def __call__(self, samples: Any) -> tuple[list[bytes], bytes]:
        digests = [_digest(sample) for sample in samples]
        if self._collate is None:
            return digests, b""
        try:
            return digests, _digest(self._collate(samples))
        except Exception:  # it may need a whole batch
            return digests, b""


def _digest(value: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in _bytes_of(value, _MAX_DEPTH):
        digest.update(part)
    return digest.digest()


def _bytes_of(value: Any, depth: int) -> Iterator[bytes]:
    """Yield the content of a sample; objects of unknown types are skipped."""
    if isinstance(value, torch.Tensor):
        dense = value.detach().cpu()
        dense = (dense if dense.layout is torch.strided else dense.to_dense()).contiguous()
        yield dense.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield value.tobytes()
    elif isinstance(value, str | bytes | int | float | complex | np.generic):
        yield repr(value).encode(errors="backslashreplace")
    elif depth:
        for part in islice(_parts_of(value), _MAX_PARTS):
            yield from _bytes_of(part, depth - 1)


def _parts_of(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple | np.ndarray):
        yield from value
    elif callable(getattr(value, "tobytes", None)):  # an image
        yield value.tobytes()
    else:
        fields = fields_of(value)
        yield from (getattr(value, "__dict__", {}) if fields is None else fields).values()
