"""The ways in which an evaluation loop's loss differs from the mean over the samples, recomputed.

A way is a cause and a detail (the value tried, such as a batch size). A new cause needs a remedy in
:mod:`confshift.findings.logged`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.objective import given_weights
from confshift.analysis.panel import Panel
from confshift.scoring import blocks

_SMOOTHING = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
_BATCH_SIZES = tuple(sorted({*(2**k for k in range(1, 14)), 10, 20, 25, 50, 96, 100, 200, 250, 500, 1000}))
_FOCAL = (0.5, 1.0, 2.0, 3.0, 5.0)
_RANKS = (2, 4, 8, 16, 32)
_DECAYS = (0.9, 0.95, 0.98, 0.99)  # of a moving average

#: Ways with many values each: counted with the others, they would make any number agree with something.
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

    `means` are the mean losses of all checkpoints, not finite where some sample's loss is not.
    """
    checkpoint, one = panel.checkpoints[position], panel.one(position)
    usable = one.finite[0]
    losses, targets = one.loss[0][usable], panel.targets[usable]
    all_logits = checkpoint.predictions.logits
    logits = all_logits if usable.all() else all_logits[usable]
    sums = _sums(logits, targets, losses)
    sample_weights = {
        name: weights[targets]
        for name, weights in _class_weights(checkpoint.metadata, targets, panel.class_names)
    }
    if panel.objective:
        yield "a plain cross-entropy", "without class weights and label smoothing", float(losses.mean())
    yield from _of_losses(losses)
    yield from _of_sums(sums, losses, logits.shape[1])
    yield from _of_answers(float(one.correct[0][one.answered[0]].mean()))
    for name, weight in sample_weights.items():
        yield "class weights", name, float((weight * losses).sum() / weight.sum())
        yield "class weights, divided by the samples", name, float((weight * losses).mean())
    provenance = checkpoint.provenance
    if provenance.id_source in ("order", "sampler") and panel.sample_ids.dtype.kind == "i":
        # The rows are in the order of an unshuffled loader.
        places, rows = _places(panel.sample_ids, provenance.ignored_samples)
        for size in _BATCH_SIZES:
            if size < rows:
                starts = np.flatnonzero(np.diff(places[usable] // size, prepend=-1))
                yield from _of_batches(losses, starts, size, rows)
                yield from _of_batches_of_others(losses, sums[0], sample_weights, starts, size)
        yield from _of_padding(losses, provenance.duplicate_samples)
    if provenance.ignored_samples:
        divisor = len(losses) + provenance.ignored_samples
        yield "ignored samples counted", f"{provenance.ignored_samples}", float(losses.sum()) / divisor
    yield from _of_checkpoints(means[: position + 1])


def _places(ids: NDArray[np.int64], ignored: int) -> tuple[NDArray[np.int64], int]:
    """Return the rows' places in the loader, and its number of rows, some of which may have no label."""
    rows = len(ids) + ignored
    ids_are_places = bool(ids.min() >= 0 and ids.max() < rows)
    return (ids, rows) if ids_are_places else (np.arange(len(ids)), len(ids))


def _of_checkpoints(means: NDArray[np.float64]) -> Iterator[_Way]:
    """Yield the ways that use checkpoints before the last of these."""
    if len(means) > 1 and math.isfinite(means[-2]):
        yield "the checkpoint before", "of those inspected", float(means[-2])
    if np.isfinite(means).all():
        yield "a meter never reset between epochs", "its mean", float(means.mean())
        yield "a meter never reset between epochs", "its sum", float(means.sum())


def _of_losses(losses: NDArray[np.float64]) -> Iterator[_Way]:
    """Yield the ways that need the samples' losses alone, in any order."""
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
    """Yield the ways that need the logits of all classes."""
    uniform, twice, binary, of_shares, true_logit, brier = sums
    for eps in _SMOOTHING:
        yield "label smoothing", f"{eps:g}", float((1 - eps) * losses.mean() + eps * uniform.mean())
    yield "a softmax applied twice", "cross_entropy on probabilities", float(twice.mean())
    yield "nll_loss on logits", "without a log_softmax", -float(true_logit.mean())
    yield "another measure", "Brier score", float(brier.mean())
    yield "another measure", "mean squared error against one-hot labels", float(brier.mean()) / classes
    for name, values in (("binary_cross_entropy_with_logits", binary), ("binary_cross_entropy", of_shares)):
        yield "a binary cross-entropy against one-hot labels", f"{name}, mean", float(values.mean()) / classes
        yield "a binary cross-entropy against one-hot labels", f"{name}, sum", float(values.mean())


def _sums(
    logits: NDArray[Any], targets: NDArray[np.int64], losses: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Return six losses of each sample.

    The cross-entropy against the uniform distribution; that of the probabilities used as logits; the sum of
    the classes' binary ones, of logits and of probabilities; the true class's logit; the Brier score.
    """
    uniform, twice, binary, of_shares, true_logit, brier = (np.empty(len(targets)) for _ in range(6))
    for block in blocks(logits, targets):
        rows, axis = block.rows, block.axis
        raw = np.asarray(logits[rows], np.float64)
        samples, labels = np.arange(len(raw)), targets[rows]
        true_logit[rows] = raw[samples, labels]
        uniform[rows] = block.at_target - block.below_top.mean(axis=axis) + losses[rows]
        shares = np.exp(block.below_top)
        shares = shares / shares.sum(axis=axis, keepdims=True)
        shares = shares.T if axis == 0 else shares
        true_share = shares[samples, labels]
        brier[rows] = (shares**2).sum(axis=1) - 2 * true_share + 1
        twice[rows] = np.log(np.exp(shares).sum(axis=1)) - true_share
        binary[rows] = np.logaddexp(0, raw).sum(axis=1) - true_logit[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            log_complements = np.log1p(-shares)
            of_shares[rows] = losses[rows] - (log_complements.sum(axis=1) - log_complements[samples, labels])
    return uniform, twice, binary, of_shares, true_logit, brier


def _of_batches(
    losses: NDArray[np.float64], starts: NDArray[np.intp], size: int, rows: int
) -> Iterator[_Way]:
    """Yield the ways that depend on the batches of a loader that does not shuffle; they begin at `starts`."""
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
        average = float(shares @ means)
        first = float(means[0]) * decay**batches
        corrected_average = average / float(shares.sum())
        cause, setting = "a moving average over batches", f"{detail}, decay {decay:g}"
        yield cause, f"{setting}, begun with the first", average + first
        yield cause, f"{setting}, corrected for its start", corrected_average


def _of_batches_of_others(
    losses: NDArray[np.float64],
    uniform: NDArray[np.float64],
    sample_weights: dict[str, NDArray[np.float64]],
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
    for name, weight in sample_weights.items():
        of_batches = np.add.reduceat(weight, starts)
        if not of_batches.all():  # a batch without any weight has no mean
            continue
        means = np.add.reduceat(weight * losses, starts) / of_batches
        yield "mean of weighted batch means", f"{detail}, {name}", float(means.mean())
        if (counts != counts[0]).any():
            by_size = float((means * counts).sum()) / len(losses)
            yield "mean of weighted batch means", f"{detail} by size, {name}", by_size


def _of_padding(losses: NDArray[np.float64], duplicates: int) -> Iterator[_Way]:
    if 0 < duplicates <= len(losses):
        # A distributed sampler pads with the first samples.
        total = float(losses.sum()) + float(losses[:duplicates].sum())
        yield "padded samples counted", f"{duplicates}", total / (len(losses) + duplicates)


def _class_weights(
    metadata: Any, targets: NDArray[np.int64], names: tuple[str, ...]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    counts = np.bincount(targets, minlength=len(names))
    if len(set(counts[counts > 0].tolist())) > 1:
        yield "inverse to the class's samples", 1 / np.maximum(counts, 1)
    weights = given_weights(metadata, names)
    if weights is not None and weights[targets].sum() > 0:
        yield 'metadata["class_weights"]', weights
