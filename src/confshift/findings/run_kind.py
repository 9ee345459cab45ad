"""What kind of run is it? The three verdicts combined, in words."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from confshift.analysis.history import History
from confshift.findings import commands
from confshift.findings.best_checkpoint import kept
from confshift.findings.kinds import KINDS, OVERFITTING
from confshift.findings.left_out import WHY_ZERO
from confshift.findings.overfitting import UNKNOWN_TRAINING, course_of_training, in_words
from confshift.findings.question import Finding, Question
from confshift.findings.wording import apart, epoch, fitting, nats, percent

#: A part of the loss's rise from this share on changes the name of the run's kind.
_SUBSTANTIAL = 0.1

#: A part below this share of the rise is minor if it undoes less than that share of what was learned.
_MINOR, _LITTLE_UNDONE = 0.25, 0.05

#: Less than this share of what was learned, at most, is no sign that a model gets worse.
_NEARLY_NOTHING = 0.02

#: A fall of accuracy that counts.
_POINT = 0.01

#: A series that may account for this share of the rise leaves the kind undecided.
_MAIN = 0.5

_NAMES = {"loss": "loss", "refinement_loss": "refinement loss", "error_rate": "error rate"}

_RUN_KIND = Question(
    "run_kind", "Is the model itself getting worse, not only its confidence?", section="rise", problem="yes"
)


def run_kind(history: History) -> Finding:
    """Combine the verdicts on loss, refinement loss and error rate."""
    rise, kind, choice = history.rise, kind_of(history), history.recommendation
    verdict, answer, meaning, step = KINDS[kind]
    course = course_of_training(history) if kind in OVERFITTING else None
    if course is not None and course.fell:
        answer = OVERFITTING[kind]
    biases = " and one bias for each class" if choice.with_biases else ""
    fit = f" (T = {choice.temperature:.3g}{biases})" if choice.calibrated else ""
    is_about_choice = "{kept}" in step
    details = _line(rise, "loss") + "".join(f"; {_line(rise, series)}" for series in list(_NAMES)[1:])
    if kind == "loss_undecided":
        undone = percent(max(rise.loc["refinement_loss", "upper_share_of_fall"], 0.0))
        details += f". With 95 % confidence at most {undone} of what was learned is undone"
    if kind == "setback":
        details += ". Look at the learning rate, the data and the code where it jumped"
    if kind in ("confidence", "mostly_confidence"):
        possible = percent(max(_possible_share(rise), 0.0))
        details += f". With 95 % confidence the refinement loss is at most {possible} of the rise"
    if "confidence" in kind:
        details += _against_what_was_learned(history)
    if course is not None:
        details += f". Meanwhile {in_words(course)}"
    elif kind in OVERFITTING:
        details += f". {UNKNOWN_TRAINING}"
    if kind == "infinite":
        details += f". {WHY_ZERO.removesuffix('.')}"
    sentence, others = fitting([meaning, _decline(rise) if verdict == "yes" else ""])
    finding = _RUN_KIND.answer(
        verdict,
        sentence,
        rise.assign(kind=kind),
        step.format(kept=f"{kept(history)}{fit}"),
        answer=answer,
        details=f"{others} {details[0].upper()}{details[1:]}.".lstrip(),
        command=commands.calibrate(choice.epoch) if is_about_choice and choice.calibrated else "",
    )
    return replace(finding, hides=kind in ("infinite", "unscored"))


def _decline(rise: pd.DataFrame) -> str:
    """Say by how much what calibration can't repair, and the error rate, have risen systematically."""
    parts = [
        f"{name} rose by {_size(rise.loc[series])}"
        for series, name in (
            ("refinement_loss", "the calibrated loss"),
            ("error_rate", "the error rate"),
        )
        if rise.loc[series, "status"] in ("systematic", "setback")
        and math.isfinite(rise.loc[series, "amount"])
    ]
    text = ", and ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _size(row: pd.Series) -> str:
    amount = abs(row["amount"])
    return f"{100 * amount:.2f} points" if row["unit"] == "fraction" else f"{nats(amount)} nats"


