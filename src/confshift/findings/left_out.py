"""What the numbers leave out: epochs and samples without an answer, answers with an infinite loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.comparison import Comparison
from confshift.analysis.panel import Panel
from confshift.findings.question import Finding
from confshift.findings.wording import count, epoch, percent

#: What makes a loss infinite.
ZERO = "give their true class a probability of 0"
#: Stands for `opening` where that is too long for a sentence.
NOT_FINITE = "Not all outputs and losses are finite."
WHY_ZERO = (
    "No temperature repairs a probability of 0. A softmax at the end of the model rounds small ones to 0; a "
    "mask over true classes makes them too."
)
REPAIR_ZERO = "Return logits instead of softmax outputs, and check that no mask covers true classes."
#: Above this share of the samples, the first sentence is about what is left out.
_NOTEWORTHY = 0.01
#: At most this many runs of epochs are named one by one.
_MOST_NAMED = 4


def opening(panel: Panel, name: str = "") -> str:
    """Say at which epochs outputs are not finite, or losses infinite; "" where hardly any are.

    Parameters
    ----------
    panel : Panel
    name : str
        Of the run, where there are two.
    """
    total = max(1, len(panel.targets))
    unanswered, infinite = 1 - panel.counts.answered / total, panel.counts.infinite / total
    silent = unanswered == 1
    sentences = []
    if silent.any():
        have = "have" if silent.sum() > 1 else "has"
        sentences.append(f"{epochs_in_words(panel, silent)} {have} no finite output.")
    for shares, what in (
        (np.where(silent, 0.0, unanswered), "have no finite output"),
        (infinite, f"{ZERO}, so the loss is infinite there"),
    ):
        some = shares > _NOTEWORTHY
        if some.any():
            sentences.append(
                f"at {epochs_in_words(panel, some)}, {_share(shares[some])} of the samples {what}."
            )
    prefix = f"{name}: " if name and sentences else ""
    return prefix + " ".join(
        sentence if prefix and not at else _capital(sentence) for at, sentence in enumerate(sentences)
    )


def _share(shares: NDArray[np.float64]) -> str:
    low, high = percent(float(shares.min())), percent(float(shares.max()))
    return high if low == high else f"{low} to {high}"


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def epochs_in_words(panel: Panel, members: NDArray[np.bool_]) -> str:
    """Name epochs, three or more in a row by their ends: "epoch 3", "epochs 7 and 8", "epochs 5 to 8"."""
    places = np.flatnonzero(members)
    rows = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    ends = [[epoch(panel.epochs[place]) for place in (row[0], row[-1])] for row in rows]
    parts: list[str] = []
    for row, (first, last) in zip(rows, ends, strict=True):
        parts += [first] if len(row) == 1 else [first, last] if len(row) == 2 else [f"{first} to {last}"]
    if len(parts) > _MOST_NAMED:
        return f"{count(len(places), 'epoch')} from {ends[0][0]} to {ends[-1][1]}"
    names = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"epoch{'s' if len(places) > 1 else ''} {names}"


def few_infinite(panel: Panel) -> str:
    """Name the epochs whose loss is infinite because of samples too few for `opening`; "" for none."""
    counts = panel.counts.infinite
    few = (counts > 0) & (counts <= _NOTEWORTHY * len(panel.targets))
    if not few.any():
        return ""
    worst = int(counts[few].max())
    most = "" if worst == counts[few].min() else "at most "
    return f"The loss is infinite at {epochs_in_words(panel, few)}, where {most}{zero_samples(worst)}."


def zero_samples(number: int) -> str:
    """Say how many samples make a loss infinite."""
    return f"{count(number)} {ZERO if number != 1 else ZERO.replace('give their', 'gives its')}"


def pair_opening(comparison: Comparison) -> str:
    """Say how many samples a comparison leaves out, where the first sentence should say it; else ""."""
    share = comparison.samples_left_out / len(comparison.whole.targets)
    if share <= _NOTEWORTHY:
        return ""
    return f"{percent(share)} of the samples have no finite loss on one of the two sides and are left out."


def over_finite(finding: Finding, comparison: Comparison) -> Finding:
    """Mark a finding about a change as one over the finite losses only, where others are infinite.

    It then explains the smaller part of the change, so its verdict is "cannot tell".
    """
    if not any(comparison.infinite_samples) or finding.verdict == "not applicable":
        return finding
    infinite, finite = comparison.infinite_samples, count(len(comparison.panel.targets))
    sides = " and ".join(
        f"{count(number)} at the {which} checkpoint"
        for number, which in zip(infinite, ("earlier", "later"), strict=True)
        if number
    )
    rest = finding.left_undecided(
        f"The loss is infinite for {sides}: what the {finite} with a finite loss at both show is the smaller "
        "part of the change."
    )
    return replace(rest, details=f"Over the {finite} with a finite loss on both sides: {rest.details}")


def left_out_of(finding: Finding) -> str:
    """Say what a verdict on a rise leaves out, which a gate can't vouch for; "" where it leaves out nothing.

    Findings about something else do not record what they leave out: "" for them.
    """
    evidence = finding.evidence
    if "infinite_epochs" not in evidence:
        return ""
    samples, epochs, infinite = (
        int(evidence[name].max()) for name in ("samples_left_out", "epochs_left_out", "infinite_epochs")
    )
    reasons = []
    if samples:
        of = int((evidence["samples"] + evidence["samples_left_out"]).max())
        reasons.append(f"{samples:,} of {count(of)} had no finite loss at some epoch")
    if epochs:
        reasons.append(f"{count(epochs, 'epoch')} had no finite output for most samples")
    if infinite:
        reasons.append(f"the loss was infinite at {count(infinite, 'epoch')}")
    return ", ".join(reasons)
