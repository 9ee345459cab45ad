"""Evaluations: what one pass over some samples returned, on one rank or on several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from confshift.collection.draw import keys_of, lowest
from confshift.collection.layouts import PLAIN, Layout
from confshift.collection.row_ids import row_ids
from confshift.errors import ConfshiftError
from confshift.input_checks import check_names
from confshift.predictions import Predictions

_ROWS = ("logits", "targets", "ids", "places", "groups")
#: Copies of a sample that ranks have padded with agree to this, relative to the largest logit of the row.
_TOLERANCE = 1e-5


class Population(NamedTuple):
    """The samples that the rows are of."""

    wanted: int  #: How many rows to keep; 0: all.
    sample_ids: NDArray[Any]  #: (S,)
    counts: NDArray[np.int64]  #: (S,), how many rows each has

    @property
    def rows(self) -> int:
        """How many rows there are, of different samples."""
        _, first = np.unique(self.sample_ids, return_index=True)
        return int(self.counts[first].sum())


@dataclass(frozen=True)
class Evaluation:
    """Rows of logits, in any order.

    Parameters
    ----------
    logits : array, shape (N, K)
    targets : int64 array, shape (N,)
    ids : array_like, shape (N,), or None
        Of which sample each row is; None: its position says it.
    id_source : str
        One of :data:`confshift.predictions.ID_SOURCES`.
    dtype : torch.dtype
        Of the model's output: bfloat16 is stored as float32.
    checks : mapping
        What was tried on the model.
    layout : Layout
        What the rows are.
    places : int64 array, shape (N,), or None
        Where in its sample each row is; None: each sample is a row.
    groups : array, shape (N,), or None
        Which rows err together; by default those of a sample.
    ignored : int
        How many rows were left out before.
    population : Population, optional
        All samples, where a sample may have several rows, or none that counts.
    release : callable
        Called when the array of logits may be overwritten.
    """

    logits: NDArray[np.floating[Any]]
    targets: NDArray[np.int64]
    ids: ArrayLike | None
    id_source: str
    dtype: torch.dtype
    checks: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout = PLAIN
    places: NDArray[np.int64] | None = None
    groups: NDArray[Any] | None = None
    ignored: int = 0
    population: Population | None = None
    release: Callable[[], object] = lambda: None

    @classmethod
    def empty(cls, id_source: str) -> Evaluation:
        """Return the evaluation of a rank that had no sample."""
        nothing = np.empty((0, 0), np.float32), np.empty(0, np.int64), np.empty(0, np.int64)
        return cls(*nothing, id_source, torch.float32)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def samples(self) -> ArrayLike | None:
        """The ids of all samples, in any order, also of those that have no row."""
        return self.ids if self.population is None else self.population.sample_ids

    @property
    def names(self) -> int:
        """How many class names it takes: those of the labels, or of the classes."""
        return self.layout.labels or self.logits.shape[1]

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What the ranks send each other, by the names of the fields."""
        rows = {name: getattr(self, name) for name in _ROWS}
        samples = {} if self.population is None else self.population._asdict()
        arrays = {**rows, **{name: samples[name] for name in samples if name != "wanted"}}
        return {name: np.asarray(array) for name, array in arrays.items() if array is not None}

    def predictions(self, outputs: str, class_names: Any, ignore_index: float | None) -> Predictions:
        """Return these rows as predictions; `outputs` says what the model returns."""
        options: dict[str, Any] = {
            "sample_ids": self.ids,
            "ignore_index": ignore_index,
            "id_source": self.id_source,
            "task": self.layout.task,
            "groups": self.groups,
            **self._named(class_names),
        }
        if self.places is not None:
            samples = np.asarray(self.ids)
            options["sample_ids"] = row_ids(samples, self.places, self.layout)
            if self.groups is None and self.layout.axes:
                options["groups"] = samples
            options["ignore_index"] = None
        if self.population is not None and (total := self.population.rows) > len(self):
            options["total_rows"] = total
        if self.ignored and not len(self):
            raise ConfshiftError(
                f"no row is left: all {self.ignored} targets equal ignore_index={ignore_index}; check the "
                "targets, or pass another ignore_index (None for none)"
            )
        predictions = self._made(outputs, options)
        ignored = predictions.ignored_samples + self.ignored
        return Predictions.trusted(**{**vars(predictions), "ignored_samples": ignored})

    def _named(self, class_names: Any) -> dict[str, Any]:
        """Return what the names are the names of: the labels of a multi-label task, else the classes."""
        if self.layout.task != "multilabel":
            return {"class_names": class_names}
        return {"label_names": check_names(class_names, self.layout.labels, "label")}

    def _made(self, outputs: str, options: dict[str, Any]) -> Predictions:
        logits: Any = self.logits
        half = self.dtype is torch.bfloat16
        if outputs == "probabilities":
            # In the model's dtype, which decides how well the rows must sum to 1.
            shares = torch.from_numpy(logits).bfloat16() if half else logits
            return Predictions.from_probabilities(shares, self.targets, **options)
        return Predictions(logits, self.targets, **options, source_dtype="bfloat16" if half else None)


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
    if len({(shard.layout, *shard.arrays) for shard in shards}) > 1:
        raise ConfshiftError(
            "the ranks' batches are of different tasks or forms; pass the same arguments on every rank, and "
            "loaders of one data set"
        )
    first = shards[0]
    whole: dict[str, Any] = {
        name: np.concatenate([shard.arrays[name] for shard in shards]) for name in first.arrays
    }
    rows: dict[str, Any] = {name: whole[name] for name in _ROWS if name in whole}
    places = rows.get("places", np.zeros(len(rows["ids"]), np.int64))
    order = np.lexsort((places, rows["ids"]))
    rows = {name: array[order] for name, array in rows.items()}
    replaced = _follow_the_first(rows["ids"], places[order], rows["logits"])
    ignored = sum(shard.ignored for shard in shards)
    population = first.population
    if population is not None:
        population = Population(population.wanted, whole["sample_ids"], whole["counts"])
        if population.wanted:
            chosen = lowest(keys_of(rows["ids"], rows["places"]), population.wanted)
            rows = {name: array[chosen] for name, array in rows.items()}
    joined = replace(first, **rows, ignored=ignored, population=population, release=lambda: None)
    return joined, replaced


def _follow_the_first(ids: NDArray[Any], places: NDArray[np.int64], logits: NDArray[Any]) -> int:
    """Give copies of a row, which follow each other, the logits of the first; return how many differed."""
    is_copy = np.zeros(len(ids), bool)
    is_copy[1:] = (ids[1:] == ids[:-1]) & (places[1:] == places[:-1])
    copies = np.flatnonzero(is_copy)
    firsts = np.maximum.accumulate(np.where(is_copy, 0, np.arange(len(ids))))[copies]
    with np.errstate(invalid="ignore"):
        difference = np.abs(logits[copies] - logits[firsts])
        scale = np.abs(logits[firsts]).max(axis=1, keepdims=True, initial=0)
        differs = ~((difference <= _TOLERANCE * scale) | (logits[copies] == logits[firsts])).all(axis=1)
    logits[copies] = logits[firsts]
    return int(differs.sum())