def _line(rise: pd.DataFrame, series: str) -> str:
    """Write what a series did; its share of the loss's rise only where both have risen beyond noise."""
    row = rise.loc[series]
    status = row["status"].replace("_", " ")
    text = f"{_NAMES[series]}: {status}"
    if math.isnan(row["amount"]):
        return text
    amount = abs(row["amount"])
    if math.isinf(amount):
        return f"{text}, up to infinity"
    text += f", {'up' if row['amount'] > 0 else 'down'} {_size(row)}" if amount > 1e-9 else ", unchanged"
    significant = (rise.loc[["loss", series], "verdict"] == "yes").all()
    if series != "loss" and significant and 0 < row["share_of_rise"] < math.inf:
        text += f" ({percent(row['share_of_rise'])} of the loss's rise)"
    return text


def kind_of(history: History) -> str:
    """Return the kind of run, a key of `KINDS`."""
    return "diverged" if history.divergence else _kind_of_verdicts(history)


def gets_worse(history: History) -> bool:
    """Whether the verdict on the run is that the model itself gets worse."""
    return KINDS[kind_of(history)].verdict == "yes"


def _kind_of_verdicts(history: History) -> str:
    rise = history.rise
    status = rise["status"]
    if rise.loc["loss", "infinite_samples"] > 0:
        return "overfitting" if status["error_rate"] == "systematic" else "infinite"
    if status["loss"] == "systematic":
        return _kind_of_rise(history)
    if status["refinement_loss"] == "setback":
        return "setback"
    if "systematic" in (status["refinement_loss"], status["error_rate"]):
        return "hidden_overfitting"
    if status["loss"] == "too_few_epochs":
        return "too_early"
    if status["loss"] == "unscored":
        return "unscored"
    if status["loss"] != "flat":
        return "loss_undecided" if _harmless(rise) else "undecidable"
    return "improving" if _improving(history.candidates) else "no_rise"


def _kind_of_rise(history: History) -> str:
    """Return what kind of rise it is, by the part of it that confidence does not explain.

    Refinement that rises systematically is overfitting where it is a tenth of the rise, unless it is less
    than a quarter and undoes less than a twentieth of what was learned; so is what is left of a setback.
    Errors that rise count beside it, but not where most of the rise is class balance, or a part of it that
    repairs them. Where neither rises, a lack of evidence is not enough
    to call it a confidence problem: the upper bound of the refinement's rise must be below half of the loss's
    ("mostly"), or below a tenth of it, where little of what was learned is undone either ("purely").
    """
    rise = history.rise
    others = rise.drop(index="loss")
    drifts = history.balance_share >= _MAIN
    if drifts or _biases_repair_errors(history):  # class balance makes errors by itself
        others = others.drop(index="error_rate")
    worse = others[others["status"].isin(["systematic", "setback"])]
    if len(worse):
        share, undone = worse["share_of_rise"].max(), worse["share_of_fall"].max()
        if share >= _SUBSTANTIAL and not (share < _MINOR and undone < _LITTLE_UNDONE):
            return "overfitting"
        return "class_drift" if drifts else "confidence_and_more"
    if drifts:
        return "class_drift"
    if _loses_at_equal_rate(history):
        share = history.same_rate.loc["refinement_loss", "amount"] / rise.loc["loss", "amount"]
        return "overfitting" if share >= _SUBSTANTIAL else "confidence_and_more"
    possible = _possible_share(rise)
    doubtful = others.loc[others["verdict"] == "cannot tell", "share_of_rise"]
    if not (possible < _MAIN and (doubtful < _MAIN).all()):
        return "undecidable"
    return "confidence" if possible < _SUBSTANTIAL and _undoes_little(history) else "mostly_confidence"


