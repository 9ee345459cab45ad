"""The ways in which an evaluation loop's loss differs from the mean over the samples, recomputed.

A way is a cause and a detail (the value tried, such as a batch size). What is added here needs a remedy in
:mod:`confshift.findings.logged`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.panel import Panel
from confshift.input_checks import as_number
from confshift.scoring import blocks

_SMOOTHING = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
_BATCH_SIZES = tuple(sorted({*(2**k for k in range(1, 14)), 10, 20, 25, 50, 96, 100, 200, 250, 500, 1000}))
_FOCAL = (0.5, 1.0, 2.0, 3.0, 5.0)
_RANKS = (2, 4, 8, 16, 32)
_DECAYS = (0.9, 0.95, 0.98, 0.99)  # of a moving average

#: Ways of many values each: tried by the side of the others, they would make any number agree with something.
ELABORATE = frozenset(
    {
        "batch means divided by a wrong number of batches",
        "a moving average over batches",
        "mean of batch means of a smoothed loss",
        "mean of weighted batch means",
    }
)

_Way: TypeAlias = tuple[str, str, float]  # cause, detail, the mean loss computed that way


def recomputed_losses(panel: Panel, position: int, means: NDArray[np.float64]) -> Iterator[_Way]:
    """Yield cause, detail and value of each way in which the loss of a checkpoint can be recomputed.

    `means` are those of all checkpoints' losses, not finite where some sample's is not.
    """
    checkpoint, usable = panel.checkpoints[position], panel.finite[position]
    losses, targets = panel.loss[position][usable], panel.targets[usable]
    given = checkpoint.predictions.logits
    logits = given if usable.all() else given[usable]
    sums = _sums(logits, targets, losses)
    weighted = {
        name: weights[targets]
        for name, weights in _class_weights(checkpoint.metadata, targets, panel.class_names)
    }
    yield from _of_losses(losses)
    yield from _of_sums(sums, losses, logits.shape[1])
    yield from _of_answers(float(panel.correct[position][panel.answered[position]].mean()))
    for name, weight in weighted.items():
        yield "class weights", name, float((weight * losses).sum() / weight.sum())
        yield "class weights, divided by the samples", name, float((weight * losses).mean())
    provenance = checkpoint.provenance
    if provenance.id_source in ("order", "sampler") and panel.sample_ids.dtype.kind == "i":
        # The rows are then in the order of an unshuffled loader.
        places, rows = _places(panel.sample_ids, provenance.ignored_samples)
        for size in _BATCH_SIZES:
            if size < rows:
                starts = np.flatnonzero(np.diff(places[usable] // size, prepend=-1))
                yield from _of_batches(losses, starts, size, rows)
                yield from _of_batches_of_others(losses, sums[0], weighted, starts, size)
        yield from _of_padding(losses, provenance.duplicate_samples)
    if provenance.ignored_samples:
        counted = len(losses) + provenance.ignored_samples
        yield "ignored samples counted", f"{provenance.ignored_samples}", float(losses.sum()) / counted
    yield from _of_checkpoints(means[: position + 1])


def _places(ids: NDArray[np.int64], ignored: int) -> tuple[NDArray[np.int64], int]:
    """Return the rows' places in the loader, and how many rows that has: some may have no label."""
    rows = len(ids) + ignored
    counted = bool(ids.min() >= 0 and ids.max() < rows)
    return (ids, rows) if counted else (np.arange(len(ids)), len(ids))


def _of_checkpoints(means: NDArray[np.float64]) -> Iterator[_Way]:
    """Yield what looks back to the checkpoints before the last of these."""
    if len(means) > 1 and math.isfinite(means[-2]):
        yield "the checkpoint before", "of those inspected", float(means[-2])
    if np.isfinite(means).all():
        yield "a meter never reset between epochs", "its mean", float(means.mean())
        yield "a meter never reset between epochs", "its sum", float(means.sum())


