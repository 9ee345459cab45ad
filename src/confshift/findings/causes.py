"""What explains the rise? The usual explanations, and the evidence of the logits for and against each.

For a few exploding samples see `few_samples` in `concentration`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.analysis.rise import SMALL
from confshift.analysis.significance import Switches
from confshift.findings import commands
from confshift.findings.best_checkpoint import kept
from confshift.findings.change import ALONE, ALONE_IN_SHORT
from confshift.findings.class_bias import class_bias
from confshift.findings.concentration import no_rise
from confshift.findings.labels import about_labels
from confshift.findings.learning_rate import learning_rate_drop
from confshift.findings.left_out import over_finite
from confshift.findings.overfitting import overfits
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.run_kind import gets_worse, kind_of
from confshift.findings.told import hidden_harm, undecided, within_choice
from confshift.findings.wording import (
    by_groups,
    count,
    epoch,
    fitting,
    interval,
    nats,
    percent,
    points,
    signed,
)

_LEVEL = 0.05
#: Where fewer answers than this share changed, they are few.
_FEW_DECISIONS = 0.05

_SCALE_GROWTH = Question(
    "scale_growth",
    "Is it mainly the scale of the logits that grew?",
    section="parts",
    problem=None,
    undecided="Whether larger logits explain the rise is undecided",
)
_LOST_INFORMATION = Question(
    "lost_information",
    "Did the model lose information about the labels?",
    section="parts",
    problem="yes",
    undecided="Whether information was lost is undecided",
)


def about_causes(history: History, comparison: Comparison) -> list[Finding]:
    """Check each usual explanation of a rising loss against the logits."""
    keep = None if math.isnan(comparison.after.epoch) else history.recommendation.epoch
    growth = over_finite(scale_growth(comparison, keep=keep), comparison)
    return [
        undecided(growth, "rise of the loss") if within_choice(history, comparison, "loss") else growth,
        lost_information(history, comparison),
        *about_labels(history, comparison),
        learning_rate_drop(history),
        class_bias(comparison, keep=keep),
    ]


def scale_growth(comparison: Comparison, *, keep: float | None = None) -> Finding:
    """Did the logits grow, rather than the decisions change? `keep` is the epoch of the run to calibrate."""
    if unread := _SCALE_GROWTH.without_logits(comparison.before, comparison.after):
        return unread
    change, scale = comparison.change, comparison.scale
    parts, kappa = scale[["scale", "shape"]].sum(), float(scale["kappa"].iloc[0])
    table = _scale_table(comparison, parts, kappa)
    loss, calibration, refinement = (
        change.loc[name] for name in ("loss", "calibration_loss", "refinement_loss")
    )
    if loss["change"] <= 0 or not math.isfinite(kappa):
        reason = no_rise(comparison) if loss["change"] <= 0 else "The logits before are all equal."
        answer = "No rise for larger logits to explain" if loss["change"] <= 0 else "No scale to compare with"
        return _SCALE_GROWTH.not_applicable(reason, table, answer=answer)
    sentence = (
        f"The logits became {kappa:.3g} times as large, contributing {signed(parts['scale'])} nats to the "
        f"rise; their changed shape contributes {signed(parts['shape'])}."
    )
    answer, step, others = _SCALE_GROWTH.undecided, "", ""
    growth = comparison.beyond_share(comparison.scale_changes, 0.5)  # more than the other part, the shape
    verdict: Verdict = "cannot tell"
    if not loss["change_low"] > 0:
        sentence += " But the rise is not distinguishable from zero, so its parts may be noise."
    elif kappa > 1 and growth.low > 0 and calibration["change_low"] > max(0.0, refinement["change_high"]):
        verdict, answer = "yes", f"The logits became {kappa:.3g} times as large"
        sentence, others = fitting(
            [
                f"{sentence} Growing confidence makes every mistake costlier.",
                _decisions(comparison),
                "This is consistent with confidence that keeps growing on training samples already right.",
            ]
        )
        step = (
            "Calibrate after training; to prevent it, use weight decay or label smoothing, or stop earlier."
        )
    elif (kappa <= 1 or growth.high < 0) and calibration["change_high"] < refinement["change_low"]:
        verdict, answer = "no", "Larger logits do not explain the rise"
    return _SCALE_GROWTH.answer(
        verdict,
        sentence,
        table,
        step,
        answer=answer,
        details=f"{others} {_scale_margins(table)}".lstrip(),
        command=commands.calibrate(keep) if step else "",
    )


def _scale_table(comparison: Comparison, parts: pd.Series, kappa: float) -> pd.DataFrame:
    """Return what grew and what it contributes, beside what a temperature removes."""
    quantities = ["loss", "calibration_loss", "refinement_loss", "hedge", "mistake_cost", "temperature"]
    table = comparison.change.reindex([*quantities, "scale", "shape", "kappa"])
    table.loc[["scale", "shape"], "change"] = parts.to_numpy()
    table.loc[["scale", "shape"], "unit"] = "nats"
    table.loc["kappa", ["change", "unit"]] = [kappa, "ratio"]
    return table


def _scale_margins(table: pd.DataFrame) -> str:
    loss, calibration, refinement = (
        table.loc[name] for name in ("loss", "calibration_loss", "refinement_loss")
    )
    scale, shape = table.loc["scale", "change"], table.loc["shape", "change"]
    hedges = " to ".join(nats(table.loc["hedge", side]) for side in ("before", "after"))
    return (
        f"Growing alone contributes {signed(scale)} nats of {signed(loss['change'])}, another shape "
        f"{signed(shape)}. By temperature: calibration {signed(calibration['change'])} "
        f"({interval(calibration)}), refinement {signed(refinement['change'])} ({interval(refinement)}); "
        f"the hedge went from {hedges} nats."
    )


def _decisions(comparison: Comparison) -> str:
    """Say how many answers changed beside the logits' scale, which alone would change none."""
    answered = comparison.answered
    share = float((answered.predicted[0] != answered.predicted[1]).mean())
    if share < _FEW_DECISIONS:
        return f"Few decisions changed ({percent(share)} of the samples have another answer)."
    return f"But {percent(share)} of the samples have another answer, which growth alone does not change."