def _biases_repair_errors(history: History) -> bool:
    return history.balance_share >= _SUBSTANTIAL and history.biases_repair_errors


def _loses_at_equal_rate(history: History) -> bool:
    """Whether more than a little of what was learned is lost, among epochs of one rate in its cycles."""
    if history.same_rate.empty:
        return False
    row = history.same_rate.loc["refinement_loss"]
    return bool(row["certain"] and row["share_of_fall"] >= _LITTLE_UNDONE)


def _undoes_little(history: History) -> bool:
    """Whether the last epoch keeps what was learned: hardly more refinement loss, no point more errors.

    A rise of the loss may be so large that anything is a small share of it. Under a learning rate that goes
    in cycles, epochs of the last one's rate are compared: the others know more or less by their phase.
    """
    in_cycles = not history.same_rate.empty
    table = history.same_rate if in_cycles else history.rise
    errors = table.loc["error_rate"]
    certain = errors["certain"] if in_cycles else not math.isnan(errors["since"])
    more_errors = certain and errors["amount"] >= _POINT and not _biases_repair_errors(history)
    return bool(table.loc["refinement_loss", "share_of_fall"] < _LITTLE_UNDONE and not more_errors)


def _harmless(rise: pd.DataFrame) -> bool:
    """Whether the last epoch keeps what was learned, whatever the loss does: with 95 % confidence each."""
    others = rise.drop(index="loss")
    unseen = others["status"].isin(["flat", "small", "below_resolution"])
    return bool((unseen & (others["upper_share_of_fall"] < _NEARLY_NOTHING)).all())


def _against_what_was_learned(history: History) -> str:
    """Say how much of what was learned is lost, held against epochs of the last one's rate in cycles."""
    at_rate = history.same_rate
    row = (history.rise if at_rate.empty else at_rate).loc["refinement_loss"]
    if at_rate.empty:
        is_share = 0 < row["share_of_fall"] < math.inf and not math.isnan(row["since"])  # beyond noise
        text = f". The rise of the refinement loss undoes {percent(row['share_of_fall'])} of what was learned"
        return text if is_share else ""
    errors = at_rate.loc["error_rate"]
    share = (
        f", {percent(row['share_of_fall'])} of what was learned,"
        if 0 < row["share_of_fall"] < math.inf
        else ""
    )
    before, after = apart(row["best_value"], row["last_value"])
    return (
        f". Among the epochs at about the last one's learning rate ({row['learning_rate']:.2g}), which goes "
        f"in cycles, the refinement loss went from {before} at epoch {epoch(row['best_epoch'])} "
        f"to {after} at epoch {epoch(row['last_epoch'])}{share}; the error rate from "
        f"{percent(errors['best_value'])} at epoch {epoch(errors['best_epoch'])} to "
        f"{percent(errors['last_value'])}"
    )


def _possible_share(rise: pd.DataFrame) -> float:
    """Return the share of the loss's rise that the refinement loss has at most, with 95 % confidence."""
    return float(rise.loc["refinement_loss", "upper_bound"] / rise.loc["loss", "amount"])


def _improving(candidates: pd.DataFrame) -> bool:
    """Whether, by either loss, the last epoch may be the best but the middle one can't be."""
    for criterion in ("loss", "refinement_loss"):
        in_set = candidates.loc[criterion, "in_set"].to_numpy()
        if in_set[-1] and not in_set[len(in_set) // 2]:
            return True
    return False


def setback_of(history: History) -> str:
    """Say in one sentence what a sudden rise has left."""
    row = history.rise.loc["refinement_loss"]
    return (
        f"Even calibrated, its loss jumped up to epoch {epoch(row['hump_epoch'])} and has not come down "
        f"again: {nats(row['amount'])} nats are left since epoch {epoch(row['best_epoch'])}. That is a "
        "setback, not a trend."
    )
