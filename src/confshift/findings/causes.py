"""What explains the rise? The usual explanations, and the evidence of the logits for and against each.

For a few exploding samples see `few_samples` in `concentration`.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from confshift.analysis.causes.class_bias import MAX_CLASSES
from confshift.analysis.comparison import Comparison, compare
from confshift.analysis.history import History
from confshift.analysis.rise import SMALL
from confshift.analysis.significance import Switches
from confshift.findings.best_checkpoint import kept
from confshift.findings.change import ALONE
from confshift.findings.concentration import no_rise
from confshift.findings.labels import about_labels
from confshift.findings.learning_rate import learning_rate_drop
from confshift.findings.left_out import over_finite
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.run_kind import kind_of
from confshift.findings.told import hidden_harm, undecided, within_choice
from confshift.findings.wording import count, epoch, interval, nats, percent, signed
from confshift.recalibration import SAMPLES_A_CLASS, biases_take_part

_LEVEL = 0.05
#: A gain by biases counts from this share of the loss on.
_WORTHWHILE = 0.01
#: Where fewer answers than this share changed, they are few.
_FEW_DECISIONS = 0.05

_SCALE_GROWTH = Question(
    "scale_growth", "Is it mainly the scale of the logits that grew?", section="parts", problem="yes"
)
_LOST_INFORMATION = Question(
    "lost_information", "Did the model lose information about the labels?", section="parts", problem="yes"
)
_CLASS_BIAS = Question(
    "class_bias", "Does the model give some classes too much probability?", section="classes", problem="yes"
)


def about_causes(history: History, comparison: Comparison) -> list[Finding]:
    """Check each usual explanation of a rising loss against the logits."""
    growth = over_finite(scale_growth(comparison), comparison)
    return [
        undecided(growth, "rise of the loss") if within_choice(history, comparison, "loss") else growth,
        lost_information(history, comparison),
        *about_labels(history, comparison),
        learning_rate_drop(history),
        class_bias(comparison),
    ]


def scale_growth(comparison: Comparison) -> Finding:
    """Did the logits grow, rather than the decisions change?"""
    if unread := _SCALE_GROWTH.without_logits(comparison.before, comparison.after):
        return unread
    change, scale = comparison.change, comparison.scale
    parts, kappa = scale[["scale", "shape"]].sum(), float(scale["kappa"].iloc[0])
    quantities = ["loss", "calibration_loss", "refinement_loss", "hedge", "mistake_cost", "temperature"]
    table = change.reindex([*quantities, "scale", "shape", "kappa"])
    table.loc[["scale", "shape"], "change"] = parts.to_numpy()
    table.loc[["scale", "shape"], "unit"] = "nats"
    table.loc["kappa", ["change", "unit"]] = [kappa, "ratio"]
    loss, calibration, refinement = (change.loc[name] for name in quantities[:3])
    if loss["change"] <= 0 or not math.isfinite(kappa):
        reason = no_rise(comparison) if loss["change"] <= 0 else "The logits before are all equal."
        return _SCALE_GROWTH.not_applicable(reason, table)
    sentence = (
        f"The logits became {kappa:.3g} times as large. Growing alone contributes "
        f"{signed(parts['scale'])} nats of {signed(loss['change'])}, another shape "
        f"{signed(parts['shape'])}. By temperature: calibration {signed(calibration['change'])} "
        f"({interval(calibration)}), refinement {signed(refinement['change'])} ({interval(refinement)}); "
        f"the hedge went from {nats(change.loc['hedge', 'before'])} to "
        f"{nats(change.loc['hedge', 'after'])} nats."
    )
    grew = kappa > 1 and parts["scale"] > parts["shape"]
    verdict: Verdict = "cannot tell"
    if not loss["change_low"] > 0:
        sentence += " The rise is not told from zero, so its parts may be chance."
    elif grew and calibration["change_low"] > max(0.0, refinement["change_high"]):
        verdict = "yes"
        sentence += (
            " Consistent with confidence that keeps growing on training samples already right, which "
            f"makes every mistake dearer{_decisions(comparison)}."
        )
    elif not grew and calibration["change_high"] < refinement["change_low"]:
        verdict = "no"
    step = "Calibrate after training; to prevent it, use weight decay or label smoothing, or stop earlier."
    return _SCALE_GROWTH.answer(verdict, sentence, table, step if verdict == "yes" else "")


def _decisions(comparison: Comparison) -> str:
    """Say how many answers changed beside the logits' scale, which alone would change none."""
    answered = comparison.answered
    share = float((answered.predicted[0] != answered.predicted[1]).mean())
    if share < _FEW_DECISIONS:
        return f" and changes few decisions ({percent(share)} of the samples have another answer)"
    return f"; but {percent(share)} of the samples have another answer, which growth alone does not change"


