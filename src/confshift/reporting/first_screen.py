"""The first screen: what the page is about, what to do, three figures, and where the change comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.decomposition import TRANSITIONS
from confshift.analysis.history import History
from confshift.findings import wording
from confshift.findings.commands import in_place
from confshift.findings.told import JUDGES, is_harm, is_judged, is_last, within_choice
from confshift.recalibration import biases_take_part
from confshift.reporting.captions import fill
from confshift.reporting.pair_values import PARTS, key_values
from confshift.reporting.subject import Story

#: How the first screen writes a verdict on the loss, by its status.
_VERDICTS = {
    "systematic": "up, systematic",
    "small": "up a little, systematic",
    "flat": "no rise beyond noise",
    "within_jitter": "up, within the jitter between epochs",
    "below_resolution": "too few samples to tell",
    "unscored": "too much left out to tell",
}
#: Those of them beside which an interval of two epochs may exclude 0.
_WITHIN_JITTER = (_VERDICTS["within_jitter"], _VERDICTS["flat"])
#: The kinds of run that the parts of the loss explain, not what became of the samples.
BY_PART = ("class_drift", "hidden_overfitting")
_SPLITS = {"val": "validation", "train": "training"}


def first_screen(story: Story, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names that the template uses for the first screen.

    Parameters
    ----------
    story : Story
    values : mapping
        `pair_values` of the pair of the report.
    """
    return {
        "subject": _subject(story),
        "answer": story.answer,
        "codes_to_copy": [in_place(step.code, story.places) for step in story.answer.steps],
        "bars": _bars(values, PARTS if story.answer.kind in BY_PART else TRANSITIONS),
        "by_part": story.answer.kind in BY_PART,
        "calibrated_by": _calibrated_by(story),
        "weighted": "" if story.comparison.panel.weights is None else ", weighted",
        "chance": chance(story.history),
    }


#: How the first screen writes that two runs differ, by how it writes that one changed.
_DIFFERENCES = {
    "measurably up": "B is measurably higher",
    "measurably down": "B is measurably lower",
    "no measurable change": "no measurable difference",
}


