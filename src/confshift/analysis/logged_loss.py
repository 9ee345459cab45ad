"""The loss that the user's own loop reported, against the mean over the samples, and why they differ."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from confshift.analysis.loss_ways import recomputed_losses
from confshift.analysis.panel import Panel
from confshift.checkpoint import Checkpoint
from confshift.gate import as_number

__all__ = ["logged_loss_of", "logged_losses", "possible_causes"]

_TOLERANCE = 1e-5
#: A loss printed with so many decimals or more is not rounded for our purpose.
_EXACT_DECIMALS = 7
_FEWEST_DECIMALS = 3
#: Ways are named only where no more of all that are tried would fit an unrelated number.
_MOST_BY_CHANCE = 0.05
_UNRELATED = 0.3


def logged_loss_of(checkpoint: Checkpoint) -> Any:
    """Return what was logged as the loss, under any of its usual names; None where nothing was.

    "loss" first; then, with the split's own name or without: "val_loss", "valid_loss", "validation_loss",
    "eval_loss", "test_loss", and "train_loss" for the split train. The names may be written as in "val/loss".
    """
    given = checkpoint.provenance.logged
    logged = {re.sub(r"[^a-z0-9]+", "_", name.lower()): value for name, value in given.items()}
    others = ("train",) if checkpoint.split == "train" else ("val", "valid", "validation", "eval", "test")
    names = ["loss", *(f"{prefix}_loss" for prefix in (checkpoint.split.lower(), *others))]
    return next((logged[name] for name in names if logged.get(name) is not None), None)


def logged_losses(panel: Panel) -> pd.DataFrame:
    """Compare the loss that was logged with the mean over the samples: see :func:`logged_loss_of`.

    Returns
    -------
    DataFrame
        Indexed by epoch, a row for each checkpoint with a finite logged loss and samples that can be
        scored: position (in the panel), logged, sample_mean (nats), relative_difference (logged over
        sample mean, minus 1), tolerance (1e-5 of the larger, or half a unit of the last decimal logged) and
        equal (within it).
    """
    rows = []
    for position, checkpoint in enumerate(panel.checkpoints):
        logged = as_number(logged_loss_of(checkpoint))
        usable = panel.finite[position]
        if math.isfinite(logged) and usable.any():
            rows.append((checkpoint.epoch, position, logged, float(panel.loss[position][usable].mean())))
    table = pd.DataFrame(rows, columns=["epoch", "position", "logged", "sample_mean"]).set_index("epoch")
    table["relative_difference"] = table["logged"] / table["sample_mean"] - 1
    larger = table[["logged", "sample_mean"]].abs().max(axis=1)  # a float32 sum is as exact as it is large
    table["tolerance"] = np.maximum(_TOLERANCE * larger, _half_unit(table["logged"]))
    table["equal"] = (table["logged"] - table["sample_mean"]).abs() <= table["tolerance"]
    return table


def _chance(probed: pd.DataFrame) -> float:
    """Return how likely an unrelated way comes as near at every probed epoch, within 30 % of the mean."""
    width = 2 * probed["tolerance"] / (2 * _UNRELATED * probed["sample_mean"].abs())
    return float(np.prod(np.minimum(width, 1)))


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
        A row for each way that can be recomputed (see :mod:`confshift.analysis.loss_ways`): cause, detail
        (the value tried), error (the largest relative difference from what was logged) and fits (within the
        tolerance at all of them), the best first. A fit is no proof: other ways may give the same. Where
        the logged numbers are so few and so rounded that some way would fit by chance, none fits.
    """
    largest = int(table["relative_difference"].abs().to_numpy().argmax())
    probed = table.iloc[sorted({0, largest, len(table) - 1})]
    tried: dict[tuple[str, str], list[float]] = {}
    for position in probed["position"]:
        for cause, detail, value in recomputed_losses(panel, int(position)):
            tried.setdefault((cause, detail), []).append(value)
    logged = probed["logged"].to_numpy()
    rows = []
    for (cause, detail), values in tried.items():
        if len(values) == len(probed):
            difference = np.abs(np.array(values) - logged)
            fits = bool((difference <= probed["tolerance"].to_numpy()).all())
            rows.append((cause, detail, float((difference / np.abs(logged)).max()), fits))
    causes = pd.DataFrame(rows, columns=["cause", "detail", "error", "fits"])
    causes["fits"] &= len(rows) * _chance(probed) <= _MOST_BY_CHANCE
    return causes.sort_values("error", ignore_index=True, kind="stable")
