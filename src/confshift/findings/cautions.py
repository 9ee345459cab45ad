"""What a reader must know about the samples before believing a verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd

from confshift.analysis.panel import Panel
from confshift.analysis.verdicts import FEW
from confshift.findings.left_out import few_infinite
from confshift.findings.wording import count

__all__ = ["cautions", "in_units"]


def in_units(row: pd.Series) -> str:
    """Write what the sampling error of a row of `rise` rests on: samples, and groups where given."""
    grouped = row["units"] != row["samples"]
    return count(row["samples"]) + (f" in {count(row['units'], 'group')}" if grouped else "")


def cautions(panel: Panel, row: pd.Series) -> list[str]:
    """Return what a reader must know about the samples before believing a verdict on this row of `rise`."""
    found = []
    if 0 < row["units"] < FEW:
        found.append(f"With only {in_units(row)} the errors themselves are rough.")
    if len(np.unique(panel.targets)) == 1:
        found.append(f"All samples are of class {panel.class_labels[panel.targets[0]]}: no other was asked.")
    if panel.answered.any() and panel.correct[panel.answered].all():
        found.append("No sample is wrong at any epoch: the whole loss is hedging.")
    first = np.broadcast_to(panel.loss[:1], panel.loss.shape)
    if row["epochs"] > 1 and np.array_equal(panel.loss, first, equal_nan=True):
        found.append("All checkpoints hold the same numbers: was one model inspected again and again?")
    copies = _copies(panel)
    if copies:
        found.append(
            f"{count(copies)} equal another one in every number: if they are copies, pass groups=, or the "
            "errors come out too small."
        )
    if row["samples_left_out"]:
        found.append(f"{count(row['samples_left_out'])} without a finite loss at some epoch left out.")
    if row["epochs_left_out"]:
        found.append(
            f"{count(row['epochs_left_out'], 'checkpoint')} where most samples have no finite output left "
            "out."
        )
    infinite = few_infinite(panel)
    return [*found, infinite] if infinite else found


def _copies(panel: Panel) -> int:
    """Count the samples that equal another one in target, loss and margin at up to three epochs."""
    scored = np.flatnonzero(panel.finite.any(axis=1))
    columns = {"target": panel.targets}
    for position in scored[[0, len(scored) // 2, -1]] if len(scored) else ():
        columns[f"loss {position}"], columns[f"margin {position}"] = (
            panel.loss[position],
            panel.margin[position],
        )
    table = pd.DataFrame(columns)
    # A head that answers nothing, no number at all or no more than its label makes all samples alike.
    margins = table.filter(like="margin").abs()
    speaking = ((margins > 0) & np.isfinite(margins)).any(axis=1)
    return int(table[speaking].duplicated().sum())
