"""What to do about each kind of run, and why: written out by hand, no clause without its verdict."""

from __future__ import annotations

import math
from collections.abc import Callable

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.analysis.jitter import FEWEST
from confshift.analysis.persistence import TAIL
from confshift.analysis.rise import leading
from confshift.findings.best_checkpoint import tied_with_best
from confshift.findings.chosen_pair import loss_clause
from confshift.findings.diverged import answers_after
from confshift.findings.left_out import zero_samples
from confshift.findings.reasons_of_rises import BEYOND_NOISE, OF_A_RISE, more_errors, rise_of_loss
from confshift.findings.run_kind import kind_of, setback_of
from confshift.findings.statuses import in_units
from confshift.findings.told import is_judged
from confshift.findings.wording import apart, count, epoch, fault_of, nats, percent, points


def action_of(history: History) -> str:
    """Return what to do about a run, in at most 8 words."""
    kept = epoch(history.recommendation.epoch)
    keep = f"Keep epoch {kept}"
    match kind_of(history):
        case "diverged":
            return f"{keep}; lower the learning rate." if _has_learned(history) else _RETRAIN
        case "infinite":
            return "Find why some probabilities are exactly 0."
        case "unscored":
            return "Find why some outputs are not finite."
        case "too_early":
            return "Too early to judge: inspect more epochs."
        case "undecidable":
            in_jitter = history.rise.loc["loss", "status"] == "within_jitter"
            return f"{keep}; {'more epochs' if in_jitter else 'more samples'} would decide."
        case "improving":
            return "Keep training: the run still improves."
    if history.recommendation.calibrated:
        return f"{keep}, and calibrate it."
    if kind_of(history) == "no_rise":
        return f"Nothing to fix: keep {_any_of(history)}."
    return f"{keep}."


_RETRAIN = "Train again at a lower learning rate."


def _has_learned(history: History) -> bool:
    """Whether the checkpoint to keep is a later one than the model before the training."""
    return history.recommendation.epoch > 0


def tied_epochs(history: History) -> list[float]:
    """Return the epochs that are statistically tied with the one to keep, that one among them; or none."""
    choice = history.recommendation
    criterion = "refinement_loss" if choice.calibrated else "loss"
    if math.isnan(history.rise.loc["loss", "resolution"]):  # no spread, so nothing to rank epochs by
        return []
    epochs = [float(value) for value in sorted(tied_with_best(history, criterion))]
    return epochs if choice.epoch in epochs else []


def _any_of(history: History) -> str:
    """Name the checkpoints of which any is as good; only the one to keep, where they are not in one row."""
    tied = tied_epochs(history)
    inspected = [float(value) for value in history.main.epochs if tied and tied[0] <= value <= tied[-1]]
    if len(tied) > 1 and inspected == tied:
        return f"any of epochs {epoch(tied[0])}–{epoch(tied[-1])}"
    return f"epoch {epoch(history.recommendation.epoch)}"


def reason_of(history: History, comparison: Comparison) -> str:
    """Say why, in at most 35 words; the comparison is that of the run's own pair.

    Amounts are those of the verdicts in `History.rise`, of a pair that they judge those of its comparison.
    """
    kind = kind_of(history)
    if kind in OF_A_RISE and math.isfinite(history.rise.loc["loss", "amount"]):
        rise = f"{rise_of_loss(history, comparison)}, {BEYOND_NOISE}"
        return OF_A_RISE[kind](rise, history, comparison)
    return _infinite(history, comparison) if kind == "overfitting" else _OTHERS[kind](history, comparison)


def _hidden_overfitting(history: History, comparison: Comparison) -> str:
    series = leading(history.rise)
    row, change = history.rise.loc[series], comparison.change.loc[series, "change"]
    amount = change if is_judged(history, comparison) else row["amount"]
    rose = (
        f"the error rate rose by {points(amount).lstrip('+')}"
        if series == "error_rate"
        else f"once calibrated, its loss rose by {nats(amount)} nats"
    )
    start = f"The model got worse since epoch {epoch(row['best_epoch'])}"
    return f"{start}: {rose}, {BEYOND_NOISE}. {_hiding(history, comparison)}"


def _hiding(history: History, comparison: Comparison) -> str:
    """Say what the loss did between the two epochs in place of showing that the model got worse."""
    loss, calibration = (comparison.change.loc[name] for name in ("loss", "calibration_loss"))
    if loss["change_high"] < 0:
        because = ", because its confidence fits better" if calibration["change_high"] < 0 else ""
        return f"The plain loss hides that: it fell by {nats(-loss['change'])} nats{because}."
    if history.rise.loc["loss", "status"] == "small" and loss["change_low"] > 0:
        return f"The plain loss hides most of that: it rose by {nats(loss['change'])} nats."
    hides = "shows" if loss["change_low"] > 0 else "hides that: it shows"
    return f"The plain loss {hides} no clear rise."


