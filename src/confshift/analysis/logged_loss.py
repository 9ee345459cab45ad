"""The loss that the user's own loop reported, against the mean over the samples, and why they differ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.panel import Panel
from confshift.gate import as_number
from confshift.scoring import blocks

__all__ = ["logged_losses", "possible_causes"]

_TOLERANCE = 1e-5
_SMOOTHING = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
_BATCH_SIZES = tuple(sorted({*(2**k for k in range(1, 14)), 10, 20, 25, 50, 96, 100, 200, 250, 500, 1000}))
#: A loss printed with so many decimals or more is not rounded for our purpose.
_EXACT_DECIMALS = 7
_FEWEST_DECIMALS = 3


def logged_losses(panel: Panel) -> pd.DataFrame:
    """Compare `logged["loss"]` with the mean over the samples.

    Returns
    -------
    DataFrame
        Indexed by epoch, a row for each checkpoint with a finite logged loss and samples that can be
        scored: position (in the panel), logged, sample_mean (nats), relative_difference (logged over
        sample mean, minus 1), tolerance (1e-5 of the mean, or half a unit of the last decimal logged) and
        equal (within it).
    """
    rows = []
    for position, checkpoint in enumerate(panel.checkpoints):
        logged = as_number(checkpoint.provenance.logged.get("loss"))
        usable = panel.finite[position]
        if math.isfinite(logged) and usable.any():
            rows.append((checkpoint.epoch, position, logged, float(panel.loss[position][usable].mean())))
    table = pd.DataFrame(rows, columns=["epoch", "position", "logged", "sample_mean"]).set_index("epoch")
    table["relative_difference"] = table["logged"] / table["sample_mean"] - 1
    table["tolerance"] = np.maximum(_TOLERANCE * table["sample_mean"].abs(), _half_unit(table["logged"]))
    table["equal"] = (table["logged"] - table["sample_mean"]).abs() <= table["tolerance"]
    return table


def _half_unit(values: pd.Series) -> float:
    """Return half a unit of the last decimal that any of the values shows; 0 where they are not rounded."""
    decimals = max((-int(Decimal(repr(float(value))).as_tuple().exponent) for value in values), default=0)
    return 0.5 * 10.0**-decimals if _FEWEST_DECIMALS <= decimals < _EXACT_DECIMALS else 0.0


def possible_causes(panel: Panel, table: pd.DataFrame) -> pd.DataFrame:
    """Recompute the loss in the ways that training loops differ by, and see which gives what was logged.

    Tried at up to three of the checkpoints: the first, the last and the one with the largest difference.

    Parameters
    ----------
    panel : Panel
    table : DataFrame
        As returned by :func:`logged_losses`, not empty.

    Returns
    -------
    DataFrame
        A row for each way that can be recomputed: cause ("label smoothing", "mean of batch means", "class
        weights", "ignored samples counted", "padded samples counted"), detail (the value tried), error (the
        largest relative difference from what was logged) and fits (within the tolerance at all of them),
        the best first. A fit is no proof: other ways may give the same.
    """
    largest = int(table["relative_difference"].abs().to_numpy().argmax())
    probed = table.iloc[sorted({0, largest, len(table) - 1})]
    tried: dict[tuple[str, str], list[float]] = {}
    for position in probed["position"]:
        for cause, detail, value in _recomputed(panel, int(position)):
            tried.setdefault((cause, detail), []).append(value)
    logged = probed["logged"].to_numpy()
    rows = []
    for (cause, detail), values in tried.items():
        if len(values) == len(probed):
            difference = np.abs(np.array(values) - logged)
            fits = bool((difference <= probed["tolerance"].to_numpy()).all())
            rows.append((cause, detail, float((difference / np.abs(logged)).max()), fits))
    causes = pd.DataFrame(rows, columns=["cause", "detail", "error", "fits"])
    return causes.sort_values("error", ignore_index=True, kind="stable")


def _recomputed(panel: Panel, position: int) -> Iterator[tuple[str, str, float]]:
    """Yield cause, detail and the mean loss computed that way."""
    checkpoint, usable = panel.checkpoints[position], panel.finite[position]
    losses, targets = panel.loss[position][usable], panel.targets[usable]
    total, samples = float(losses.sum()), len(losses)
    logits = checkpoint.predictions.logits
    uniform = _uniform_losses(logits if usable.all() else logits[usable], targets) + losses
    for eps in _SMOOTHING:
        yield "label smoothing", f"{eps:g}", float((1 - eps) * losses.mean() + eps * uniform.mean())
    for name, weights in _class_weights(checkpoint.metadata, targets, len(panel.class_names)):
        weight = weights[targets]
        yield "class weights", name, float((weight * losses).sum() / weight.sum())
    provenance = checkpoint.provenance
    if provenance.id_source in ("order", "sampler") and panel.sample_ids.dtype.kind == "i":
        # The rows are then in the order of an unshuffled loader.
        for size in _BATCH_SIZES:
            if size < samples and samples % size:
                starts = np.arange(0, samples, size)
                means = np.add.reduceat(losses, starts) / np.diff([*starts, samples])
                yield "mean of batch means", f"batches of {size}", float(means.mean())
        if 0 < provenance.duplicate_samples <= samples:
            # A distributed sampler fills up with the first samples.
            padded = total + float(losses[: provenance.duplicate_samples].sum())
            counted = samples + provenance.duplicate_samples
            yield "padded samples counted", f"{provenance.duplicate_samples}", padded / counted
    if provenance.ignored_samples:
        counted = samples + provenance.ignored_samples
        yield "ignored samples counted", f"{provenance.ignored_samples}", total / counted


def _uniform_losses(logits: NDArray[Any], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return z_y minus the mean logit: with the loss, the cross-entropy against the uniform distribution."""
    found = np.empty(len(targets))
    for block in blocks(logits, targets):
        found[block.rows] = block.at_target - block.below_top.mean(axis=block.axis)
    return found


def _class_weights(
    metadata: Any, targets: NDArray[np.int64], classes: int
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    counts = np.bincount(targets, minlength=classes)
    if len(set(counts[counts > 0].tolist())) > 1:
        yield "inverse to the class's samples", 1 / np.maximum(counts, 1)
    given = metadata.get("class_weights")
    if isinstance(given, list | tuple) and len(given) == classes:
        weights = np.array([as_number(one) for one in given])
        if np.isfinite(weights).all() and weights[targets].sum() > 0:
            yield 'metadata["class_weights"]', weights
