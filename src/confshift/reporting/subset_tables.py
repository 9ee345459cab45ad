"""The tables of the subsets, one for each attribute of the samples, as text for the terminal and the page."""

from __future__ import annotations

import math

import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.findings.wording import adding_up, count, levels_and_change, nats, percent, signed
from confshift.reporting.characters import printable

#: Subsets that are shown one by one: those that add most, or take away most.
_MOST = 20
#: A p-value below this is written as below it.
_SMALLEST = 0.001


def subset_tables(
    comparison: Comparison, sides: tuple[str, str]
) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Return the head and the rows of the table of each attribute, by its name.

    The nats add up to the change of the loss as they are written; subsets beyond 20 have one row together.
    """
    before, after = (f"loss {side}" for side in sides)
    head = ["samples", "of all", before, after, "change", "95 % interval", "nats", "p-value"]
    names = [attribute.name for attribute in comparison.attributes]
    return {
        printable(name): ([printable(name), *head], _rows(comparison, comparison.slices.loc[name]))
        for name in names
    }


def _rows(comparison: Comparison, subsets: pd.DataFrame) -> list[list[str]]:
    is_shown = subsets["contribution"].abs().rank(ascending=False, method="first") <= _MOST
    shown, others = subsets[is_shown], subsets[~is_shown]
    parts = [*shown["contribution"], *([others["contribution"].sum()] if len(others) else [])]
    change = float(comparison.change.loc["loss", "change"])
    # One decimal more than the change itself is written with: most subsets add little.
    decimals = len(nats(change).partition(".")[2]) + 1
    amounts = adding_up(parts, change, decimals)
    rows = [
        [printable(str(value)), *_numbers(row), amount, _chance(row["p_value"])]
        for (value, row), amount in zip(shown.iterrows(), amounts, strict=False)
    ]
    if len(others):
        size = [f"{others['samples'].sum():,.0f}", percent(others["weight"].sum())]
        rows.append([count(len(others), "other subset"), *size, *[""] * 4, amounts[-1], ""])
    return rows


def _numbers(row: pd.Series) -> list[str]:
    levels = levels_and_change(row["loss_before"], row["loss_after"])
    ends = [signed(row[f"change_{end}"]) for end in ("low", "high")]
    interval = "–" if math.isnan(row["change_low"]) else " to ".join(ends)
    return [f"{row['samples']:,.0f}", percent(row["weight"]), *levels, interval]


def _chance(p_value: float) -> str:
    if math.isnan(p_value):
        return "–"
    return f"{p_value:.3f}" if p_value >= _SMALLEST else f"< {_SMALLEST:g}"
