"""Evaluations: what one pass over some samples returned, on one rank or on several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from confshift.collection.buffers import Rows
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions

_OUTPUTS = ("logits", "probabilities")
#: Copies of a sample that ranks have padded with agree to this, relative to the largest logit of the row.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Evaluation:
    """Rows of logits, in any order.

    Parameters
    ----------
    logits : array, shape (N, K)
    targets : int64 array, shape (N,)
    ids : array_like, shape (N,), or None
        Which sample each row is; None: its position says it.
    id_source : str
        One of :data:`confshift.predictions.ID_SOURCES`.
    dtype : torch.dtype
        Of the model's output: bfloat16 is stored as float32.
    checks : mapping
        What was tried on the model.
    groups : array_like, shape (N,), or None
        Which sample, document or image each row is of.
    task, label_names, total_rows
        As in :class:`confshift.predictions.Predictions`.
    release : callable
        Called when the array of logits may be overwritten.
    """

    logits: NDArray[np.floating[Any]]
    targets: NDArray[np.int64]
    ids: ArrayLike | None
    id_source: str
    dtype: torch.dtype
    checks: Mapping[str, Any] = field(default_factory=dict)
    groups: ArrayLike | None = None
    task: str = "multiclass"
    label_names: tuple[str, ...] = ()
    total_rows: int = 0
    release: Callable[[], object] = lambda: None

    @classmethod
    def of(
        cls, rows: Rows | None, ids: ArrayLike | None, id_source: str, checks: Mapping[str, Any]
    ) -> Evaluation:
        """Return the evaluation of some rows; None are those of a rank that had no sample."""
        if rows is None:
            nothing = np.empty((0, 0), np.float32), np.empty(0, np.int64), np.empty(0, np.int64)
            return cls(*nothing, id_source, torch.float32)
        return cls(rows.logits, rows.targets, ids, id_source, rows.dtype, checks, release=rows.release)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """What the ranks send each other: logits, targets, ids and, where there are any, groups."""
        groups = [] if self.groups is None else [np.asarray(self.groups)]
        return [self.logits, self.targets, np.asarray(self.ids), *groups]

    def predictions(self, outputs: str, class_names: Any, ignore_index: int | None) -> Predictions:
        """Return these rows as predictions; `outputs` says what the model returns."""
        options: dict[str, Any] = {
            "sample_ids": self.ids,
            "class_names": class_names,
            "ignore_index": ignore_index,
            **{
                name: getattr(self, name)
                for name in ("id_source", "groups", "task", "label_names", "total_rows")
            },
        }
        logits: Any = self.logits
        half = self.dtype is torch.bfloat16
        if outputs == "probabilities":
            # In the model's dtype, which decides how well the rows must sum to 1.
            shares = torch.from_numpy(logits).bfloat16() if half else logits
            return Predictions.from_probabilities(shares, self.targets, **options)
        return Predictions(logits, self.targets, **options, source_dtype="bfloat16" if half else None)


def check_outputs(outputs: Any) -> None:
    """Refuse what does not say what a model returns."""
    if outputs not in _OUTPUTS:
        raise ConfshiftError(f"outputs={outputs!r}: pass 'logits' or 'probabilities'")


def together(shards: Sequence[Evaluation]) -> tuple[Evaluation, int]:
    """Join the rows of several ranks, in the order of their ids.

    Samplers pad shards with copies, which `Predictions` drops and counts. Where copies differ (each rank has
    running statistics of its own, say), that of the lowest rank counts.

    Returns
    -------
    Evaluation
        With the checks of the first rank that had a sample.
    int
        The number of rows whose logits were replaced by those of a lower rank.

    Raises
    ------
    ConfshiftError
        Where the ranks' logits have different numbers of classes or types, or no rank had a sample.
    """
    shards = [shard for shard in shards if len(shard)]
    if not shards:
        raise ConfshiftError("no rank has a sample: the loader gave no batch on any of them")
    forms = {(shard.logits.shape[1], str(shard.dtype).removeprefix("torch.")) for shard in shards}
    if len(forms) > 1:
        listed = "; ".join(f"{classes} of {dtype}" for classes, dtype in sorted(forms))
        raise ConfshiftError(f"the ranks returned different logits ({listed}); train one model on all ranks")
    if len({len(shard.arrays) for shard in shards}) > 1:
        raise ConfshiftError("some ranks say which group each row is of, and others do not; let all say it")
    order = np.argsort(np.concatenate([np.asarray(shard.ids) for shard in shards]), kind="stable")
    parts = zip(*(shard.arrays for shard in shards), strict=True)
    logits, targets, ids, *groups = (np.concatenate(part)[order] for part in parts)
    replaced = _follow_the_first(ids, logits)
    joined = replace(
        shards[0],
        logits=logits,
        targets=targets,
        ids=ids,
        groups=groups[0] if groups else None,
        total_rows=sum(shard.total_rows for shard in shards),
        release=lambda: None,
    )
    return joined, replaced


def _follow_the_first(ids: NDArray[Any], logits: NDArray[Any]) -> int:
    """Give copies of a sample, which follow each other, the logits of the first; return how many differed."""
    is_copy = np.zeros(len(ids), bool)
    is_copy[1:] = ids[1:] == ids[:-1]
    copies = np.flatnonzero(is_copy)
    firsts = np.maximum.accumulate(np.where(is_copy, 0, np.arange(len(ids))))[copies]
    with np.errstate(invalid="ignore"):
        difference = np.abs(logits[copies] - logits[firsts])
        scale = np.abs(logits[firsts]).max(axis=1, keepdims=True, initial=0)
        differs = ~((difference <= _TOLERANCE * scale) | (logits[copies] == logits[firsts])).all(axis=1)
    logits[copies] = logits[firsts]
    return int(differs.sum())
