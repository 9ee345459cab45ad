"""The tables of the charts of one pair: a comparison as rows with the columns that the charts name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.comparison import Comparison
from confshift.analysis.decomposition import ACCOUNT, DIRECTIONS, TRANSITIONS
from confshift.analysis.sample_rows import SIDES
from confshift.errors import ConfshiftError
from confshift.findings.wording import nats, percent, signed
from confshift.reporting import binning
from confshift.reporting.theme import CELL_LABELS, TRANSITION_LABELS

#: The most classes that are shown one by one.
_MAX_CLASSES = 20
#: What charts call the sides of a comparison.
_NAMED = dict(zip("AB", SIDES, strict=True))
_NUMBERS_OF_PAIR = ("class", "competitor", "contribution")


def pair_tables(
    comparison: Comparison, *, classes: list[int], at: tuple[str, str]
) -> dict[str, pd.DataFrame]:
    """Return the tables of a page for its own pair."""
    return {
        **_pair(comparison),
        "account": _account(comparison, at),
        "cells": _cells(comparison),
        "competitors": _competitors(comparison, classes),
    }


def _pair(comparison: Comparison) -> dict[str, pd.DataFrame]:
    start, end = comparison.before.epoch, comparison.after.epoch
    return {
        "pair": pd.DataFrame({"start": [start], "end": [end]}),
        # A name stands on the outer side of its rule, so that neighbours do not meet.
        "ends": pd.DataFrame({"epoch": [start, end], "label": ["A", "B"], "align": _outwards(start, end)}),
    }


def _outwards(start: float, end: float) -> list[str]:
    return ["right", "left"] if start <= end else ["left", "right"]


def _account(comparison: Comparison, at: tuple[str, str]) -> pd.DataFrame:
    """Return the bars of the waterfall: the loss before, three steps, the loss after."""
    loss, part = comparison.change.loc["loss"], comparison.account.loc[list(ACCOUNT), "contribution"]
    labels = [f"loss at {at[0]}", "hedging", "number of mistakes", "cost of a mistake", f"loss at {at[1]}"]
    starts = [0.0, *(loss["before"] + np.r_[0.0, part.cumsum()])[:3], 0.0]
    ends = [loss["before"], *(loss["before"] + part.cumsum()), loss["after"]]
    values = [loss["before"], *part, loss["after"]]
    kinds = ["total", *("up" if value > 0 else "down" for value in part), "total"]
    return pd.DataFrame(
        {
            "order": range(5),
            "label": labels,
            "next": [*labels[1:], labels[-1]],
            "start": starts,
            "end": ends,
            "right": np.maximum(starts, ends),
            "room": 1.12 * np.max(ends),
            "value": values,
            "kind": kinds,
            "text": [
                nats(value) if kind == "total" else signed(value)
                for value, kind in zip(values, kinds, strict=True)
            ],
        }
    )


def _cells(comparison: Comparison) -> pd.DataFrame:
    table = comparison.cells.loc[list(CELL_LABELS)].reset_index()
    contribution = table["contribution"]
    return pd.DataFrame(
        {
            "label": list(CELL_LABELS.values()),
            "transition": table["transition"].map(TRANSITION_LABELS),
            "direction": table["direction"],
            "samples": table["samples"],
            "contribution": contribution,
            "right": contribution.clip(lower=0),
            "room": contribution.max() + 0.3 * contribution.abs().max(),
            "text": contribution.map(signed),
        }
    )


def shown_classes(classes: pd.DataFrame, limit: int = _MAX_CLASSES) -> list[int]:
    """Return the classes that are shown one by one: those that contribute most, largest first."""
    present = classes[classes["samples"] > 0]
    order = present["contribution"].abs().sort_values(ascending=False, kind="stable")
    return [int(label) for label in order.index[:limit]]


def _competitors(comparison: Comparison, classes: list[int]) -> pd.DataFrame:
    """Return the pairs of the shown classes with the competitors that matter most to them.

    The table is empty where the logits can't be read: the finding beside the chart says so.
    """
    try:
        table = comparison.competitors
    except ConfshiftError:
        table = pd.DataFrame(columns=[*_NUMBERS_OF_PAIR, "class_name", "competitor_name"])
        table = table.astype(dict.fromkeys(_NUMBERS_OF_PAIR, float))
    table = table[table["class"].isin(classes)]
    sizes = table["contribution"].abs().groupby(table["competitor"]).sum()
    columns = sizes.sort_values(ascending=False, kind="stable").index[: len(classes)]
    if len(comparison.panel.class_names) <= len(classes):  # all classes: in the same order as the rows
        columns = pd.Index(classes)
    table = table[table["competitor"].isin(columns)]
    rank: Mapping[int, int] = {label: place for place, label in enumerate(columns)}
    return pd.DataFrame(
        {
            "class_name": table["class_name"],
            "competitor_name": table["competitor_name"],
            "row": table["class"].map({label: place for place, label in enumerate(classes)}),
            "column": table["competitor"].map(rank),
            "contribution": table["contribution"],
            "direction": np.where(table["contribution"] > 0, "up", "down"),
            "size": table["contribution"].abs(),
            "text": [_short(value, of=table["contribution"].abs().max()) for value in table["contribution"]],
        }
    )


def _short(value: float, *, of: float) -> str:
    """Write an amount briefly: +.014; "" where it is too small to matter."""
    if abs(value) < 0.1 * of:
        return ""
    text = f"{abs(value):.3f}" if of < 1 else f"{abs(value):.2f}"
    return ("−" if value < 0 else "+") + text.removeprefix("0")


def paper_tables(
    comparison: Comparison, *, classes: list[int], ticks: NDArray[np.float64], scale: str
) -> dict[str, pd.DataFrame]:
    """Return those of the tables that the page's script makes for any pair which `plot` needs too.

    Parameters
    ----------
    comparison : Comparison
    classes : list of int
        Those shown one by one, in their order.
    ticks : ndarray
        Of the axis of log-odds.
    scale : {"probability", "odds"}
        Axis of confidences.
    """
    return {
        **_classes(comparison, classes),
        **_reliability(comparison, ticks, scale),
        "confidence_counts": _confidence_counts(comparison, ticks, scale),
    }


def _classes(comparison: Comparison, classes: list[int]) -> dict[str, pd.DataFrame]:
    rows = comparison.classes.loc[classes].assign(order=range(len(classes)))
    sides = rows.rename(columns={f"accuracy_{side}": name for name, side in _NAMED.items()})
    parts = [
        rows[["class_name", "order"]].assign(
            transition=TRANSITION_LABELS[transition],
            contribution=rows[[f"{transition}_{direction}" for direction in DIRECTIONS]].sum(axis=1),
        )
        for transition in TRANSITIONS
    ]
    return {
        "class_accuracy": sides[["class_name", "order", "samples", *_NAMED]],
        "class_totals": rows[["class_name", "order", "contribution"]],
        "class_cells": pd.concat(parts).sort_values("order", kind="stable", ignore_index=True),
    }


def _axis_places(shares: pd.Series, ticks: NDArray[np.float64], scale: str) -> pd.Series:
    """Return the places of probabilities on the axis."""
    if scale == "probability":
        return shares
    with np.errstate(divide="ignore"):
        return np.log(shares / (1 - shares)).clip(ticks[0], ticks[-1])


def _reliability(comparison: Comparison, ticks: NDArray[np.float64], scale: str) -> dict[str, pd.DataFrame]:
    bins = comparison.reliability[comparison.reliability["binning"] == "equal_mass"]
    curve, band = comparison.reliability_curve, comparison.reliability_band
    ends = [0.0, 1.0] if scale == "probability" else [ticks[0], ticks[-1]]
    tables = {"diagonal": pd.DataFrame({"x": ends, "y": ends})}
    columns = {"confidence": "x", "accuracy": "y", "accuracy_low": "low", "accuracy_high": "high"}
    for name, side in _NAMED.items():
        dots = bins[bins["side"] == side]
        places = {place: _axis_places(dots[source], ticks, scale) for source, place in columns.items()}
        numbers = dots[["confidence", "accuracy", "samples"]]
        tables[f"bins_{name}"] = numbers.assign(side=name, **places)
        for kind, table in (("isotonic", curve), ("band", band)):
            part = table[table["side"] == side].drop(columns="side")
            axis_part = part.apply(lambda column: _axis_places(column, ticks, scale))
            tables[f"{kind}_{name}"] = axis_part.rename(columns={"confidence": "x", "accuracy": "y"})
    return tables


def _confidence_counts(comparison: Comparison, ticks: NDArray[np.float64], scale: str) -> pd.DataFrame:
    """Return how many answers have which confidence on each side."""
    edges = binning.bin_edges(ticks)[scale]
    counts = binning.confidence_bins(comparison.answered, edges)
    places = _axis_places(pd.Series(edges), ticks, scale).to_numpy()
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "side": side,
                    "samples": np.add(counts["right"][at], counts["wrong"][at]),
                    "from": [percent(edge) for edge in edges[:-1]],
                    "to": [percent(edge) for edge in edges[1:]],
                    "start": places[:-1],
                    "end": places[1:],
                }
            )
            for at, side in enumerate(_NAMED)
        ],
        ignore_index=True,
    )
