"""What makes up the change? The findings about one pair of checkpoints."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from confshift.analysis.comparison import SIDES, Comparison
from confshift.findings.concentration import about_concentration, significant_rise
from confshift.findings.left_out import over_finite, zero_samples
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.repair import temperature_repairs
from confshift.findings.told import explained, undecided
from confshift.findings.wording import (
    NOTHING,
    apart,
    count,
    epoch,
    interval,
    nats,
    percent,
    rose_or_fell,
    signed,
)

_AS_CHOSEN = "for these two checkpoints as chosen; not corrected for having picked the best"
ALONE = "There is one checkpoint only: nothing to compare it with."

_LOSS_CHANGE = Question("loss_change", "Did the loss change?", section="account", problem=None)
_DEARER_MISTAKES = Question(
    "dearer_mistakes", "Is it dearer mistakes, rather than more of them?", section="account", problem="yes"
)
_WRONG_OR_RIGHT = Question(
    "wrong_or_right",
    "Did the wrong ones get worse, rather than the right ones less sure?",
    section="cells",
    problem=None,
)


def about_change(
    comparison: Comparison,
    *,
    overfitting: bool = False,
    by_choice: Collection[str] = (),
    names: tuple[str, str] | None = None,
    keep: float | None = None,
    wrong_labels: bool | None = None,
) -> list[Finding]:
    """Answer the questions about the change between two checkpoints, in the order of the argument.

    Parameters
    ----------
    comparison : Comparison
    overfitting : bool
        Whether the model itself gets worse, beyond its confidence: then calibration is not the first thing
        to look at.
    by_choice : collection of str
        Which of "loss" and "error_rate" rose no more than picking the best epoch explains.
    names : tuple of str, optional
        Names of the two checkpoints, for two runs, where an epoch is not enough.
    keep : float, optional
        The epoch of the run's checkpoint to keep, where there is one run: no finding advises another.
    wrong_labels : bool, optional
        Whether labels look wrong to the run of the later side; else that side alone is asked.
    """
    about_parts = [
        dearer_mistakes(
            comparison, overfitting=overfitting, more_errors="error_rate" not in by_choice, keep=keep
        ),
        wrong_or_right(comparison),
        temperature_repairs(comparison, names=names, keep=keep, wrong_labels=wrong_labels),
        *about_concentration(comparison),
    ]
    findings = [
        loss_change(comparison, names=names),
        *(over_finite(part, comparison) for part in about_parts),
    ]
    if "loss" in by_choice:
        findings = [undecided(finding, "rise of the loss") for finding in findings]
    elif by_choice:
        findings[0] = replace(
            findings[0], sentence=f"{findings[0].sentence} {explained('rise of the error rate')}"
        )
    if comparison.before is comparison.after:
        return [
            replace(finding, verdict="not applicable", sentence=ALONE, next_step="") for finding in findings
        ]
    return findings


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
    sentence = (
        f"{_infinite_means(comparison)}{_between(comparison, names)} the mean loss{_of_finite(comparison)} "
        f"{rose_or_fell(loss['change'])}{by}, "
        f"{' to '.join(apart(loss['before'], loss['after']))} nats "
        f"({interval(loss)}); accuracy went from {percent(accuracy['before'])} to "
        f"{percent(accuracy['after'])} ({interval(accuracy)}). {count(len(comparison.panel.targets))}; "
        f"{_AS_CHOSEN}."
    )
    sentence += _left_out(comparison)
    before, after = comparison.infinite_samples
    significant = loss["change_low"] > 0 or loss["change_high"] < 0 or bool(before) != bool(after)
    same = bool((comparison.samples["direction"] == "unchanged").all())
    verdict: Verdict = "no" if same else "yes" if significant else "cannot tell"
    return _LOSS_CHANGE.answer(verdict, sentence, change)


def _infinite_means(comparison: Comparison) -> str:
    """Say which side's mean loss is infinite, ahead of the numbers over the other samples."""
    return "".join(
        f"The mean loss {side} is infinite: {zero_samples(number)}. "
        for number, side in zip(comparison.infinite_samples, SIDES, strict=True)
        if number
    )


def _of_finite(comparison: Comparison) -> str:
    return " of those with a finite one on both sides" if any(comparison.infinite_samples) else ""


def _left_out(comparison: Comparison) -> str:
    """Say which samples the numbers of a change leave out."""
    if not comparison.samples_left_out:
        return ""
    text = f" {count(comparison.samples_left_out)} without a finite loss left out of both sides."
    if comparison.samples_unanswered < comparison.samples_left_out:
        samples = count(len(comparison.answered.targets))
        text += f" The accuracy is over the {samples} with an answer on both sides."
    return text