def lost_information(history: History, comparison: Comparison) -> Finding:
    """Say whether the model lost information about the labels, however it is recalibrated.

    Where the comparison ends at the epoch that was judged, the verdict is that of the judgement, so that this
    finding and `run_kind` do not contradict each other. Elsewhere it is about the two checkpoints alone.
    """
    change = comparison.change
    if comparison.before is comparison.after:
        table = change.loc[["refinement_loss", "error_rate", "loss"]]
        return _LOST_INFORMATION.not_applicable(ALONE, table, answer=ALONE_IN_SHORT)
    refinement, switches = change.loc["refinement_loss"], comparison.switches
    table = change.loc[["refinement_loss", "error_rate", "loss"]].assign(
        learned=switches.learned, forgotten=switches.forgotten, mcnemar_p=switches.p_value
    )
    series = history.rise.loc[["refinement_loss", "error_rate"]]
    ends_there = comparison.after.epoch == series["last_epoch"].iloc[0]
    is_judged = ends_there and kind_of(history) != "too_early"
    verdict, reason = _lost_over_run(history, series) if is_judged else _lost_between(comparison)
    lost = (
        series[series["status"].isin(["systematic", "setback"])]
        if is_judged
        else change.loc[["refinement_loss"]]
    )
    hidden, hidden_in_full = _since_best(history, comparison)
    sentence, others = fitting([reason, hidden, _newly(switches)])
    details = [others, hidden_in_full, _between(refinement, switches), _formally(series) if is_judged else ""]
    choice = history.recommendation
    step = f"Keep {kept(history)}{'; add data or regularisation' if overfits(history) else ''}."
    is_yes = verdict == "yes"
    finding = _LOST_INFORMATION.answer(
        verdict,
        sentence,
        table,
        step if is_yes else "",
        answer={
            "yes": f"Information was lost{_amount_lost(lost)}",
            "no": "No information about the labels was lost",
        }.get(verdict, _LOST_INFORMATION.undecided),
        details=" ".join(filter(None, details)),
        command=commands.calibrate(choice.epoch) if is_yes and choice.calibrated else "",
    )
    return replace(finding, restates=is_judged and (bool(history.divergence) or gets_worse(history)))


def _newly(switches: Switches) -> str:
    return f"Newly wrong: {count(switches.forgotten)}; newly right: {count(switches.learned)}."


def _between(refinement: pd.Series, switches: Switches) -> str:
    by = by_groups(refinement)
    return (
        f"The calibrated loss (refinement_loss) went from {nats(refinement['before'])} to "
        f"{nats(refinement['after'])} nats ({interval(refinement)}). Forgotten: "
        f"{count(switches.forgotten)}; learned: {count(switches.learned)} (McNemar{f'{by},' if by else ''} "
        f"p = {switches.p_value:.2g}); for these two epochs as chosen."
    )


