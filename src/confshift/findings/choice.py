"""Which checkpoint is best, and by what?"""

from __future__ import annotations

from confshift.analysis.history import History
from confshift.findings.finding import Finding, Verdict
from confshift.findings.wording import epoch, nats, percent

__all__ = ["best_checkpoint"]


def best_checkpoint(history: History) -> Finding:
    """Do loss, refinement loss and accuracy choose the same checkpoint?"""
    best = history.best
    title = "Do loss, refinement loss and accuracy agree on the best checkpoint?"
    if len(history.main.checkpoints) < 2:
        return Finding("best_checkpoint", title, "not applicable", "There is one checkpoint only.", best, "")
    loss, refinement, accuracy = (best.loc[name] for name in ("loss", "refinement_loss", "accuracy"))
    sentence = (
        f"By loss epoch {epoch(loss['epoch'])} ({nats(loss['loss'])} nats, accuracy "
        f"{percent(loss['accuracy'])}); by refinement loss, the loss after temperature scaling, epoch "
        f"{epoch(refinement['epoch'])} ({nats(refinement['refinement_loss'])} nats at T = "
        f"{refinement['temperature']:.2f}, accuracy {percent(refinement['accuracy'])}); by accuracy epoch "
        f"{epoch(accuracy['epoch'])} ({percent(accuracy['accuracy'])})."
    )
    agree = best["epoch"].nunique() == 1
    verdict: Verdict = "yes" if agree else "no"
    step = (
        ""
        if agree
        else f"If you can calibrate, prefer epoch {epoch(refinement['epoch'])} with T = "
        f"{refinement['temperature']:.3g}: logits / T. These are the smallest values, not yet told from "
        "their neighbours."
    )
    return Finding("best_checkpoint", title, verdict, sentence, best, step)
