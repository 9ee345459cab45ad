"""Advice on arrays of the wrong form: looks at the values first, so that what it says is right for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_axes", "on_columns", "on_labels", "on_one_output", "on_sums", "within_unit"]


def within_unit(values: NDArray[Any]) -> bool:
    """Tell whether all finite values are in 0..1, as probabilities are."""
    finite = values[np.isfinite(values)]
    return bool(finite.size) and bool(((finite >= 0) & (finite <= 1)).all())


def on_one_output(values: NDArray[Any], *, logit: str, probability: str) -> str:
    """Say what to do with one output for each sample, given the code for a logit and for a probability."""
    if values.dtype.kind in "iub":
        return "one whole number for each sample: predicted classes, without confidence; pass scores"
    if not within_unit(values):
        return f"one logit for each sample; pass two columns: {logit}"
    return (
        "one output for each sample, all in 0..1. If they are probabilities (the model ends in a sigmoid), "
        f"pass both: {probability}. If they are logits, pass two columns: {logit}"
    )


def on_columns(targets: NDArray[Any]) -> str:
    """Say what targets with a column for each class are: one-hot, multi-label, soft, or none of these."""
    low, high = float(targets.min()), float(targets.max())
    sums = targets.sum(axis=1, dtype=np.float64)
    hard = bool(((targets == 0) | (targets == 1)).all())
    if hard and (sums == 1).all():
        return "one-hot labels; pass class indices: targets.argmax(1)"
    if hard:
        return (
            f"multi-label targets (rows sum to {sums.min():g}..{sums.max():g}): confshift takes one class "
            "for each sample, and no index stands for several; inspect one label at a time, as two classes"
        )
    if low >= 0 and high <= 1 and np.allclose(sums, 1, atol=1e-2):
        return (
            "soft labels (rows sum to 1): confshift measures the loss against one class for each sample; "
            "pass the class indices from before mixing or smoothing"
        )
    return f"no labels of classes (values {low:g}..{high:g}); pass one class index for each sample"


def on_labels(targets: NDArray[Any]) -> str:
    """Say how targets that are not integers become class indices, if they do."""
    if targets.dtype.kind == "b" or (np.isfinite(targets).all() and (targets == np.floor(targets)).all()):
        return "whole numbers: pass them as integers, targets.astype(int) (a tensor's .long())"
    return "not whole numbers, so they are no class indices (regression or soft targets?)"


def on_sums(rows: NDArray[Any]) -> str:
    """Say what rows are that can't be probabilities of one class out of K."""
    finite = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
    sums = finite.sum(axis=1)
    if not within_unit(finite):
        if (finite >= 0).all() and np.allclose(sums, 100, rtol=1e-2):
            return "percentages: pass probabilities / 100"
        return "pass logits to Predictions(...), or outputs='logits' to inspect"
    if np.allclose(sums, 1, atol=5e-2):
        return "rounded? Then pass probabilities / probabilities.sum(axis=1, keepdims=True)"
    return (
        "a sigmoid for each class (multi-label)? confshift takes one class for each sample; pass the "
        "logits of a softmax"
    )


def class_axes(shape: tuple[int, ...], targets: tuple[int, ...]) -> list[int]:
    """Return the axes of the logits that can be the classes: without it, the shape is the targets'."""
    return [axis for axis in range(1, len(shape)) if shape[:axis] + shape[axis + 1 :] == targets]