def lost_information(history: History, comparison: Comparison) -> Finding:
    """Say whether the model lost information about the labels, however it is recalibrated.

    Where the comparison ends at the epoch that was judged, the verdict is that of the judgement, so that this
    finding and `run_kind` do not contradict each other. Elsewhere it is about the two checkpoints alone.
    """
    change = comparison.change
    if comparison.before is comparison.after:
        table = change.loc[["refinement_loss", "error_rate", "loss"]]
        reason = ALONE
        return _LOST_INFORMATION.not_applicable(reason, table)
    refinement, loss = change.loc["refinement_loss"], change.loc["loss"]
    switches = comparison.switches
    table = change.loc[["refinement_loss", "error_rate", "loss"]].assign(
        learned=switches.learned, forgotten=switches.forgotten, mcnemar_p=switches.p_value
    )
    sentence = (
        f"The refinement loss, what calibration leaves, went from {nats(refinement['before'])} to "
        f"{nats(refinement['after'])} nats ({interval(refinement)}). {count(switches.forgotten)} were "
        f"forgotten and {switches.learned:,} learned (McNemar p = {switches.p_value:.2g}); for these two "
        "epochs as chosen."
    )
    series = history.rise.loc[["refinement_loss", "error_rate"]]
    ends_there = comparison.after.epoch == series["last_epoch"].iloc[0]
    is_judged = ends_there and kind_of(history) != "too_early"
    verdict, reason = (
        _lost_over_run(history, series) if is_judged else _lost_between(refinement, loss, switches)
    )
    step = f"Keep {kept(history)}; more data, augmentation or regularisation would act on this part."
    sentence += reason + _since_best(history, comparison)
    return _LOST_INFORMATION.answer(verdict, sentence, table, step if verdict == "yes" else "")


def _since_best(history: History, comparison: Comparison) -> str:
    """Say what was lost since the best epoch by the rest, where the loss hides it from the pair."""
    row = hidden_harm(history, comparison)
    if row is None or row["unit"] == "fraction":
        return ""
    checkpoints = {checkpoint.epoch: checkpoint for checkpoint in history.main.checkpoints}
    since = compare(checkpoints[row["best_epoch"]], comparison.after, groups=history.groups)
    change, switches = since.change.loc["refinement_loss"], since.switches
    return (
        f" The loss hides it: from epoch {epoch(row['best_epoch'])}, the best by refinement loss, to "
        f"{epoch(row['last_epoch'])} it rose by {nats(change['change'])} nats ({interval(change)}), while "
        f"the loss changed by {signed(since.change.loc['loss', 'change'])}; {count(switches.forgotten)} were "
        f"forgotten and {switches.learned:,} learned."
    )


