"""One row per checkpoint, and how each differs from the one before it and from the best."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis import decomposition, dynamics, reliability
from confshift.analysis.calibration import calibration_errors
from confshift.analysis.panel import Panel, stack
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError

__all__ = ["CRITERIA", "History", "summarize"]

#: What a checkpoint can be best by, and whether more is better.
CRITERIA = {"loss": False, "refinement_loss": False, "accuracy": True}


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """A run as tables: unrounded DataFrames, made by :func:`summarize`, computed when first asked for.

    Attributes
    ----------
    panels : tuple of (str, Panel)
        The checkpoints of each split, in order of epoch; the main split first.
    """

    panels: tuple[tuple[str, Panel], ...]

    def __repr__(self) -> str:
        splits = ", ".join(f"{name}: {len(panel.checkpoints)} checkpoints" for name, panel in self.panels)
        return f"History({splits})"

    @property
    def main(self) -> Panel:
        """The panel that `best`, `cells` against the best, `dynamics` and findings speak of: val."""
        return self.panels[0][1]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per checkpoint and split.

        Columns: split, epoch, samples, nonfinite_samples; the means loss, hedge, calibration_loss,
        refinement_loss (nats), accuracy, error_rate, confidence (fractions), each with `_se`;
        mistake_cost (nats), temperature, fit_status; confidence_gap with its se, ece, ece_null,
        smooth_ece, ecce, ecce_p; tied_samples, ignored_samples, duplicate_samples, id_source, writer.
        """
        rows = [
            {"split": split, **_row(panel, position)}
            for split, panel in self.panels
            for position in range(len(panel.checkpoints))
        ]
        return pd.DataFrame(rows)

    @cached_property
    def classes(self) -> pd.DataFrame:
        """By split, epoch and class: class_name, samples, accuracy, loss, confidence."""
        return pd.concat(
            [
                _class_rows(panel, position).assign(split=split, epoch=panel.epochs[position])
                for split, panel in self.panels
                for position in range(len(panel.checkpoints))
            ],
            ignore_index=True,
        ).set_index(["split", "epoch", "class"])

    @cached_property
    def reliability(self) -> pd.DataFrame:
        """By split, epoch and binning: the columns of `reliability.reliability_bins`."""
        parts = []
        for split, panel in self.panels:
            for position, epoch in enumerate(panel.epochs):
                usable = panel.finite[position]
                confidence, correct = panel.confidence[position][usable], panel.correct[position][usable]
                for binning in reliability.BINNINGS if usable.any() else ():
                    bins = reliability.reliability_bins(confidence, correct, binning=binning)
                    parts.append(bins.assign(split=split, epoch=epoch, binning=binning))
        if not parts:
            return pd.DataFrame()
        table = pd.concat(parts, ignore_index=True)
        first = ["split", "epoch", "binning"]
        return table[[*first, *table.columns.drop(first)]]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The account of each checkpoint against its predecessor and against the best of its split.

        Indexed by split, against ("previous" or "best"), epoch, transition, direction; columns
        against_epoch and those of `decomposition.cells_of`.
        """
        parts = []
        for split, panel in self.panels:
            best = _best_position(panel, "loss")
            for position, epoch in enumerate(panel.epochs):
                for against, other in (("previous", position - 1), ("best", best)):
                    usable = panel.finite[other] & panel.finite[position]
                    if other < 0 or other == position or not usable.any():
                        continue
                    cells = decomposition.cells_of(panel.take(usable), other, position).reset_index()
                    cells = cells.assign(
                        split=split, against=against, epoch=epoch, against_epoch=panel.epochs[other]
                    )
                    parts.append(cells)
        keys = ["split", "against", "epoch", "transition", "direction"]
        if not parts:
            return pd.DataFrame(columns=[*keys, "against_epoch", "samples", "contribution"]).set_index(keys)
        return pd.concat(parts, ignore_index=True).set_index(keys)

    @cached_property
    def best(self) -> pd.DataFrame:
        """The best checkpoint by loss, by refinement loss and by accuracy, on the main split.

        Indexed by criterion; columns epoch (the earliest of equals), loss, loss_se, refinement_loss,
        refinement_loss_se, accuracy, accuracy_se, temperature.
        """
        table = self.table[self.table["split"] == self.panels[0][0]]
        columns = ["epoch", *(name + end for name in CRITERIA for end in ("", "_se")), "temperature"]
        positions = [_best_position(self.main, criterion) for criterion in CRITERIA]
        return table.iloc[positions][columns].set_index(pd.Index(CRITERIA, name="criterion"))

    @cached_property
    def dynamics(self) -> pd.DataFrame:
        """Each sample over the epochs of the main split; see `dynamics.dynamics_of`."""
        return dynamics.dynamics_of(self.main)

    @cached_property
    def pair(self) -> tuple[Checkpoint, Checkpoint]:
        """The two checkpoints that a report compares unless told otherwise.

        The best by loss and the last; where the last is the best, the first and the last.
        """
        checkpoints = self.main.checkpoints
        best = checkpoints[_best_position(self.main, "loss")]
        before = checkpoints[0] if best is checkpoints[-1] else best
        return before, checkpoints[-1]


def summarize(run: Iterable[Checkpoint], *, split: str = "val") -> History:
    """Turn an ordered collection of checkpoints into tables.

    Parameters
    ----------
    run : Run or iterable of Checkpoint
        Checkpoints of one split must hold the same samples.
    split : str
        The main split; where the run has no such split, its first one is.

    Returns
    -------
    History

    Raises
    ------
    ConfshiftError
        Where the run is empty, or samples differ within a split.

    Examples
    --------
    >>> import numpy as np
    >>> from confshift.predictions import Predictions
    >>> logits, targets = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 1, 1])
    >>> run = [
    ...     Checkpoint.from_predictions(Predictions(factor * logits, targets), epoch=epoch)
    ...     for epoch, factor in enumerate([0.1, 1.0, 3.0])
    ... ]
    >>> history = summarize(run)
    >>> history.table["loss"].round(3).tolist(), history.best["epoch"].tolist()
    ([0.662, 0.584, 1.033], [1, 2, 0])
    """
    by_split: dict[str, list[Checkpoint]] = {}
    for checkpoint in run:
        by_split.setdefault(checkpoint.split, []).append(checkpoint)
    if not by_split:
        raise ConfshiftError("run holds no checkpoint; call confshift.inspect(model, loader, run=...) first")
    names = sorted(by_split, key=lambda name: (name != split, list(by_split).index(name)))
    panels = [(name, stack(sorted(by_split[name], key=lambda one: one.epoch))) for name in names]
    return History(tuple(panels))


def _best_position(panel: Panel, criterion: str) -> int:
    """Return the first position with the best mean over the samples that can be scored there."""
    values = {"loss": panel.loss, "refinement_loss": panel.refinement, "accuracy": panel.correct}[criterion]
    sums = np.where(panel.finite, values, 0.0).sum(axis=1)
    counts = panel.finite.sum(axis=1)
    means = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    if np.isnan(means).all():
        return 0
    return int(np.nanargmax(means) if CRITERIA[criterion] else np.nanargmin(means))


def _row(panel: Panel, position: int) -> dict[str, Any]:
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
    if usable.any():
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


def _class_rows(panel: Panel, position: int) -> pd.DataFrame:
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
    return pd.DataFrame(columns)
