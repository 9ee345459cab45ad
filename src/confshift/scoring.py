"""What each sample contributes: hedge, mistake, confidence, margin. The one blocked pass over logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: Blocks of about this many bytes stay in a core's cache between the passes over them.
_BLOCK_BYTES = 1 << 20
#: Below this width a row is too short to reduce well: the block is transposed, classes first.
_NARROW = 32


#: What the pass over the logits measures of each sample. This is a stored format: see `checkpoint.MEASURED`.
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

    def at(self, classes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the index of one class in each row."""
        rows = np.arange(len(classes))
        return (classes, rows) if self.axis == 0 else (rows, classes)


@dataclass(frozen=True, eq=False)
class Scores:
    """N samples by column: `scores.hedge`. A row without an answer holds NaN, and its `predicted` is -1."""

    rows: NDArray[Any]  # (N,) with the fields of SCORED, and perhaps others

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name not in COLUMNS:
            raise AttributeError(f"Scores has no column {name!r}")
        column: NDArray[Any] = self.rows[name]
        return column

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


def blocks(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.int64], dtype: DTypeLike = np.float64
) -> Iterator[Block]:
    """Walk over the logits in blocks that fit a cache; rows keep their order."""
    samples, classes = logits.shape
    size = max(1, _BLOCK_BYTES // (np.dtype(dtype).itemsize * classes))
    for start in range(0, samples, size):
        rows = slice(start, min(samples, start + size))
        part = logits[rows]
        if classes < _NARROW:
            yield _narrow_block(rows, part, targets[rows], dtype)
        else:
            yield _wide_block(rows, part, targets[rows], dtype)


def _wide_block(rows: slice, part: NDArray[Any], targets: NDArray[np.int64], dtype: DTypeLike) -> Block:
    top = part.argmax(axis=1)
    each = np.arange(len(part))
    below = part.astype(dtype)
    # inf - inf: the row has no answer; -1e308 - 1e308 is as good as masked.
    with np.errstate(invalid="ignore", over="ignore"):
        below -= below[each, top][:, None]
    return Block(rows, below, 1, top, below[each, targets])


def _narrow_block(rows: slice, part: NDArray[Any], targets: NDArray[np.int64], dtype: DTypeLike) -> Block:
    # A copy always: the transpose of one row is contiguous.
    by_class = np.array(part.T, dtype=dtype, order="C")
    best = by_class[0].copy()
    top = np.zeros(len(part), np.intp)
    for k in range(1, len(by_class)):  # a handful of classes; argmax along axis 0 is several times slower
        top[by_class[k] > best] = k
        np.maximum(best, by_class[k], out=best)  # a NaN stays, and marks the row
    with np.errstate(invalid="ignore", over="ignore"):
        by_class -= best
    return Block(rows, by_class, 0, top, by_class[targets, np.arange(len(part))])


def score(logits: NDArray[np.floating[Any]], targets: NDArray[np.int64]) -> Scores:
    """Score every sample by the stable formulas; loss = hedge + mistake, both at least 0.

    With c = argmax z: hedge = log1p(sum of exp(z_j - z_c) over j != c), mistake = z_c - z_y. Neither
    cancels, so losses far below 1e-15 and far above 100 keep their digits.

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
    rows = np.empty(len(targets), SCORED)
    rows["target"] = targets
    unanswered = np.empty(len(targets), bool)
    for block in blocks(logits, targets):
        part, below = rows[block.rows], block.below_top
        part["predicted"] = block.top
        part["mistake"] = np.abs(block.at_target)  # abs: -(-0.0) would print as a negative zero
        at_top = block.at(block.top)
        unanswered[block.rows] = np.isnan(below[at_top])  # 0 in any row without NaN or plus infinity
        below[at_top] = -np.inf
        runner_up = below.max(axis=block.axis)
        part["tied"] = runner_up == 0
        part["margin"] = np.where(block.top == part["target"], -runner_up, block.at_target)
        others = np.exp(below, out=below).sum(axis=block.axis)
        part["hedge"] = np.log1p(others)
        part["confidence"] = 1 / (1 + others)
    _blank(rows, unanswered)
    return Scores(rows)


def _blank(rows: NDArray[Any], unanswered: NDArray[np.bool_]) -> None:
    """Blank the rows without an answer: numbers are NaN, the predicted class is -1."""
    if not unanswered.any():
        return
    for name in COLUMNS:
        if SCORED[name].kind == "f":
            rows[name][unanswered] = np.nan
    rows["predicted"][unanswered] = -1
    rows["tied"][unanswered] = False
