"""The tables of the charts that the page's script makes for any pair, for one pair and in Python."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.comparison import SIDES, Comparison
from confshift.analysis.decomposition import DIRECTIONS, TRANSITIONS, cells_of
from confshift.analysis.history import History
from confshift.findings.wording import epoch, percent, signed
from confshift.reporting import binning
from confshift.reporting.theme import TRANSITION_LABELS

__all__ = ["pair_figures"]

_CURVE_POINTS = 200
_SMALLEST = 1e-3


def pair_figures(
    history: History,
    comparison: Comparison,
    *,
    classes: list[int],
    ticks: NDArray[np.float64],
    scale: str,
) -> dict[str, pd.DataFrame]:
    """Return the tables of the remaining charts, by the names that these read.

    Parameters
    ----------
    history : History
    comparison : Comparison
    classes : list of int
        Those shown one by one, in their order.
    ticks : ndarray
        Of the axis of log-odds.
    scale : {"probability", "odds"}
        Axis of confidences.
    """
    return {
        **_history(history, comparison),
        **_classes(comparison, classes),
        **_reliability(comparison, ticks, scale),
        **_confidence(comparison, ticks, scale),
        **_concentration(comparison),
        **_samples(comparison),
    }


def _history(history: History, comparison: Comparison) -> dict[str, pd.DataFrame]:
    """Return every epoch against the earlier one of the pair, from where the losses are near."""
    panel = history.main
    before = panel.checkpoints.index(comparison.before)
    rows = []
    for at in range(_first_near(history, before), len(panel.epochs)):
        usable = panel.finite[before] & panel.finite[at]
        cells = cells_of(panel.take(usable), before, at)["contribution"]
        added = cells.groupby("transition", sort=False).sum()
        rows += [(panel.epochs[at], TRANSITION_LABELS[name], value) for name, value in added.items()]
    table = pd.DataFrame(rows, columns=["epoch", "transition", "contribution"])
    places = {TRANSITION_LABELS[name]: str(place) for place, name in enumerate(TRANSITIONS)}
    table["key"] = table["epoch"].map(epoch) + " " + table["transition"].map(places)
    total = table.groupby("epoch", as_index=False)["contribution"].sum()
    return {"history": table, "history_total": total.rename(columns={"contribution": "change"})}


def _first_near(history: History, before: int) -> int:
    """Return the position from which on no loss is much further away than those after `before` are."""
    losses = history.table["finite_loss"].to_numpy()[: len(history.main.epochs)]
    change = np.abs(losses - losses[before])
    if before == len(losses) - 1:
        return 0
    far = np.flatnonzero(~(change[:before] <= 1.5 * np.nanmax(change[before:])))
    return int(far[-1]) + 1 if len(far) else 0


def _classes(comparison: Comparison, classes: list[int]) -> dict[str, pd.DataFrame]:
    shown = comparison.classes.loc[classes].assign(order=range(len(classes)))
    sides = shown.rename(columns={f"accuracy_{side}": side for side in SIDES})
    parts = [
        shown[["class_name", "order"]].assign(
            transition=TRANSITION_LABELS[transition],
            contribution=shown[[f"{transition}_{direction}" for direction in DIRECTIONS]].sum(axis=1),
        )
        for transition in TRANSITIONS
    ]
    return {
        "class_accuracy": sides[["class_name", "order", "samples", *SIDES]],
        "class_totals": shown[["class_name", "order", "contribution"]],
        "class_cells": pd.concat(parts).sort_values("order", kind="stable", ignore_index=True),
    }


def _placed(shares: pd.Series, ticks: NDArray[np.float64], scale: str) -> pd.Series:
    """Return where probabilities stand on the axis."""
    if scale == "probability":
        return shares
    with np.errstate(divide="ignore"):
        return np.log(shares / (1 - shares)).clip(ticks[0], ticks[-1])


def _reliability(comparison: Comparison, ticks: NDArray[np.float64], scale: str) -> dict[str, pd.DataFrame]:
    bins = comparison.reliability[comparison.reliability["binning"] == "equal_mass"]
    curve, band = comparison.reliability_curve, comparison.reliability_band
    ends = [0.0, 1.0] if scale == "probability" else [ticks[0], ticks[-1]]
    made = {"diagonal": pd.DataFrame({"x": ends, "y": ends})}
    columns = {"confidence": "x", "accuracy": "y", "accuracy_low": "low", "accuracy_high": "high"}
    for side in SIDES:
        dots = bins[bins["side"] == side]
        placed = {name: _placed(dots[source], ticks, scale) for source, name in columns.items()}
        made[f"bins_{side}"] = dots[["confidence", "accuracy", "samples"]].assign(**placed)
        for name, table in (("isotonic", curve), ("band", band)):
            part = table[table["side"] == side].drop(columns="side")
            placed_part = part.apply(lambda column: _placed(column, ticks, scale))
            made[f"{name}_{side}"] = placed_part.rename(columns={"confidence": "x", "accuracy": "y"})
    return made


def _confidence(comparison: Comparison, ticks: NDArray[np.float64], scale: str) -> dict[str, pd.DataFrame]:
    edges = binning.bin_edges(ticks)[scale]
    counts = binning.confidence_bins(comparison.answered, edges)
    places = _placed(pd.Series(edges), ticks, scale).to_numpy()
    sides = list(enumerate(SIDES))[0 if comparison.before is not comparison.after else 1 :]
    common = {
        "start": places[:-1],
        "end": places[1:],
        "from": [percent(one) for one in edges[:-1]],
        "to": [percent(one) for one in edges[1:]],
    }
    made = {}
    for kind in ("right", "wrong"):
        by_side = [pd.DataFrame({**common, "side": side, "samples": counts[kind][at]}) for at, side in sides]
        made[f"confidence_{kind}"] = pd.concat(by_side, ignore_index=True)
    return made


def _concentration(comparison: Comparison) -> dict[str, pd.DataFrame]:
    falling = np.sort(comparison.samples["change"].to_numpy())[::-1]
    count = len(falling)
    even = np.linspace(0, count - 1, min(count, _CURVE_POINTS)).round().astype(int)
    kept = np.unique(np.r_[np.arange(min(50, count)), even])
    curve = pd.DataFrame({"share": (kept + 1) / count, "cumulative": np.cumsum(falling)[kept] / count})
    curve = pd.concat([pd.DataFrame({"share": [0.0], "cumulative": [0.0]}), curve], ignore_index=True)
    last = curve["cumulative"].iloc[-1]
    tops = [
        curve[curve["share"] >= percentage / 100].iloc[[0]].assign(label=f"top {percentage} %")
        for percentage in (1, 10)
    ]
    return {
        "concentration": curve,
        "net": pd.DataFrame({"cumulative": [last], "label": [f"change of the mean: {signed(last)}"]}),
        "tops": pd.concat(tops),
    }


def _samples(comparison: Comparison) -> dict[str, pd.DataFrame]:
    samples, names = comparison.samples, comparison.panel.class_labels
    losses = {side: samples[f"loss_{side}"].clip(lower=_SMALLEST) for side in SIDES}
    table = pd.DataFrame(
        {
            "i": range(len(samples)),
            "sample": samples.index,
            "true": names[samples["target"]],
            "said": names[samples["predicted_after"]],
            **{side: values.to_numpy() for side, values in losses.items()},
            "transition": samples["transition"].map(TRANSITION_LABELS).to_numpy(),
        }
    )
    ends = [min(one.min() for one in losses.values()), max(one.max() for one in losses.values())]
    return {
        "samples": table,
        "even": pd.DataFrame(dict.fromkeys(SIDES, ends)),
        "pinned": table.iloc[:0].assign(seen=1),
    }
