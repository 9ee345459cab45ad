"""Did a drop of the learning rate move the curves? And which schedule do the recorded rates follow?"""

from __future__ import annotations

import math
import reprlib

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.causes.learning_rate import FEWEST_CHECKPOINTS, filled, learning_rates, unread_rates
from confshift.analysis.causes.schedule import schedule_of
from confshift.analysis.history import History
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.wording import epoch, points, signed

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
    "learning_rate_drop", "Did the learning rate drop, and the curves with it?", section="parts", problem=None
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
        )
    drops = history.rate_drops
    verdict, sentence = (
        _drops_in_words(drops, rates_known) if len(drops) else _no_drop(rates_known, len(checkpoints))
    )
    if rates_known:
        sentence += f" {_schedule_in_words(table['epoch'].to_numpy(np.float64), filled(rates))}"
    if len(unread):
        sentence += f" {_unread_in_words(unread)}"
    step = "" if rates_known else 'Pass metadata={"lr": ...} to inspect to have the drops by name.'
    return _LEARNING_RATE_DROP.answer(verdict, sentence, drops, step)


def _unread_in_words(unread: pd.Series) -> str:
    return (
        f"The learning rate recorded at {len(unread)} checkpoint{'s' * (len(unread) > 1)} can't be read as a "
        f"number: {reprlib.repr(unread.iloc[0])} at epoch {epoch(float(unread.index[0]))}."
    )


def _no_drop(rates_known: bool, checkpoints: int) -> tuple[Verdict, str]:
    if rates_known:
        return "no", "The learning rate that was recorded has no single drop to half or less."
    if checkpoints >= FEWEST_CHECKPOINTS:
        return "no", "The jitter of loss, error rate and refinement loss never collapses."
    sentence = f"Without recorded learning rates it takes {FEWEST_CHECKPOINTS} checkpoints to see one."
    return "not applicable", sentence


def _drops_in_words(drops: pd.DataFrame, rates_known: bool) -> tuple[Verdict, str]:
    largest = drops.loc[drops["refinement_loss_change"].abs().idxmax()]
    fell = bool(largest["refinement_loss_change"] < -_CRITICAL_T * largest["refinement_loss_jitter"])
    others = ", ".join(epoch(float(drop)) for drop in drops.index.drop(largest.name))
    sentence = _drop_in_words(largest) + (f" (also at epoch {others})." if others else ".")
    if not rates_known:
        sentence += (
            " Consistent with a smaller learning rate, but also with other reasons for calm, such as a "
            "training set that is fitted perfectly."
        )
    elif fell:
        sentence += (
            " Consistent with a smaller step that averages out the noise of the training: it improves "
            "what the model knows, and does not undo confidence gained before."
        )
    return "yes" if rates_known else "cannot tell", sentence


def _drop_in_words(drop: pd.Series) -> str:
    what = (
        f"the jitter of the curves becomes {drop['jitter_ratio']:.2g} times smaller"
        if math.isnan(drop["rate_before"])
        else f"the learning rate falls from {drop['rate_before']:.2g} to {drop['rate_after']:.2g}"
    )
    return (
        f"At epoch {epoch(float(drop.name))} {what}; there the refinement loss changes by "
        f"{signed(drop['refinement_loss_change'])} nats, the calibration loss by "
        f"{signed(drop['calibration_loss_change'])}, the error rate by {points(drop['error_rate_change'])}"
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
