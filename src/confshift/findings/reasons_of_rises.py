"""Why a loss rose, for each kind of such a run: written out by hand, no clause without its verdict."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.findings.overfitting import overfits
from confshift.findings.told import is_judged, is_told
from confshift.findings.wording import epoch, nats, points

BEYOND_NOISE = "more than noise explains"
#: A transition that has this share of a rise is named as where it comes from.
_MAIN = 0.5
_ABOUT = {
    "stayed_wrong": " about samples it already got wrong",
    "forgotten": " about samples it newly gets wrong",
    "stayed_right": " about samples it still gets right",
    "learned": " about samples it newly gets right",
}


def _main_transition(history: History, comparison: Comparison) -> str:
    """Return the transition with at least half of the rise; "" where none has, or the rise is unsure."""
    if not (is_judged(history, comparison) and is_told(history, comparison, "loss")):
        return ""
    net = comparison.by_transition
    main = str(net.idxmax())
    return main if net[main] >= _MAIN * comparison.change.loc["loss", "change"] else ""


def rise_of_loss(history: History, comparison: Comparison) -> str:
    """Say by how much the loss rose, by the comparison where the verdict is about it: a sentence's start."""
    row = history.rise.loc["loss"]
    amount = row["amount"]
    if is_judged(history, comparison) and not any(comparison.infinite_samples):
        amount = comparison.change.loc["loss", "change"]
    return f"The loss rose by {nats(amount)} nats since epoch {epoch(row['best_epoch'])}"


def _fault_of_confidence(history: History) -> str:
    """Say what the model became between the epochs of the verdict: overconfident, underconfident; or ""."""
    before, after = (
        history.main.checkpoint_at(history.rise.loc["loss", name]).temperature
        for name in ("best_epoch", "last_epoch")
    )
    if after > 1 and after > before:
        return "overconfident"
    return "underconfident" if after < 1 and after < before else ""


def _confidence(rise: str, history: History, comparison: Comparison) -> str:
    fault = _fault_of_confidence(history)
    about = _ABOUT.get(_main_transition(history, comparison), "")
    became = f"it became {fault}{about}" if fault else "only its confidence fits worse"
    some_left_out = (history.rise["status"] == "unscored").any()
    start = "Where its outputs are finite, the" if some_left_out else "The"
    return f"{rise}. {start} model did not get worse: {became}."


def _mostly_confidence(rise: str, history: History, comparison: Comparison) -> str:
    most = _most_is_confidence(history, comparison)
    return f"{rise}. {most}; whether the model itself got worse too is undecided."


def _confidence_and_more(rise: str, history: History, comparison: Comparison) -> str:
    most = _most_is_confidence(history, comparison)
    return f"{rise}. {most}; the model itself got worse too, but only a little."


def _most_is_confidence(history: History, comparison: Comparison) -> str:
    fault = _fault_of_confidence(history)
    if not fault:
        return "Most of that is confidence that fits worse"
    about = _ABOUT.get(_main_transition(history, comparison), "")
    return f"Most of that is {fault.replace('confident', 'confidence')}{about}"


def _class_drift(rise: str, history: History, comparison: Comparison) -> str:
    drift = "Most of that is drift between classes"
    if history.rise.loc["refinement_loss", "status"] == "systematic":
        what = ", which one bias per class repairs; the model itself got worse too, but by less."
    else:
        what = ": some get too much probability, others too little; one bias per class repairs it."
    return f"{rise}. {drift}{what}"


def _overfitting(rise: str, history: History, comparison: Comparison) -> str:
    fault = _fault_of_confidence(history)
    named = " (overfitting)" if overfits(history) else ""
    if fault and _mostly_calibration(history, comparison):
        most = f"Most of that is {fault.replace('confident', 'confidence')}"
        worse = f"the model itself got worse too{named}: {_harm(history, since=False)}"
        return f"{rise}. {most}, but {worse}."
    forgot = _main_transition(history, comparison) == "forgotten"
    where = ", mostly on samples it forgot" if forgot else ""
    return f"{rise}{where}. The model itself got worse{named}: {_harm(history)}."


def _harm(history: History, *, since: bool = True) -> str:
    """Say what shows that the model itself got worse: the loss even if calibrated, or the error rate."""
    rise = history.rise
    if rise.loc["refinement_loss", "status"] in ("systematic", "setback"):
        row = rise.loc["refinement_loss"]
        start = f" since epoch {epoch(row['best_epoch'])}" if since else ""
        return f"even calibrated, its loss rose by {nats(row['amount'])} nats{start}"
    if rise.loc["error_rate", "status"] == "systematic":
        return more_errors(rise.loc["error_rate"])
    amount = history.same_rate.loc["refinement_loss", "amount"]
    among = " among epochs of equal learning rate" if since else ""
    return f"even calibrated, its loss rose by {nats(amount)} nats{among}"


def _mostly_calibration(history: History, comparison: Comparison) -> bool:
    """Whether at least half of the rise is what recalibration removes, beyond its error."""
    before, after = comparison.panel.calibration
    return bool(
        is_judged(history, comparison)
        and comparison.change.loc["calibration_loss", "change_low"] > 0
        and comparison.beyond_share(after - before, _MAIN).low > 0
    )


def more_errors(row: pd.Series) -> str:
    """Say by how much the error rate rose, by its row of `History.rise`."""
    amount = points(row["amount"]).lstrip("+")
    return f"the error rate rose by {amount} since epoch {epoch(row['best_epoch'])}"


#: What makes the reason of each kind out of the sentence about the rise.
OF_A_RISE: dict[str, Callable[[str, History, Comparison], str]] = {
    "confidence": _confidence,
    "mostly_confidence": _mostly_confidence,
    "confidence_and_more": _confidence_and_more,
    "class_drift": _class_drift,
    "overfitting": _overfitting,
}
