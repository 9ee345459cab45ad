"""Did the loss change between two checkpoints, and the accuracy with it?"""

from __future__ import annotations

import math

import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.sample_rows import SIDES
from confshift.findings.left_out import zero_samples
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.told import excludes_0
from confshift.findings.wording import (
    NOTHING,
    apart,
    count,
    epoch,
    fitting,
    interval,
    nats,
    percent,
    points,
    rose_or_fell,
)

_AS_CHOSEN = "for these two checkpoints as chosen; not corrected for having picked the best"

_LOSS_CHANGE = Question(
    "loss_change",
    "Did the loss change?",
    section="account",
    problem=None,
    undecided="Whether the loss changed is undecided",
)


def _between(comparison: Comparison, names: tuple[str, str] | None) -> str:
    if names:
        return f"From {names[0]} to {names[1]}"
    before, after = comparison.before.epoch, comparison.after.epoch
    if math.isnan(before) or math.isnan(after):  # bare Predictions
        return "Between the two sides"
    return f"From epoch {epoch(before)} to {epoch(after)}"


def loss_change(comparison: Comparison, *, names: tuple[str, str] | None = None) -> Finding:
    """Did the loss change between these two checkpoints, and what did accuracy do?"""
    change = comparison.change
    loss, accuracy = change.loc["loss"], change.loc["accuracy"]
    by = f" by {nats(abs(loss['change']))} nats" if abs(loss["change"]) > NOTHING else ""
    before, after = comparison.infinite_samples
    significant = excludes_0(loss) or bool(before) != bool(after)
    same = bool((comparison.panel.changes(0, 1) == 0).all())
    verdict: Verdict = "no" if same else "yes" if significant else "cannot tell"
    moved = f"{rose_or_fell(loss['change'])}{by}"
    course = f"{_between(comparison, names)} the loss{_of_finite(comparison)} {moved}"
    has_doubt, of_accuracy = verdict == "cannot tell" and by, _accuracy(accuracy)
    if any(comparison.infinite_samples):
        doubt = "That is within sampling error." if has_doubt else ""
        sentences = [_infinite_means(comparison), f"{course}.", doubt, f"A{of_accuracy[1:]}."]
    else:
        sentences = [f"{course}{', which is within sampling error' if has_doubt else ''}; {of_accuracy}."]
    sentence, others = fitting([*sentences, *_left_out(comparison)])
    if any(comparison.infinite_samples):
        answer = "The mean loss is infinite"
    elif verdict == "cannot tell":
        answer = f"The loss {moved}, within noise" if by else _LOSS_CHANGE.undecided
    else:
        answer = f"The loss {moved}"
    levels = " to ".join(apart(loss["before"], loss["after"]))
    details = (
        f"The mean loss{_of_finite(comparison)} went from {levels} nats ({interval(loss)}), accuracy from "
        f"{percent(accuracy['before'])} to {percent(accuracy['after'])} ({interval(accuracy)}). "
        f"{count(len(comparison.panel.targets))}; {_AS_CHOSEN}."
    )
    details = f"{others} {details}".lstrip()
    return _LOSS_CHANGE.answer(verdict, sentence, change, answer=answer, details=details)


def _accuracy(row: pd.Series) -> str:
    if excludes_0(row):
        return f"accuracy {rose_or_fell(row['change'])} by {points(abs(row['change'])).lstrip('+')}"
    return f"accuracy did not change measurably ({percent(row['after'])})"


def _infinite_means(comparison: Comparison) -> str:
    """Say which side's mean loss is infinite, ahead of the numbers over the other samples."""
    before, after = comparison.infinite_samples
    if before and after:
        return f"Both mean losses are infinite: {before:,} and {zero_samples(after)}."
    for number, side in zip((before, after), SIDES, strict=True):
        if number:
            return f"The mean loss {side} is infinite: {zero_samples(number)}."
    return ""


def _of_finite(comparison: Comparison) -> str:
    return " of those finite on both sides" if any(comparison.infinite_samples) else ""


def _left_out(comparison: Comparison) -> list[str]:
    """Say which samples the numbers of a change leave out."""
    if not comparison.samples_left_out:
        return []
    sentences = [f"{count(comparison.samples_left_out)} without a finite loss left out of both sides."]
    if comparison.samples_unanswered < comparison.samples_left_out:
        samples = count(len(comparison.answered.targets))
        sentences.append(f"The accuracy is over the {samples} with an answer on both sides.")
    return sentences
