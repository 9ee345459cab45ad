"""Are validation labels wrong, and which? Findings about the targets."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.told import is_told
from confshift.findings.wording import count, epoch, nats, percent

#: A gain or a floor above this many standard errors is significant.
_ERRORS = 2.0
#: A gain of this share of the loss is worth a word; the shares of two checkpoints agree within this factor.
_WORTHWHILE, _AGREEMENT = 0.01, 1.5
_SHOWN = 100
_FEWEST_CHECKPOINTS = 3

_LABEL_NOISE = Question(
    "label_noise", "Do some validation labels look wrong?", section="concentration", problem="yes"
)
_STUCK_SAMPLES = Question(
    "stuck_samples",
    "Do samples keep the same wrong label with great confidence?",
    section="samples",
    problem="yes",
)


def about_labels(history: History, comparison: Comparison) -> list[Finding]:
    """Answer whether labels of the inspected split look wrong."""
    return [label_noise(history, comparison), stuck_samples(history)]


def label_noise(history: History, comparison: Comparison) -> Finding:
    """Is there a share of labels that the logits can't explain?

    At both checkpoints, because the errors of an overfitted model alone may look like noise.
    """
    sides = [comparison.before, comparison.after]
    if unread := _LABEL_NOISE.without_logits(*sides):
        return unread
    table = comparison.label_noise
    if table["floor_se"].isna().any():
        sentence = (
            "Nothing can be fitted at one of the two checkpoints: too few samples, all right, none better "
            "than a guess, or one that decides."
        )
        return _LABEL_NOISE.not_applicable(sentence, table)
    verdict, reason = _noisy(table)
    at = int(table["gain"].to_numpy().argmax())
    best = table.iloc[at]
    effect = (
        f"lowers the loss after temperature scaling by {nats(best['gain'])} nats, "
        f"{percent(best['gain'] / best['loss'])} of it (epoch {epoch(sides[at].epoch)}, on samples left out)"
        if best["gain"] > _ERRORS * best["gain_se"]
        else "does not lower the loss after temperature scaling beyond its error"
    )
    shares = " and ".join(
        f"{percent(share)} by epoch {epoch(float(at))}" for at, share in table["wrong_labels"].items()
    )
    sentence = (
        f"If labels are wrong at random, and the model is right otherwise, it is {shares} of them; to "
        f"allow for that {effect}.{reason}"
    )
    if verdict == "yes":
        sentence += (
            " Consistent with wrong labels in the validation set, or with samples that nobody could "
            f"label from the input.{_part_of_rise(history, comparison, best['wrong_labels'])}"
        )
    step = "The next finding lists the samples: look at the most suspect first."
    return _LABEL_NOISE.answer(verdict, sentence, table, step if verdict == "yes" else "")


def _noisy(table: pd.DataFrame) -> tuple[Verdict, str]:
    """Judge the fits at both checkpoints, and say why they are not enough where one of them finds something.

    Whatever a weak model can't fit looks like wrong labels: the share then depends on the checkpoint, and
    the gain is small.
    """
    gains = table["gain"] > _ERRORS * table["gain_se"]
    if not gains.any():
        suspected = (table["floor"] > _ERRORS * table["floor_se"]).any()
        return "cannot tell" if suspected else "no", ""
    if table.index.nunique() < 2:
        return "cannot tell", " It takes a second checkpoint to see whether the share stays the same."
    if not gains.all():
        return "cannot tell", " That is so at one of the two checkpoints only."
    if (table["gain"] < _WORTHWHILE * table["loss"]).any():
        return "cannot tell", f" A gain of less than {percent(_WORTHWHILE)} may be any other misfit."
    if table["wrong_labels"].max() > _AGREEMENT * table["wrong_labels"].min():
        return "cannot tell", " The two checkpoints do not agree on the share, so it may be another misfit."
    return "yes", ""


def _part_of_rise(history: History, comparison: Comparison, share: float) -> str:
    """Say what part of a rise comes from the most suspect samples, as many as labels look wrong."""
    change = comparison.samples["change"]
    number = max(1, round(share * len(change)))
    if not (comparison.change.loc["loss", "change_low"] > 0 and is_told(history, comparison, "loss")):
        return ""
    part = float(change.reindex(history.label_suspects.index[:number]).sum() / change.sum())
    return f" The {number:,} most suspect samples carry {percent(part)} of the rise."


def stuck_samples(history: History) -> Finding:
    """Which samples keep the same wrong label for many checkpoints?"""
    suspects, checkpoints = history.label_suspects, len(history.main.checkpoints)
    table = suspects.head(_SHOWN)
    if checkpoints < _FEWEST_CHECKPOINTS:
        sentence = f"It takes {_FEWEST_CHECKPOINTS} checkpoints to say; there are {checkpoints}."
        return _STUCK_SAMPLES.not_applicable(sentence, table)
    long = max(_FEWEST_CHECKPOINTS, math.ceil(checkpoints / 4))
    stuck = suspects["sure_checkpoints"].to_numpy() >= long
    never = suspects["correctness"].to_numpy() == 0
    sentence = (
        f"{count(int(stuck.sum()))} of {len(suspects):,} had the same wrong label at a confidence above "
        f"99 % in each of the last {long} checkpoints"
    )
    sentence += (
        f"{_never_right(int(stuck.sum()), int(np.sum(stuck & never)))} Such a sample is mislabelled or "
        "hard: the logits alone can't say which."
        if stuck.any()
        else "."
    )
    verdict: Verdict = "yes" if stuck.any() else "no"
    step = (
        "Check their labels, the lowest target_probability first; the order is the better guide, the "
        "number is not an estimate of wrong labels."
        if verdict == "yes"
        else ""
    )
    return _STUCK_SAMPLES.answer(verdict, sentence, table, step)


def _never_right(stuck: int, never: int) -> str:
    """Complete the sentence about the stuck samples: how many of them were never right."""
    if stuck == 1:
        return ", and was never right." if never else ", but was right before."
    return f", and {never:,} of them {'was' if never == 1 else 'were'} never right."
