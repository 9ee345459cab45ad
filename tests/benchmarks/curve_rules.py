"""Rules that others judge a training by, as functions of its curves; an epoch is a position in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Said(NamedTuple):
    """What a rule says of a run, when, and which checkpoint it keeps."""

    text: str
    at: int | None  # the first position at which it says so; None where it is silent
    keeps: int
    worse: bool | None = None  # whether it says that the model itself gets worse; None: it doesn't say


#: Whether more is better, of what a training usually logs.
METRICS = {"loss": False, "accuracy": True}


def patience(losses: Sequence[float], epochs: int = 10) -> Said:
    """Early stopping: stop once so many epochs in a row have not been better, and keep the best so far.

    The reason is left open: it does not say whether the model gets worse.
    """
    best = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best] or np.isnan(losses[best]):
            best = epoch
        elif epoch - best >= epochs:
            return Said("stop", epoch, best)
    return Said("nothing", None, best)


def fixed_gap(train: Mapping[str, Sequence[float]], val: Mapping[str, Sequence[float]]) -> Said:
    """Overfitting, where training is better than validation by more than a tenth of the reference.

    The rule of skore's check SKD001: a metric votes where the gap is at least max(.03, .1 |reference|), the
    reference being the training score where more is better, else the validation score; a strict majority
    decides. It judges a finished model and names no checkpoint, so the last one is kept.
    https://docs.skore.probabl.ai/dev/user_guide/automatic_diagnostic.html
    """
    votes = []
    for name in train.keys() & val.keys():
        mine, theirs = np.asarray(train[name], float), np.asarray(val[name], float)
        gap, reference = (mine - theirs, mine) if METRICS[name] else (theirs - mine, theirs)
        votes.append(gap >= np.maximum(0.03, 0.1 * np.abs(reference)))
    alarms = np.sum(votes, axis=0) > len(votes) / 2
    last = len(alarms) - 1
    if not alarms[last]:
        return Said("nothing", None, last, worse=False)
    return Said("overfitting", int(np.argmax(alarms)), last, worse=True)


def two_curves(train: Sequence[float], val: Sequence[float], lasting: int = 3) -> Said:
    """Overfitting, where since the lowest validation loss that has risen and the training loss fallen.

    To be more than jitter, this has to hold at so many epochs in a row. It keeps the lowest validation loss.
    """
    best, since = 0, 0
    first = None
    for epoch in range(1, len(val)):
        if val[epoch] < val[best] or np.isnan(val[best]):
            best = epoch
        apart = val[epoch] > val[best] and train[epoch] < train[best]
        since = since + 1 if apart else 0
        if since == lasting and first is None:
            first = epoch
    if first is None:
        return Said("nothing", None, best, worse=False)
    return Said("overfitting", first, best, worse=True)
