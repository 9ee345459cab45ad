"""Predictions: the logits and targets of a set of samples. Every check of the arrays stands here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confshift.errors import ConfshiftError

__all__ = ["ID_SOURCES", "Predictions", "describe_difference"]

#: How it is known which sample is which, from the surest to the weakest.
ID_SOURCES = ("user", "sampler", "content", "order")

_MAX_ID_LENGTH = 256
_DUPLICATE_TOLERANCE = 1e-5
_HALF = ("float16", "bfloat16")


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Predictions:
    """What a model said about a set of samples: checked, and in the order of the sample ids.

    Parameters
    ----------
    logits : array_like, shape (N, K)
        Unnormalised scores, one column per class; any float dtype is kept. Probabilities are refused:
        they go through :meth:`from_probabilities`.
    targets : array_like of int, shape (N,) or (N, 1)
        The index of each sample's true class, 0 to K-1.
    sample_ids : array_like of int or str, shape (N,), optional
        Which sample each row is. Without them a row's position is its id. Rows with one id must agree
        (within 1e-5) and count once.
    class_names : sequence of str, length K, optional
        Defaults to "0", "1", ...
    ignore_index : int or None
        Rows with this target are left out and counted.
    id_source : {"user", "sampler", "content", "order"}, optional
        How the ids were found; "user" where `sample_ids` is given, else "order".
    source_dtype : str, optional
        The dtype the model gave, where `logits` is a lossless copy in another one (bfloat16 as float32).

    Raises
    ------
    ConfshiftError
        Where an array can't be what it should be; nothing is guessed or clipped.

    Notes
    -----
    Rows with NaN or infinite logits are kept as they are: they are counted and left out of every sum
    later. A logit of minus infinity (a masked class) is legal.

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
    ) -> None:
        scores, given = _check_logits(logits)
        labels = _check_targets(targets, scores.shape)
        ids = _check_ids(sample_ids, len(labels))
        if id_source is None:
            id_source = "order" if sample_ids is None else "user"
        if id_source not in ID_SOURCES:
            raise ConfshiftError(f"id_source={id_source!r}: give one of {', '.join(ID_SOURCES)}")
        names = _check_names(class_names, scores.shape[1])

        kept = np.ones(len(labels), bool) if ignore_index is None else labels != ignore_index
        ignored = int(len(kept) - kept.sum())
        if ignored == len(labels):
            raise ConfshiftError(
                f"no sample is left: all {ignored} targets equal ignore_index={ignore_index}; "
                "check the targets, or pass another ignore_index (None for none)"
            )
        _check_range(labels, kept, ids, scores.shape[1])
        dtype = source_dtype or given
        _refuse_probabilities(scores, kept, dtype)
        rows = _distinct_rows(scores, labels, ids, np.flatnonzero(kept))
        duplicates = int(kept.sum()) - len(rows)
        if not np.array_equal(rows, np.arange(len(labels))):
            scores, labels, ids = scores[rows], labels[rows], ids[rows]

        self._set("logits", scores)
        self._set("targets", labels)
        self._set("sample_ids", ids)
        self._set("class_names", names)
        self._set("id_source", id_source)
        self._set("source_dtype", dtype)
        self._set("ignored_samples", ignored)
        self._set("duplicate_samples", duplicates)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def trusted(
        cls,
        logits: NDArray[np.floating[Any]],
        targets: NDArray[np.int64],
        sample_ids: NDArray[Any],
        *,
        class_names: tuple[str, ...],
        id_source: str,
        source_dtype: str,
        ignored_samples: int,
        duplicate_samples: int,
    ) -> Predictions:
        """Put together what was checked when it was saved; nothing is checked, copied or read again.

        For run folders, whose logits are mapped from disk. Everything else goes through the constructor.
        """
        made = object.__new__(cls)
        for name, value in locals().copy().items():
            if name not in ("cls", "made"):
                made._set(name, value)
        return made

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
    ) -> Predictions:
        """Take rows of probabilities instead of logits.

        The logarithms are the logits, so nothing is clipped: a probability of exactly 0 at the true
        class gives an infinite loss, which is counted and listed, not hidden.

        Parameters
        ----------
        probabilities : array_like, shape (N, K)
            Each row at least 0 and summing to 1 within 1e-3 (1e-2 for half precision).
        targets, sample_ids, class_names, ignore_index, id_source
            As for :class:`Predictions`.

        Examples
        --------
        >>> p = Predictions.from_probabilities([[0.9, 0.1], [0.4, 0.6]], [0, 1])
        >>> p.logits.round(2).tolist()
        [[-0.11, -2.3], [-0.92, -0.51]]
        """
        shares, given = _check_logits(probabilities, name="probabilities")
        finite = np.isfinite(shares).all(axis=1)
        with np.errstate(invalid="ignore"):  # inf - inf, in a row that is not finite anyway
            sums = shares.sum(axis=1, dtype=np.float64)
        bad = finite & ((shares < 0).any(axis=1) | (np.abs(sums - 1) > _sum_tolerance(given)))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ConfshiftError(
                f"probabilities: {int(bad.sum())} rows are negative somewhere or do not sum to 1 "
                f"(row {row} sums to {sums[row]:.6g}); pass logits to Predictions(...) instead"
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
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"Predictions({len(self)} samples, {self.classes} classes, ids by {self.id_source})"

    @property
    def classes(self) -> int:
        """K, the number of classes: the width of the logits, whatever labels were seen."""
        return int(self.logits.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the sorted (id, target) pairs: equal only for the same samples with the same labels."""
        digest = hashlib.blake2b(digest_size=16)
        ids = self.sample_ids
        digest.update(f"{ids.dtype.kind}{len(ids)}x{self.classes}".encode())
        digest.update(ids.tobytes() if ids.dtype.kind == "i" else "\0".join(ids.tolist()).encode())
        digest.update(self.targets.tobytes())
        return digest.hexdigest()


def describe_difference(
    known_ids: NDArray[Any],
    known_targets: NDArray[Any],
    ids: NDArray[Any],
    targets: NDArray[Any],
) -> str:
    """Say what differs between two sets of samples, each sorted by id; "" where they are the same."""
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
    return ""


def _as_array(values: Any, name: str) -> tuple[NDArray[Any], str]:
    """Return an array and the dtype it was given in; tensors are known by their methods, not by import."""
    given = ""
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        values = values.detach().cpu()
        if "bfloat16" in str(values.dtype):
            values, given = values.float(), "bfloat16"
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:  # a ragged list; a tensor that is sparse or of 8 bits
        raise ConfshiftError(f"{name} can't be made an array ({error}); pass a dense numeric one") from error
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array, given or array.dtype.name


def _check_logits(logits: ArrayLike, name: str = "logits") -> tuple[NDArray[np.floating[Any]], str]:
    array, given = _as_array(logits, name)
    if array.ndim != 2:
        raise ConfshiftError(
            f"{name} has shape {array.shape}, expected (N, K): one row per sample, one column per class; "
            "tokens or pixels go in as rows (reshape(-1, K)), a single logit per sample as two columns "
            "(np.column_stack([np.zeros(N), logit]))"
        )
    if array.dtype.kind in "iu":
        exact = array.astype(np.float32)
        if not np.array_equal(exact.astype(np.float64), array.astype(np.float64)):
            raise ConfshiftError(f"{name} are {given} too large for float32; pass them as float64")
        array = exact
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise ConfshiftError(f"{name} has dtype {given}; pass float16, float32 or float64")
    if array.shape[0] == 0:
        raise ConfshiftError(f"{name} has no rows: shape {array.shape}; there is nothing to look at")
    if array.shape[1] < 2:
        raise ConfshiftError(
            f"{name} has {array.shape[1]} column; with one logit per sample (a sigmoid) pass two columns: "
            "np.column_stack([np.zeros(N), logit])"
        )
    # NaN and infinity are the user's findings, not ours to repair: they pass.
    return np.ascontiguousarray(array), given


def _check_targets(targets: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.int64]:
    array, given = _as_array(targets, "targets")
    if array.ndim == 2 and array.shape == shape:
        raise ConfshiftError(
            f"targets has the shape of the logits, {shape}: one-hot or soft labels; pass class indices, "
            "for instance targets.argmax(1) (soft labels lose their entropy by that)"
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or len(array) != shape[0]:
        raise ConfshiftError(f"targets has shape {array.shape}, expected ({shape[0]},) for {shape[0]} logits")
    if array.dtype.kind not in "iu":
        raise ConfshiftError(
            f"targets has dtype {given}; pass integers, the index of each true class (targets.astype(int))"
        )
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and (array > np.iinfo(np.int64).max).any():
        raise ConfshiftError(f"targets go up to {array.max()}: out of range for {shape[1]} classes")
    return np.ascontiguousarray(array, dtype=np.int64)


def _check_range(
    targets: NDArray[np.int64], kept: NDArray[np.bool_], ids: NDArray[Any], classes: int
) -> None:
    outside = np.flatnonzero(kept & ((targets < 0) | (targets >= classes)))
    if len(outside):
        first = outside[0]
        raise ConfshiftError(
            f"targets: {len(outside)} are outside 0..{classes - 1}, first {targets[first]} at sample "
            f"{ids[first]}; the logits have {classes} columns (to leave a label out pass ignore_index=)"
        )


def _check_ids(sample_ids: ArrayLike | None, samples: int) -> NDArray[Any]:
    if sample_ids is None:
        return np.arange(samples, dtype=np.int64)
    array, given = _as_array(sample_ids, "sample_ids")
    if array.shape != (samples,):
        raise ConfshiftError(f"sample_ids has shape {array.shape}, expected ({samples},): one id per row")
    if array.dtype.kind in "iu":
        if array.dtype.kind == "u" and array.dtype.itemsize == 8 and (array > np.iinfo(np.int64).max).any():
            raise ConfshiftError(f"sample_ids go up to {array.max()}, beyond 2**63 - 1; pass them as text")
        return np.ascontiguousarray(array, dtype=np.int64)
    return _check_text_ids(array, sample_ids, given)


def _check_text_ids(array: NDArray[Any], original: ArrayLike, given: str) -> NDArray[Any]:
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise ConfshiftError(f"sample_ids: an id is not UTF-8 text ({error}); decode them") from error
    if array.dtype.kind not in "OTU":
        raise ConfshiftError(f"sample_ids has dtype {given}; pass integers or text")
    # A list is looked at as it was given: numpy would turn ["a", 1] into text.
    members = original if isinstance(original, (list, tuple)) else array.tolist()
    odd = next((one for one in members if not isinstance(one, (str, bytes))), None)
    if odd is not None:
        raise ConfshiftError(f"sample_ids: {odd!r} among text; pass all integers or all text")
    array = array.astype(str)
    if array.dtype.itemsize // 4 > _MAX_ID_LENGTH:
        raise ConfshiftError(f"sample_ids: an id is longer than {_MAX_ID_LENGTH} characters; shorten it")
    if any("\0" in one for one in array.tolist()):
        raise ConfshiftError("sample_ids: an id holds a NUL character; remove it")
    return np.ascontiguousarray(array)


def _check_names(class_names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    if class_names is None:
        return tuple(str(k) for k in range(classes))
    # A set or a dict has no order to go by, and a string is not its letters.
    ordered = isinstance(class_names, (Sequence, np.ndarray)) and not isinstance(class_names, str)
    if not ordered or not all(isinstance(name, str) for name in class_names):
        raise ConfshiftError(f"class_names={class_names!r}: pass a list of {classes} strings")
    if len(class_names) != classes:
        raise ConfshiftError(f"class_names has {len(class_names)} names for {classes} columns of logits")
    return tuple(class_names)


def _sum_tolerance(dtype: str) -> float:
    return 1e-2 if dtype in _HALF else 1e-3


def _refuse_probabilities(logits: NDArray[np.floating[Any]], kept: NDArray[np.bool_], dtype: str) -> None:
    """Refuse rows that are all at least 0 and all sum to 1: no set of logits looks like that by chance.

    Rows that are ignored or not finite say nothing either way.
    """
    for some in (slice(64), slice(None)):  # a glance first, so that ordinary logits cost nothing
        rows = logits[some][kept[some]]
        rows = rows[np.isfinite(rows).all(axis=1)]
        with np.errstate(over="ignore"):
            sums = rows.sum(axis=1, dtype=np.float64)
        if (np.abs(sums - 1) > _sum_tolerance(dtype)).any() or (rows < 0).any():
            return
    if len(rows):
        raise ConfshiftError(
            "logits: every row is at least 0 and sums to 1, so these are probabilities; pass them to "
            "Predictions.from_probabilities(...) or inspect(..., outputs='probabilities'). If they really "
            "are logits, subtract a constant from each row: that changes no result"
        )


def _distinct_rows(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    ids: NDArray[Any],
    kept: NDArray[np.intp],
) -> NDArray[np.intp]:
    """Return the rows to keep in id order, one for each id; rows that share an id must agree."""
    kept_ids = ids[kept]
    if len(kept) == 1 or (kept_ids[1:] > kept_ids[:-1]).all():
        return kept
    order = kept[np.argsort(kept_ids, kind="stable")]
    first = np.ones(len(order), bool)
    first[1:] = ids[order[1:]] != ids[order[:-1]]
    again = np.flatnonzero(~first)
    if len(again):
        original = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))[again]
        a, b = order[original], order[again]
        agree = np.isclose(logits[a], logits[b], rtol=0, atol=_DUPLICATE_TOLERANCE, equal_nan=True).all(
            axis=1
        )
        wrong = np.flatnonzero(~agree | (targets[a] != targets[b]))
        if len(wrong):
            raise ConfshiftError(
                f"sample_ids: {len(wrong)} rows repeat an id with other logits or another target, first "
                f"{ids[b[wrong[0]]].item()!r}; give each sample an id of its own"
            )
    return order[first]
