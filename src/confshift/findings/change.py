"""What does the change consist of? The findings about one pair of checkpoints."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.findings.finding import Finding, Verdict
from confshift.findings.wording import count, epoch, interval, nats, percent, rose_or_fell, signed

__all__ = ["about_change"]

#: A difference of this many standard errors is told from zero (two-sided, 5 %).
_TOLD = 1.96
_AS_CHOSEN = "for these two epochs as chosen; not corrected for having picked the best"


def about_change(comparison: Comparison) -> list[Finding]:
    """Answer the questions about what changed between two checkpoints, in the order of the argument."""
    return [
        loss_change(comparison),
        dearer_mistakes(comparison),
        wrong_or_right(comparison),
        temperature_repairs(comparison),
        few_classes(comparison),
        one_competitor(comparison),
        few_samples(comparison),
    ]


def _between(comparison: Comparison) -> str:
    return f"From epoch {epoch(comparison.before.epoch)} to {epoch(comparison.after.epoch)}"


def loss_change(comparison: Comparison) -> Finding:
    """Did the loss change between these two checkpoints, and what did accuracy do?"""
    change = comparison.change
    loss, accuracy = change.loc["loss"], change.loc["accuracy"]
    told = _told_from_zero(loss)
    sentence = (
        f"{_between(comparison)} the mean loss {rose_or_fell(loss['change'])} by "
        f"{nats(abs(loss['change']))} nats, {nats(loss['before'])} to {nats(loss['after'])} "
        f"({interval(loss)}); accuracy went from {percent(accuracy['before'])} to "
        f"{percent(accuracy['after'])} ({interval(accuracy)}). {count(len(comparison.panel.targets))}; "
        f"{_AS_CHOSEN}."
    )
    if comparison.samples_left_out:
        sentence += f" {count(comparison.samples_left_out)} without a finite loss left out of both sides."
    verdict: Verdict = "cannot tell" if told is None else "yes" if told else "cannot tell"
    return Finding("loss_change", "Did the loss change?", verdict, sentence, change, "")


def _told_from_zero(row: pd.Series) -> bool | None:
    """Whether the interval excludes 0; None where there is no interval."""
    low, high = float(row["change_low"]), float(row["change_high"])
    if math.isnan(low):
        return None
    return low > 0 or high < 0


def dearer_mistakes(comparison: Comparison) -> Finding:
    """Hedging, number of mistakes, cost of a mistake: which of them moved the loss?"""
    account = comparison.account
    part = account["contribution"]
    rate, cost = account.loc["error_rate"], account.loc["mistake_cost"]
    hedging = "less" if part["hedging"] < 0 else "more"
    ratio = cost["after"] / cost["before"] if cost["before"] else math.nan
    dearer = f"{ratio:.1f} times as costly" if math.isfinite(ratio) else "of a cost that has no ratio"
    sentence = (
        f"The change of {signed(part.sum())} nats is {signed(part['hedging'])} from hedging (the model "
        f"hedges {hedging} over all its answers, right or wrong), {signed(part['error_rate'])} from the "
        f"number of mistakes ({percent(rate['before'])} to {percent(rate['after'])} of the samples) and "
        f"{signed(part['mistake_cost'])} from the cost of a mistake ({nats(cost['before'])} to "
        f"{nats(cost['after'])} nats: each {dearer})."
    )
    largest = part.abs().idxmax()
    verdict: Verdict = "yes" if largest == "mistake_cost" and part["mistake_cost"] > 0 else "no"
    if rate["before"] == 0 and rate["after"] == 0:
        verdict, sentence = (
            "not applicable",
            "No sample is wrong on either side: all of the change is hedging.",
        )
    step = ""
    if verdict == "yes":
        step = "The model is not wrong more often, but more loudly: look at calibration before anything else."
    elif largest == "error_rate" and part["error_rate"] > 0:
        step = "The model is wrong more often: keep the earlier checkpoint."
    title = "Is it dearer mistakes, rather than more of them?"
    return Finding("dearer_mistakes", title, verdict, sentence, account, step)


def wrong_or_right(comparison: Comparison) -> Finding:
    """Are the right ones less sure, or the wrong ones worse?"""
    cells = comparison.cells
    wrong, right = cells.loc["stayed_wrong"], cells.loc["stayed_right"]
    wrong_net, right_net = wrong["contribution"].sum(), right["contribution"].sum()
    switched = cells.loc[["learned", "forgotten"], "contribution"].groupby("transition", observed=True).sum()
    sentence = (
        f"Samples that stayed wrong contribute {signed(wrong_net)} nats "
        f"({count(wrong['samples']['up'])} got worse, {count(wrong['samples']['down'])} better), samples "
        f"that stayed right {signed(right_net)} ({count(right['samples']['up'])} less sure, "
        f"{count(right['samples']['down'])} surer); newly learned ones {signed(switched['learned'])}, "
        f"forgotten ones {signed(switched['forgotten'])}. Together {signed(cells['contribution'].sum())}."
    )
    up = cells.xs("up", level="direction")
    gap = up.loc["stayed_wrong", "contribution"] - up.loc["stayed_right", "contribution"]
    se = float(np.hypot(up.loc["stayed_wrong", "contribution_se"], up.loc["stayed_right", "contribution_se"]))
    if comparison.change.loc["loss", "change"] <= 0:
        verdict: Verdict = "not applicable"
    else:
        verdict = "cannot tell" if not abs(gap) > _TOLD * se else "yes" if gap > 0 else "no"
    step = {
        "yes": "Look at the worst samples: mislabelled, ambiguous, or of a kind the training set lacks?",
        "no": "The model hedges more on what it gets right: look at regularisation, label noise, shift.",
    }.get(verdict, "")
    title = "Did the wrong ones get worse, rather than the right ones less sure?"
    return Finding("wrong_or_right", title, verdict, sentence, cells, step)


def temperature_repairs(comparison: Comparison) -> Finding:
    """How much of the change would one temperature take back?"""
    change = comparison.change
    loss, calibration, refinement = (
        change.loc[name] for name in ("loss", "calibration_loss", "refinement_loss")
    )
    temperature = comparison.after.temperature
    sentence = (
        f"Of the change of {signed(loss['change'])} nats, {signed(calibration['change'])} is calibration, "
        f"which one temperature takes back ({interval(calibration)}), and {signed(refinement['change'])} is "
        f"refinement, which no temperature touches ({interval(refinement)}). "
    )
    if comparison.after.fit_status == "ok":
        sentence += (
            f"With T = {temperature:.2f} the loss at epoch {epoch(comparison.after.epoch)} is "
            f"{nats(refinement['after'])} instead of {nats(loss['after'])}."
        )
    else:
        sentence += "No temperature is best at the later checkpoint, so the split is a bound."
    evidence = change.loc[["loss", "calibration_loss", "refinement_loss", "temperature"]]
    verdict: Verdict
    step = ""
    if loss["change"] <= 0:
        verdict = "not applicable"
    elif math.isnan(refinement["change_low"]):
        verdict = "cannot tell"
    elif refinement["change_high"] < loss["change"] / 2:
        verdict = "yes"
        step = f"Divide the logits by T = {temperature:.3g} (fitted on this split) and keep the checkpoint."
    elif refinement["change_low"] > loss["change"] / 2:
        verdict, step = "no", "Information is lost: prefer the checkpoint with the best refinement loss."
    else:
        verdict = "cannot tell"
    title = "Would one temperature repair most of the rise?"
    return Finding("temperature_repairs", title, verdict, sentence, evidence, step)


def few_classes(comparison: Comparison) -> Finding:
    """Which classes carry the rise?"""
    classes = comparison.classes.sort_values("contribution", ascending=False)
    total = comparison.change.loc["loss", "change"]
    title = "Do a few classes carry the rise?"
    if total <= 0 or len(classes) < 3:
        return Finding(
            "few_classes",
            title,
            "not applicable",
            "The loss did not rise." if total <= 0 else "With two classes there are no few.",
            classes,
            "",
        )
    few = max(1, round(len(classes) / 5))
    top = classes.head(few)
    share, size = top["contribution"].sum() / total, top["samples"].sum() / classes["samples"].sum()
    first = classes.iloc[0]
    listed = ", ".join(
        f"{row['class_name']} ({signed(row['contribution'])})" for _, row in classes.head(3).iterrows()
    )
    sentence = (
        f"The {count(few, 'class').replace('classs', 'classes')} with the largest contribution "
        f"({percent(size)} of the samples) carry {percent(share)} of the rise. Largest: {listed} nats."
    )
    verdict: Verdict = "yes" if share > max(0.5, 2 * size) else "no"
    step = (
        f"Look at the samples of {first['class_name']}: its accuracy went from "
        f"{percent(first['accuracy_before'])} to {percent(first['accuracy_after'])}."
        if verdict == "yes"
        else ""
    )
    return Finding("few_classes", title, verdict, sentence, classes, step)


def one_competitor(comparison: Comparison) -> Finding:
    """Which wrong class takes the mass, of which true class?"""
    pairs = comparison.competitors
    title = "Does one wrong class take the mass?"
    named = pairs[pairs["class"] >= 0]
    total = comparison.change.loc["loss", "change"]
    if total <= 0 or len(comparison.panel.class_names) < 3 or named.empty:
        reason = "The loss did not rise." if total <= 0 else "With two classes there is one competitor."
        return Finding("one_competitor", title, "not applicable", reason, pairs, "")
    rising = named.sort_values("contribution", ascending=False)
    listed = "; ".join(
        f"{row['class_name']} taken for {row['competitor_name']} {signed(row['contribution'])}"
        for _, row in rising.head(3).iterrows()
    )
    share = rising.iloc[0]["contribution"] / total
    sentence = (
        f"Largest shares of the rise by true class and the wrong class that gained on it: {listed} nats "
        f"of {signed(total)}."
    )
    verdict: Verdict = "yes" if share > 0.25 else "no"
    step = "Compare the samples of these two classes side by side." if verdict == "yes" else ""
    return Finding("one_competitor", title, verdict, sentence, pairs, step)


def few_samples(comparison: Comparison) -> Finding:
    """Do a handful of samples carry the rise?"""
    table = comparison.concentration
    value = table["value"]
    title = "Do a handful of samples carry the rise?"
    total = len(comparison.panel.targets)
    if comparison.change.loc["loss", "change"] <= 0:
        return Finding("few_samples", title, "not applicable", "The loss did not rise.", table, "")
    cancelling = int(value["cancelling_samples"])
    sentence = (
        f"The 1 % of samples that rose most carry {percent(value['top_1_percent'])} of the gross rise, 10 % "
        f"carry {percent(value['top_10_percent'])}; without the {count(cancelling, 'worst sample')} of "
        f"{total:,} there is no rise."
    )
    # A mean over fewer than about seven effective samples is an anecdote, whatever N is.
    verdict: Verdict = "yes" if value["effective_samples"] < 7 or cancelling <= 0.01 * total else "no"
    step = "Look at these samples one by one before believing the mean." if verdict == "yes" else ""
    return Finding("few_samples", title, verdict, sentence, table, step)
