"""What would one temperature repair of a change, and which temperature is that?"""

from __future__ import annotations

import math

from confshift.analysis.comparison import Comparison
from confshift.analysis.recalibrators import choose
from confshift.analysis.significance import Interval
from confshift.findings.concentration import significant_rise
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.told import rests_on
from confshift.findings.wording import apart, epoch, interval, nats, signed

_TEMPERATURE_REPAIRS = Question(
    "temperature_repairs", "Would one temperature repair most of the rise?", section="parts", problem="no"
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
    loss, scale, balance, refinement = (
        change.loc[name] for name in ("loss", "scale_loss", "balance_loss", "refinement_loss")
    )
    left = comparison.interval(panel.scaled[1] - panel.scaled[0])  # what no temperature repairs
    has_biases = not math.isnan(comparison.after.joint_temperature)
    by_class = (
        f"{signed(balance['change'])} is class balance, what one bias for each class removes beside it "
        f"({interval(balance)}), "
        if has_biases
        else ""
    )
    sentence = (
        f"Of the change of {signed(loss['change'])} nats, {signed(scale['change'])} is scale, what the best "
        f"temperature of each side removes ({interval(scale)}), {by_class}and {signed(refinement['change'])} "
        f"is refinement, the rest ({interval(refinement)}). "
    )
    has_fits = comparison.before.fit_status == comparison.after.fit_status == "ok"
    if has_fits:
        scaled = loss["after"] - scale["after"]
        sentence += (
            f"With T = {comparison.after.temperature:.3g} the loss {_later(comparison, names)} is "
            f"{' instead of '.join(apart(scaled, loss['after']))} nats"
            + (f", with biases as well {nats(refinement['after'])}." if has_biases else ".")
        )
        if few := rests_on(comparison.after):
            sentence += f" That {few}."
    else:
        sentence += "One side has no best temperature, so the split is a bound."
    quantities = ["loss", "calibration_loss", "scale_loss", "balance_loss", "refinement_loss", "temperature"]
    verdict = _repair_verdict(comparison, left, has_fits)
    lost = refinement["change_low"] > loss["change"] / 2
    step = _repair_step(comparison, verdict, lost=lost, keep=keep, wrong_labels=wrong_labels)
    return _TEMPERATURE_REPAIRS.answer(verdict, sentence, change.loc[quantities], step)


def _repair_step(
    comparison: Comparison, verdict: Verdict, *, lost: bool, keep: float | None, wrong_labels: bool | None
) -> str:
    """Advise the temperature where it repairs the rise; name no other checkpoint than the one to keep."""
    after = comparison.after.epoch
    if verdict == "yes":
        division = _division(comparison, wrong_labels)
        if keep is None:
            return f"{division} if you keep this checkpoint."
        division = division.removesuffix(",")
        if keep == after:
            return f"{division}."
        division = division[0].lower() + division[1:]
        return f"The checkpoint to keep is epoch {epoch(keep)}; for epoch {epoch(after)}, {division}."
    if verdict == "no" and lost and keep != after:
        better = "the checkpoint with the best refinement loss" if keep is None else f"epoch {epoch(keep)}"
        return f"Information is lost: prefer {better}."
    return ""


def _division(comparison: Comparison, wrong_labels: bool | None) -> str:
    """Name the temperature to divide by, which allows for wrong labels where some look wrong."""
    advised = choose(comparison.after, quick=True, wrong_labels=wrong_labels).recommended
    if advised.method != "label_noise_temperature":
        return f"Divide the logits by T = {comparison.after.temperature:.3g} (fitted on this split)"
    return (
        f"Some labels look wrong: divide the logits by T = {advised.recalibrator.temperature:.3g}, which "
        "allows for that (on these labels the loss then looks higher),"
    )


def _repair_verdict(comparison: Comparison, left: Interval, has_fits: bool) -> Verdict:
    rise = comparison.change.loc["loss", "change"]
    if not rise > 0:
        return "not applicable"
    if not has_fits or significant_rise(comparison) != "yes":
        return "cannot tell"
    return "yes" if left.high < rise / 2 else "no" if left.low > rise / 2 else "cannot tell"


def _later(comparison: Comparison, names: tuple[str, str] | None) -> str:
    if names:
        return f"of {names[1]}"
    after = comparison.after.epoch
    return "on the second side" if math.isnan(after) else f"at epoch {epoch(after)}"
