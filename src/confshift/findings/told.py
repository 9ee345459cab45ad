"""What can be told from noise: where the run picked the two checkpoints, where few samples are wrong."""

from __future__ import annotations

import math

import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.analysis.rise import leading
from confshift.checkpoint import Checkpoint
from confshift.findings.question import Finding
from confshift.findings.wording import count
from confshift.recalibration import FEW_WRONG

#: The series of `History.rise` that judges a quantity of `Comparison.change`, and the sign of harm.
JUDGES = {
    "loss": ("loss", 1),
    "refinement_loss": ("refinement_loss", 1),
    "error_rate": ("error_rate", 1),
    "accuracy": ("error_rate", -1),
}

#: A verdict over all but this share of a pair's samples is quoted for the pair.
_FEW_LEFT_OUT = 0.01


def is_judged(history: History, comparison: Comparison, series: str | None = None) -> bool:
    """Tell whether a verdict is about this pair and, but for a few, about these samples.

    The verdict on a series of `History.rise`, by default on the one that the verdict on the run is about.
    """
    row = history.rise.loc[series or leading(history.rise)]
    samples = len(comparison.panel.targets)
    is_pair = (comparison.before.epoch, comparison.after.epoch) == (row["best_epoch"], row["last_epoch"])
    return bool(is_pair and samples - row["samples"] <= _FEW_LEFT_OUT * samples)


def is_last(history: History, comparison: Comparison) -> bool:
    """Tell whether the later checkpoint is the run's last."""
    return comparison.after is history.main.checkpoints[-1]


def hidden_harm(history: History, comparison: Comparison) -> pd.Series | None:
    """Return the row of `History.rise` that shows a harm which the loss does not; None where there is none.

    The refinement loss, or else the error rate, rises systematically from its own best epoch to the last, and
    the loss does not; or the comparison starts where the refinement loss is measurably worse already, so that
    the harm came while the loss was still falling.
    """
    rise, before = history.rise, comparison.before.epoch
    systematic = rise[rise["status"] == "systematic"].drop(index="loss", errors="ignore")
    if systematic.empty or rise.loc["loss", "infinite_samples"]:
        return None
    row = systematic.iloc[0]
    if comparison.after.epoch != row["last_epoch"]:
        return None
    return row if rise.loc["loss", "status"] != "systematic" or before > row["since"] else None


def within_choice(history: History, comparison: Comparison, quantity: str) -> bool:
    """Tell whether a harmful change whose interval excludes 0 may come from picking the best of many epochs.

    The interval of a pair does not know that its first epoch is the best before the other. The verdict on the
    run up to there does: where it sees nothing beyond sampling error, the interval shows nothing either.
    """
    series, _ = JUDGES[quantity]
    if not is_harm(comparison, quantity):
        return False
    run = _run_of_choice(history, comparison)
    if run is None or run.rise.loc[series, "last_epoch"] != comparison.after.epoch:
        return False
    return math.isnan(run.rise.loc[series, "since"])


def excludes_0(row: pd.Series) -> bool:
    """Tell whether the interval of a row of `Comparison.change` excludes 0."""
    return bool(row["change_low"] > 0 or row["change_high"] < 0)


def is_harm(comparison: Comparison, quantity: str) -> bool:
    """Tell whether a quantity got worse by the interval of these two checkpoints alone."""
    row = comparison.change.loc[quantity]
    return excludes_0(row) and bool(JUDGES[quantity][1] * row["change"] > 0)


def _run_of_choice(history: History, comparison: Comparison) -> History | None:
    """Return the run up to the later checkpoint, where the earlier one is the best of it; else None."""
    checkpoints, after = history.main.checkpoints, comparison.after
    if after not in checkpoints:
        return None
    is_whole = is_last(history, comparison) or is_judged(history, comparison)
    run = history if is_whole else history.until(checkpoints.index(after) + 1)
    if not (is_judged(history, comparison) or history.pair_ending_at(after)[0] is comparison.before):
        return None
    return run if comparison.change.loc[leading(run.rise), "change"] > 0 else None


def is_told(history: History, comparison: Comparison, quantity: str) -> bool:
    """Tell whether a quantity changed beyond its error, and beyond what picking the best epoch explains."""
    told = excludes_0(comparison.change.loc[quantity])
    return told and not within_choice(history, comparison, quantity)


def wrong_samples(checkpoint: Checkpoint) -> int:
    """Return how many samples with a finite loss are wrong."""
    return int((~checkpoint.scores.correct & checkpoint.finite).sum())


def rests_on(checkpoint: Checkpoint) -> str:
    """Say on how few wrong samples a temperature, and the loss it leaves, rest; "" where they are enough.

    What it costs to be wrong is known from these samples alone: the fit follows them, and the loss that it
    leaves reads too low.
    """
    wrong = wrong_samples(checkpoint)
    return f"rests on {count(wrong, 'wrong sample')} only" if 0 < wrong < FEW_WRONG else ""


def explained(change: str) -> str:
    """Say that a change is no more than picking the best epoch makes of noise."""
    return f"Such a {change} may be chance: the earlier epoch was picked as the best."


def undecided(finding: Finding, change: str) -> Finding:
    """Return a finding about a change that picking the best epoch explains: it decides nothing."""
    if finding.verdict == "not applicable":
        return finding
    return finding.left_undecided(f"{explained(change)} What it consists of may be noise as well.")
