"""What is made of each checkpoint or block of a panel, by the caller's workers; the former is kept.

Of a run that takes the time, a report makes each checkpoint's values once: they are kept in the cache folder
of the user, by the digest of the checkpoint's record (with its files' checksums), of the samples, groups and
weights, and of this code. A new checkpoint costs its own work.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

from confshift.analysis.panel import Panel
from confshift.checkpoint import Checkpoint, Source
from confshift.errors import ConfshiftError
from confshift.measurement import MadeLeftOut
from confshift.recalibration import LeftOut
from confshift.workers import count_workers, map_in_order


def of_each(function: Callable[..., Any], panel: Panel, *args: Any) -> list[Any]:
    """Return `function(one, *args)` for the panel of each checkpoint, in order.

    Parameters
    ----------
    function : callable
        Of a module of this package. It returns what JSON can hold, and numpy's numbers and arrays, which
        become Python's.
    panel : Panel
    args
        Numbers and text.
    """
    sources = [checkpoint.source for checkpoint in panel.checkpoints]
    # What label smoothing adds is read from the logits, and missing while they can't be read: not to be kept.
    if panel.is_small or None in sources or panel.objective.smoothing:
        return [function(one, *args) for one in panel.ones()]
    first = sources[0]
    assert first is not None
    digests = [source.digest for source in sources if source is not None]
    key = _key(panel, function, args, digests[0])
    kept = _read(first, key)
    missing = [place for place, digest in enumerate(digests) if digest not in kept]
    if missing:
        made = _made(function, panel, missing, args)
        kept |= zip([digests[place] for place in missing], made, strict=True)
        first.keep(key, gzip.compress(json.dumps(kept).encode("ascii"), 1))
    return [kept[digest] for digest in digests]


class Total(Protocol):
    """What adds up over the samples of a panel."""

    def add(self, block: Panel) -> None:
        """Add a block of the panel."""

    def join(self, other: Any) -> None:
        """Add what was added to another of its kind."""


Sum = TypeVar("Sum", bound=Total)


def add_up(nothing: Sum, panel: Panel) -> Sum:
    """Return `nothing` with all blocks of a panel added.

    Each block is added up alone, and then in order: the bits do not depend on the number of workers.
    """
    total, blocks = deepcopy(nothing), panel.blocks()
    # No more blocks at a time than there are workers: the sums of pairs may be large.
    while some := list(islice(blocks, max(1, count_workers()))):
        for part in map_in_order(partial(_sum_of, nothing), some, share_memory=True):
            total.join(part)
    return total


def _sum_of(nothing: Sum, block: Panel) -> Sum:
    part = deepcopy(nothing)
    part.add(block)
    return part


def fit_each(checkpoints: list[Checkpoint]) -> None:
    """Have workers, where there are any, make the left-out losses of checkpoints that were stored without."""
    if not count_workers():
        return  # each is made when it is asked for
    lacking: list[tuple[Source, MadeLeftOut]] = []
    for checkpoint in checkpoints:
        read = checkpoint.measurement.read_left_out
        if checkpoint.source is not None and isinstance(read, MadeLeftOut) and read.made is None:
            lacking.append((checkpoint.source, read))
    made = map_in_order(_left_out, [source for source, _ in lacking])
    for (_, read), left_out in zip(lacking, made, strict=True):
        read.made = left_out


def _left_out(source: Source) -> LeftOut | None:
    try:
        return source.checkpoint().measurement.left_out
    except ConfshiftError:  # for whoever asks for it
        return None


def _made(function: Callable[..., Any], panel: Panel, places: list[int], args: tuple[Any, ...]) -> list[Any]:
    """Return the values as JSON gives them back, so that it does not matter whether they were kept."""
    # By threads: the columns are in the memory of this process, and numpy's loops do not wait for each other.
    texts = map_in_order(partial(_text, function, args), [panel.one(at) for at in places], share_memory=True)
    return [json.loads(text) for text in texts]


def _text(function: Callable[..., Any], args: tuple[Any, ...], one: Panel) -> str:
    return json.dumps(function(one, *args), default=lambda numbers: numbers.tolist())


def _read(source: Source, key: str) -> dict[str, Any]:
    content = source.kept(key)
    kept: dict[str, Any] = json.loads(gzip.decompress(content)) if content else {}
    return kept


def _key(panel: Panel, function: Callable[..., Any], args: tuple[Any, ...], first: str) -> str:
    """Return what the values depend on beside the checkpoint, and the run by its first checkpoint."""
    objective = panel.objective
    arrays = (panel.codes, panel.members, panel.weights_in_whole, objective.class_weights)
    parts = [None if array is None else hashlib.blake2b(array.tobytes()).hexdigest() for array in arrays]
    named = (f"{function.__module__}.{function.__qualname__}", args, panel.class_names, panel.span)
    return f"{first} {named} {parts}"