def differences(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what the figures of two runs say, in the words for a difference."""
    statuses = {name: values[name] for name in ("loss_status", "accuracy_status", "calibrated_status")}
    return {name: _DIFFERENCES.get(status, status) for name, status in statuses.items()}


#: The figures, and the rows of `Comparison.change` that they show.
_QUANTITIES = {"loss": "loss", "accuracy": "accuracy", "calibrated": "refinement_loss"}


def verdicts(history: History, comparison: Comparison) -> dict[str, str]:
    """Return what the run's own verdicts, which know about all epochs, say of the pair of the report."""
    verdicts = {
        f"{quantity}_status": "perhaps chance: A was picked as the best"
        for quantity, name in _QUANTITIES.items()
        if within_choice(history, comparison, name)
    }
    if history.divergence:  # the jitter after it says nothing
        return verdicts | _beside(history, comparison, verdicts)
    if is_last(history, comparison):
        verdicts |= _other_verdicts(history, comparison)
    status = history.rise.loc["loss", "status"]
    if (
        is_judged(history, comparison, "loss")
        and status in _VERDICTS
        and not any(comparison.infinite_samples)
    ):
        verdicts["loss_status"] = _VERDICTS[status]
    return _beside(history, comparison, verdicts) | verdicts


def _beside(history: History, comparison: Comparison, verdicts: Mapping[str, str]) -> dict[str, str]:
    """Return what stands beside verdicts in place of an interval that excludes 0 where they see no rise.

    The interval takes the two epochs as given. The verdicts know that A was picked as the best of many, and
    how far epochs jitter.
    """
    details: dict[str, str] = {}
    for quantity, name in _QUANTITIES.items():
        row, series = comparison.change.loc[name], history.rise.loc[JUDGES[name][0]]
        if within_choice(history, comparison, name):
            ends = (series["best_epoch"], series["last_epoch"], series["samples"])
            is_of_pair = ends == (comparison.before.epoch, comparison.after.epoch, row["samples"])
            details[f"{quantity}_detail"] = _picked(row, series["lower_bound"] if is_of_pair else math.nan)
        elif verdicts.get(f"{quantity}_status") in _WITHIN_JITTER and is_harm(comparison, name):
            details[f"{quantity}_detail"] = f"{_change(row)}, {wording.interval(row)} without that jitter"
    return details


def _picked(row: pd.Series, least: float) -> str:
    """Write a change since a picked epoch, with the bound that knows it; else with what the interval is."""
    if math.isnan(least):
        return f"{_change(row)}, {wording.interval(row)} had A not been picked"
    is_share = row["unit"] == "fraction"
    bound = f"at most {wording.points(-least)}" if is_share else f"at least {wording.signed(least)}"
    return f"{_change(row)}, with 95 % confidence {bound}, as A was picked"


def _change(row: pd.Series) -> str:
    if row["unit"] == "fraction":
        return wording.shares_and_change(row["before"], row["after"])[2]
    return f"{wording.levels_and_change(row['before'], row['after'])[2]} nats"


def _other_verdicts(history: History, comparison: Comparison) -> dict[str, str]:
    """Return what the run's verdicts say of accuracy and calibrated loss.

    A systematic harm counts from its own best epoch: where that is not A, all that the figure says is about
    that epoch and B, and names them. A harm that the interval of the two epochs shows and the run's verdict
    does not is said to be what the verdict takes it for.
    """
    verdicts: dict[str, str] = {}
    for quantity in ("accuracy", "calibrated"):
        series, sign = JUDGES[_QUANTITIES[quantity]]
        row, direction = history.rise.loc[series], "up" if sign > 0 else "down"
        if row["last_epoch"] != comparison.after.epoch or not math.isfinite(row["amount"]):
            continue
        if row["status"] != "systematic":
            is_known = is_judged(history, comparison) and row["status"] in _VERDICTS
            if is_known and is_harm(comparison, _QUANTITIES[quantity]):
                words = _VERDICTS[row["status"]]
                verdicts[f"{quantity}_status"] = words if direction == "up" else _of_a_fall(words)
        elif row["best_epoch"] == comparison.before.epoch:
            verdicts[f"{quantity}_status"] = f"{direction}, systematic"
        else:
            start = row["best_epoch"]
            verdicts[f"{quantity}_status"] = f"{direction} since epoch {wording.epoch(start)}, systematic"
            verdicts |= _since(history, comparison, start, quantity)
    return verdicts


def _since(history: History, comparison: Comparison, start: float, quantity: str) -> dict[str, str]:
    """Return the levels and the interval of a figure from another epoch than A to B."""
    first = history.main.checkpoint_at(start)
    values = key_values(history.compare(first, comparison.after), ("", ""))
    epochs = fill("Epoch {A:epoch} to {B:epoch}: ", values)
    return {
        f"{quantity}_levels": values[f"{quantity}_levels"],
        f"{quantity}_detail": epochs + values[f"{quantity}_detail"],
    }


def _of_a_fall(words: str) -> str:
    return words.replace("up,", "down,").replace("rise", "fall")


def _subject(story: Story) -> str:
    """Say what the page is about: the samples, the classes, the checkpoints."""
    panel, split = story.history.main, story.history.split
    counts = [
        (f"{name}: " if story.two_runs else "")
        + f"{wording.count(len(epochs), 'checkpoint')}, epoch{'s' if len(epochs) > 1 else ''} "
        + "–".join(dict.fromkeys((wording.epoch(epochs[0]), wording.epoch(epochs[-1]))))
        for name, epochs in (
            (name, history.main.epochs) for name, history in zip("AB", story.histories, strict=False)
        )
    ]
    samples, classes = wording.rows_in_words(panel), wording.count(len(panel.class_names), "class")
    return " · ".join([f"{_SPLITS.get(split, split)}, {samples}, {classes}", *counts])


def _bars(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Return the place of each bar of the first screen, as a style; the script has the same function."""
    amounts = {name: values[name] for name in names} | {"total": values["loss_change"]}
    low, high = min(0.0, *amounts.values()), max(0.0, *amounts.values())
    room = high - low or 1.0
    return {
        name: f"left: {100 * (min(amount, 0) - low) / room:.2f}%; width: {100 * abs(amount) / room:.2f}%"
        for name, amount in amounts.items()
    }


def chance(history: History) -> str:
    """Say what a guess reaches: any class alike, and the most frequent one where that is more."""
    alike, frequent = history.references["accuracy"]
    most = f", most frequent class: {wording.percent(frequent)}" if frequent > alike else ""
    return f"chance level: {wording.percent(alike)}{most}"


def _calibrated_by(story: Story) -> str:
    """Name what recalibrates the loss once calibrated."""
    panel = story.history.main
    biases = biases_take_part(len(panel.targets), len(panel.class_names))
    return "a temperature and biases" if biases else "a temperature"
