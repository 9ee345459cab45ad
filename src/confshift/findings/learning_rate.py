"""Did a drop of the learning rate move the curves? And which schedule do the recorded rates follow?"""

from __future__ import annotations

import reprlib
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.causes.learning_rate import FEWEST_CHECKPOINTS, filled, learning_rates, unread_rates
from confshift.analysis.causes.schedule import schedule_of
from confshift.analysis.history import History
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.wording import adding_up, epoch, fitting, points, signed

#: Student's t, one-sided, with 7 degrees of freedom: few epochs estimate the jitter, and only a fall counts.
_CRITICAL_T = 1.9
#: So many restarts are named one by one.
_MOST_NAMED = 6

#: What a rate does, by the shape of its schedule.
_SHAPES = {
    "constant": "is constant",
    "steps": "falls in steps",
    "linear": "falls linearly",
    "cosine": "follows a cosine",
    "exponential": "falls exponentially",
    "smooth": "falls smoothly",
    "cycles": "goes up and down in cycles",
    "rising": "rises all the time",
}

_LEARNING_RATE_DROP = Question(
    "learning_rate_drop",
    "Did the learning rate drop, and the curves with it?",
    section="parts",
    problem=None,
    undecided="Whether the learning rate dropped is undecided",
)


def learning_rate_drop(history: History) -> Finding:
    """Did a drop of the learning rate calm the curves?

    Without recorded rates the curves may be consistent with a drop, but never prove one: in runs at a
    constant rate their jitter can collapse too. Where the recorded rates can't be read, the finding says so
    and does not look at the curves instead.
    """
    main = history.split
    table = history.table[(history.table["split"] == main) & np.isfinite(history.table["loss"])]
    checkpoints = [history.main.checkpoints[at] for at in table.index]
    rates = learning_rates(checkpoints)
    rates_known = int(np.isfinite(rates).sum()) > len(rates) // 2
    unread = unread_rates(checkpoints)
    if len(unread) and not rates_known:
        return _LEARNING_RATE_DROP.not_applicable(
            _unread_in_words(unread),
            unread.map(reprlib.repr).to_frame("recorded").rename_axis("epoch"),
            'Pass the learning rate as a number: metadata={"lr": ...}.',
            answer="The recorded learning rate can't be read",
        )
    drops = history.rate_drops
    words = _drops_in_words(drops, rates_known) if len(drops) else _no_drop(rates_known, len(checkpoints))
    remarks = [
        _unread_in_words(unread) if len(unread) else "",
        _schedule_in_words(table["epoch"].to_numpy(np.float64), filled(rates)) if rates_known else "",
    ]
    sentence, others = fitting([words.sentence, remarks[0], words.meaning, remarks[1]])
    return _LEARNING_RATE_DROP.answer(
        words.verdict,
        sentence,
        drops,
        "" if rates_known else 'Pass metadata={"lr": ...} to inspect to have the drops by name.',
        answer=words.answer,
        details=f"{others} {words.details}".strip(),
    )


class _Words(NamedTuple):
    verdict: Verdict
    answer: str
    sentence: str
    meaning: str = ""
    details: str = ""


def _unread_in_words(unread: pd.Series) -> str:
    return (
        f"The learning rate recorded at {len(unread)} checkpoint{'s' * (len(unread) > 1)} can't be read as a "
        f"number: {reprlib.repr(unread.iloc[0])} at epoch {epoch(float(unread.index[0]))}."
    )


def _no_drop(rates_known: bool, checkpoints: int) -> _Words:
    if rates_known:
        sentence = "The learning rate that was recorded has no single drop to half or less."
        return _Words("no", "The learning rate has no single drop", sentence)
    if checkpoints >= FEWEST_CHECKPOINTS:
        sentence = "The jitter of loss, error rate and calibrated loss never drops suddenly."
        return _Words("no", "The jitter never drops suddenly", sentence)
    sentence = f"Without recorded learning rates it takes {FEWEST_CHECKPOINTS} checkpoints to see a drop."
    return _Words("not applicable", "Too few checkpoints to see a drop", sentence)


def _drops_in_words(drops: pd.DataFrame, rates_known: bool) -> _Words:
    largest = drops.loc[drops["refinement_loss_change"].abs().idxmax()]
    fell = bool(largest["refinement_loss_change"] < -_CRITICAL_T * largest["refinement_loss_jitter"])
    others = ", ".join(epoch(float(drop)) for drop in drops.index.drop(largest.name))
    at = epoch(float(largest.name))
    details = _changes_in_words(largest) + (f" There are drops at epoch {others} as well." if others else "")
    if not rates_known:
        return _Words(
            "cannot tell",
            f"The jitter drops suddenly at epoch {at}",
            f"At epoch {at} the jitter of the curves becomes {largest['jitter_ratio']:.2g} times smaller.",
            "Consistent with a smaller learning rate, but also with other reasons for calm, such as a "
            "training set that is fitted perfectly.",
            details,
        )
    meaning = (
        "That is consistent with a smaller step that averages out the noise of the training: it improves "
        "what the model knows and does not undo confidence gained before."
        if fell
        else f"The calibrated loss changes there by {signed(largest['refinement_loss_change'])} nats."
    )
    rates = f"from {largest['rate_before']:.2g} to {largest['rate_after']:.2g}"
    sentence = f"At epoch {at} the learning rate falls {rates}."
    return _Words("yes", f"The learning rate dropped at epoch {at}", sentence, meaning, details)


def _changes_in_words(drop: pd.Series) -> str:
    loss = float(drop["loss_change"])
    parts = [float(drop[f"{name}_loss_change"]) for name in ("scale", "balance", "refinement")]
    scale, balance, rest = adding_up(parts, loss)
    return (
        f"At epoch {epoch(float(drop.name))} the loss changes by {signed(loss)} nats, of which {scale} is "
        f"scale, {balance} class balance and {rest} the rest, the refinement loss; the error rate changes by "
        f"{points(drop['error_rate_change'])}."
    )


def _schedule_in_words(epochs: NDArray[np.float64], rates: NDArray[np.float64]) -> str:
    schedule = schedule_of(epochs, rates)
    first, last = rates[schedule.peak], rates[-1]
    course = f"The rate {_SHAPES[schedule.shape]}"
    if schedule.shape == "constant":
        course += f", {first:.2g}"
    elif schedule.shape == "cycles":
        course += f", between {rates.min():.2g} and {rates.max():.2g}"
    elif not len(schedule.restarts):
        course += f", from {first:.2g} to {last:.2g}"
    if schedule.peak:
        course += f", after a warmup until epoch {epoch(epochs[schedule.peak])}"
    return f"{course}{_restarts_in_words(epochs[schedule.restarts])}."


def _restarts_in_words(restarts: NDArray[np.float64]) -> str:
    if not len(restarts):
        return ""
    if len(restarts) > _MOST_NAMED:
        return f", with {len(restarts)} warm restarts, the last at epoch {epoch(restarts[-1])}"
    named = ", ".join(epoch(restart) for restart in restarts)
    return (
        f", with warm restarts at epochs {named}"
        if len(restarts) > 1
        else f", with a warm restart at epoch {named}"
    )
