"""What the page carries: every table and array once, for the script to compare any two epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History, summarize
from confshift.analysis.significance import t_quantile
from confshift.reporting import binning, packing, tables
from confshift.reporting.pair_values import ENDLESS, pair_values
from confshift.reporting.readings import CHOICES, READINGS
from confshift.reporting.theme import CELL_LABELS, TRANSITION_LABELS

__all__ = [
    "_MAX_CLASSES",
    "Payload",
    "Samples",
    "carried_history",
    "carry_samples",
    "make_payload",
    "places_of",
]

#: Classes shown one by one; the others are summed up.
_MAX_CLASSES = 20
#: The cells of every pair are computed for at most this many checkpoints ...
_MAX_EPOCHS = 200
#: ... and at most this many pairs times samples; but never for fewer checkpoints than this.
_MAX_PAIR_CELLS, _MIN_EPOCHS = 100_000_000, 20


@dataclass(frozen=True, eq=False)
class Payload:
    """The data of a page but for single samples, ready to be written into it."""

    tables: dict[str, pd.DataFrame]  # by the names that the charts read
    parts: dict[str, Any]  # plain values for the script
    arrays: dict[str, str]  # packed; see packing.py
    values: dict[str, Any]  # the numbers of the sentences, for the pair of the report


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples that a page carries one by one."""

    positions: NDArray[np.intp]  # in the panel, ascending
    parts: dict[str, Any]
    arrays: dict[str, str]


def carried_history(history: History, comparison: Comparison, rise: pd.DataFrame) -> History:
    """Return the history of the checkpoints that the page carries: all, or an even choice of them.

    The compared ones, the best ones and the one where a rise began are always among them.
    """
    checkpoints = history.main.checkpoints
    room = math.isqrt(2 * _MAX_PAIR_CELLS // max(1, len(history.main.targets)))
    limit = max(_MIN_EPOCHS, min(_MAX_EPOCHS, room))
    if len(checkpoints) <= limit:
        return history
    wanted = {
        comparison.before.epoch,
        comparison.after.epoch,
        *history.best["epoch"],
        *tables.rise_starts(rise),
    }
    even = np.linspace(0, len(checkpoints) - 1, limit - len(wanted)).round().astype(int)
    keep = {checkpoints[place].epoch for place in even} | wanted
    chosen = [one for _, panel in history.panels for one in panel.checkpoints if one.epoch in keep]
    return summarize(chosen, split=history.split)


def make_payload(
    history: History, comparison: Comparison, over_epochs: dict[str, pd.DataFrame], at: tuple[str, str]
) -> Payload:
    """Gather what the page carries, but for single samples.

    Parameters
    ----------
    history : History
        Of the carried checkpoints.
    comparison : Comparison
        Of the pair that the report is made for, both carried.
    over_epochs : dict of str to DataFrame
        The tables of the charts over epochs, of `tables.run_tables` or `tables.two_run_tables`.
    at : tuple of str
        What the two checkpoints are called in a sentence.
    """
    panel, classes = history.main, tables.shown_classes(comparison.classes, _MAX_CLASSES)
    pair = places_of(history, comparison)
    by_epoch = tables.epoch_table(history)
    values = pair_values(comparison, classes, at, before=by_epoch.iloc[pair[0]], after=by_epoch.iloc[pair[1]])
    parts = {
        "pair": pair,
        "paired": pair[0] != pair[1],
        "gaps": not panel.finite.all(),  # then a pair's means are over the samples that it shares
        "epochs": _columns(by_epoch.select_dtypes("number").replace(math.inf, ENDLESS)),
        "classes": _classes(history, classes),
        "quantile": t_quantile(len(comparison.panel.targets)),
        **_confidences(history, comparison),
        "values": values,
        "readings": READINGS,
        "choices": CHOICES,
        "labels": {
            "transitions": TRANSITION_LABELS,
            "cells": [[*cell, label] for cell, label in CELL_LABELS.items()],
        },
    }
    contributions, counts = packing.pack_pairs(panel)
    arrays = {"pair_contributions": contributions, "pair_samples": counts}
    if parts["gaps"]:
        arrays["pair_means"] = packing.pack_pair_means(panel)
    made = {**over_epochs, **tables.pair_tables(comparison, classes=classes, at=at)}
    return Payload(made, parts, arrays, values)


def carry_samples(history: History, comparison: Comparison, *, limit: int) -> Samples:
    """Gather what the page carries of single samples, of at most `limit` of them."""
    panel, (before, after) = history.main, places_of(history, comparison)
    chosen = packing.select_samples(panel.changes(before, after), limit=limit)
    positions, names = chosen.positions, panel.class_labels
    used = np.unique(np.r_[panel.targets[positions], panel.predicted[:, positions].ravel()])
    losses, span = packing.pack_losses(panel, positions)
    predicted, bits = packing.pack_predicted(panel, positions)
    parts = {
        "all": len(panel.targets),
        "carried": len(positions),
        "ids": [str(one) for one in panel.sample_ids[positions]],
        "targets": panel.targets[positions].tolist(),
        "weights": chosen.weights.tolist() if len(positions) < len(panel.targets) else [],
        "class_names": {str(one): names[one] for one in used if one >= 0},
        "span": span,
        "floor": packing.LOSS_FLOOR,
        "bits": bits,
    }
    return Samples(positions, parts, {"losses": losses, "predicted": predicted})


def places_of(history: History, comparison: Comparison) -> list[int]:
    """Return where the two compared checkpoints stand among the carried ones."""
    checkpoints = history.main.checkpoints
    return [checkpoints.index(comparison.before), checkpoints.index(comparison.after)]


def _confidences(history: History, comparison: Comparison) -> dict[str, Any]:
    panel, ticks = history.main, binning.odds_ticks(history.main)
    curves = binning.isotonic_curves(panel)
    return {
        "reliability": {"dots": binning.reliability_dots(panel), "isotonic": curves},
        "bands": _bands(comparison),
        "bins": {
            scale: {"edges": edges.tolist(), **binning.confidence_bins(panel, edges)}
            for scale, edges in binning.bin_edges(ticks).items()
        },
        "odds_ticks": ticks.tolist(),
        "scale": "odds" if binning.crowded(comparison.answered.confidence[1]) else "probability",
    }


def _columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(name): table[name].tolist() for name in table.columns}


def _classes(history: History, classes: list[int]) -> dict[str, Any]:
    """Return accuracy and loss of the shown classes at every epoch."""
    panel, table = history.main, history.classes.loc[history.split]
    wide = {
        name: table[name].to_numpy().reshape(len(panel.checkpoints), len(panel.class_names))
        for name in ("accuracy", "loss", "samples")
    }
    return {
        "shown": classes,
        "names": [panel.class_labels[one] for one in classes],
        "samples": [int(wide["samples"][-1, one]) for one in classes],
        "accuracy": [wide["accuracy"][:, one].tolist() for one in classes],
        "loss": [wide["loss"][:, one].tolist() for one in classes],
    }


def _bands(comparison: Comparison) -> dict[str, list[list[float]]]:
    table = comparison.reliability_band
    return {
        str(side): part[["confidence", "low", "high"]].to_numpy().tolist()
        for side, part in table.groupby("side", sort=False)
    }
