"""What would one temperature repair of a change, and which temperature is that?"""

from __future__ import annotations

import math

from confshift.analysis.comparison import Comparison
from confshift.analysis.recalibrators import choose
from confshift.analysis.significance import Interval
from confshift.findings import commands
from confshift.findings.concentration import significant_rise
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.told import rests_on
from confshift.findings.wording import apart, divisor, epoch, fitting, interval, nats, signed

_TEMPERATURE_REPAIRS = Question(
    "temperature_repairs",
    "Would one temperature repair most of the rise?",
    section="parts",
    problem=None,
    undecided="Whether a temperature repairs the rise is undecided",
)


def temperature_repairs(
    comparison: Comparison,
    *,
    names: tuple[str, str] | None = None,
    keep: float | None = None,
    wrong_labels: bool | None = None,
) -> Finding:
    """How much of the change would one temperature undo?"""
    change, panel = comparison.change, comparison.panel
    left = comparison.beyond_share(panel.scaled[1] - panel.scaled[0], 0.5)  # what no temperature repairs
    has_fits = comparison.before.fit_status == comparison.after.fit_status == "ok"
    repair = (
        _repaired(comparison, names)
        if has_fits
        else "One side has no best temperature, so the split is a bound."
    )
    sentence, others = fitting([_parts(comparison), repair])
    verdict = _repair_verdict(comparison, left, has_fits)
    lost = comparison.beyond_share(panel.refinement[1] - panel.refinement[0], 0.5).low > 0
    step, command, remark = _repair_step(comparison, verdict, lost=lost, keep=keep, wrong_labels=wrong_labels)
    quantities = ["loss", "calibration_loss", "scale_loss", "balance_loss", "refinement_loss", "temperature"]
    return _TEMPERATURE_REPAIRS.answer(
        verdict,
        sentence,
        change.loc[quantities],
        step,
        answer=_answer(comparison, verdict),
        details=" ".join(filter(None, (others, _margins(comparison), remark))),
        command=command,
    )


def _answer(comparison: Comparison, verdict: Verdict) -> str:
    return {
        "yes": f"One temperature, {divisor(comparison.after.temperature)}, repairs most of the rise",
        "no": "No temperature repairs most of the rise",
        "not applicable": "No rise for a temperature to repair",
    }.get(verdict, _TEMPERATURE_REPAIRS.undecided)


def _has_biases(comparison: Comparison) -> bool:
    return not math.isnan(comparison.after.joint_temperature)


def _parts(comparison: Comparison) -> str:
    """Say what the parts of the change are; they add up to it."""
    loss, scale, balance, refinement = (
        signed(comparison.change.loc[name, "change"])
        for name in ("loss", "scale_loss", "balance_loss", "refinement_loss")
    )
    by_class = f", {balance} class balance" if _has_biases(comparison) else ""
    return (
        f"The change of {loss} nats is {scale} scale (a temperature repairs it){by_class} and {refinement} "
        "the rest."
    )


def _margins(comparison: Comparison) -> str:
    """Say what each part is, how uncertain, and what class biases leave."""
    change = comparison.change
    scale, balance, refinement = (
        f"{signed(change.loc[name, 'change'])} ({interval(change.loc[name])})"
        for name in ("scale_loss", "balance_loss", "refinement_loss")
    )
    biases = f"class balance, what one bias for each class removes beside it: {balance}; "
    text = (
        f"Scale, what the best temperature of each side removes: {scale}; "
        f"{biases if _has_biases(comparison) else ''}the rest, the change of the calibrated "
        f"loss: {refinement}."
    )
    has_fits = comparison.before.fit_status == comparison.after.fit_status == "ok"
    if has_fits and _has_biases(comparison):
        text += f" With biases as well the loss is {nats(change.loc['refinement_loss', 'after'])} nats."
    return text


def _repaired(comparison: Comparison, names: tuple[str, str] | None) -> str:
    """Say what loss the temperature leaves, and on how few wrong samples that rests."""
    loss, scale = comparison.change.loc["loss"], comparison.change.loc["scale_loss"]
    levels = ", not ".join(apart(loss["after"] - scale["after"], loss["after"]))
    text = (
        f"With T = {comparison.after.temperature:.3g} the loss {_later(comparison, names)} is {levels} nats."
    )
    few = rests_on(comparison.after)
    return f"{text} That {few}." if few else text


def _repair_step(
    comparison: Comparison, verdict: Verdict, *, lost: bool, keep: float | None, wrong_labels: bool | None
) -> tuple[str, str, str]:
    """Advise the temperature where it repairs the rise: the step, its command and a remark.

    No step names another checkpoint than the one to keep.
    """
    after = comparison.after.epoch
    if verdict == "yes":
        division, remark = _division(comparison, wrong_labels)
        command = commands.calibrate(keep)
        if keep is None:
            return f"Divide the logits by {division} if you keep this checkpoint.", command, remark
        if keep == after:
            return f"Divide the logits by {division}.", command, remark
        step = f"Keep epoch {epoch(keep)}; to use epoch {epoch(after)}, divide its logits by {division}."
        return step, command, remark
    if verdict == "no" and lost and keep != after:
        better = "the checkpoint with the lowest calibrated loss" if keep is None else f"epoch {epoch(keep)}"
        return f"Prefer {better}: the model lost information since.", "", ""
    return "", "", ""


def _division(comparison: Comparison, wrong_labels: bool | None) -> tuple[str, str]:
    """Name the temperature to divide by, which allows for wrong labels where some look wrong."""
    advised = choose(
        comparison.after, quick=True, wrong_labels=wrong_labels, codes=comparison.whole.codes
    ).recommended
    if advised.method != "label_noise_temperature":
        return f"T = {comparison.after.temperature:.3g}", "T is fitted on this split."
    return f"T = {advised.recalibrator.temperature:.3g}, which allows for wrong labels", (
        "Some labels look wrong, and the advised T allows for that; on these labels the loss then looks "
        "higher."
    )


def _repair_verdict(comparison: Comparison, left: Interval, has_fits: bool) -> Verdict:
    rise = comparison.change.loc["loss", "change"]
    if not rise > 0:
        return "not applicable"
    if not has_fits or significant_rise(comparison) != "yes":
        return "cannot tell"
    return "yes" if left.high < 0 else "no" if left.low > 0 else "cannot tell"


def _later(comparison: Comparison, names: tuple[str, str] | None) -> str:
    if names:
        return f"of {names[1]}"
    after = comparison.after.epoch
    return "on the second side" if math.isnan(after) else f"at epoch {epoch(after)}"
