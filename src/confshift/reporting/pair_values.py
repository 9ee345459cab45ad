"""The numbers of a pair of checkpoints that the sentences under the charts name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.decomposition import ACCOUNT, TRANSITIONS
from confshift.analysis.sample_rows import SIDES
from confshift.findings import wording
from confshift.reporting.captions import CHOICES, fill


def pair_values(
    comparison: Comparison,
    classes: list[int],
    at: tuple[str, str],
    *,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the numbers that the templates name, for one pair of checkpoints.

    Parameters
    ----------
    comparison : Comparison
    classes : list of int
        Those shown one by one.
    at : tuple of str
        The names of the two checkpoints: "epoch 12".
    before, after : mapping
        The rows of `epoch_tables.epoch_table` of the two checkpoints.
    """
    account, top = comparison.account.loc[list(ACCOUNT)], comparison.concentration["value"]
    values: dict[str, Any] = {
        **key_values(comparison, at),
        **{part: account.loc[part, "contribution"] for part in account.index},
        "cost_before": account.loc["mistake_cost", "before"],
        "cost_after": account.loc["mistake_cost", "after"],
        **{name: top[column] for name, column in _CONCENTRATION.items()},
        **_of_classes(comparison.classes.loc[classes]),
    }
    values |= _amounts(tuple(account.index), values)
    for side, row in (("before", before), ("after", after)):
        values |= {f"{name}_{side}": row[column] for name, column in _OF_EPOCH.items()}
    return _plain(values | _texts_of_choices(values))


def key_values(comparison: Comparison, at: tuple[str, str]) -> dict[str, Any]:
    """Return the numbers that are shown first: losses, accuracy, where the change comes from."""
    change = comparison.change
    values: dict[str, Any] = {
        "A": comparison.before.epoch,
        "B": comparison.after.epoch,
        "at_A": at[0],
        "at_B": at[1],
        "N": len(comparison.panel.targets),
        "by_groups": wording.by_groups(change.loc["loss"]),
        **_of_samples(comparison),
        **_of_cells(comparison),
    }
    for name, quantity in _CHANGES.items():
        row = change.loc[quantity]
        values |= {f"{name}_{column}": row[column] for column in ("before", "after", "change")}
    for name, quantity in _INTERVALS.items():
        values |= {f"{name}_{end}": change.loc[quantity, f"change_{end}"] for end in ("low", "high")}
    values |= _levels(values)
    for names in (TRANSITIONS, ("up", "down"), ("calibration_change", "refinement_change")):
        values |= _amounts(names, values)
    values |= {f"scale_{side}": change.loc["scale_loss", side] for side in SIDES}
    values |= _parts(values)
    values |= _missing(values)
    return _plain(values | _first_texts(values))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}


def _first_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Choose the texts of the numbers that are shown first."""
    infinite = values["infinite_before"] > 0, values["infinite_after"] > 0
    moves = {(False, False): "finite", (False, True): "rose", (True, False): "fell", (True, True): "stayed"}
    return _chosen(
        {
            **dict.fromkeys(("loss_moved", "loss_levels", "finite_part"), moves[infinite]),
            **dict.fromkeys(("left_out", "not_counted"), "some" if _left_out(values) else "none"),
            **dict.fromkeys(OF_FIGURES, "pair"),
            "loss_status": "infinite" if any(infinite) else _status(values, "loss"),
            "accuracy_status": _status(values, "accuracy"),
            "calibrated_status": _status(values, "refinement"),
        },
        values,
    )


def _chosen(keys: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    return {name: fill(CHOICES[name][key], values) for name, key in keys.items()}


def _texts_of_choices(values: Mapping[str, Any]) -> dict[str, str]:
    """Choose by the numbers one text of each of CHOICES, and fill it."""
    keys = {
        "costs": "wrong" if math.isfinite(values["cost_before"] + values["cost_after"]) else "right",
        "class_fall": "fell" if values["fell_before"] - values["fell_after"] > wording.NOTHING else "none",
        "class_top": "adds" if values["top_contribution"] > wording.NOTHING else "none",
        "carried": "none"
        if not values["cancelling"] > 0
        else "rise"
        if values["loss_low"] > 0
        else "within_noise",
    }
    return _chosen(keys, values)


def _left_out(values: Mapping[str, Any]) -> bool:
    return bool(values["nonfinite_before"] + values["nonfinite_after"] > 0)


def _status(values: Mapping[str, Any], name: str) -> str:
    """Tell whether an interval excludes 0, and on which side."""
    low, high = values[f"{name}_low"], values[f"{name}_high"]
    if math.isnan(low):
        return "unknown"
    return "up" if low > 0 else "down" if high < 0 else "same"


def _levels(values: Mapping[str, Any]) -> dict[str, str]:
    """Write before, after and the difference of what is shown side by side, so that they add up."""
    texts: dict[str, str] = {}
    for name, write in _WRITERS.items():
        numbers = write(values[f"{name}_before"], values[f"{name}_after"])
        texts |= {
            f"{name}_{end}": text for end, text in zip(("from", "to", "difference"), numbers, strict=True)
        }
    return texts


#: What the figures of accuracy and calibrated loss say beside a verdict.
OF_FIGURES = ("loss_detail", "accuracy_levels", "accuracy_detail", "calibrated_levels", "calibrated_detail")


#: The three parts of a loss.
PARTS = ("scale_part", "balance_part", "rest_part")


def _parts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the change of each part of the loss, and write it and its levels so that they add up."""
    scale, calibration, rest = (
        [values[f"{name}_{side}"] for side in SIDES] for name in ("scale", "calibration", "refinement")
    )
    levels = [scale, [whole - part for whole, part in zip(calibration, scale, strict=True)], rest]
    changes = {name: after - before for name, (before, after) in zip(PARTS, levels, strict=True)}
    texts = _amounts(PARTS, {**values, **changes})
    decimals = len(values["loss_difference"].partition(".")[2])
    loss = math.nan if values["loss_from"] == "–" else float(values["loss_from"])
    starts = wording.adding_up([before for before, _ in levels], loss, decimals)
    for name, start in zip(PARTS, starts, strict=True):
        texts[f"{name}_levels"] = _from_and_to(start, texts[f"{name}_amount"], decimals)
    return {**changes, **texts}


