"""Are validation labels wrong, and which? Findings about the targets."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from confshift.analysis.causes.label_noise import BEYOND_ERROR, WORTHWHILE, judge_labels
from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.told import is_told
from confshift.findings.wording import count, epoch, nats, percent, signed

_DOUBTS = {
    "": "",
    "alone": "only a second checkpoint shows whether the share stays the same",
    "one of two": "at one of the two checkpoints only, so it may be another misfit",
    "small": f"a gain of less than {percent(WORTHWHILE)} may be any other misfit",
    "disagree": "the two checkpoints do not agree on the share, so it may be another misfit",
}
_SHOWN = 100
_FEWEST_CHECKPOINTS = 3

_LABEL_NOISE = Question(
    "label_noise", "Do some validation labels look wrong?", section="concentration", problem="yes"
)
_STUCK_SAMPLES = Question(
    "stuck_samples",
    "Do samples keep the same wrong label with great confidence?",
    section="samples",
    problem="yes",
)


def about_labels(history: History, comparison: Comparison) -> list[Finding]:
    """Answer whether labels of the inspected split look wrong."""
    return [label_noise(history, comparison), stuck_samples(history)]


def label_noise(history: History, comparison: Comparison) -> Finding:
    """Is there a share of labels that the logits can't explain?

    At both checkpoints that the run chooses, because the errors of an overfitted model alone may look like
    noise; whichever pair is compared, so that the answer is the one that the advised temperature follows.
    """
    if unread := _LABEL_NOISE.without_logits(*history.pair):
        return unread
    table = history.label_noise
    impossible = table["floor_se"].isna()
    if impossible.any():
        sentence = (
            f"Wrong labels can't be fitted at {_epochs(table[impossible])}: too few samples, all of them "
            "right, no better than a guess, or decided by a single sample."
        )
        return _LABEL_NOISE.not_applicable(sentence, table, answer="No fit of wrong labels is possible")
    verdict, doubt = judge_labels(table)
    answer, sentence = _fits_in_words(table, verdict, _DOUBTS[doubt])
    shares = " and ".join(
        f"{percent(share)} at epoch {epoch(float(at))}" for at, share in table["wrong_labels"].items()
    )
    return _LABEL_NOISE.answer(
        verdict,
        sentence,
        table,
        "Check the labels of the most suspect samples first." if verdict == "yes" else "",
        answer=answer,
        details=f"Share of wrong labels, if wrong at random and the model is right otherwise: {shares}."
        + _gain_in_words(table)
        + (_part_of_rise(history, comparison, _best(table)["wrong_labels"]) if verdict == "yes" else ""),
    )


def _epochs(table: pd.DataFrame) -> str:
    """Name the checkpoints of a table of fits."""
    names = [epoch(float(at)) for at in table.index.unique()]
    return f"epoch{'s' if len(names) > 1 else ''} {' and '.join(names)}"


def _fits_in_words(table: pd.DataFrame, verdict: Verdict, reason: str) -> tuple[str, str]:
    """Return the heading and the sentence about the fits at both checkpoints."""
    best = _best(table)
    answer = "Wrong labels are possible but not shown"
    if verdict == "yes":
        answer = f"About {percent(best['wrong_labels'])} of the labels look wrong"
        sentence = (
            f"The logits at {_epochs(table)} fit better if some labels are wrong at random. That is "
            "consistent with wrong labels in the validation set, or with samples that can't be labelled from "
            "the input."
        )
    elif best["gain"] > BEYOND_ERROR * best["gain_se"]:
        sentence = f"Assuming that some labels are wrong at random improves the fit, but {reason}."
    elif verdict == "no":
        answer = "No sign of wrong labels"
        sentence = (
            f"Assuming that some labels are wrong at random does not improve the fit at {_epochs(table)} "
            "beyond its error."
        )
    else:
        sentence = (
            "The fit finds a share of wrong labels above zero, but allowing for them does not lower the loss "
            f"at {_epochs(table)} beyond its error."
        )
    return answer, sentence


def _best(table: pd.DataFrame) -> pd.Series:
    """Return the fit that gains most."""
    return table.iloc[int(table["gain"].to_numpy().argmax())]


def _gain_in_words(table: pd.DataFrame) -> str:
    """Say by how much allowing for wrong labels lowers the loss once calibrated; "" where by nothing."""
    best = _best(table)
    if not best["gain"] > BEYOND_ERROR * best["gain_se"]:
        return ""
    return (
        f" Allowing for that lowers the loss once calibrated by {nats(best['gain'])} nats, "
        f"{percent(best['gain'] / best['loss'])} of it (epoch {epoch(float(best.name))}, on samples left "
        "out)."
    )


def _part_of_rise(history: History, comparison: Comparison, share: float) -> str:
    """Say how much of a rise comes from the most suspect samples, as many as labels look wrong."""
    number = max(1, round(share * len(comparison.panel.targets)))
    if not (comparison.change.loc["loss", "change_low"] > 0 and is_told(history, comparison, "loss")):
        return ""
    ids, added = comparison.panel.sample_ids, comparison.added
    suspects = history.main.sample_ids[history.suspects.first(number)]
    part, rise = float(added[np.isin(ids, suspects)].sum()) / len(ids), signed(float(added.mean()))
    return f" The {count(number, 'most suspect sample')} add {signed(part)} of the rise of {rise} nats."


def stuck_samples(history: History) -> Finding:
    """Which samples keep the same wrong label for many checkpoints?"""
    suspects, checkpoints = history.suspects, len(history.main.checkpoints)
    table = suspects.table(_SHOWN)
    if checkpoints < _FEWEST_CHECKPOINTS:
        sentence = f"It takes {_FEWEST_CHECKPOINTS} checkpoints to say; there are {checkpoints}."
        answer = "Too few checkpoints to find stuck samples"
        return _STUCK_SAMPLES.not_applicable(sentence, table, answer=answer)
    long = max(_FEWEST_CHECKPOINTS, math.ceil(checkpoints / 4))
    is_stuck = suspects.sure_checkpoints >= long
    stuck, never = int(is_stuck.sum()), int(np.sum(is_stuck & (suspects.correctness == 0)))
    details = (
        "Counted are samples with the same wrong answer at a confidence above 99 % in each of the last "
        f"{long} of {checkpoints} checkpoints. The evidence lists the most suspect samples."
    )
    if not stuck:
        answer = "No sample is stuck at a confident wrong answer"
        sentence = f"No sample had the same confident wrong answer in each of the last {long} checkpoints."
        return _STUCK_SAMPLES.answer("no", sentence, table, answer=answer, details=details)
    are, have = ("is", "has") if stuck == 1 else ("are", "have")
    return _STUCK_SAMPLES.answer(
        "yes",
        f"{count(stuck)} of {len(is_stuck):,} {have} had the same confident wrong answer in the last {long} "
        f"checkpoints{_never_right(stuck, never)} Such a sample is mislabelled or hard; the logits can't say "
        "which.",
        table,
        "Check the labels of the stuck samples, starting with the lowest target_probability.",
        answer=f"{count(stuck)} {are} stuck at a confident wrong answer",
        details=f"{details} Their order is the better guide: the number does not estimate the share of wrong "
        "labels.",
    )


def _never_right(stuck: int, never: int) -> str:
    """Complete the sentence about the stuck samples: how many of them were never right."""
    if stuck == 1:
        return ", and was never right." if never else ", but was right before."
    if never in (0, stuck):
        return "; all were right before." if never == 0 else "; they were never right."
    return f"; {never:,} of them {'was' if never == 1 else 'were'} never right."
