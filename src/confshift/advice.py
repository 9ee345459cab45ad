"""Advice on arrays of the wrong form: looks at the values first, so that it is right for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: On outputs, one for each target, that look like probabilities.
ON_UNIT_OUTPUTS = (
    "the model's outputs are all within 0..1, as probabilities are (does it end in a sigmoid?); pass "
    "outputs='probabilities', or to Predictions.from_probabilities(...) np.column_stack([1 - p, p]) with "
    "p = logits[:, 1]. If they really are logits z, pass two for each: torch.stack([-z / 2, z / 2], -1)"
)


def within_unit(values: NDArray[Any]) -> bool:
    """Tell whether all finite values are in 0..1, as probabilities are."""
    finite = values[np.isfinite(values)]
    return bool(finite.size) and bool(((finite >= 0) & (finite <= 1)).all())


def on_one_output(values: NDArray[Any], *, logit: str, probability: str, each: str = "sample") -> str:
    """Say what to do with one output for each sample, given the code for a logit and for a probability."""
    if values.dtype.kind in "iub":
        return f"one whole number for each {each}: predicted classes, without confidence; pass the logits"
    if not within_unit(values):
        return f"one logit for each {each}; pass two columns: {logit}"
    return (
        f"one output for each {each}, all in 0..1. If they are probabilities (the model ends in a sigmoid), "
        f"pass both: {probability}\nIf they are logits, pass two columns: {logit}"
    )


def are_signs(values: NDArray[Any]) -> bool:
    """Tell whether targets are -1 and 1, as of a hinge loss: both occur, and nothing else."""
    return bool(np.array_equal(np.unique(values), [-1, 1]))


_FEW = 8  # rows: fewer of several labels may have one each by chance


def on_columns(targets: NDArray[Any], *, one_hot: str, several: str) -> str:
    """Say what targets with a column for each class are, given what to do with one-hot and with several.

    One-hot, multi-label, soft, or none of these; few rows can be one-hot by chance.
    """
    if targets.dtype.kind not in "biuf":
        return f"they are {targets.dtype}, not numbers; pass the index of each true class"
    if not targets.size:
        return "no rows; pass at least one sample, with one class index for each"
    low, high = float(targets.min()), float(targets.max())
    sums = targets.sum(axis=1, dtype=np.float64)
    hard = bool(((targets == 0) | (targets == 1)).all())
    several = f"multi-label targets: {several}"
    if hard and (sums == 1).all():
        if len(targets) >= _FEW:
            return f"one-hot labels; pass class indices: {one_hot}"
        return (
            f"one label in each of {len(targets)} rows. If every sample has exactly one (one-hot labels), "
            f"pass class indices: {one_hot}\nIf a sample may have several or none: {several}"
        )
    if hard:
        return f"rows sum to {sums.min():g}..{sums.max():g}: {several}"
    if low >= 0 and high <= 1 and np.allclose(sums, 1, atol=1e-2):
        return (
            "soft labels (rows sum to 1): confshift measures the loss against one class for each sample; "
            "pass the class indices from before mixing or smoothing"
        )
    return f"not labels of classes (values {low:g}..{high:g}); pass one class index for each sample"


def on_label_arrays(targets: NDArray[Any], logits: NDArray[Any], task: str) -> str:
    """Say what arrays of targets with a column for each class are, with code for `Predictions`."""
    samples, labels = targets.shape
    logit = "Predictions(np.column_stack([0 * z, z]), ...) with z = np.ravel(logits)"
    share = "Predictions.from_probabilities(np.column_stack([1 - p, p]), ...) with p = np.ravel(logits)"
    unit = f"if the outputs are probabilities, {share}; if they are logits, {logit}"
    rest = (
        "and np.ravel(targets).astype(int), task='multilabel', "
        f"groups=np.repeat(np.arange({samples}), {labels})"
    )
    several = f"each label of each sample is a row: pass {unit if within_unit(logits) else logit} {rest}"
    if task == "multilabel":
        return several
    return on_columns(targets, one_hot="np.asarray(targets).argmax(1)", several=several)


def on_labels(targets: NDArray[Any], *, code: str) -> str:
    """Say how targets that are not integers become class indices, if they do, given the code."""
    if are_whole(targets):
        return f"whole numbers: pass them as integers, {code}"
    if targets.dtype.kind == "f" and are_whole(targets[~np.isnan(targets)]):
        return "NaN among whole numbers: give those samples the ignore_index (-100), and pass integers"
    return "not whole numbers, so they are not class indices (regression or soft targets?)"


def are_whole(values: NDArray[Any]) -> bool:
    """Tell whether numbers of any dtype are whole, finite ones."""
    return values.dtype.kind in "biu" or bool((np.isfinite(values) & (values == np.floor(values))).all())


def on_range(targets: NDArray[Any], classes: int, ignored: int | None) -> str:
    """Say how targets outside 0..K-1 become class indices, given the label that is already left out.

    Where the values alone can't decide, it offers the choices.
    """
    values = np.unique(targets).tolist()
    low, high = values[0], values[-1]
    if low == 1 and high == classes:
        return f"they count from 1: pass {_renumbered('targets - 1', ignored)}"
    if classes == 2 and are_signs(targets):
        return f"they are -1 and 1: pass {_renumbered('(targets + 1) // 2', ignored)}"
    outside = [value for value in values if not 0 <= value < classes]
    ways = []
    if classes == 2 and low == 0 and len(values) == 2:
        code = _renumbered(f"targets // {high}", ignored)
        ways.append(f"if {high} is the second class, as in a mask, pass {code}")
    if low < 0 and high - low < classes:
        ways.append(f"if classes count from {low}, pass {_renumbered(f'targets + {-low}', ignored)}")
    if len(outside) == 1:
        leave = f"pass ignore_index={outside[0]}"
        if ignored is not None:
            leave = f"set targets[targets == {outside[0]}] = {ignored}, which is left out already"
        ways.append(f"to leave {outside[0]} out: {leave}")
    else:
        ways.append("to leave them out: give them all one index and pass it as ignore_index=")
    if high >= classes:
        ways.append(f"if all are classes, the model has too few outputs: it needs at least {high + 1}")
    return "; ".join(ways)


def _renumbered(code: str, ignored: int | None) -> str:
    """Return code for class indices that still leaves out the ignored label, which could become a class."""
    if ignored is None:
        return code
    return f"np.where(targets == {ignored}, -100, {code}) with ignore_index=-100"


def on_sums(rows: NDArray[Any]) -> str:
    """Say what rows may be that can't be probabilities of one class out of K."""
    finite = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
    sums = finite.sum(axis=1)
    if not within_unit(finite):
        if (finite >= 0).all() and np.allclose(sums, 100, rtol=1e-2):
            return "percentages: pass probabilities / 100"
        return "pass logits to Predictions(...), or outputs='logits' to inspect"
    if np.allclose(sums, 1, atol=5e-2):
        return "rounded? Then pass probabilities / probabilities.sum(axis=1, keepdims=True)"
    return (
        "a sigmoid for each class? Then each is a label of its own: pass task='multilabel' to inspect, with "
        "targets of 0 and 1 for each label"
    )


def class_axes(shape: tuple[int, ...], targets: tuple[int, ...]) -> list[int]:
    """Return the axes that can hold the classes: those that the targets lack, or have with length 1."""
    without = {axis: (shape[:axis], shape[axis + 1 :]) for axis in range(1, len(shape))}
    return [axis for axis, (a, b) in without.items() if targets in (a + b, (*a, 1, *b))]


def one_hot_axes(targets: NDArray[Any]) -> list[int]:
    """Return the axes along which targets of the logits' shape are one-hot."""
    if targets.dtype.kind not in "biuf" or not ((targets == 0) | (targets == 1)).all():
        return []
    return [
        axis
        for axis in range(1, targets.ndim)
        if targets.shape[axis] > 1 and (targets.sum(axis=axis) == 1).all()
    ]