def _from_and_to(start: str, amount: str, decimals: int) -> str:
    if "–" in (start, amount):
        return "–"
    before, by = (float(text.replace("−", "-")) for text in (start, amount))
    return " → ".join(
        f"{'−' if level < -wording.NOTHING else ''}{abs(level):.{decimals}f}"
        for level in (before, before + by)
    )


def _missing(values: Mapping[str, Any]) -> dict[str, str]:
    """Say for each side how many samples have no finite loss; "" where all have."""
    keys = {
        f"missing_{side}": "infinite"
        if values[f"infinite_{when}"]
        else "some"
        if values[f"nonfinite_{when}"]
        else "none"
        for side, when in (("A", "before"), ("B", "after"))
    }
    return _chosen(keys, values)


def _amounts(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, str]:
    """Write parts of the change of the loss so that they add up, with the decimals of the change."""
    decimals = len(values["loss_difference"].partition(".")[2])
    amounts = wording.adding_up([values[name] for name in names], values["loss_change"], decimals)
    return {f"{name}_amount": text for name, text in zip(names, amounts, strict=True)}


_WRITERS = {
    "loss": wording.levels_and_change,
    "refinement": wording.levels_and_change,
    "accuracy": wording.shares_and_change,
}
_CHANGES = {
    "loss": "loss",
    "accuracy": "accuracy",
    "refinement": "refinement_loss",
    "calibration": "calibration_loss",
}
_INTERVALS = {"loss": "loss", "accuracy": "accuracy", "refinement": "refinement_loss"}
_CONCENTRATION = {"top_1": "top_1_percent", "top_10": "top_10_percent", "cancelling": "cancelling_samples"}
_OF_EPOCH = {
    "gap": "confidence_gap",
    "ece": "ece",
    "ece_null": "ece_null",
    "sure_right": "sure_right",
    "sure_wrong": "sure_wrong",
}


def _of_samples(comparison: Comparison) -> dict[str, Any]:
    """Count the samples that the numbers include, and those that they leave out."""
    nonfinite, infinite = (
        len(comparison.whole.targets) - comparison.whole.counts.finite,
        comparison.infinite_samples,
    )
    before, after = comparison.answered.correct
    return {
        "scored": len(comparison.panel.targets),
        "answered": len(comparison.answered.targets),
        "learned_answers": int((~before & after).sum()),
        "forgotten_answers": int((before & ~after).sum()),
        **{f"nonfinite_{side}": int(number) for side, number in zip(SIDES, nonfinite, strict=True)},
        **{f"infinite_{side}": number for side, number in zip(SIDES, infinite, strict=True)},
    }


def _of_cells(comparison: Comparison) -> dict[str, Any]:
    cells = comparison.cells
    values: dict[str, Any] = {}
    for transition in TRANSITIONS:
        part = cells.loc[transition]
        values[transition] = part["contribution"].sum()
        values[f"{transition}_samples"] = part["samples"].sum()
    for direction in ("up", "down"):
        part = cells.xs(direction, level="direction")
        values[direction] = part["contribution"].sum()
        values[f"{direction}_samples"] = part["samples"].sum()
    return values


def _of_classes(table: pd.DataFrame) -> dict[str, Any]:
    top = table.loc[table["contribution"].idxmax()]
    worst = table.loc[(table["accuracy_after"] - table["accuracy_before"]).idxmin()]
    return {
        "shown_classes": len(table),
        "shown_contribution": table["contribution"].sum(),
        "top_class": top["class_name"],
        "top_contribution": top["contribution"],
        "fell_class": worst["class_name"],
        "fell_samples": worst["samples"],
        "fell_before": worst["accuracy_before"],
        "fell_after": worst["accuracy_after"],
    }
