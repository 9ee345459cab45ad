"""Which checkpoint is best, by what, and which one to keep?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from confshift.analysis.history import History
from confshift.findings.left_out import epochs_named
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.run_kind import kind_of
from confshift.findings.wording import count, epoch, nats, percent

_BEST_CHECKPOINT = Question(
    "best_checkpoint",
    "Do loss, refinement loss and accuracy agree on the best checkpoint?",
    section="rise",
    problem="no",
)


def best_checkpoint(history: History) -> Finding:
    """Do loss, refinement loss and accuracy choose the same checkpoint?"""
    best = history.best
    judged = history.rise.loc["loss", "epochs"]
    if judged < 2:
        sentence = "There is one checkpoint only." if judged else "No checkpoint can be judged."
        return _BEST_CHECKPOINT.not_applicable(sentence, best)
    loss, refinement, accuracy = (best.loc[name] for name in ("loss", "refinement_loss", "accuracy"))
    sets = {criterion: _tied_with_best(history, criterion) for criterion in best.index}
    others = {name: _others(epochs - {best.loc[name, "epoch"]}) for name, epochs in sets.items()}
    sentence = (
        f"By loss epoch {epoch(loss['epoch'])} ({_loss(loss, 'loss')}, accuracy "
        f"{percent(loss['accuracy'])}{others['loss']}); by refinement loss, the loss after temperature "
        f"scaling, epoch {epoch(refinement['epoch'])} ({_loss(refinement, 'refinement_loss')}"
        f"{_at_temperature(refinement)}, accuracy {percent(refinement['accuracy'])}"
        f"{others['refinement_loss']}); by accuracy epoch {epoch(accuracy['epoch'])} "
        f"({percent(accuracy['accuracy'])}{others['accuracy']}).{_unscored(history)}"
    )
    agree = best["epoch"].nunique() == 1
    shared = sorted(set.intersection(*sets.values()))
    verdict: Verdict = "yes" if agree else "cannot tell" if shared else "no"
    if shared and not agree:
        sentence += f" {_listed(shared)} can't be told from the best by any of the three."
    return _BEST_CHECKPOINT.answer(verdict, sentence, best, _recommendation(history))


class Kept(NamedTuple):
    """The checkpoint to keep."""

    epoch: float
    calibrated: bool  # whether a temperature gains anything


def kept(history: History) -> Kept:
    """Choose the one checkpoint that every sentence recommends.

    By refinement loss, where a temperature gains something; but where the loss rises by confidence, and the
    last checkpoint can't be told from the best by refinement loss, the last: the training was not in vain.
    Where even the best loss is infinite, by accuracy.
    """
    loss, refinement = history.best.loc["loss"], history.best.loc["refinement_loss"]
    if math.isinf(loss["loss"]):
        return Kept(float(history.best.loc["accuracy", "epoch"]), calibrated=False)
    if refinement["fit_status"] != "ok" or not refinement["refinement_loss"] < loss["loss"]:
        return Kept(float(loss["epoch"]), calibrated=False)
    last = _row(history, history.main.checkpoints[-1].epoch)
    as_good = last["fit_status"] == "ok" and last["epoch"] in _tied_with_best(history, "refinement_loss")
    if "confidence" in kind_of(history) and as_good and last["refinement_loss"] < loss["loss"]:
        return Kept(float(last["epoch"]), calibrated=True)
    return Kept(float(refinement["epoch"]), calibrated=True)


def _row(history: History, epoch: float) -> pd.Series:
    table = history.table
    return table[(table["split"] == history.split) & (table["epoch"] == epoch)].iloc[0]


def _recommendation(history: History) -> str:
    """Name the checkpoint to keep, what else there is, and the code that applies the temperature."""
    loss, refinement = history.best.loc["loss"], history.best.loc["refinement_loss"]
    chosen = kept(history)
    if math.isinf(loss["loss"]):
        return (
            f"Keep epoch {epoch(chosen.epoch)}, the best by accuracy: where every loss is infinite, no loss "
            "tells one checkpoint from another."
        )
    plain = (
        f"epoch {epoch(loss['epoch'])}, the plain minimum of the loss: {nats(loss['loss'])} nats, accuracy "
        f"{percent(loss['accuracy'])}"
    )
    if not chosen.calibrated:
        return f"Keep {plain}. A temperature gains nothing here."
    row = _row(history, chosen.epoch)
    text = (
        f"Keep epoch {epoch(row['epoch'])} with T = {row['temperature']:.3g}: expected loss "
        f"{nats(row['refinement_loss'])} nats, accuracy {percent(row['accuracy'])}."
    )
    if chosen.epoch != refinement["epoch"]:
        text += (
            f" It can't be told from epoch {epoch(refinement['epoch'])} with T = "
            f"{refinement['temperature']:.3g} ({nats(refinement['refinement_loss'])} nats)."
        )
    return (
        f"{text} Without a temperature: {plain}. In code: probabilities = (model(inputs) / "
        f"{row['temperature']:.4g}).softmax(dim=-1)."
    )


def _loss(row: pd.Series, name: str) -> str:
    """Write a mean loss; an infinite one with what is left of the loss without the infinite samples."""
    if math.isinf(row[name]):
        known = math.isfinite(row["finite_loss"])
        return "infinite" + (
            f"; the loss is {nats(row['finite_loss'])} nats where it is finite" if known else ""
        )
    return f"{nats(row[name])} nats"


def _others(epochs: set[float]) -> str:
    return f"; not told from it: {_listed(sorted(epochs)).lower()}" if epochs else "; none other as good"


def _listed(epochs: list[float]) -> str:
    if len(epochs) <= 3:
        return f"Epoch{'' if len(epochs) == 1 else 's'} {', '.join(epoch(one) for one in epochs)}"
    return f"{count(len(epochs), 'epoch')} from {epoch(epochs[0])} to {epoch(epochs[-1])}"


def _tied_with_best(history: History, criterion: str) -> set[float]:
    """Return the epochs that can't be told from the best by this criterion."""
    candidates = history.candidates
    used = candidates[candidates["in_set"].astype(bool)]
    criteria, epochs = used.index.get_level_values("criterion"), used.index.get_level_values("epoch")
    return set(epochs[criteria == criterion])


def _at_temperature(row: pd.Series) -> str:
    return f" at T = {row['temperature']:.3g}" if row["fit_status"] == "ok" else ""


def _unscored(history: History) -> str:
    """Name the checkpoints that can't be chosen: no sample has a finite loss there."""
    lost = ~np.asarray(history.main.finite.any(axis=1))
    if not lost.any():
        return ""
    named = epochs_named(history.main, lost)
    return f" No sample has a finite loss at {named}: left out here and in the comparison."