def _loss_undecided(history: History, comparison: Comparison) -> str:
    undone = max(history.rise.loc["refinement_loss", "upper_share_of_fall"], 0.0)
    return (
        f"The model did not get worse: at most {percent(undone)} of what it learned is undone. "
        f"{rise_of_loss(history, comparison)}; whether that is a lasting rise is undecided."
    )


def _improving(history: History, comparison: Comparison) -> str:
    return (
        f"{_no_rise_yet(comparison)}, and the last epoch is better than the middle of the run. "
        f"If you stop now, keep {_kept(history)}."
    )


def _no_rise_yet(comparison: Comparison) -> str:
    loss = comparison.change.loc["loss"]
    if loss["change_high"] < 0:
        return f"The loss fell by {nats(-loss['change'])} nats since epoch {epoch(comparison.before.epoch)}"
    return "The loss does not rise beyond noise"


def _kept(history: History) -> str:
    choice = history.recommendation
    return f"epoch {epoch(choice.epoch)}{', and calibrate it' if choice.calibrated else ''}"


def _no_rise(history: History, comparison: Comparison) -> str:
    row, choice = history.rise.loc["loss"], history.recommendation
    levels = " to ".join(apart(row["best_value"], row["last_value"]))
    start, end = "The loss does not rise beyond noise", "and the run no longer improves visibly."
    if not choice.calibrated:
        return f"{start} ({levels} nats), {end}"
    table = history.table[
        (history.table["split"] == history.split) & (history.table["epoch"] == choice.epoch)
    ]
    plain, calibrated = apart(float(table["loss"].iloc[0]), choice.loss)
    is_at_fault = choice.temperature != 1 and not choice.with_biases
    fault = f"is {fault_of(choice.temperature)}: calibrated, it " if is_at_fault else "once calibrated "
    return f"{start}, {end} Epoch {epoch(choice.epoch)} {fault}has {calibrated} instead of {plain} nats."


def _diverged(history: History, comparison: Comparison) -> str:
    divergence = history.divergence
    rate = divergence.table.loc[divergence.epoch, "learning_rate"]
    at_rate = "" if math.isnan(rate) else f" (learning rate {rate:.2g})"
    best = (
        f"Epoch {epoch(history.recommendation.epoch)} is the best before that."
        if _has_learned(history)
        else "No epoch of this training is better than the model it started from."
    )
    start = f"The run diverged at epoch {epoch(divergence.epoch)}{at_rate}"
    return f"{start}: from then on {answers_after(divergence)}. {best}"


def _infinite(history: History, comparison: Comparison) -> str:
    row = history.rise.loc["loss"]
    reason = zero_samples(int(row["infinite_samples"]))
    text = f"At epoch {epoch(row['last_epoch'])} the loss is infinite: {reason}."
    if kind_of(history) == "overfitting":
        return f"{text} The model itself got worse: {more_errors(history.rise.loc['error_rate'])}."
    return f"{text} Until that is repaired, epoch {epoch(history.recommendation.epoch)} is the best."


def _unscored(history: History, comparison: Comparison) -> str:
    return (
        "The loss shows no rise, but samples without a finite output were left out and could hide one. "
        f"So far epoch {epoch(history.recommendation.epoch)} is the best."
    )


def _undecidable(history: History, comparison: Comparison) -> str:
    row = history.rise.loc["loss"]
    rise = rise_of_loss(history, comparison)
    if row["status"] == "systematic":
        doubt = "can't show whether the model itself got worse, or only its confidence"
        return f"{rise}, {BEYOND_NOISE}. These {in_units(row)} {doubt}."
    if row["status"] == "within_jitter":
        return (
            f"{rise}, no more than it jitters from epoch to epoch. A real rise would go on; jitter would not."
        )
    if math.isnan(row["resolution"]):
        return f"{rise}, but on all samples alike: they give no idea of the noise."
    units = count(row["units"], "sample" if row["units"] == row["samples"] else "group")
    return (
        f"{rise}, which may be noise: with {units}, this set can only resolve rises "
        f"above {nats(row['resolution'])} nats."
    )


def _too_early(history: History, comparison: Comparison) -> str:
    number = int(history.rise.loc["loss", "epochs"])
    if number < 2:
        judged = "Only one epoch" if number else "No epoch"
        change = "" if comparison.before is comparison.after else f"{loss_clause(comparison)}. "
        return f"{change}{judged} can be judged so far."
    needed = f"{FEWEST} epochs after the first fall, {TAIL} after the lowest"
    return f"{loss_clause(comparison)}. A verdict takes {needed}."


_OTHERS: dict[str, Callable[[History, Comparison], str]] = {
    "hidden_overfitting": _hidden_overfitting,
    "setback": lambda history, _: setback_of(history),
    "loss_undecided": _loss_undecided,
    "improving": _improving,
    "no_rise": _no_rise,
    "diverged": _diverged,
    "infinite": _infinite,
    "unscored": _unscored,
    "undecidable": _undecidable,
    "too_early": _too_early,
}
