"""Does a small part account for a rise of the loss: a few classes, one pair of classes, a few samples?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.decomposition import held_out_share
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.wording import count, percent, signed

_MAY_BE_CHANCE = " The rise is not told from zero, so its parts may be chance."
#: With fewer samples of a class, what happened to it is an anecdote and no lead.
_ENOUGH_OF_A_CLASS = 20

_FEW_CLASSES = Question("few_classes", "Do a few classes carry the rise?", section="classes")
_ONE_COMPETITOR = Question(
    "one_competitor", "Does one wrong class take the mass?", section="classes", problem="yes"
)
_FEW_SAMPLES = Question(
    "few_samples", "Do a handful of samples carry the rise?", section="concentration", problem="yes"
)


def about_concentration(comparison: Comparison) -> list[Finding]:
    """Answer which part accounts for the rise, from classes to samples."""
    return [few_classes(comparison), one_competitor(comparison), few_samples(comparison)]


def no_rise(comparison: Comparison) -> str:
    """Say that the loss did not rise, or, where some losses are infinite, not over the other samples."""
    if any(comparison.infinite_samples):
        return "The loss did not rise over the samples where it is finite on both sides."
    return "The loss did not rise."


def significant_rise(comparison: Comparison) -> Verdict:
    """Whether the loss rose: "cannot tell" where the rise, and so its shares, may be chance."""
    loss = comparison.change.loc["loss"]
    if not loss["change"] > 0:
        return "not applicable"
    return "yes" if loss["change_low"] > 0 else "cannot tell"


def few_classes(comparison: Comparison) -> Finding:
    """Which classes account for the rise?"""
    classes = comparison.classes.sort_values("contribution", ascending=False, kind="stable")
    total = comparison.change.loc["loss", "change"]
    present = classes[classes["samples"] > 0]
    if not total > 0 or len(present) < 3:
        reason = (
            "Fewer than three classes have samples: there are no few." if total > 0 else no_rise(comparison)
        )
        return _FEW_CLASSES.not_applicable(reason, classes)
    few = max(1, round(len(present) / 5))
    top = present.head(few)
    share, size = top["contribution"].sum() / total, top["samples"].sum() / present["samples"].sum()
    largest = ", ".join(
        f"{row['class_name']} ({signed(row['contribution'])})" for _, row in top[:3].iterrows()
    )
    rose = significant_rise(comparison) == "yes"
    part = f"{percent(share)} of the rise of {signed(total)} nats. Largest" if rose else "by contribution"
    sentence = (
        f"The {count(few, 'class')} with the largest contribution: {percent(size)} of the samples, "
        f"{part}: {largest}."
    )
    # They must account for more than half, and for more than twice their share of the samples.
    enough = max(0.5, 2 * size)
    held_out_part = held_out_share(comparison.samples["change"].to_numpy(), comparison.panel.targets, few)
    verdict: Verdict = (
        "yes" if min(share, held_out_part) > enough else "cannot tell" if share > enough else "no"
    )
    if not rose:
        verdict, sentence = "cannot tell", sentence + _MAY_BE_CHANCE
    elif verdict == "cannot tell":
        sentence += (
            " Chosen on one half of the samples they do not carry that in the other: it may be chance."
        )
    return _FEW_CLASSES.answer(verdict, sentence, classes, _look_at(top.iloc[0]) if verdict == "yes" else "")


def _look_at(largest: pd.Series) -> str:
    """Name the class with the largest contribution, where it has enough samples for a lead."""
    if largest["samples"] < _ENOUGH_OF_A_CLASS:
        return ""
    return (
        f"Look at the samples of {largest['class_name']}: its accuracy went from "
        f"{percent(largest['accuracy_before'])} to {percent(largest['accuracy_after'])}."
    )


def one_competitor(comparison: Comparison) -> Finding:
    """Which wrong class gains on which true class?"""
    total = comparison.change.loc["loss", "change"]
    if unread := _ONE_COMPETITOR.without_logits(comparison.before, comparison.after):
        return unread
    if not total > 0 or len(comparison.panel.class_names) < 3:
        reason = "With two classes there is one competitor." if total > 0 else no_rise(comparison)
        return _ONE_COMPETITOR.not_applicable(reason, comparison.competitors)
    pairs = comparison.competitors
    rising = pairs[(pairs["class"] >= 0) & (pairs["contribution"] > 0)]
    largest = "; ".join(
        f"{row['class_name']} taken for {row['competitor_name']} {signed(row['contribution'])}"
        for _, row in rising.head(3).iterrows()
    )
    sentence = (
        f"Largest parts of the rise of {signed(total)} nats, by true class and the wrong class that gained "
        f"on it: {largest}."
    )
    # With few classes any pair has a large share.
    possible = len(np.unique(comparison.panel.targets)) * (len(comparison.panel.class_names) - 1)
    verdict: Verdict = "yes" if rising["contribution"].max() / total > max(0.25, 3 / possible) else "no"
    if significant_rise(comparison) != "yes":
        verdict, sentence = "cannot tell", sentence + _MAY_BE_CHANCE
    step = ""
    if verdict == "yes":
        first = rising.iloc[0]
        samples = comparison.classes.loc[[first["class"], first["competitor"]], "samples"]
        names = f"{first['class_name']} with those of {first['competitor_name']}"
        if samples.min() >= _ENOUGH_OF_A_CLASS:
            step = f"Compare the samples of {names}, side by side."
    return _ONE_COMPETITOR.answer(verdict, sentence, pairs, step)


def few_samples(comparison: Comparison) -> Finding:
    """Do a handful of samples account for the rise?"""
    table = comparison.concentration
    value = table["value"]
    total = len(comparison.panel.targets)
    if not comparison.change.loc["loss", "change"] > 0:
        return _FEW_SAMPLES.not_applicable(no_rise(comparison), table)
    cancelling = int(value["cancelling_samples"])
    sentence = f"Without the {count(cancelling, 'worst sample')} of {total:,} there is no rise."
    if total >= 100 and significant_rise(comparison) == "yes":
        sentence += (
            f" The 1 % of samples that rose most carry {percent(value['top_1_percent'])} of the gross rise, "
            f"10 % carry {percent(value['top_10_percent'])}."
        )
    # A mean over fewer than about seven effective samples is an anecdote, whatever N is.
    if value["effective_samples"] < 7:
        verdict: Verdict = "yes"
    elif significant_rise(comparison) != "yes":
        verdict, sentence = "cannot tell", sentence + _MAY_BE_CHANCE
    else:
        # A few samples cancel any rise that is small beside its scatter, so they must also be most of it.
        verdict = "yes" if cancelling <= 0.01 * total and value["top_1_percent"] >= 0.5 else "no"
    step = "Look at these samples one by one before believing the mean." if verdict == "yes" else ""
    return _FEW_SAMPLES.answer(verdict, sentence, table, step)