def _of_losses(losses: NDArray[np.float64]) -> Iterator[_Way]:
    """Yield what follows from the samples' losses alone, in any order."""
    mean, p = float(losses.mean()), np.exp(-losses)
    yield "a sum in place of a mean", f"{len(losses)} samples", float(losses.sum())
    for base in (2, 10):
        yield "another logarithm", f"base {base}", mean / math.log(base)
    yield "the mean of -p, the true class's probability", "nll_loss on probabilities", -float(p.mean())
    for gamma in _FOCAL:
        yield "focal loss", f"gamma {gamma:g}", float(((1 - p) ** gamma * losses).mean())
    for ranks in _RANKS:
        yield "a sum over ranks", f"{ranks} ranks", mean * ranks
        yield "a division by ranks or steps too many", f"{ranks} ranks or accumulation steps", mean / ranks
    yield "another measure", "perplexity", float(np.exp(min(mean, 700.0)))
    yield "another measure", "the loss with its sign turned", -mean
    yield "another measure", "the median", float(np.median(losses))


def _of_answers(accuracy: float) -> Iterator[_Way]:
    for unit, in_unit in ((1.0, ""), (100.0, " in percent")):
        yield "another measure", f"accuracy{in_unit}", unit * accuracy
        yield "another measure", f"error rate{in_unit}", unit * (1 - accuracy)


def _of_sums(
    sums: tuple[NDArray[np.float64], ...], losses: NDArray[np.float64], classes: int
) -> Iterator[_Way]:
    """Yield what needs every class's logit."""
    uniform, twice, binary, of_shares, picked, squared = sums
    for eps in _SMOOTHING:
        yield "label smoothing", f"{eps:g}", float((1 - eps) * losses.mean() + eps * uniform.mean())
    yield "a softmax applied twice", "cross_entropy on probabilities", float(twice.mean())
    yield "nll_loss on logits", "without a log_softmax", -float(picked.mean())
    yield "another measure", "Brier score", float(squared.mean())
    yield "another measure", "mean squared error against one-hot labels", float(squared.mean()) / classes
    for name, values in (("binary_cross_entropy_with_logits", binary), ("binary_cross_entropy", of_shares)):
        yield "a binary cross-entropy against one-hot labels", f"{name}, mean", float(values.mean()) / classes
        yield "a binary cross-entropy against one-hot labels", f"{name}, sum", float(values.mean())


