"""What kind of run is it? The three verdicts together, in words."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

from confshift.analysis.history import History
from confshift.analysis.judgement import Judgement
from confshift.findings.finding import Finding, Verdict
from confshift.findings.wording import epoch, nats, percent

__all__ = ["KINDS", "kind_of", "run_kind"]


class _Kind(NamedTuple):
    verdict: Verdict
    meaning: str
    step: str


#: Each kind of run: is the model itself getting worse, what that means, what to do.
KINDS = {
    "overfitting": _Kind(
        "yes",
        "Real overfitting: the loss rises, and not only because of the confidence.",
        "Keep an earlier checkpoint. Calibration alone is not enough; more data or more regularisation would "
        "help.",
    ),
    "hidden_overfitting": _Kind(
        "yes",
        "Hidden overfitting: the model gets worse while the loss does not show it.",
        "Keep an earlier checkpoint, chosen by refinement loss, and calibrate it.",
    ),
    "confidence": _Kind(
        "no",
        "Purely a confidence problem: the loss rises systematically; refinement loss and error rate do not, "
        "or by far too little to explain it.",
        "Calibrate, and choose the checkpoint by refinement loss.",
    ),
    "improving": _Kind("no", "Still improving: the last epoch is better than the middle of the run.", ""),
    "no_rise": _Kind("no", "No series rises systematically, and the run no longer improves visibly.", ""),
    "undecidable": _Kind(
        "cannot tell",
        "Undecidable so far: whether the model itself gets worse can't be told from noise.",
        "More validation samples, or more epochs, would decide it.",
    ),
    "too_early": _Kind("not applicable", "Too early to say what kind of run this is.", "Ask again later."),
}

#: A doubtful series that may carry more than this share of the loss's rise leaves the question open.
_LARGE_PART = 0.25

_NAMES = {"loss": "loss", "refinement_loss": "refinement loss", "error_rate": "error rate"}


def run_kind(history: History, judgement: Judgement) -> Finding:
    """Combine the verdicts on loss, refinement loss and error rate."""
    rise = judgement.rise
    kind = kind_of(judgement)
    verdict, meaning, step = KINDS[kind]
    if kind == "confidence" and judgement.candidates.loc["refinement_loss", "in_set"].iloc[-1]:
        step = f"Keep training, or keep the late checkpoint, and calibrate{_temperature(history, rise)}."
    lines = "; ".join(_line(rise.loc[series], series) for series in _NAMES)
    sentence = f"{meaning} {lines[0].upper()}{lines[1:]}."
    title = "Is the model itself getting worse, not only its confidence?"
    return Finding("run_kind", title, verdict, sentence, rise.assign(kind=kind), step)


def _temperature(history: History, rise: pd.DataFrame) -> str:
    judged = rise.loc["loss", "last_epoch"]
    last = next(one for one in history.main.checkpoints if one.epoch == judged)
    return f" (T = {last.temperature:.3g} at epoch {epoch(last.epoch)})" if last.fit_status == "ok" else ""


def _line(row: pd.Series, series: str) -> str:
    status = row["status"].replace("_", " ")
    text = f"{_NAMES[series]}: {status}"
    if math.isnan(row["amount"]):
        return text
    amount = abs(row["amount"])
    written = f"{100 * amount:.2f} points" if row["unit"] == "fraction" else f"{nats(amount)} nats"
    text += f", {'up' if row['amount'] > 0 else 'down'} {written}" if amount > 1e-9 else ", unchanged"
    if series != "loss" and 0 < row["share_of_rise"] < math.inf:
        text += f" ({percent(row['share_of_rise'])} of the loss's rise)"
    return text


def kind_of(judgement: Judgement) -> str:
    """Return the kind of run, a key of `KINDS`."""
    rise = judgement.rise
    status = rise["status"]
    if "systematic" in (status["refinement_loss"], status["error_rate"]):
        return "overfitting" if status["loss"] == "systematic" else "hidden_overfitting"
    if status["loss"] == "systematic":
        return "confidence" if _only_confidence(rise) else "undecidable"
    if status["loss"] == "too_few_epochs":
        return "too_early"
    if status["loss"] != "flat":
        return "undecidable"
    return "improving" if _improving(judgement.candidates) else "no_rise"


def _only_confidence(rise: pd.DataFrame) -> bool:
    """Whether refinement and errors can be denied a part in a rise of the loss, none of them systematic."""
    others = rise.loc[["refinement_loss", "error_rate"]]
    doubtful = others[others["verdict"] == "cannot tell"]
    # A refinement rise as large as the loss's would have to be visible before it can be denied.
    visible = not rise.loc["refinement_loss", "resolution"] > rise.loc["loss", "amount"]
    return visible and bool((doubtful["share_of_rise"] < _LARGE_PART).all())


def _improving(candidates: pd.DataFrame) -> bool:
    """Whether, by either loss, the last epoch may be the best and the middle one can't be."""
    for criterion in ("loss", "refinement_loss"):
        in_set = candidates.loc[criterion, "in_set"].to_numpy()
        if in_set[-1] and not in_set[len(in_set) // 2]:
            return True
    return False
