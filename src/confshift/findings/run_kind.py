"""What kind of run is it? The three verdicts combined, in words."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

from confshift.analysis.history import History
from confshift.findings.best_checkpoint import kept
from confshift.findings.left_out import REPAIR_ZERO
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.wording import apart, epoch, nats, percent


class _Kind(NamedTuple):
    verdict: Verdict
    meaning: str
    step: str


#: Each kind of run: whether the model itself is getting worse, what that means, what to do.
KINDS = {
    "overfitting": _Kind(
        "yes",
        "Real overfitting: the loss rises, and not only because of the confidence.",
        "Keep {kept}. Calibration alone is not enough; more data or more regularisation would help.",
    ),
    "hidden_overfitting": _Kind(
        "yes",
        "Hidden overfitting: the model gets worse while the loss does not show it.",
        "Keep {kept}.",
    ),
    "confidence": _Kind(
        "no",
        "Purely a confidence problem: the loss rises systematically; refinement loss and error rate do not, "
        "or by far too little to explain it or to undo what was learned.",
        "Keep {kept}.",
    ),
    "mostly_confidence": _Kind(
        "cannot tell",
        "Mostly a confidence problem: the loss rises systematically, for more than half by confidence; "
        "whether the model itself gets worse too can't be told from noise.",
        "Keep {kept}.",
    ),
    "confidence_and_more": _Kind(
        "yes",
        "Mostly a confidence problem: the model itself gets worse too, but by little, held against the rise "
        "of the loss or against what it has learned.",
        "Keep {kept}.",
    ),
    "diverged": _Kind(
        "not applicable",
        "Neither a confidence problem nor overfitting: the run diverged, and its last outputs say nothing "
        "about the labels.",
        "",
    ),
    "class_drift": _Kind(
        "no",
        "Class drift: the loss rises in large part because some classes get too much probability and "
        "others too little, which one bias for each class repairs.",
        "Keep {kept}.",
    ),
    "improving": _Kind("no", "Still improving: the last epoch is better than the middle of the run.", ""),
    "no_rise": _Kind("no", "No series rises systematically, and the run no longer improves visibly.", ""),
    "undecidable": _Kind(
        "cannot tell",
        "Undecidable so far: whether the model itself gets worse can't be told from noise.",
        "More validation samples, or more epochs, would decide it.",
    ),
    "setback": _Kind(
        "yes",
        "A setback: the model lost something at once that it has not learned again since. Its length is not "
        "what did it: neither overfitting nor confidence.",
        "Keep {kept}. Find out what happened there: the learning rate, the data, the code.",
    ),
    "loss_undecided": _Kind(
        "no",
        "The model itself does not get worse: the error rate does not rise, and at most little of what was "
        "learned is undone. Whether the loss rises, by confidence then, can't be told from noise.",
        "Keep {kept}.",
    ),
    "infinite": _Kind(
        "cannot tell",
        "The loss is infinite at the end: some samples give their true class a probability of 0. Whether the "
        "model itself gets worse can't be told from it.",
        REPAIR_ZERO,
    ),
    "unscored": _Kind(
        "cannot tell",
        "Undecidable: outputs that are not finite were left out, so what became of these samples is not "
        "known.",
        "Find out why these outputs are not finite, and inspect again.",
    ),
    "too_early": _Kind("not applicable", "Too early to say what kind of run this is.", "Ask again later."),
}

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
    rise = history.rise
    kind = kind_of(history)
    verdict, meaning, step = KINDS[kind]
    choice = history.recommendation
    biases = " and one bias for each class" if choice.with_biases else ""
    fit = f" (T = {choice.temperature:.3g}{biases})" if choice.calibrated else ""
    step = step.format(kept=f"{kept(history)}{fit}")
    lines = "; ".join(_line(rise, series) for series in _NAMES)
    if kind == "loss_undecided":
        undone = percent(max(rise.loc["refinement_loss", "upper_share_of_fall"], 0.0))
        lines += f". With 95 % confidence at most {undone} of what was learned is undone"
    if kind in ("confidence", "mostly_confidence"):
        possible = percent(max(_possible_share(rise), 0.0))
        lines += f". With 95 % confidence the refinement loss is at most {possible} of the rise"
    if "confidence" in kind:
        lines += _against_what_was_learned(history)
    sentence = f"{meaning} {lines[0].upper()}{lines[1:]}."
    return _RUN_KIND.answer(verdict, sentence, rise.assign(kind=kind), step)


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
    size = f"{100 * amount:.2f} points" if row["unit"] == "fraction" else f"{nats(amount)} nats"
    text += f", {'up' if row['amount'] > 0 else 'down'} {size}" if amount > 1e-9 else ", unchanged"
    significant = (rise.loc[["loss", series], "verdict"] == "yes").all()
    if series != "loss" and significant and 0 < row["share_of_rise"] < math.inf:
        text += f" ({percent(row['share_of_rise'])} of the loss's rise)"
    return text


def kind_of(history: History) -> str:
    """Return the kind of run, a key of `KINDS`."""
    return "diverged" if history.divergence else _kind_of_verdicts(history)


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
        "setback, not overfitting."
    )
