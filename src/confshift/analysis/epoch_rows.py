"""The rows of a history: what one checkpoint, or one against another, puts into its tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis import decomposition
from confshift.analysis.calibration import calibration_errors
from confshift.analysis.panel import Panel

__all__ = ["Part", "assemble", "cells_part", "class_columns", "row_of"]

#: A small table: keys that hold for all its rows, and columns.
Part = tuple[dict[str, Any], dict[str, Any]]


def row_of(panel: Panel, position: int) -> dict[str, Any]:
    """Return one checkpoint's row of `History.table`, without its split."""
    checkpoint, usable = panel.checkpoints[position], panel.finite[position]
    correct = panel.correct[position][usable].astype(np.float64)
    means = {
        "loss": panel.loss[position][usable],
        "accuracy": correct,
        "confidence": panel.confidence[position][usable],
        "hedge": panel.hedge[position][usable],
        "error_rate": 1 - correct,
        "calibration_loss": panel.calibration[position][usable],
        "refinement_loss": panel.refinement[position][usable],
    }
    row: dict[str, Any] = {
        "epoch": checkpoint.epoch,
        "samples": int(usable.sum()),
        "nonfinite_samples": int((~usable).sum()),
    }
    for name, values in means.items():
        row[name], row[f"{name}_se"] = _mean_and_se(values)
    wrong = panel.mistake[position][usable & ~panel.correct[position]]
    row["mistake_cost"] = float(wrong.mean()) if len(wrong) else math.nan
    row["temperature"], row["fit_status"] = checkpoint.temperature, checkpoint.fit_status
    row.update(calibration_errors(means["confidence"], correct)._asdict())
    row["tied_samples"] = int(checkpoint.measurement.rows["tied"].sum())
    provenance = checkpoint.provenance
    for name in ("ignored_samples", "duplicate_samples", "id_source", "writer"):
        row[name] = getattr(provenance, name)
    return row


def _mean_and_se(values: NDArray[np.float64]) -> tuple[float, float]:
    if len(values) < 2:
        return (float(values.mean()) if len(values) else math.nan), math.nan
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def class_columns(panel: Panel, position: int) -> dict[str, Any]:
    """Return the columns of `History.classes` for one checkpoint."""
    usable = panel.finite[position]
    targets, classes = panel.targets[usable], len(panel.class_names)
    samples = np.bincount(targets, minlength=classes)
    columns: dict[str, Any] = {
        "class": np.arange(classes),
        "class_name": panel.class_labels,
        "samples": samples,
    }
    for name in ("correct", "loss", "confidence"):
        sums = np.bincount(targets, getattr(panel, name)[position][usable], classes)
        means = np.divide(sums, samples, out=np.full(classes, np.nan), where=samples > 0)
        columns["accuracy" if name == "correct" else name] = means
    return columns


def assemble(parts: list[Part]) -> pd.DataFrame:
    """Make one frame of many small tables; putting frames together takes longer than computing them."""
    lengths = [len(next(iter(columns.values()))) for _, columns in parts]
    frame = {name: np.repeat([keys[name] for keys, _ in parts], lengths) for name in parts[0][0]}
    frame |= {name: np.concatenate([columns[name] for _, columns in parts]) for name in parts[0][1]}
    return pd.DataFrame(frame)


def cells_part(split: str, against: str, panel: Panel, other: int, position: int) -> Part:
    """Return the part of `History.cells` that holds one checkpoint against another."""
    usable = panel.finite[other] & panel.finite[position]
    keys = {"split": split, "against": against, "epoch": panel.epochs[position]}
    cells = {name: decomposition.CELLS.get_level_values(name) for name in decomposition.CELLS.names}
    columns = decomposition.cell_columns(panel.take(usable), other, position)
    return {**keys, "against_epoch": panel.epochs[other]}, {**cells, **columns}
