"""Predictions: the checked logits and targets of a set of samples, in the order of their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confshift.advice import on_sums
from confshift.errors import ConfshiftError
from confshift.input_checks import (
    check_ids,
    check_logits,
    check_names,
    check_range,
    check_targets,
    refuse_probabilities,
    sum_tolerance,
)
from confshift.tasks import ANSWERS, check_labels, check_task

#: How it is known which sample is which, from the surest to the weakest.
ID_SOURCES = ("user", "sampler", "content", "order")

#: What predictions consist of, beside the names of the classes: arrays, and what they state.
ARRAYS = ("logits", "targets", "sample_ids", "groups")
FACTS = (
    *("id_source", "source_dtype", "ignored_samples", "duplicate_samples"),
    *("task", "label_names", "total_rows"),
)

#: How much two copies of a sample may differ, relative to their largest logit.
_COPY_TOLERANCE = {"float16": 4 * 2**-10, "bfloat16": 4 * 2**-7}
_DEFAULT_COPY_TOLERANCE = 1e-5


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Predictions:
    """What a model said about a set of samples: checked, and in the order of the sample ids.

    Parameters
    ----------
    logits : array_like, shape (N, K)
        Unnormalised scores, one column per class; any float dtype is kept. Probabilities are refused:
        pass them to :meth:`from_probabilities`.
    targets : array_like of int, shape (N,) or (N, 1)
        The index of each sample's true class, 0 to K-1.
    sample_ids : array_like of int or str, shape (N,), optional
        Which sample each row is. Without them a row's position is its id. Rows with one id must agree
        (within rounding, see Notes) and count once.
    class_names : sequence of str or mapping from index to str, length K, optional
        Defaults to "0", "1", ...
    ignore_index : int or None
        Rows with this target are left out and counted.
    id_source : {"user", "sampler", "content", "order"}, optional
        How the ids were found; "user" where `sample_ids` is given, else "order".
    source_dtype : str, optional
        The dtype of the model's output, where `logits` is a lossless copy in another (bfloat16 as float32).
    groups : array_like of int or str, shape (N,), optional
        Which patient, document or image each row is of: rows of one group err together, so every error and
        verdict counts groups, unless `summarize`, `compare` and the like are told otherwise. They are stored
        with the rows, and are the same at every checkpoint of a split.
    task : {"multiclass", "binary", "multilabel", "tokens", "causal_lm", "pixels"}
        What the rows are called; in a multi-label task each row is one label of one sample, with the classes
        "no" and "yes".
    label_names : sequence of str, optional
        The names of the labels of a multi-label task. Its ids are then sample * 2**k + label, k the smallest
        for which 2**k is at least the number of labels.
    total_rows : int, optional
        How many rows there were, where these are a random part of them.

    Raises
    ------
    ConfshiftError
        Where an array can't be used as it is; nothing is guessed or clipped.

    Notes
    -----
    Rows with NaN or infinite logits are kept as they are: they are counted and left out of every sum
    later. A logit of minus infinity (a masked class) is legal.

    Copies of a sample agree where no logit differs by more than 1e-5 (4 roundings in half precision) of the
    largest finite logit of the row, or of a hundredth of the largest of all: other batch sizes and other
    kernels change as much.

    Examples
    --------
    >>> Predictions([[2.0, 0.5], [0.1, 0.3], [1.0, -1.0]], [0, 1, 1])
    Predictions(3 samples, 2 classes, ids by order)
    """

    logits: NDArray[np.floating[Any]]
    targets: NDArray[np.int64]
    sample_ids: NDArray[Any]
    class_names: tuple[str, ...]
    id_source: str
    source_dtype: str
    ignored_samples: int
    duplicate_samples: int
    groups: NDArray[Any] | None
    task: str
    label_names: tuple[str, ...]
    total_rows: int  # 0 where no row was left out at random

    def __init__(
        self,
        logits: ArrayLike,
        targets: ArrayLike,
        *,
        sample_ids: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = -100,
        id_source: str | None = None,
        source_dtype: str | None = None,
        groups: ArrayLike | None = None,
        task: str = "multiclass",
        label_names: Sequence[str] | None = None,
        total_rows: int | None = None,
    ) -> None:
        scores, dtype = check_logits(logits, targets=targets)
        labels = check_targets(targets, scores, task)
        ids = check_ids(sample_ids, len(labels))
        members = None if groups is None else check_ids(groups, len(labels), "groups")
        if id_source is None:
            id_source = "order" if sample_ids is None else "user"
        if id_source not in ID_SOURCES:
            raise ConfshiftError(f"id_source={id_source!r}: pass one of {', '.join(ID_SOURCES)}")
        check_task(task, scores.shape[1])
        if class_names is None and task == "multilabel":
            class_names = ANSWERS
        names = check_names(class_names, scores.shape[1])

        counted = _counted(labels, ignore_index)
        kept = np.flatnonzero(counted)
        check_range(labels, counted, ids, scores.shape[1])
        source_dtype = source_dtype or dtype
        refuse_probabilities(scores, counted, source_dtype, task)
        rows = _distinct_rows(scores, labels, ids, kept, source_dtype, members)
        ignored, duplicates = len(counted) - len(kept), len(kept) - len(rows)
        if ignored or rows is not kept:
            scores, labels, ids = scores[rows], labels[rows], ids[rows]
            members = None if members is None else members[rows]
        arrays = (scores, labels, ids, members)
        facts = (id_source, source_dtype, ignored, duplicates, task, check_labels(label_names, task, ids))
        values = (*arrays, names, *facts, _total(total_rows, len(labels)))
        for name, value in zip((*ARRAYS, "class_names", *FACTS), values, strict=True):
            self._set(name, value)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def trusted(cls, **fields: Any) -> Predictions:
        """Make predictions of fields that were checked when they were saved.

        Nothing is checked, copied or read: for run folders, whose logits are mapped from the disk.
        Everything else goes through the constructor.
        """
        predictions = object.__new__(cls)
        for name, value in fields.items():
            predictions._set(name, value)
        return predictions

    @classmethod
    def from_probabilities(
        cls,
        probabilities: ArrayLike,
        targets: ArrayLike,
        *,
        sample_ids: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = -100,
        id_source: str | None = None,
        groups: ArrayLike | None = None,
        task: str = "multiclass",
        label_names: Sequence[str] | None = None,
        total_rows: int | None = None,
    ) -> Predictions:
        """Take rows of probabilities instead of logits.

        The logarithms are the logits, so nothing is clipped: a probability of exactly 0 at the true
        class gives an infinite loss, which is counted and listed, not hidden.

        Parameters
        ----------
        probabilities : array_like, shape (N, K)
            Each row at least 0 and summing to 1 within 1e-3 (1e-2 for half precision).
        targets, sample_ids, class_names, ignore_index, id_source, groups, task, label_names, total_rows
            As for :class:`Predictions`.

        Examples
        --------
        >>> p = Predictions.from_probabilities([[0.9, 0.1], [0.4, 0.6]], [0, 1])
        >>> p.logits.round(2).tolist()
        [[-0.11, -2.3], [-0.92, -0.51]]
        """
        shares, dtype = check_logits(probabilities, "probabilities", targets=targets)
        finite = np.isfinite(shares).all(axis=1)
        with np.errstate(invalid="ignore"):  # inf - inf, in a row that is not finite anyway
            sums = shares.sum(axis=1, dtype=np.float64)
        bad = finite & ((shares < 0).any(axis=1) | (np.abs(sums - 1) > sum_tolerance(dtype)))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ConfshiftError(
                f"probabilities: {int(bad.sum())} rows have a negative value or do not sum to 1 "
                f"(row {row} sums to {sums[row]:.6g}): {on_sums(shares)}"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            logits = np.log(shares if shares.dtype == np.float64 else shares.astype(np.float32))
        return cls(
            logits,
            targets,
            sample_ids=sample_ids,
            class_names=class_names,
            ignore_index=ignore_index,
            id_source=id_source,
            groups=groups,
            task=task,
            label_names=label_names,
            total_rows=total_rows,
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"Predictions({len(self)} samples, {self.classes} classes, ids by {self.id_source})"

    @property
    def classes(self) -> int:
        """K, the number of classes: the width of the logits, whichever labels occur."""
        return int(self.logits.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the sorted (id, target) pairs: equal only for the same samples with the same labels.

        And in the same groups, where there are any: an error over other groups is another error.
        """
        digest = hashlib.blake2b(digest_size=16)
        ids = self.sample_ids
        digest.update(f"{ids.dtype.kind}{len(ids)}x{self.classes}".encode())
        digest.update(_bytes(ids))
        digest.update(self.targets.tobytes())
        if self.groups is not None:
            digest.update(self.groups.dtype.kind.encode() + _bytes(self.groups))
        return digest.hexdigest()