def dearer_mistakes(
    comparison: Comparison, *, overfitting: bool = False, more_errors: bool = True, keep: float | None = None
) -> Finding:
    """Hedging, number of mistakes, cost of a mistake: which of them moved the loss?"""
    account = comparison.account
    part = account["contribution"]
    rate, cost = account.loc["error_rate"], account.loc["mistake_cost"]
    hedging = "less" if part["hedging"] < 0 else "more" if part["hedging"] > 0 else "as much as before"
    sentence = (
        f"The change of {signed(part.sum())} nats is {signed(part['hedging'])} from hedging (the model "
        f"hedges {hedging}, over all its answers, right or wrong), {signed(part['error_rate'])} from the "
        f"number of mistakes ({percent(rate['before'])} to {percent(rate['after'])} of the samples) and "
        f"{signed(part['mistake_cost'])} from the cost of a mistake ({_costs(cost)})."
    )
    verdict, step = _dearer(comparison, overfitting=overfitting)
    if verdict == "no" and more_errors and _more_mistakes(comparison) and keep != comparison.after.epoch:
        earlier = "the earlier checkpoint" if keep is None else f"epoch {epoch(keep)}"
        step = f"The model is wrong more often: keep {earlier}."
    if not rate["before"] and not rate["after"]:
        sentence = (
            f"No sample is wrong on either side: the change of {signed(part.sum())} nats is all hedging."
        )
    return _DEARER_MISTAKES.answer(verdict, sentence, account, step)


def _costs(cost: pd.Series) -> str:
    before, after = cost["before"], cost["after"]
    if math.isnan(before):
        return f"nobody was wrong before, {nats(after)} nats after"
    if math.isnan(after):
        return f"{nats(before)} nats before, nobody is wrong after"
    ratio = f": each {after / before:,.1f} times as costly" if 0.1 * after < before < 20 * after else ""
    return f"{nats(before)} to {nats(after)} nats{ratio}"


def _more_mistakes(comparison: Comparison) -> bool:
    """Whether the loss rose mainly because more samples are wrong, beyond error."""
    is_main = comparison.account["contribution"].idxmax() == "error_rate"
    return bool(is_main and comparison.change.loc["error_rate", "change_low"] > 0)


def _dearer(comparison: Comparison, *, overfitting: bool) -> tuple[Verdict, str]:
    part, rate = comparison.account["contribution"], comparison.account.loc["error_rate"]
    if not comparison.change.loc["loss", "change"] > 0 or not (rate["before"] or rate["after"]):
        return "not applicable", ""
    largest = part.idxmax()  # of those that rose: a loss that rises while the hedge falls is the rule
    if largest in ("error_rate", "hedging"):
        return "no", ""
    if significant_rise(comparison) != "yes" or not comparison.change.loc["mistake_cost", "change_low"] > 0:
        return "cannot tell", ""
    if overfitting or _mostly_refinement(comparison):
        return "yes", ""
    return "yes", "Look at calibration first: the model is wrong more loudly, rather than more often."


def _mostly_refinement(comparison: Comparison) -> bool:
    """Whether the refinement loss rises significantly, by at least half of the rise of the loss."""
    loss, refinement = comparison.change.loc["loss"], comparison.change.loc["refinement_loss"]
    return bool(refinement["change_low"] > 0 and refinement["change"] >= loss["change"] / 2)


def wrong_or_right(comparison: Comparison) -> Finding:
    """Did correct samples become less confident, or wrong ones worse?"""
    cells = comparison.cells
    wrong, right = cells.loc["stayed_wrong"], cells.loc["stayed_right"]
    wrong_net, right_net = wrong["contribution"].sum(), right["contribution"].sum()
    switches = cells.loc[["learned", "forgotten"], "contribution"].groupby("transition", observed=True).sum()
    sentence = (
        f"Samples that stayed wrong contribute {signed(wrong_net)} nats "
        f"({count(wrong['samples']['up'])} got worse, {count(wrong['samples']['down'])} better), samples "
        f"that stayed right {signed(right_net)} ({count(right['samples']['up'])} less sure, "
        f"{count(right['samples']['down'])} surer); newly learned ones {signed(switches['learned'])}, "
        f"forgotten ones {signed(switches['forgotten'])}. Together {signed(cells['contribution'].sum())}."
    )
    samples = comparison.samples
    rises = samples["change"].clip(lower=0)
    sign = samples["transition"].map({"stayed_wrong": 1.0, "stayed_right": -1.0}).astype(float).fillna(0.0)
    gap = comparison.interval((rises * sign).to_numpy())
    verdict: Verdict = "yes" if gap.low > 0 else "no" if gap.high < 0 else "cannot tell"
    if not comparison.change.loc["loss", "change"] > 0:
        verdict = "not applicable"
    elif significant_rise(comparison) != "yes":
        verdict = "cannot tell"
    step = {
        "yes": "Look at the worst samples: mislabelled, ambiguous, or of a kind the training set lacks?",
        "no": "The model hedges more on what it gets right: look at regularisation, label noise, shift.",
    }.get(verdict, "")
    return _WRONG_OR_RIGHT.answer(verdict, sentence, cells, step)