def _sums(
    logits: NDArray[Any], targets: NDArray[np.int64], losses: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Return six losses of each sample.

    The cross-entropy against the uniform distribution; that of the probabilities taken for logits; the sum of
    the classes' binary ones, of logits and of probabilities; the true class's logit; the Brier score.
    """
    uniform, twice, binary, of_shares, picked, squared = (np.empty(len(targets)) for _ in range(6))
    for block in blocks(logits, targets):
        rows, axis = block.rows, block.axis
        raw = np.asarray(logits[rows], np.float64)
        each, own = np.arange(len(raw)), targets[rows]
        picked[rows] = raw[each, own]
        uniform[rows] = block.at_target - block.below_top.mean(axis=axis) + losses[rows]
        shares = np.exp(block.below_top)
        shares = shares / shares.sum(axis=axis, keepdims=True)
        shares = shares.T if axis == 0 else shares
        mine = shares[each, own]
        squared[rows] = (shares**2).sum(axis=1) - 2 * mine + 1
        twice[rows] = np.log(np.exp(shares).sum(axis=1)) - mine
        binary[rows] = np.logaddexp(0, raw).sum(axis=1) - picked[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            others = np.log1p(-shares)
            of_shares[rows] = losses[rows] - (others.sum(axis=1) - others[each, own])
    return uniform, twice, binary, of_shares, picked, squared


def _of_batches(
    losses: NDArray[np.float64], starts: NDArray[np.intp], size: int, rows: int
) -> Iterator[_Way]:
    """Yield what depends on the batches of a loader that does not shuffle: they begin at `starts`."""
    detail, batches = f"batches of {size}", len(starts)
    sums, counts = np.add.reduceat(losses, starts), np.diff([*starts, len(losses)])
    means = sums / counts
    total = float(means.sum())
    yield "the sum of a batch, averaged over batches", detail, float(sums.mean())
    yield "batch means added up", detail, total
    yield "batch means divided by the number of samples", detail, total / rows
    yield "the last batch only", detail, float(means[-1])
    if (counts != counts[0]).any():
        yield "mean of batch means", detail, float(means.mean())
    if rows % size and batches > 1:
        yield "drop_last", detail, float(sums[:-1].sum()) / float(counts[:-1].sum())
        yield "sums divided by full batches", detail, float(losses.sum()) / (size * -(-rows // size))
    for more, divisor in (("one too few", batches - 1), ("one too many", batches + 1)):
        if divisor:
            yield "batch means divided by a wrong number of batches", f"{detail}, {more}", total / divisor
    for decay in _DECAYS:
        shares = (1 - decay) * decay ** np.arange(batches - 1, -1, -1.0)
        of_all = float(shares @ means)
        first = float(means[0]) * decay**batches
        corrected = of_all / float(shares.sum())
        cause, each = "a moving average over batches", f"{detail}, decay {decay:g}"
        yield cause, f"{each}, begun with the first", of_all + first
        yield cause, f"{each}, corrected for its start", corrected


def _of_batches_of_others(
    losses: NDArray[np.float64],
    uniform: NDArray[np.float64],
    weighted: dict[str, NDArray[np.float64]],
    starts: NDArray[np.intp],
    size: int,
) -> Iterator[_Way]:
    """Yield the batch means of a smoothed loss, and of weighted ones, whose weights each batch divides by."""
    detail, counts = f"batches of {size}", np.diff([*starts, len(losses)])
    plain, smooth = (np.add.reduceat(values, starts) / counts for values in (losses, uniform))
    if (counts != counts[0]).any():
        for eps in _SMOOTHING:
            value = float(((1 - eps) * plain + eps * smooth).mean())
            yield "mean of batch means of a smoothed loss", f"{detail}, label smoothing {eps:g}", value
    for name, weight in weighted.items():
        of_batches = np.add.reduceat(weight, starts)
        if not of_batches.all():  # a batch without any weight has no mean
            continue
        means = np.add.reduceat(weight * losses, starts) / of_batches
        yield "mean of weighted batch means", f"{detail}, {name}", float(means.mean())
        if (counts != counts[0]).any():
            by_size = float((means * counts).sum()) / len(losses)
            yield "mean of weighted batch means", f"{detail} by size, {name}", by_size


def _of_padding(losses: NDArray[np.float64], padded: int) -> Iterator[_Way]:
    if 0 < padded <= len(losses):
        # A distributed sampler fills up with the first samples.
        total = float(losses.sum()) + float(losses[:padded].sum())
        yield "padded samples counted", f"{padded}", total / (len(losses) + padded)


def _class_weights(
    metadata: Any, targets: NDArray[np.int64], names: tuple[str, ...]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    counts = np.bincount(targets, minlength=len(names))
    if len(set(counts[counts > 0].tolist())) > 1:
        yield "inverse to the class's samples", 1 / np.maximum(counts, 1)
    weights = given_weights(metadata, names)
    if weights is not None and weights[targets].sum() > 0:
        yield 'metadata["class_weights"]', weights


def given_weights(metadata: Any, names: tuple[str, ...]) -> NDArray[np.float64] | None:
    """Return `metadata["class_weights"]`, a number for each class; None where they can't be read as that.

    A list, also as one row or one column, or a dict by the classes' names or indices.
    """
    given: Any = metadata.get("class_weights")
    if isinstance(given, dict):
        by_name = [given.get(name) for name in names]
        given = [given.get(str(index)) for index in range(len(names))] if None in by_name else by_name
    elif isinstance(given, list | tuple) and len(given) == 1:
        given = given[0]
    elif isinstance(given, list | tuple) and all(isinstance(one, list) and len(one) == 1 for one in given):
        given = [one[0] for one in given]
    if not isinstance(given, list | tuple) or len(given) != len(names):
        return None
    weights = np.array([as_number(one) for one in given])
    return weights if np.isfinite(weights).all() and (weights >= 0).all() and weights.any() else None
