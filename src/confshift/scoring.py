"""What each sample contributes: hedge, mistake, confidence, margin. The one blocked pass over logits."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: Blocks of about this many bytes stay in a core's cache between the passes over them.
_BLOCK_BYTES = 1 << 20
#: Below this width a row is too short to reduce well: the block is transposed, classes first.
_NARROW = 32
#: The same where a row is of single precision.
_NARROW_SINGLE = 96
#: Exponentials are added up in single precision in runs of so many, and the runs' sums in double.
_RUN = 64


#: What the pass over the logits measures of each sample. This is a stored format: see `measurement.MEASURED`.
SCORED = np.dtype(
    [
        ("target", "<i4"),
        ("predicted", "<i4"),  # argmax, the first of ties
        ("hedge", "<f8"),  # -log of the top probability, in nats
        ("mistake", "<f8"),  # log-odds by which a wrong label beats the true one, in nats
        ("confidence", "<f8"),  # the top label's probability
        ("margin", "<f8"),  # z_y - max over the others
        ("tied", "?"),  # more than one class attains the maximum
    ]
)

COLUMNS: tuple[str, ...] = SCORED.names or ()


class Block(NamedTuple):
    """Some rows, with each row's largest logit subtracted (so nothing overflows)."""

    rows: slice
    below_top: NDArray[np.floating[Any]]  # z - max z; (n, K), or (K, n) where axis is 0
    axis: int  # the axis of the classes
    top: NDArray[np.intp]  # (n,) the first class that attains the maximum
    at_target: NDArray[np.floating[Any]]  # (n,) below_top of the true class

    def at(self, classes: NDArray[Any]) -> NDArray[np.intp]:
        """Return where in the flattened block one class of each row is."""
        return _places(classes, self.below_top.shape, self.axis)


def _places(classes: NDArray[Any], shape: tuple[int, ...], axis: int) -> NDArray[np.intp]:
    """Return one index, which numpy follows several times as fast as two."""
    if axis == 0:
        return np.asarray(classes * shape[1] + np.arange(shape[1]))
    return np.asarray(classes + np.arange(0, shape[0] * shape[1], shape[1]))


class HasColumns(Protocol):
    """A structured array, or what has its columns by name."""

    def __getitem__(self, name: str, /) -> NDArray[Any]:
        """Return a column, (N,)."""
        ...


@dataclass(frozen=True, eq=False)
class Scores:
    """N samples by column: `scores.hedge`. A row without an answer holds NaN, and its `predicted` is -1."""

    rows: HasColumns  # (N,) with the columns of SCORED, and perhaps others

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name not in COLUMNS:
            raise AttributeError(f"Scores has no column {name!r}")
        return self.rows[name]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class is the true one."""
        return np.asarray(self.predicted == self.target)

    @property
    def loss(self) -> NDArray[np.float64]:
        """Cross-entropy of each sample, in nats."""
        return np.asarray(self.hedge + self.mistake)

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Whether a row has an answer: no NaN and no plus infinity among its logits."""
        return np.asarray(self.predicted >= 0)

    @cached_property
    def mean_loss(self) -> float:
        """Mean loss of the rows with an answer, in nats."""
        return mean(self.loss[self.answered])

    @cached_property
    def accuracy(self) -> float:
        """Share of correct rows among those with an answer."""
        return mean(self.correct[self.answered])


def mean(values: NDArray[Any]) -> float:
    """Return the mean; NaN of nothing."""
    return float(values.mean()) if len(values) else math.nan


def blocks(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.int64], dtype: DTypeLike = np.float64
) -> Iterator[Block]:
    """Walk over the logits in blocks that fit a cache; rows keep their order."""
    samples, classes = logits.shape
    for rows in _slices(samples, classes * np.dtype(dtype).itemsize):
        yield _block(rows, logits[rows], targets[rows], dtype)


def _block(rows: slice, part: NDArray[Any], targets: NDArray[np.int64], dtype: DTypeLike) -> Block:
    make = _narrow_block if part.shape[1] < _NARROW else _wide_block
    return make(rows, part, targets, dtype)