def _bytes(labels: NDArray[Any]) -> bytes:
    return labels.tobytes() if labels.dtype.kind == "i" else "\0".join(labels.tolist()).encode()


def _counted(targets: NDArray[np.int64], ignore_index: int | None) -> NDArray[np.bool_]:
    """Return which rows count; refuse where none does."""
    counted = np.ones(len(targets), bool) if ignore_index is None else targets != ignore_index
    if not counted.any():
        raise ConfshiftError(
            f"no sample is left: all {len(targets)} targets equal ignore_index={ignore_index}; "
            "check the targets, or pass another ignore_index (None for none)"
        )
    return counted


def _total(total_rows: int | None, rows: int) -> int:
    """Return how many rows there were; 0 where these are all."""
    if total_rows is None or total_rows == 0:
        return 0
    if not isinstance(total_rows, int | np.integer) or total_rows < rows:
        raise ConfshiftError(
            f"total_rows={total_rows!r} is not a whole number of at least {rows}, the number of these rows; "
            "pass how many there were before some were drawn, or leave it out"
        )
    return int(total_rows)


#: The ids, targets and groups of samples, in the order of the ids.
Identity = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]


def describe_difference(known: Identity, now: Identity) -> str:
    """Say what differs between two sets of samples; "" where they are the same."""
    (known_ids, known_targets, known_groups), (ids, targets, groups) = known, now
    if known_ids.dtype.kind != ids.dtype.kind:
        kinds = {"i": "integers", "U": "text"}
        return f"the sample ids were {kinds[known_ids.dtype.kind]} and are now {kinds[ids.dtype.kind]}"
    missing = np.setdiff1d(known_ids, ids, assume_unique=True)
    extra = np.setdiff1d(ids, known_ids, assume_unique=True)
    if len(missing) or len(extra):
        example = missing[0] if len(missing) else extra[0]
        return (
            f"{len(known_ids)} samples before and {len(ids)} now: {len(missing)} are missing, "
            f"{len(extra)} are new (for instance sample {example})"
        )
    changed = np.flatnonzero(known_targets != targets)
    if len(changed):
        first = changed[0]
        return (
            f"the targets of {len(changed)} of {len(ids)} samples changed (for instance sample "
            f"{ids[first]}: {known_targets[first]} before, {targets[first]} now); if the loader shuffles, "
            "pass sample_ids="
        )
    if (known_groups is None) != (groups is None):
        return (
            "they had no groups and have some now; leave groups= out, and pass it to summarize and report"
            if known_groups is None
            else "they had groups and have none now; pass the same groups= as before"
        )
    if known_groups is not None and groups is not None and not np.array_equal(known_groups, groups):
        first = np.flatnonzero(known_groups.astype(object) != groups.astype(object))
        return (
            f"the groups of {len(first)} of {len(ids)} samples changed (for instance sample {ids[first[0]]}: "
            f"{known_groups[first[0]]!s} before, {groups[first[0]]!s} now); pass the same groups= as before"
        )
    return ""


