"""What an untrained model looks like, and whether the outputs are in the order of the classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.grouping import Codes, mean_error
from confshift.checkpoint import Checkpoint
from confshift.draws import own_generator
from confshift.scoring import score

#: Beyond 7 classes the permutations are drawn, not all tried.
_ALL_PERMUTATIONS = math.factorial(7)
_AT_ONCE = 512
#: Logits read by the permutation test; any subset of the samples makes a valid test.
_READ = 10_000_000
#: Of these so many are added up at a time.
_BLOCK = 1 << 17
#: Standard deviations of a logit that the quadrature covers.
_REACH = 9.0


def references(
    targets: NDArray[np.int64], classes: int, weights: NDArray[np.float64] | None = None
) -> pd.DataFrame:
    """Return what a uniform guess and the best constant prediction reach on these targets.

    Parameters
    ----------
    targets : ndarray, shape (N,)
    classes : int
    weights : ndarray, shape (N,), optional
        What each sample counts for in a mean of losses, 1 on average: the frequencies are then weighted.

    Returns
    -------
    DataFrame
        Indexed by reference, "uniform guess" (ln K nats, accuracy 1/K) and "best constant" (the class
        frequencies: their entropy in nats, the largest of them); columns loss, accuracy.

    Examples
    --------
    >>> references(np.array([0, 0, 0, 1]), 2).round(3).to_numpy().tolist()
    [[0.693, 0.5], [0.562, 0.75]]
    """
    share = np.bincount(targets, minlength=classes) / len(targets)
    weighted = share if weights is None else np.bincount(targets, weights, classes) / len(targets)
    present = weighted[weighted > 0]
    return pd.DataFrame(
        {
            "loss": [math.log(classes), float(-(present * np.log(present)).sum())],
            "accuracy": [1 / classes, float(share.max())],
        },
        index=pd.Index(["uniform guess", "best constant"], name="reference"),
    )


def untrained_loss(classes: int, *, in_features: int, mean_squared_norm: float, bias: bool = True) -> float:
    """Return the expected loss of an untrained `torch.nn.Linear` head.

    Its weights are uniform on +-1/sqrt(d), so a logit is about normal with variance
    s^2 = (|h|^2 + 1) / (3 d), h the head's input, the 1 for the bias. Logits and target are independent, so
    the expected loss is E log sum exp of K such logits: ln K + s^2/2 (1 - 1/K) where s is small.

    Parameters
    ----------
    classes : int
        K, its outputs.
    in_features : int
        d, its inputs.
    mean_squared_norm : float
        The mean of |h|^2 over the samples.
    bias : bool
        Whether the head has a bias.

    Returns
    -------
    float
        In nats; the average over initialisations, about which a single one scatters.

    Notes
    -----
    Frullani's integral E log S = int (e^-t - E e^-tS) dt/t, in u = log t, by the trapezoid rule, which
    converges fast for a smooth integrand that vanishes at both ends.

    Examples
    --------
    >>> round(untrained_loss(8, in_features=512, mean_squared_norm=0.0, bias=False) - math.log(8), 6)
    0.0
    """
    spread = math.sqrt((mean_squared_norm + bias) / (3 * in_features))
    normal, step = np.linspace(-_REACH, _REACH, 401, retstep=True)
    weights = np.exp(-(normal**2) / 2) * step / math.sqrt(2 * math.pi)
    edge = _REACH * spread
    u, width = np.linspace(-edge - math.log(classes) - 40, edge + 5, 4001, retstep=True)
    total = 0.0
    for part in np.array_split(u, 16):
        t = np.exp(np.minimum(part[:, None] + spread * normal, 700.0))
        # 1 - E e^-tx, so that a power of a number near 1 keeps its digits.
        missing = np.minimum(-np.expm1(-t) @ weights, 1 - 1e-300)
        with np.errstate(divide="ignore"):
            power = np.exp(classes * np.log1p(-missing))
        total += float((np.exp(-np.exp(part)) - power).sum() * width)
    return total


class PermutationTest(NamedTuple):
    """How well a head fits the targets, against the same head with its outputs exchanged."""

    loss: float  # nats
    accuracy: float
    loss_p: float  # share of the exchanges that fit at least as well
    accuracy_p: float
    permutations: int
    samples: int


def column_permutation_test(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    *,
    permutations: int = 5000,
    seed: int = 0,
    losses: NDArray[np.float64] | None = None,
    predicted: NDArray[np.integer[Any]] | None = None,
) -> PermutationTest:
    """Test whether a head is too good to be untrained.

    The rows of a randomly initialised head are exchangeable, so the assignment of outputs to classes is a
    draw among all K! permutations, whatever the features are. A binomial test of the accuracy against 1/K
    would be wrong: features cluster by class, so whole classes are right or wrong together.

    Parameters
    ----------
    logits : ndarray, shape (N, K)
        Finite. Beyond ten million of them a seeded subset of the samples is read.
    targets : ndarray of int64, shape (N,)
    permutations : int
        Drawn where K! is more than 5040; else all are tried.
    seed : int
    losses, predicted : ndarray, shape (N,), optional
        In nats, and the first class with the largest logit, where they are known; else they are computed.

    Returns
    -------
    PermutationTest
        The smallest p-value possible is 1/K!, so the test decides nothing for three classes or fewer. It is
        not valid for a head initialised with another model's class weights, or with zeros.

    Notes
    -----
    The mean loss of permuted outputs is that of the normaliser, which no permutation changes, minus the mean
    of the logits that they make those of the true classes: the sums of the logits by true class are enough.
    """
    rng = own_generator(seed)
    classes = logits.shape[1]
    rows: Any = slice(None)
    if logits.size > _READ:
        rows = np.sort(rng.choice(len(targets), max(1, _READ // classes), replace=False))
    z, labels = logits[rows], targets[rows]
    losses = score(z, labels).loss if losses is None else losses[rows]
    predicted = z.argmax(axis=1) if predicted is None else predicted[rows]
    present, codes = np.unique(labels, return_inverse=True)
    counts, sums = _class_counts(codes, predicted, classes), _class_sums(z, codes)
    own = np.arange(len(present)) * classes
    exchanges = _permutations(classes, present, permutations, rng)
    hits, fits = list[NDArray[Any]](), list[NDArray[Any]]()
    while chunk := list(itertools.islice(exchanges, _AT_ONCE)):
        places = own + np.array(chunk)
        hits.append(counts.take(places).sum(axis=1))
        fits.append(sums.take(places).sum(axis=1))
    all_hits, all_fits = np.concatenate(hits), np.concatenate(fits)
    rounding = 1e-9 * max(1.0, abs(all_fits[0]))
    return PermutationTest(
        float(losses.mean()),
        float(all_hits[0] / len(labels)),
        float(np.mean(all_fits >= all_fits[0] - rounding)),
        float(np.mean(all_hits >= all_hits[0])),
        len(all_fits),
        len(labels),
    )


def start_test(checkpoint: Checkpoint) -> pd.DataFrame:
    """Return the table of `History.start_test` for the first checkpoint."""
    scores = checkpoint.scores
    finite = np.isfinite(scores.loss)
    test = column_permutation_test(
        *checkpoint.scored_logits, losses=scores.loss[finite], predicted=scores.predicted[finite]
    )
    return pd.DataFrame(
        {
            "value": [test.loss, test.accuracy],
            "p_value": [test.loss_p, test.accuracy_p],
            "permutations": test.permutations,
            "samples": test.samples,
        },
        index=pd.Index(["loss", "accuracy"], name="quantity"),
    )


def _class_counts(
    codes: NDArray[np.intp], predicted: NDArray[np.integer[Any]], classes: int
) -> NDArray[np.int32]:
    """Return how often each output is the largest, for each class present, (P * K,)."""
    pairs, samples = np.unique(codes * classes + predicted, return_counts=True)
    counts = np.zeros((int(codes.max()) + 1) * classes, np.int32)
    counts[pairs] = samples
    return counts


def _class_sums(logits: NDArray[np.floating[Any]], codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the sums of the logits over the samples of each class present, (P, K), block by block."""
    order, classes = np.argsort(codes, kind="stable"), logits.shape[1]
    sums, size = np.zeros((int(codes.max()) + 1, classes)), max(1, _BLOCK // classes)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        block, begins = logits[rows].astype(np.float64), np.flatnonzero(np.diff(codes[rows], prepend=-1))
        for begin, end in itertools.pairwise([*begins, len(rows)]):
            sums[codes[rows[begin]]] += block[begin:end].sum(axis=0)
    return sums


def _permutations(
    classes: int, present: NDArray[np.int64], count: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield the output of each class present: its own first, then all or `count` other assignments."""
    if math.factorial(min(classes, 20)) <= _ALL_PERMUTATIONS:
        for columns in itertools.permutations(range(classes)):
            yield np.array(columns)[present]
        return
    yield present
    for _ in range(count):
        yield rng.choice(classes, len(present), replace=False)


class LabelOrder(NamedTuple):
    """Whether the outputs would fit the targets better under other names."""

    accuracy: float
    matched_accuracy: float  # with the outputs renamed; the names were found on the other samples
    gain_se: float  # of the difference
    taken_for: NDArray[np.int64]  # (K,) the output that each class is matched with


def label_order(
    predicted: NDArray[np.integer[Any]],
    targets: NDArray[np.int64],
    classes: int,
    codes: Codes | None = None,
) -> LabelOrder:
    """Match the outputs with the classes by assignment on the confusion matrix.

    Each half of the samples is renamed by the other half's matching: with few samples for each class, a
    matching fits its own half by chance. Samples of a group are in the same half.

    Parameters
    ----------
    predicted, targets : ndarray, shape (N,)
    classes : int
    codes : ndarray of int, shape (N,), optional
        Of groups that err together.

    Notes
    -----
    H. W. Kuhn, "The Hungarian method for the assignment problem", Naval Research Logistics Quarterly 2
    (1955), 83-97; solved by `scipy.optimize.linear_sum_assignment`.
    """
    half = _halves(targets, codes)
    right = np.empty(len(targets))
    for side in (0, 1):
        names = _matching(predicted[half != side], targets[half != side], classes)
        here = half == side
        right[here] = predicted[here] == names[targets[here]]
    plain = predicted == targets
    difference = right - plain
    return LabelOrder(
        float(plain.mean()),
        float(right.mean()),
        mean_error(difference, codes),
        _matching(predicted, targets, classes),
    )


def _halves(targets: NDArray[np.int64], codes: Codes | None) -> NDArray[np.intp]:
    """Return 0 or 1 for each sample, alike in their classes; a group is in one half."""
    if codes is None:
        half = np.empty(len(targets), np.intp)
        half[np.argsort(targets, kind="stable")] = np.arange(len(targets)) % 2
        return half
    _, leaders, units = np.unique(codes, return_index=True, return_inverse=True)
    return _halves(targets[leaders], None)[units]


def _matching(
    predicted: NDArray[np.integer[Any]], targets: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Return for each class the output that makes the most samples right; its own where equal."""
    confusion = np.bincount(targets * classes + predicted, minlength=classes**2).astype(np.float64)
    confusion = confusion.reshape(classes, classes)
    np.fill_diagonal(confusion, confusion.diagonal() + 0.5 / classes)
    own = np.arange(classes)
    if (confusion.argmax(axis=1) == own).all():  # no assignment gives more than the largest of each row
        return own
    from scipy.optimize import linear_sum_assignment  # takes half a second to import

    return np.asarray(linear_sum_assignment(confusion, maximize=True)[1], np.int64)
