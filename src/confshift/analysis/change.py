"""How each quantity changed between two checkpoints, with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.panel import Panel
from confshift.analysis.significance import Interval, accuracy_interval, paired_interval
from confshift.checkpoint import Checkpoint

#: The quantities that are over the samples with an answer on both sides.
_OVER_ANSWERED = {"error_rate", "accuracy", "confidence", "confidence_gap"}
#: These and the temperature, which is fitted to the plain loss, are never weighted.
_PLAIN = {*_OVER_ANSWERED, "temperature"}


def change_of(
    before: Checkpoint,
    after: Checkpoint,
    panel: Panel,
    answered: Panel,
) -> pd.DataFrame:
    """Return the table `Comparison.change`.

    Parameters
    ----------
    before, after : Checkpoint
    panel, answered : Panel
        Both sides in this order, over the samples with a finite loss on both, and with an answer on both.
    """
    # Each is made when its row is: of millions of samples all at once would fill the memory.
    quantities: dict[str, tuple[Callable[[], NDArray[Any]], str]] = {
        "loss": (lambda: panel.loss, "nats"),
        "calibration_loss": (lambda: panel.calibration, "nats"),
        "refinement_loss": (lambda: panel.refinement, "nats"),
        "hedge": (lambda: panel.hedge, "nats"),
        "error_rate": (lambda: 1.0 - answered.correct, "fraction"),
        "mistake_cost": (lambda: _mistake_cost_terms(panel), "nats"),
        "accuracy": (lambda: answered.correct.astype(np.float64), "fraction"),
        "confidence": (lambda: answered.confidence, "fraction"),
        "confidence_gap": (lambda: answered.confidence - answered.correct, "fraction"),
        "temperature": (lambda: _temperature_terms((before, after), panel), "ratio"),
        "scale_loss": (lambda: panel.scale, "nats"),
        "balance_loss": (lambda: panel.balance, "nats"),
    }
    rows = {
        name: _change_row(_counting(panel, answered, name), make(), unit)
        for name, (make, unit) in quantities.items()
    }
    if (smoothing := panel.smoothing) is not None:
        rows["smoothing_loss"] = _row_of_shares(panel, smoothing, "nats")
        rows["trained_loss"] = _row_of_shares(panel, panel.share(panel.loss) + smoothing, "nats")
    correct = answered.correct
    low, high = accuracy_interval(correct, answered.codes)
    if np.array_equal(*correct) and panel.same_losses(0, 1):  # no answer can ever switch
        low = high = 0.0
    rows["accuracy"] |= {"change_low": low, "change_high": high}
    rows["error_rate"] |= {"change_low": 0.0 - high, "change_high": 0.0 - low}
    rows["confidence_gap"] |= _gap_bounds(rows["confidence"], rows["accuracy"])
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("quantity")


def _temperature_terms(sides: tuple[Checkpoint, Checkpoint], panel: Panel) -> NDArray[np.float64]:
    """Return numbers whose mean is the temperature and whose spread is that of its estimate.

    The estimate solves sum of slopes = 0, so a sample moves 1/beta by slope / (beta^2 mean curvature).
    """
    terms = []
    for side in sides:
        curve, temperature = side.measurement.curve, side.temperature
        slope, curvature = panel.of_members(curve.slope), panel.of_members(curve.curvature).mean()
        slope = slope - slope.mean()
        if side.fit_status == "ok" and curvature > 0:
            terms.append(temperature + slope * temperature**2 / curvature)
        else:
            terms.append(np.full(len(slope), math.nan))
    return np.stack(terms)


def _counting(panel: Panel, answered: Panel, name: str) -> Panel:
    """Return the panel whose means are those of a quantity: plain where it is never weighted."""
    members = answered if name in _OVER_ANSWERED else panel
    return members.plain if name in _PLAIN else members


def _change_row(panel: Panel, values: NDArray[Any], unit: str) -> dict[str, Any]:
    return _row_of_shares(panel, panel.share(values), unit)


def _row_of_shares(panel: Panel, values: NDArray[Any], unit: str) -> dict[str, Any]:
    with np.errstate(invalid="ignore"):  # a class with probability 0 makes a smoothed loss infinite
        differences = values[1] - values[0]
        finite = bool(np.isfinite(differences).all())
    change = float(differences.mean()) if len(differences) else math.nan
    interval = paired_interval(panel.terms_of(differences)) if finite else Interval(change, *[math.nan] * 3)
    before, after = values.mean(axis=1)
    return {
        "before": float(before),
        "after": float(after),
        "change": interval.estimate,
        "change_se": interval.se,
        "change_low": interval.low,
        "change_high": interval.high,
        "unit": unit,
        "samples": values.shape[1],
        "units": panel.units,
    }


def _gap_bounds(confidence: dict[str, Any], accuracy: dict[str, Any]) -> dict[str, float]:
    """Return the interval of a change of confidence minus accuracy, from the intervals of both.

    Where the confidence is near 1 the gap is a count as much as the accuracy is. Samples that are learned are
    surer too, mostly: taken as independent, the two give an interval that is a little too wide.
    (G. Y. Zou, A. Donner, Statistics in Medicine 27, 2008, 1693-1702.)
    """
    change = confidence["change"] - accuracy["change"]
    (down, up), (worse, better) = (
        (row["change"] - row["change_low"], row["change_high"] - row["change"])
        for row in (confidence, accuracy)
    )
    return {"change_low": change - math.hypot(down, better), "change_high": change + math.hypot(up, worse)}


def _mistake_cost_terms(panel: Panel) -> NDArray[np.float64]:
    """Return C + (m - C wrong) / e: numbers whose mean is C and whose spread is that of its estimate."""
    wrong, mistake = panel.wrong.astype(np.float64), panel.mistake
    rate = panel.mean(wrong)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = panel.mean(mistake)[:, None] / rate
        return np.asarray(cost + (mistake - cost * wrong) / rate)
