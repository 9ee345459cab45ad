"""What one checkpoint, or two that the user chose, show: the verdicts on the run are not about them."""

from __future__ import annotations

import math

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.findings.left_out import zero_samples
from confshift.findings.told import excludes_0, is_told
from confshift.findings.wording import NOTHING, epoch, nats, percent, points, rose_or_fell


def about_one_checkpoint(history: History) -> tuple[str, str]:
    """Return what to do about a run of one checkpoint, and what it shows."""
    row = history.table[history.table["split"] == history.split].iloc[0]
    knows = (
        row["refinement_loss"] + 1.96 * row["refinement_loss_se"]
        < history.references.loc["best constant", "loss"]
    )
    first = "Calibrate it, and inspect" if history.recommendation.calibrated and knows else "Inspect"
    loss = f"a loss of {nats(row['loss'])} nats" if math.isfinite(row["loss"]) else "an infinite loss"
    why = (
        f"Epoch {epoch(row['epoch'])} has {loss} and an accuracy of {percent(row['accuracy'])}. "
        "A second one will show what changes."
    )
    return f"{first} a second checkpoint.", why


def about_chosen_pair(history: History, comparison: Comparison) -> tuple[str, str]:
    """Return what two chosen checkpoints show, and by how much they differ."""
    before, after = (epoch(side.epoch) for side in (comparison.before, comparison.after))
    if comparison.before is comparison.after:
        row = comparison.change["after"]
        loss = (
            "an infinite loss" if any(comparison.infinite_samples) else f"a loss of {nats(row['loss'])} nats"
        )
        why = f"Epoch {after} has {loss} and an accuracy of {percent(row['accuracy'])}."
        return "Choose two different epochs to compare them.", why
    accuracy = accuracy_clause(history, comparison)
    infinite = comparison.infinite_samples
    if any(infinite):
        return _infinite_loss(infinite, (before, after)), f"{loss_clause(comparison)}; {accuracy}."
    why = f"{loss_clause(comparison)}{_measured(history, comparison)}; {accuracy}."
    return _better(history, comparison, before, after), why


def loss_clause(comparison: Comparison) -> str:
    """Say what the loss did between two epochs: the start of a sentence."""
    start = f"From epoch {epoch(comparison.before.epoch)} to {epoch(comparison.after.epoch)} the loss"
    if any(comparison.infinite_samples):
        return f"{start} {_about_infinite(comparison.infinite_samples)}"
    change = comparison.change.loc["loss", "change"]
    by = "" if abs(change) <= NOTHING else f" by {nats(abs(change))} nats"
    return f"{start} {rose_or_fell(change)}{by}"


def _better(history: History, comparison: Comparison, before: str, after: str) -> str:
    """Name the epoch that is measurably better, by loss or else by accuracy."""
    change = comparison.change
    if is_told(history, comparison, "loss"):
        return f"Epoch {before if change.loc['loss', 'change'] > 0 else after} has the lower loss."
    if is_told(history, comparison, "accuracy"):
        return f"Epoch {after if change.loc['accuracy', 'change'] > 0 else before} has the higher accuracy."
    return f"Epochs {before} and {after} do not measurably differ."


def _measured(history: History, comparison: Comparison) -> str:
    row = comparison.change.loc["loss"]
    if is_told(history, comparison, "loss") or abs(row["change"]) <= NOTHING:
        return ""
    if excludes_0(row):
        return ", perhaps by chance, as the earlier epoch was picked as the best"
    return ", which may be noise"


def _infinite_loss(infinite: tuple[int, int], names: tuple[str, str]) -> str:
    if all(infinite):
        return "Both epochs have an infinite loss."
    return f"Epoch {names[1 if infinite[0] else 0]} has the lower loss."


def _about_infinite(infinite: tuple[int, int]) -> str:
    before, after = infinite
    if not before:
        return f"rose to infinity, as {zero_samples(after)}"
    if not after:
        return f"came down from infinity, as {zero_samples(before)} at first"
    return f"stays infinite: {before:,} and {after:,} samples have a probability of 0"


def accuracy_clause(history: History, comparison: Comparison) -> str:
    """Say what the accuracy did, as far as it is measurable."""
    row = comparison.change.loc["accuracy"]
    if math.isnan(row["change_low"]):
        return f"accuracy is {percent(row['after'])}"
    if is_told(history, comparison, "accuracy"):
        return f"accuracy {rose_or_fell(row['change'])} by {points(abs(row['change'])).lstrip('+')}"
    if excludes_0(row):
        return "accuracy fell, perhaps by chance"
    return "accuracy did not change measurably"
