"""The one checkpoint that every sentence recommends, and what recalibrates it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.panel import Panel
from confshift.recalibration import FEW_WRONG

#: A recalibration is recommended where its gain exceeds so many standard errors.
_BEYOND_ERROR = 2.0


@dataclass(frozen=True)
class Recommendation:
    """The checkpoint to keep: softmax(z / temperature + biases) are its probabilities."""

    epoch: float
    temperature: float  # 1 where none gains anything beyond its error
    biases: tuple[float, ...]  # by class, in nats; all 0 where they gain nothing beyond their error
    loss: float  # what to expect of new samples, in nats: fitted without the sample that it is evaluated on
    accuracy: float  # a fraction; with biases that of the recalibrated predictions is about as high or higher
    reason: str

    @property
    def calibrated(self) -> bool:
        """Whether the logits are to be changed at all."""
        return self.temperature != 1 or self.with_biases

    @property
    def with_biases(self) -> bool:
        """Whether each class has a bias."""
        return any(self.biases)


def recommend(panel: Panel, best: pd.DataFrame, table: pd.DataFrame) -> Recommendation:
    """Choose the checkpoint to keep and its recalibration.

    Parameters
    ----------
    panel : Panel
    best, table : DataFrame
        `History.best`, and the rows of `History.table` of the same split.

    Returns
    -------
    Recommendation
        Of the best by the rest of the loss and the best by the loss (the earliest of equals) the one with the
        lower expected loss, each recalibrated where that gains something beyond its error. Where every loss
        is infinite, the best by accuracy.
    """
    loss, accuracy = best.loc["loss"], best.loc["accuracy"]
    if not math.isfinite(loss["loss"]):
        reason = "the best by accuracy: where no loss is finite, none tells one checkpoint from another"
        nothing = (0.0,) * len(panel.class_names)
        return Recommendation(
            float(accuracy["epoch"]),
            1.0,
            nothing,
            float(accuracy["loss"]),
            float(accuracy["accuracy"]),
            reason,
        )
    choices = [
        _recalibrated(panel, table, int(np.flatnonzero(panel.epochs == epoch)[0]), reason)
        for epoch, reason in (
            (best.loc["refinement_loss", "epoch"], "the best by refinement loss, the loss once recalibrated"),
            (loss["epoch"], "the best by loss"),
        )
    ]
    return min(choices, key=lambda choice: choice.loss)


def _recalibrated(panel: Panel, table: pd.DataFrame, position: int, reason: str) -> Recommendation:
    """Return a checkpoint with the recalibration that gains something beyond its error, if one does."""
    row, checkpoint, finite = table.iloc[position], panel.checkpoints[position], panel.finite[position]
    wrong = int((finite & ~panel.correct[position]).sum())
    temperature, biases, expected = 1.0, (0.0,) * len(panel.class_names), float(row["loss"])
    # A fit that rests on a few wrong samples is theirs; an infinite temperature would leave no model.
    if wrong < FEW_WRONG:
        reason += f"; {wrong} wrong samples are too few to fit a temperature to"
    elif math.isfinite(checkpoint.joint_temperature) and _is_beyond_error(panel.balance[position][finite]):
        temperature, biases = checkpoint.joint_temperature, checkpoint.biases
        expected = float(row["refinement_loss"])
    elif checkpoint.fit_status == "ok" and _is_beyond_error(panel.scale[position][finite]):
        temperature = checkpoint.temperature
        expected = float(panel.scaled[position][finite].mean())
    return Recommendation(float(row["epoch"]), temperature, biases, expected, float(row["accuracy"]), reason)


def _is_beyond_error(gains: NDArray[np.float64]) -> bool:
    """Tell whether the mean gain of left-out samples exceeds two standard errors."""
    if len(gains) < 2:
        return False
    return bool(gains.mean() > _BEYOND_ERROR * gains.std(ddof=1) / math.sqrt(len(gains)))