def _slices(samples: int, row_bytes: int) -> Iterator[slice]:
    size = max(1, _BLOCK_BYTES // row_bytes)
    for start in range(0, samples, size):
        yield slice(start, min(samples, start + size))


def _wide_block(rows: slice, part: NDArray[Any], targets: NDArray[np.int64], dtype: DTypeLike) -> Block:
    top = part.argmax(axis=1)
    each = np.arange(len(part))
    below = part.astype(dtype, order="C")
    # inf - inf: the row has no answer; -1e308 - 1e308 is as good as masked.
    with np.errstate(invalid="ignore", over="ignore"):
        below -= below[each, top][:, None]
    return Block(rows, below, 1, top, below[each, targets])


def _narrow_block(rows: slice, part: NDArray[Any], targets: NDArray[np.int64], dtype: DTypeLike) -> Block:
    by_class = _classes_first(part, dtype)
    best, top = _largest(by_class)
    with np.errstate(invalid="ignore", over="ignore"):
        by_class -= best
    return Block(rows, by_class, 0, top, by_class.reshape(-1)[_places(targets, by_class.shape, 0)])


def _classes_first(part: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return a transposed copy; a copy always, as the transpose of one row is contiguous."""
    return np.array(part.T, dtype=dtype, order="C")


def _largest(by_class: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the maximum of each column, a NaN where there is one, and the first class that attains it.

    Several times as fast as argmax along the first axis. There are no more than 255 classes.
    """
    classes, best = len(by_class), by_class.max(axis=0)
    place = (by_class == best).view(np.uint8)
    place *= np.arange(classes, 0, -1, dtype=np.uint8)[:, None]
    top = classes - place.max(axis=0).astype(np.intp)
    return best, np.minimum(top, classes - 1)  # no class attains a NaN


def score(logits: NDArray[np.floating[Any]], targets: NDArray[np.int64]) -> Scores:
    """Score every sample by the stable formulas; loss = hedge + mistake, both at least 0.

    With c = argmax z: hedge = log1p(sum of exp(z_j - z_c) over j != c), mistake = z_c - z_y. Neither
    cancels, so losses far below 1e-15 and far above 100 keep their digits. All is in double precision, but
    for the exponentials of single-precision logits with 32 classes or more: these are in single precision,
    relative to the second largest logit, and leave the hedge within 1e-6 of itself, however small it is.

    Parameters
    ----------
    logits : ndarray, shape (N, K)
    targets : ndarray of int64, shape (N,)

    Returns
    -------
    Scores
        A row with NaN or plus infinity in it has no answer and is NaN; so is a row of minus infinities. An
        infinite loss is an answer that gives the true class a probability of 0.

    Examples
    --------
    >>> scores = score(np.array([[2.0, 0.0], [3.0, 1.0]]), np.array([0, 1]))
    >>> scores.hedge.round(3).tolist(), scores.mistake.tolist()
    ([0.127, 0.127], [0.0, 2.0])
    """
    scoring = Scoring(logits, targets)
    scoring.work()
    return scoring.scores


#: How long a thread waits for the block that another one scores before it does so itself, in seconds.
_PATIENCE = 0.1


class Scoring:
    """One pass of :func:`score`, which another thread may shorten."""

    def __init__(self, logits: NDArray[np.floating[Any]], targets: NDArray[np.int64]) -> None:
        self._logits, self._targets = logits, targets
        self._is_single = logits.dtype == np.float32 and logits.shape[1] >= _NARROW
        row_bytes = logits.shape[1] * (4 if self._is_single else 8)
        self._left = deque(_slices(len(logits), row_bytes))
        self._done: list[slice] = []
        self._blocks = len(self._left)
        self._helping = threading.Lock()
        self._rows = np.empty(len(targets), SCORED)
        #: Those of every row once :meth:`work` has returned.
        self.scores = Scores(self._rows)

    def work(self) -> None:
        """Score all blocks that :meth:`help` has not."""
        self._score_each(self._left.popleft)
        if not self._is_done and self._helping.acquire(timeout=_PATIENCE):
            self._helping.release()
        if not self._is_done:  # a helper was interrupted, or is too slow: the old rows are left to it
            alone = Scoring(self._logits, self._targets)
            alone.work()
            self.scores = alone.scores

    def help(self) -> bool:
        """Score blocks from the last one on, in another thread; return whether all are scored."""
        if self._helping.acquire(blocking=False):
            try:
                self._score_each(self._left.pop)
            finally:
                self._helping.release()
        return self._is_done

    @property
    def _is_done(self) -> bool:
        return len(self._done) == self._blocks

    def _score_each(self, take: Callable[[], slice]) -> None:
        while True:
            try:
                rows = take()  # no other thread gets this block
            except IndexError:
                return
            self._score(rows, self._rows[rows])
            self._done.append(rows)

    def _score(self, rows: slice, part: NDArray[Any]) -> None:
        logits, targets = self._logits[rows], self._targets[rows]
        part["target"] = targets
        if self._is_single:
            unanswered = _score_single(logits, targets, part)
        else:
            unanswered = _score_block(_block(slice(0, len(part)), logits, targets, np.float64), part)
        _blank(part, unanswered)


def _score_block(block: Block, part: NDArray[Any]) -> NDArray[np.bool_]:
    """Fill in the rows of a block; return which have no answer."""
    below, at_top = block.below_top, block.at(block.top)
    flat = below.reshape(-1)
    part["predicted"] = block.top
    part["mistake"] = np.abs(block.at_target)  # abs: -(-0.0) would print as a negative zero
    unanswered = np.asarray(np.isnan(flat[at_top]))  # 0 in any row without NaN or plus infinity
    flat[at_top] = -np.inf
    runner_up = below.max(axis=block.axis)
    part["tied"] = runner_up == 0
    part["margin"] = np.where(block.top == part["target"], -runner_up, block.at_target)
    flat[at_top] = 0  # exp is several times as slow where some are infinite
    np.exp(below, out=below)
    flat[at_top] = 0
    _set_hedge(part, below.sum(axis=block.axis))
    return unanswered


def _score_single(
    logits: NDArray[np.float32], targets: NDArray[np.int64], part: NDArray[Any]
) -> NDArray[np.bool_]:
    """Fill in the rows of a block of single-precision logits; return which have no answer.

    The sum of the exponentials is exp(s - c) times that of exp(z_j - s), s the second largest logit. The
    second sum is at least 1, so that what rounding does to its terms, relative to each, is all there is: no
    more than 6e-8 |z_j - s|, whose mean over the terms is below log K. The factor is in double precision.
    """
    each, narrow = np.arange(len(logits)), logits.shape[1] < _NARROW_SINGLE
    if narrow:
        by_class = _classes_first(logits, np.float32)
        z, (best, top) = by_class.T, _largest(by_class)
    else:
        z = logits.astype(np.float32, order="C")
        top = z.argmax(axis=1)
        best = z[each, top]
    largest, at_target = best.astype(np.float64), z[each, targets].astype(np.float64)
    z[each, top] = -np.inf
    second = z.max(axis=1) if narrow else z[each, z.argmax(axis=1)]
    # NaN and infinities make more of them; exponentials far below the largest are 0.
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        wrong, runner_up = at_target - largest, second - largest
        z -= np.maximum(second, np.finfo(np.float32).min)[:, None]  # -inf if there are masked classes alone
        terms = np.exp(z, out=z)
        _set_hedge(part, np.exp(runner_up) * (_column_sums(terms.T) if narrow else _row_sums(terms)))
    part["predicted"] = top
    part["mistake"] = np.abs(wrong)
    part["tied"] = runner_up == 0
    part["margin"] = np.where(top == targets, -runner_up, wrong)
    return np.asarray(~np.isfinite(largest))


def _row_sums(terms: NDArray[np.float32]) -> NDArray[np.float64]:
    """Add up each row, in single precision for `_RUN` terms at a time, as einsum is then fast."""
    samples, classes = terms.shape
    runs, whole = classes // _RUN, classes - classes % _RUN
    sums = np.einsum("ijk->ij", terms[:, :whole].reshape(samples, runs, _RUN)).sum(axis=1, dtype=np.float64)
    return np.asarray(sums + np.einsum("ij->i", terms[:, whole:]))


def _column_sums(terms: NDArray[np.float32]) -> NDArray[np.float64]:
    """Add up each column by halves: each term is rounded a few times. The terms are overwritten."""
    while (classes := len(terms)) > 1:
        half = classes // 2
        terms[:half] += terms[classes - half :]
        terms = terms[: classes - half]
    return np.asarray(terms[0], np.float64)


def _set_hedge(part: NDArray[Any], others: NDArray[np.float64]) -> None:
    """Fill in what follows from the sum of the other classes' probabilities, divided by the top one."""
    part["hedge"] = np.log1p(others)
    part["confidence"] = 1 / (1 + others)


def _blank(rows: NDArray[Any], unanswered: NDArray[np.bool_]) -> None:
    """Blank the rows without an answer: numbers are NaN, the predicted class is -1."""
    if not unanswered.any():
        return
    for name in COLUMNS:
        if SCORED[name].kind == "f":
            rows[name][unanswered] = np.nan
    rows["predicted"][unanswered] = -1
    rows["tied"][unanswered] = False
