"""Do some classes get too much probability, so that one bias for each would help?"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from confshift.analysis.causes.class_bias import MAX_CLASSES
from confshift.analysis.comparison import Comparison
from confshift.findings import commands
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.wording import by_groups, count, epoch, fitting, heading, nats, percent, short_name
from confshift.recalibration import SAMPLES_A_CLASS, biases_take_part

#: A gain by biases counts from this share of the loss on.
_WORTHWHILE = 0.01

_CLASS_BIAS = Question(
    "class_bias",
    "Does the model give some classes too much probability?",
    section="classes",
    problem="yes",
    undecided="Whether class biases would help is undecided",
)

_STEP = (
    "Compare the class frequencies of training and validation set; fit a bias for each class beside the "
    "temperature."
)


def class_bias(comparison: Comparison, *, keep: float | None = None) -> Finding:
    """Say what one bias for each class would gain beside the temperature, at both checkpoints.

    The gain is that of samples that the biases were not fitted to. It counts from a hundredth of the loss on:
    the test of each class's excess finds any difference in a large split, however small.

    Parameters
    ----------
    comparison : Comparison
    keep : float, optional
        The epoch of the run's checkpoint to keep and calibrate.
    """
    after = comparison.after
    if unread := _CLASS_BIAS.without_logits(after):
        return unread
    if reason := _untested(comparison):
        return _CLASS_BIAS.not_applicable(reason[1], answer=reason[0])
    test = comparison.class_bias
    table = test.classes.assign(class_name=comparison.panel.class_labels)
    table = table.sort_values("excess", key=np.abs, ascending=False, kind="stable")
    if math.isnan(test.p_value):
        sentence = "Every probability is 0 or 1 and right: no class can have too much."
        return _CLASS_BIAS.not_applicable(sentence, table, answer="Every probability is 0 or 1, and right")
    gain, loss = comparison.balance.loc["after"], comparison.change.loc["loss", "after"]
    beyond = gain["gain"] > 2 * gain["gain_se"]
    verdict: Verdict = (
        "yes" if beyond and gain["gain"] >= _WORTHWHILE * loss else "no" if not beyond else "cannot tell"
    )
    answer, meaning = _gain_in_words(verdict, table.iloc[0], gain)
    sentence, others = fitting([meaning, _largest(table.iloc[0])])
    is_yes = verdict == "yes"
    return _CLASS_BIAS.answer(
        verdict,
        sentence,
        table,
        _STEP if is_yes else "",
        answer=answer,
        details=f"{others} {_judged(comparison, test.p_value)}".lstrip(),
        command=commands.calibrate(keep) if is_yes else "",
    )


def _untested(comparison: Comparison) -> tuple[str, str] | None:
    """Say why no biases were fitted, in short and in full; None where they were."""
    samples, classes = int(comparison.after.finite.sum()), len(comparison.panel.class_names)
    if classes > MAX_CLASSES:
        return "Too many classes to fit biases", f"{classes:,} classes are too many for this test."
    if biases_take_part(samples, classes):
        return None
    return "Too few samples to fit class biases", (
        f"{count(samples)} are too few for {classes:,} classes: biases are fitted from {SAMPLES_A_CLASS} "
        "samples a class on."
    )


def _gain_in_words(verdict: Verdict, first: pd.Series, gain: pd.Series) -> tuple[str, str]:
    """Return the answer and what the biases gain, in a sentence."""
    gained = f"{nats(gain['gain'])} nats"
    lowers = f"One bias for each class lowers the loss by {_with_error(gain)}"
    if verdict == "no":
        answer = "Class biases would gain nothing measurable"
        return answer, "One bias for each class would gain nothing measurable."
    if verdict == "cannot tell":
        real = f"{lowers}; that is real, but less than {percent(_WORTHWHILE)} of the loss."
        return f"Class biases would gain little: {gained}", real
    much = "much" if first["excess"] > 0 else "little"
    name = short_name(first["class_name"])
    answer = heading(f"Class {name} gets too {much} probability", f"One class gets too {much} probability")
    return answer, f"{lowers}."


def _with_error(gain: pd.Series) -> str:
    return f"{nats(gain['gain'])} nats (standard error {nats(gain['gain_se'])})"


def _largest(first: pd.Series) -> str:
    return (
        f"The largest difference: class {short_name(first['class_name'])} gets "
        f"{percent(first['probability'])} of the probability and is {percent(first['frequency'])} of the "
        "samples."
    )


def _judged(comparison: Comparison, p_value: float) -> str:
    """Say of what the gain is judged, and what it was at the earlier checkpoint."""
    sides, after, by = comparison.balance, comparison.after, by_groups(comparison.change.loc["loss"])
    text = (
        f"Judged at epoch {epoch(after.epoch)}, after temperature scaling, over "
        f"{len(comparison.panel.class_names)} classes (all together p = {p_value:.2g}{by}). The gain of "
        f"biases is that of samples they were not fitted to, {_with_error(sides.loc['after'])}"
    )
    if comparison.before is not after:
        text += f"; at epoch {epoch(comparison.before.epoch)} {nats(sides.loc['before', 'gain'])}"
    return f"{text}."
