"""What makes up the change? The findings about one pair of checkpoints."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.decomposition import ACCOUNT, DIRECTIONS, TRANSITIONS
from confshift.analysis.shares import is_larger
from confshift.findings import commands
from confshift.findings.concentration import about_concentration, significant_rise
from confshift.findings.left_out import over_finite
from confshift.findings.loss_change import loss_change
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.repair import temperature_repairs
from confshift.findings.subsets import few_subsets
from confshift.findings.told import explained, undecided
from confshift.findings.wording import (
    count,
    epoch,
    nats,
    percent,
    signed,
)

ALONE = "There is only one checkpoint: nothing to compare it with."
ALONE_IN_SHORT = "Only one checkpoint: nothing to compare"

#: By transition: what the losses of still wrong samples rose by counts up, that of still right ones down.
_SIGNS = np.array([{"stayed_wrong": 1.0, "stayed_right": -1.0}.get(name, 0.0) for name in TRANSITIONS])

_DEARER_MISTAKES = Question(
    "dearer_mistakes",
    "Are mistakes costlier, rather than more frequent?",
    section="account",
    problem=None,
    undecided="Whether costlier mistakes drive the rise is undecided",
)
_WRONG_OR_RIGHT = Question(
    "wrong_or_right",
    "Did wrong samples get worse, rather than right ones less confident?",
    section="cells",
    problem=None,
    undecided="Whether wrong or right samples drive it is undecided",
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
        *([few_subsets(comparison)] if comparison.attributes else []),
    ]
    findings = [
        loss_change(comparison, names=names),
        *(over_finite(part, comparison) for part in about_parts),
    ]
    if by_choice:
        rise = "loss" if "loss" in by_choice else "error rate"
        caveat = f"{findings[0].sentence} {explained(f'rise of the {rise}')}"
        findings[0] = replace(findings[0], sentence=caveat)
    if "loss" in by_choice:
        change = replace(findings[0], verdict="cannot tell", answer=findings[0].question.undecided)
        findings = [change, *(undecided(finding, "rise of the loss") for finding in findings[1:])]
    if comparison.before is comparison.after:
        return [
            finding.question.not_applicable(ALONE, finding.evidence, answer=ALONE_IN_SHORT)
            for finding in findings
        ]
    return findings


def dearer_mistakes(
    comparison: Comparison, *, overfitting: bool = False, more_errors: bool = True, keep: float | None = None
) -> Finding:
    """Hedging, number of mistakes, cost of a mistake: which of them moved the loss?"""
    account = comparison.account
    part = account.loc[list(ACCOUNT), "contribution"]
    rate, cost = account.loc["error_rate"], account.loc["mistake_cost"]
    hedging = "less" if part["hedging"] < 0 else "more" if part["hedging"] > 0 else "as much as before"
    cost_part, rate_part, hedge_part = (
        signed(part[name]) for name in ("mistake_cost", "error_rate", "hedging")
    )
    sentence = (
        f"Of the change of {signed(part.sum())} nats, {cost_part} is from the cost of a mistake, {rate_part} "
        f"from the number of mistakes and {hedge_part} from hedging."
    )
    details = f"The model hedges {hedging}, over all its answers, right or wrong."
    if rate["before"] or rate["after"]:
        details += (
            f" A mistake costs {_costs(cost)}; {percent(rate['before'])} of the "
            f"{'samples are' if comparison.panel.weights is None else 'weight is'} wrong before, "
            f"{percent(rate['after'])} after."
        )
    verdict, step = _dearer(comparison, overfitting=overfitting)
    command = commands.calibrate(keep) if step else ""
    if verdict == "no" and more_errors and _more_mistakes(comparison) and keep != comparison.after.epoch:
        earlier = "the earlier checkpoint" if keep is None else f"epoch {epoch(keep)}"
        step = f"Keep {earlier}: the model is wrong more often."
    if not rate["before"] and not rate["after"]:
        sentence = (
            f"No sample is wrong on either side: the change of {signed(part.sum())} nats is all hedging."
        )
    answer = _what_moved_it(comparison, verdict)
    return _DEARER_MISTAKES.answer(
        verdict, sentence, account, step, answer=answer, details=details, command=command
    )


def _what_moved_it(comparison: Comparison, verdict: Verdict) -> str:
    """Write the answer about costlier mistakes as a heading."""
    account = comparison.account
    cost, part = account.loc["mistake_cost"], account.loc[list(ACCOUNT), "contribution"]
    if verdict == "yes":
        before, after = cost["before"], cost["after"]
        is_ratio = 1.05 * before < after < 20 * before
        return f"Each mistake costs {after / before:,.1f} times as much" if is_ratio else "Mistakes cost more"
    if verdict == "no":
        what = {"error_rate": "More mistakes", "hedging": "More hedging"}[str(part.idxmax())]
        return f"{what} drive the rise" if what == "More mistakes" else f"{what} drives the rise"
    if verdict == "not applicable":
        has_risen = comparison.change.loc["loss", "change"] > 0
        return "No mistakes on either side" if has_risen else "No rise for mistakes to explain"
    return _DEARER_MISTAKES.undecided


def _costs(cost: pd.Series) -> str:
    before, after = cost["before"], cost["after"]
    if math.isnan(before):
        return f"{nats(after)} nats after; no sample was wrong before"
    if math.isnan(after):
        return f"{nats(before)} nats before; no sample is wrong after"
    ratio = f", {after / before:,.1f} times as much" if 0.1 * after < before < 20 * after else ""
    return f"{nats(before)} nats before and {nats(after)} after{ratio}"


def _more_mistakes(comparison: Comparison) -> bool:
    """Whether the loss rose mainly because more samples are wrong, beyond error."""
    is_main = all(is_larger(comparison, "error_rate", other) for other in ("hedging", "mistake_cost"))
    return bool(is_main and comparison.change.loc["error_rate", "change_low"] > 0)


def _dearer(comparison: Comparison, *, overfitting: bool) -> tuple[Verdict, str]:
    rate = comparison.account.loc["error_rate"]
    if not comparison.change.loc["loss", "change"] > 0 or not (rate["before"] or rate["after"]):
        return "not applicable", ""
    others = ("error_rate", "hedging")
    if any(is_larger(comparison, other, "mistake_cost") for other in others):
        return "no", ""
    is_largest = all(is_larger(comparison, "mistake_cost", other) for other in others)
    is_dearer = comparison.change.loc["mistake_cost", "change_low"] > 0
    if significant_rise(comparison) != "yes" or not (is_largest and is_dearer):
        return "cannot tell", ""
    if overfitting or _mostly_refinement(comparison):
        return "yes", ""
    return "yes", "Look at calibration first: the model is wrong more loudly, rather than more often."


def _mostly_refinement(comparison: Comparison) -> bool:
    """Whether the refinement loss rises by more than half of the rise of the loss, beyond their error."""
    before, after = comparison.panel.refinement
    is_rise = comparison.change.loc["refinement_loss", "change_low"] > 0
    return bool(is_rise and comparison.beyond_share(after - before, 0.5).low > 0)


def wrong_or_right(comparison: Comparison) -> Finding:
    """Did correct samples become less confident, or wrong ones worse?"""
    cells = comparison.cells
    wrong, right = cells.loc["stayed_wrong"], cells.loc["stayed_right"]
    wrong_net, right_net = wrong["contribution"].sum(), right["contribution"].sum()
    switches = cells.loc[["learned", "forgotten"], "contribution"].groupby("transition", observed=True).sum()
    sentence = (
        f"Samples still wrong contribute {signed(wrong_net)} nats, still right {signed(right_net)}, newly "
        f"right {signed(switches['learned'])} and newly wrong {signed(switches['forgotten'])}: together "
        f"{signed(cells['contribution'].sum())}."
    )
    details = (
        f"Of those still wrong {count(wrong['samples']['up'])} got worse and "
        f"{count(wrong['samples']['down'])} better; of those still right {count(right['samples']['up'])} "
        f"became less confident and {count(right['samples']['down'])} more confident."
    )
    verdict = _worse_side(comparison)
    step = {
        "yes": "Look at the worst samples: mislabelled, ambiguous, or of a kind the training set lacks?",
        "no": "Look at regularisation, label noise and shift: the model hedges more on what it gets right.",
    }.get(verdict, "")
    reading = {
        "yes": "The model grew more confident of what it already got wrong.",
        "no": "The model grew less confident of what it gets right.",
    }.get(verdict, "")
    answer = {
        "yes": f"Samples still wrong add {signed(wrong_net)} nats",
        "no": f"Samples still right add {signed(right_net)} nats",
        "not applicable": "No rise for wrong or right samples to explain",
    }.get(verdict, _WRONG_OR_RIGHT.undecided)
    command = commands.compare(comparison) if verdict == "yes" else ""
    return _WRONG_OR_RIGHT.answer(
        verdict,
        f"{sentence} {reading}".rstrip(),
        cells,
        step,
        answer=answer,
        details=details,
        command=command,
    )


def _worse_side(comparison: Comparison) -> Verdict:
    """Whether the losses of still wrong samples rose by more than those of still right ones."""
    if not comparison.change.loc["loss", "change"] > 0:
        return "not applicable"
    if significant_rise(comparison) != "yes":
        return "cannot tell"
    rises = np.maximum(comparison.panel.changes(0, 1), 0.0)
    sign = _SIGNS[comparison.cell_codes // len(DIRECTIONS)]
    gap = comparison.interval(rises * sign)
    return "yes" if gap.low > 0 else "no" if gap.high < 0 else "cannot tell"
