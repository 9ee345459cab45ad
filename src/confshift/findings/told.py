"""What can be told from noise: where the run picked the two checkpoints, where few samples are wrong."""

from __future__ import annotations

import math
from dataclasses import replace

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.checkpoint import Checkpoint
from confshift.findings.question import Finding
from confshift.findings.wording import count

#: The series of `History.rise` that judges a quantity of `Comparison.change`, and the sign of harm.
_JUDGES = {"loss": ("loss", 1), "error_rate": ("error_rate", 1), "accuracy": ("error_rate", -1)}

#: Below so many wrong samples a temperature is theirs.
_FEW_WRONG = 10


def is_judged(history: History, comparison: Comparison) -> bool:
    """Tell whether the verdicts on the run are about this pair: its best and its last checkpoint."""
    return (comparison.before, comparison.after) == history.pair and is_last(history, comparison)


def is_last(history: History, comparison: Comparison) -> bool:
    """Tell whether the later checkpoint is the run's last."""
    return comparison.after is history.main.checkpoints[-1]


def within_choice(history: History, comparison: Comparison, quantity: str) -> bool:
    """Tell whether a harmful change may come from having picked the best of many epochs.

    The interval of a pair does not know that the run picked it. The verdict on the run does: where it sees
    nothing beyond sampling error, an interval without 0 shows nothing either.
    """
    series, harm = _JUDGES[quantity]
    row = history.rise.loc[series]
    if not is_judged(history, comparison) or row["last_epoch"] != comparison.after.epoch:
        return False
    return bool(harm * comparison.change.loc[quantity, "change"] > 0 and math.isnan(row["since"]))


def is_told(history: History, comparison: Comparison, quantity: str) -> bool:
    """Tell whether a quantity changed beyond its error, and beyond what picking the best epoch explains."""
    row = comparison.change.loc[quantity]
    excluded = row["change_low"] > 0 or row["change_high"] < 0
    return bool(excluded and not within_choice(history, comparison, quantity))


def rests_on(checkpoint: Checkpoint) -> str:
    """Say on how few wrong samples a temperature, and the loss it leaves, rest; "" where they are enough.

    What it costs to be wrong is known from these samples alone: the fit follows them, and the loss that it
    leaves reads too low.
    """
    scored = checkpoint.columns["finite"]
    wrong = int((~checkpoint.columns["correct"] & scored).sum())
    return f"rests on {count(wrong, 'wrong sample')} only" if 0 < wrong < _FEW_WRONG else ""


def explained(change: str) -> str:
    """Say that a change is no more than picking the best epoch makes of noise."""
    return f"Picking the best epoch explains such a {change}."


def undecided(finding: Finding, change: str) -> Finding:
    """Return a finding about a change that picking the best epoch explains: it decides nothing."""
    if finding.verdict == "not applicable":
        return finding
    sentence = f"{finding.sentence} {explained(change)}"
    return replace(finding, verdict="cannot tell", sentence=sentence, next_step="")