def _lost_over_run(history: History, series: pd.DataFrame) -> tuple[Verdict, str]:
    refinement, errors = (status.replace("_", " ") for status in series["status"])
    reason = f" Over the whole run the refinement loss is judged {refinement}, the error rate {errors}."
    if series.loc["refinement_loss", "infinite_samples"] > 0:
        reason += " It is infinite at the end, from samples whose true class has a probability of 0."
        return ("yes" if series.loc["error_rate", "status"] == "systematic" else "cannot tell"), reason
    if kind_of(history) == "class_drift":
        drift = " Most of the rise is class balance, which one bias for each class repairs, errors with it."
        return "no", reason + drift
    if series["status"].isin(["systematic", "setback"]).any():
        return "yes", reason
    return ("no" if refinement in ("flat", "small") else "cannot tell"), reason


def _lost_between(refinement: pd.Series, loss: pd.Series, switches: Switches) -> tuple[Verdict, str]:
    worse = bool(refinement["change_low"] > 0)
    small = worse and loss["change_low"] > 0 and refinement["change"] < SMALL * loss["change"]
    share = percent(refinement["change"] / loss["change"]) if small else ""
    reason = f" That rise is real but small: {share} of the loss's." if small else ""
    fewer_right = switches.forgotten > switches.learned and switches.p_value < _LEVEL
    if (worse and not small) != fewer_right or math.isnan(refinement["change_low"]):
        return "cannot tell", reason
    return "yes" if fewer_right else "no", reason


def class_bias(comparison: Comparison) -> Finding:
    """Say what one bias for each class would gain beside the temperature, at both checkpoints.

    The gain is that of samples that the biases were not fitted to. It counts from a hundredth of the loss on:
    the test of each class's excess finds any difference in a large split, however small.
    """
    after = comparison.after
    if unread := _CLASS_BIAS.without_logits(after):
        return unread
    samples, classes = int(after.columns["finite"].sum()), len(comparison.panel.class_names)
    if not biases_take_part(samples, classes) or classes > MAX_CLASSES:
        reason = (
            f"{count(samples)} are too few for {classes:,} classes: biases are fitted from "
            f"{SAMPLES_A_CLASS} samples a class on."
            if classes <= MAX_CLASSES
            else f"{classes:,} classes are too many for this test."
        )
        return _CLASS_BIAS.not_applicable(reason, pd.DataFrame())
    test = comparison.class_bias
    table = test.classes.assign(class_name=comparison.panel.class_labels)
    table = table.sort_values("excess", key=np.abs, ascending=False, kind="stable")
    if math.isnan(test.p_value):
        sentence = "Every probability is 0 or 1 and right: no class can have too much."
        return _CLASS_BIAS.not_applicable(sentence, table)
    first, sides = table.iloc[0], comparison.balance
    by = "" if comparison.codes is None else ", which counts samples, not groups"
    gain, loss = sides.loc["after"], comparison.change.loc["loss", "after"]
    sentence = (
        f"At epoch {epoch(after.epoch)}, after temperature scaling, class {first['class_name']} has a mean "
        f"probability of {percent(first['probability'])} and is {percent(first['frequency'])} of the "
        f"samples, the largest difference of {classes} classes (all together p = {test.p_value:.2g}{by}). "
        f"One bias for each class lowers the loss of samples that it was not fitted to by "
        f"{nats(gain['gain'])} nats (standard error {nats(gain['gain_se'])})"
    )
    if comparison.before is not after:
        sentence += f"; at epoch {epoch(comparison.before.epoch)} by {nats(sides.loc['before', 'gain'])}"
    beyond = gain["gain"] > 2 * gain["gain_se"]
    verdict: Verdict = (
        "yes" if beyond and gain["gain"] >= _WORTHWHILE * loss else "no" if not beyond else "cannot tell"
    )
    if verdict == "cannot tell":
        sentence += f"; that is real, but less than {percent(_WORTHWHILE)} of the loss"
    step = (
        "Compare the class frequencies of training and validation set; fit a bias for each class beside the "
        "temperature."
        if verdict == "yes"
        else ""
    )
    return _CLASS_BIAS.answer(verdict, f"{sentence}.", table, step)
