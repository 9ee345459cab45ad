"""Which checkpoint is best, by what, and which one to keep?"""

from __future__ import annotations

import pandas as pd

from confshift.analysis.history import History
from confshift.analysis.judgement import Judgement
from confshift.findings.finding import Finding, Verdict
from confshift.findings.wording import count, epoch, nats, percent

__all__ = ["best_checkpoint", "last_is_as_good"]


def best_checkpoint(history: History, judgement: Judgement) -> Finding:
    """Do loss, refinement loss and accuracy choose the same checkpoint?"""
    best = history.best
    title = "Do loss, refinement loss and accuracy agree on the best checkpoint?"
    judged = judgement.rise.loc["loss", "epochs"]
    if judged < 2:
        sentence = "There is one checkpoint only." if judged else "No checkpoint can be judged."
        return Finding("best_checkpoint", title, "not applicable", sentence, best, "")
    loss, refinement, accuracy = (best.loc[name] for name in ("loss", "refinement_loss", "accuracy"))
    sets = {criterion: _not_told(judgement, criterion) for criterion in best.index}
    others = {name: _others(epochs - {best.loc[name, "epoch"]}) for name, epochs in sets.items()}
    sentence = (
        f"By loss epoch {epoch(loss['epoch'])} ({nats(loss['loss'])} nats, accuracy "
        f"{percent(loss['accuracy'])}{others['loss']}); by refinement loss, the loss after temperature "
        f"scaling, epoch {epoch(refinement['epoch'])} ({nats(refinement['refinement_loss'])} nats"
        f"{_at_temperature(refinement)}, accuracy {percent(refinement['accuracy'])}"
        f"{others['refinement_loss']}); by accuracy epoch {epoch(accuracy['epoch'])} "
        f"({percent(accuracy['accuracy'])}{others['accuracy']}).{_unscored(history)}"
    )
    agree = best["epoch"].nunique() == 1
    shared = sorted(set.intersection(*sets.values()))
    verdict: Verdict = "yes" if agree else "cannot tell" if shared else "no"
    if shared and not agree:
        sentence += f" {_listed(shared)} can't be told from the best by any of the three."
    step = _recommendation(loss, refinement)
    last = history.main.checkpoints[-1]
    if last.epoch != refinement["epoch"] and last_is_as_good(history, judgement):
        named = f"epoch {epoch(last.epoch)} with T = {last.temperature:.3g}"
        step += f" The last one, {named}, can't be told from the best."
    return Finding("best_checkpoint", title, verdict, sentence, best, step)


def last_is_as_good(history: History, judgement: Judgement) -> bool:
    """Tell whether the last checkpoint, once calibrated, can't be told from the best one."""
    last = history.main.checkpoints[-1]
    return last.fit_status == "ok" and last.epoch in _not_told(judgement, "refinement_loss")


def _recommendation(loss: pd.Series, refinement: pd.Series) -> str:
    """Name the checkpoint to keep and its temperature, beside the plain minimum, and the code to apply it."""
    plain = (
        f"epoch {epoch(loss['epoch'])}, the plain minimum of the loss: {nats(loss['loss'])} nats, accuracy "
        f"{percent(loss['accuracy'])}"
    )
    temperature = refinement["temperature"]
    if refinement["fit_status"] != "ok" or not refinement["refinement_loss"] < loss["loss"]:
        return f"Keep {plain}. A temperature gains nothing here."
    return (
        f"Keep epoch {epoch(refinement['epoch'])} with T = {temperature:.3g}: expected loss "
        f"{nats(refinement['refinement_loss'])} nats, accuracy {percent(refinement['accuracy'])}; beside it "
        f"{plain}. In code: probabilities = (model(inputs) / {temperature:.4g}).softmax(dim=-1)."
    )


def _others(epochs: set[float]) -> str:
    return f"; not told from it: {_listed(sorted(epochs)).lower()}" if epochs else "; none other as good"


def _listed(epochs: list[float]) -> str:
    if len(epochs) <= 3:
        return f"Epoch{'' if len(epochs) == 1 else 's'} {', '.join(epoch(one) for one in epochs)}"
    return f"{count(len(epochs), 'epoch')} from {epoch(epochs[0])} to {epoch(epochs[-1])}"


def _not_told(judgement: Judgement, criterion: str) -> set[float]:
    """Return the epochs that can't be told from the best by this criterion."""
    candidates = judgement.candidates
    used = candidates[candidates["in_set"].astype(bool)]
    criteria, epochs = used.index.get_level_values("criterion"), used.index.get_level_values("epoch")
    return set(epochs[criteria == criterion])


def _at_temperature(row: pd.Series) -> str:
    return f" at T = {row['temperature']:.3g}" if row["fit_status"] == "ok" else ""


def _unscored(history: History) -> str:
    """Name the checkpoints that can't be chosen: no sample has a finite loss there."""
    lost = history.main.epochs[~history.main.finite.any(axis=1)]
    if not len(lost):
        return ""
    named = ", ".join(epoch(one) for one in lost[:5]) + (", ..." if len(lost) > 5 else "")
    return f" No sample has a finite loss at epoch {named}: left out here and in the comparison."