def _distinct_rows(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    ids: NDArray[Any],
    rows: NDArray[np.intp],
    dtype: str,
    groups: NDArray[Any] | None,
) -> NDArray[np.intp]:
    """Return these rows in the order of their ids, one for each id; rows that share an id must agree."""
    row_ids = ids[rows] if len(rows) < len(ids) else ids
    if len(rows) == 1 or (row_ids[1:] > row_ids[:-1]).all():
        return rows
    order = rows[np.argsort(row_ids, kind="stable")]
    first = np.ones(len(order), bool)
    first[1:] = ids[order[1:]] != ids[order[:-1]]
    repeats = np.flatnonzero(~first)
    if len(repeats):
        original = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))[repeats]
        a, b = order[original], order[repeats]
        agree = _agree(logits[a], logits[b], dtype)
        wrong = np.flatnonzero(~agree | (targets[a] != targets[b]))
        if len(wrong):
            raise ConfshiftError(
                f"sample_ids: {len(wrong)} rows repeat an id with other logits or another target, the first "
                f"is {ids[b[wrong[0]]].item()!r}; give each sample an id of its own"
            )
        if groups is not None and (other := groups[a] != groups[b]).any():
            raise ConfshiftError(
                f"groups: {int(other.sum())} rows repeat a sample id with another group, the first is "
                f"{ids[b[np.argmax(other)]].item()!r}; give each sample one group"
            )
    return order[first]


def _agree(
    first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]], dtype: str
) -> NDArray[np.bool_]:
    """Tell for each pair of rows whether they are the same sample's, up to rounding."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    size = np.maximum(*(np.abs(np.where(np.isfinite(rows), rows, 0)).max(axis=1) for rows in (a, b)))
    size = np.maximum(size, size.max() / 100)
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= _COPY_TOLERANCE.get(dtype, _DEFAULT_COPY_TOLERANCE) * size[:, None]
    agree: NDArray[np.bool_] = (near | (a == b) | (np.isnan(a) & np.isnan(b))).all(axis=1)
    return agree