def _formally(series: pd.DataFrame) -> str:
    refinement, errors = (status.replace("_", " ") for status in series["status"])
    return f"Over the whole run the calibrated loss is judged {refinement}, the error rate {errors}."


def _since_best(history: History, comparison: Comparison) -> tuple[str, str]:
    """Say what was lost since the best epoch by the rest, where the loss hides it: in short and in full."""
    row = hidden_harm(history, comparison)
    if row is None or row["unit"] == "fraction":
        return "", ""
    checkpoints = {checkpoint.epoch: checkpoint for checkpoint in history.main.checkpoints}
    since = history.compare(checkpoints[row["best_epoch"]], comparison.after)
    change, switches = since.change.loc["refinement_loss"], since.switches
    best, last = epoch(row["best_epoch"]), epoch(row["last_epoch"])
    rise = nats(change["change"])
    return f"The loss hides this rise, {rise} nats from epoch {best} to {last}.", (
        f"The loss hides it: from epoch {best}, the best by calibrated loss, to {last} it rose by "
        f"{rise} nats ({interval(change)}), while "
        f"the loss changed by {signed(since.change.loc['loss', 'change'])}; forgotten: "
        f"{count(switches.forgotten)}; learned: {count(switches.learned)}."
    )


def _amount_lost(rows: pd.DataFrame) -> str:
    """Write the main number of a loss of information, the first of these rows that has one."""
    column = "amount" if "amount" in rows else "change"
    for _, row in rows[np.isfinite(rows[column].astype(float)) & (rows[column] > 0)].iterrows():
        if row["unit"] == "fraction":
            return f": the error rate rose by {points(row[column]).lstrip('+')}"
        return f": the calibrated loss rose by {nats(row[column])} nats"
    return ""


#: What a series did over the whole run, by its status.
_COURSES = {
    "systematic": "rose systematically",
    "small": "rose slightly",
    "flat": "did not rise",
    "setback": "jumped and stayed up",
    "within_jitter": "rose no more than it fluctuates",
    "below_resolution": "may have risen unseen",
    "unscored": "can't be judged",
    "too_few_epochs": "can't be judged yet",
}


def _lost_over_run(history: History, series: pd.DataFrame) -> tuple[Verdict, str]:
    refinement, errors = series["status"]
    courses = (
        f"and the error rate {_COURSES[errors]}"
        if refinement == errors
        else f"{_COURSES[refinement]}; the error rate {_COURSES[errors]}"
    )
    reason = f"Over the whole run the calibrated loss {courses}."
    if series.loc["refinement_loss", "infinite_samples"] > 0:
        verdict: Verdict = "yes" if errors == "systematic" else "cannot tell"
        infinite = "The loss is infinite at the end, from samples whose true class has a probability of 0"
        return verdict, f"{infinite}; the error rate {_COURSES[errors]}."
    if kind_of(history) == "class_drift":
        return (
            "no",
            "Most of the rise is class balance: one bias for each class repairs it, and its errors too.",
        )
    if {"systematic", "setback"} & {refinement, errors}:
        return "yes", reason
    return ("no" if refinement in ("flat", "small") else "cannot tell"), reason


def _lost_between(comparison: Comparison) -> tuple[Verdict, str]:
    refinement, loss = comparison.change.loc["refinement_loss"], comparison.change.loc["loss"]
    switches, (before, after) = comparison.switches, comparison.panel.refinement
    worse = bool(refinement["change_low"] > 0)
    small = worse and loss["change_low"] > 0 and comparison.beyond_share(after - before, SMALL).high < 0
    change = signed(refinement["change"])
    if small:
        share = percent(refinement["change"] / loss["change"])
        reason = f"The rise of the calibrated loss is real but small: {share} of the rise of the loss."
    elif worse:
        reason = f"The calibrated loss rose by {nats(refinement['change'])} nats between the two."
    else:
        reason = f"The calibrated loss did not rise measurably between the two ({change} nats)."
    fewer_right = switches.forgotten > switches.learned and switches.p_value < _LEVEL
    if (worse and not small) != fewer_right or math.isnan(refinement["change_low"]):
        return "cannot tell", reason
    return "yes" if fewer_right else "no", reason
