"""Which checkpoint is best, and by what?"""

from __future__ import annotations

import pandas as pd

from confshift.analysis.history import History
from confshift.analysis.judgement import Judgement
from confshift.findings.finding import Finding, Verdict
from confshift.findings.wording import count, epoch, nats, percent

__all__ = ["best_checkpoint"]


def best_checkpoint(history: History, judgement: Judgement) -> Finding:
    """Do loss, refinement loss and accuracy choose the same checkpoint?"""
    best = history.best
    title = "Do loss, refinement loss and accuracy agree on the best checkpoint?"
    if len(history.main.checkpoints) < 2:
        return Finding("best_checkpoint", title, "not applicable", "There is one checkpoint only.", best, "")
    loss, refinement, accuracy = (best.loc[name] for name in ("loss", "refinement_loss", "accuracy"))
    sentence = (
        f"By loss epoch {epoch(loss['epoch'])} ({nats(loss['loss'])} nats, accuracy "
        f"{percent(loss['accuracy'])}); by refinement loss, the loss after temperature scaling, epoch "
        f"{epoch(refinement['epoch'])} ({nats(refinement['refinement_loss'])} nats"
        f"{_at_temperature(refinement)}, accuracy {percent(refinement['accuracy'])}); by accuracy epoch "
        f"{epoch(accuracy['epoch'])} ({percent(accuracy['accuracy'])}).{_unscored(history)}"
    )
    agree = best["epoch"].nunique() == 1
    shared = sorted(set.intersection(*(_not_told(judgement, criterion) for criterion in best.index)))
    verdict: Verdict = "yes" if agree else "cannot tell" if shared else "no"
    if shared and not agree:
        sentence += (
            f" {count(len(shared), 'epoch')}, first {epoch(shared[0])}, can't be told from the best by any "
            "of the three."
        )
    step = ""
    if not agree and refinement["fit_status"] == "ok":
        step = (
            f"If you can calibrate, prefer epoch {epoch(refinement['epoch'])} with T = "
            f"{refinement['temperature']:.3g}: logits / T."
        )
    return Finding("best_checkpoint", title, verdict, sentence, best, step)


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
