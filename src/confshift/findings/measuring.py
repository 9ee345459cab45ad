"""Are the measurements right? Eval mode, training loss against validation loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from confshift.analysis.history import History
from confshift.checkpoint import Checkpoint
from confshift.findings.checks import check_of
from confshift.findings.logged import logged_loss
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.wording import count, epoch, nats, percent, points, signed

_CRITICAL_Z = 1.96
_CHECKS = {
    "modes": "every module is in eval mode",
    "repeatable": "the same batch twice gives the same logits",
    "alone": "a sample alone gives the logits it has within its batch",
    "samples": "a sample fetched twice is the same",
    "buffers": "every process has the same buffers",
    "own_loss": "the model's own loss is the mean over the rows",
}
#: Checks that only some models and processes give a chance to make.
_SOMETIMES = ("buffers", "own_loss")
_FAULTS = {
    "modes": "A module is in training mode",
    "repeatable": "The same batch gives different logits each time",
    "alone": "A sample's logits depend on its batch",
    "samples": "The loader changes its samples",
    "buffers": "The processes evaluate different models",
    "own_loss": "The model's own loss is not its rows' mean",
}
_REPAIRS = {
    "modes": "Look for .train() inside a forward or eval method: a module sets itself back to training.",
    "repeatable": "Look for F.dropout without training=self.training: something is random in eval mode.",
    "alone": "Look for BatchNorm in training mode: samples of a batch influence each other.",
    "samples": "Give inspect a loader that draws nothing at random: each epoch is measured on other inputs.",
    "buffers": "Before wrapping it in DDP: model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model).",
    "own_loss": "Look for a shift by one token (task=), label smoothing, class weights or a term added in "
    "the model's loss: confshift explains the mean cross-entropy of the rows.",
}
_EVALUATES_PLAINLY = Question(
    "evaluates_plainly",
    "Does the model evaluate each sample by itself, the same way each time?",
    section="measuring",
    problem="no",
)
_TRAIN_GAP = Question(
    "train_gap",
    "Is the validation loss above the train loss, both in eval mode?",
    section="measuring",
    problem=None,
)


def about_measuring(history: History) -> list[Finding]:
    """Answer whether the measurements of the run can be trusted."""
    return [evaluates_plainly(history), train_gap(history), logged_loss(history)]


def evaluates_plainly(history: History) -> Finding:
    """Was the whole model in eval mode, and is its evaluation repeatable?"""
    tried = _tried(history)
    rows = {name: check_of(tried, name) for name in _CHECKS} if tried else {}
    table = _checks(rows)
    outcomes = table[table["status"] != "not made"]
    if tried is None or outcomes.empty:
        sentence = "The model was not tried on a batch: inspect(..., check=True) does it."
        step = "Pass check=True to inspect once." if tried is None else ""
        answer = "How the model evaluates was not checked"
        return _EVALUATES_PLAINLY.not_applicable(sentence, table, step, answer=answer)
    failures = [str(name) for name in outcomes.index[outcomes["status"] == "failed"]]
    not_made = sum(row.get("status") == "not made" for row in rows.values())
    missing = f" {count(not_made, 'check')} could not be made." if not_made else ""
    split = "" if tried.split == history.split else f" in {tried.split}"
    details = f"Tried at epoch {epoch(tried.epoch)}{split}: {_results(outcomes)}."
    if not failures:
        passed = count(len(outcomes), "check")
        return _EVALUATES_PLAINLY.answer(
            "yes",
            f"{passed} passed; nothing suggests that a sample's logits depend on chance or on its "
            f"batch.{missing}",
            table,
            answer="Evaluation is repeatable and independent of the batch"
            if len(outcomes) == len(table)
            else f"The evaluation passed {passed}",
            details=details,
        )
    return _EVALUATES_PLAINLY.answer(
        "no",
        f"{_faults(outcomes.loc[failures, 'detail'])}{split}. "
        f"Losses measured in this way may mislead.{missing}",
        table,
        _REPAIRS[failures[0]],
        answer=_FAULTS[failures[0]]
        if len(failures) == 1
        else f"{len(failures)} checks of the evaluation failed",
        details=" ".join([details, *(_REPAIRS[name] for name in failures[1:])]),
    )


def _tried(history: History) -> Checkpoint | None:
    """Return the first checkpoint with a failed check, of any split, else the first with checks."""
    checkpoints = [one for _, panel in history.panels for one in panel.checkpoints]
    tried = [one for one in checkpoints if any(check_of(one, name) for name in _CHECKS)]
    failed = (one for one in tried if any(check_of(one, name).get("status") == "failed" for name in _CHECKS))
    return next(failed, tried[0] if tried else None)


def _checks(rows: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return every check with what came of it."""
    table = pd.DataFrame(
        {
            "check": list(_CHECKS.values()),
            "status": [rows.get(name, {}).get("status", "not made") for name in _CHECKS],
            "detail": [_detail(rows.get(name, {})) for name in _CHECKS],
        },
        index=pd.Index(_CHECKS, name="name"),
    )
    absent = [name for name in _SOMETIMES if rows.get(name, {}).get("status") in (None, "measured")]
    return table.drop(absent)


def _results(outcomes: pd.DataFrame) -> str:
    """List what each check found."""
    return "; ".join(
        f"{row['check']}: {row['status']}" + (f" ({row['detail']})" if row["detail"] else "")
        for _, row in outcomes.iterrows()
    )


def _faults(details: pd.Series) -> str:
    """Say in one sentence what the failed checks found."""
    faults = [
        f"{_FAULTS[str(name)]} ({detail})" if detail else _FAULTS[str(name)]
        for name, detail in details.items()
    ]
    return "; ".join([faults[0], *(fault[0].lower() + fault[1:] for fault in faults[1:])])


def _detail(row: dict[str, Any]) -> str:
    if not row:
        return ""
    if row.get("modules"):
        names, number = row["modules"], int(row.get("count", len(row["modules"])))
        return f"{count(number, 'module')}: {', '.join(names[:3])}" + (", ..." if number > 3 else "")
    if row.get("difference"):
        return f"they differ by {row['difference']:.1g} of the largest logit"
    if row["status"] == "failed" and "own" in row and "rows" in row:
        return f"{row['own']:.4f} and {row['rows']:.4f} nats on the first batch"
    if row["status"] == "failed" and row.get("samples"):
        by = " by collate_fn" if row.get("where") == "collate_fn" else ""
        return f"{row.get('count', 0):g} of {row['samples']:g} were changed{by}"
    return str(row.get("reason", ""))


def train_gap(history: History) -> Finding:
    """How far apart are train and validation loss where both are measured in the same way?"""
    names = [name for name, _ in history.panels]
    table = _gaps(history, names[0])
    if table.empty:
        missing = (
            "the train split was not inspected" if "train" not in names[1:] else "no epoch has both splits"
        )
        details = (
            "The running loss of a training loop is no substitute: it averages weights of different ages, "
            "with dropout and batch statistics on."
        )
        step = 'Inspect a fixed part of the training set as well: inspect(model, loader, split="train", ...).'
        return _TRAIN_GAP.not_applicable(
            f"The gap is not known: {missing}.",
            table,
            step,
            answer="No train loss to compare with",
            details=details,
        )
    last, first = table.iloc[-1], table.iloc[0]
    gap, se = float(last["loss_gap"]), float(last["loss_gap_se"])
    margin = 0.0 if math.isinf(gap) else _CRITICAL_Z * se  # an infinite gap has no error
    verdict: Verdict = "yes" if gap > margin else "no" if gap < -margin else "cannot tell"
    answer, sentence = _gap_in_words(last, epoch(float(table.index[-1])), verdict)
    by = "" if history.main.codes is None or history.counts_groups("train") else ", without groups in train"
    details = (
        f"Loss gap {signed(gap)}{f', standard error {nats(se)}{by}' if math.isfinite(se) else ''}; accuracy "
        f"{percent(last['accuracy_train'])} and {percent(last['accuracy_val'])} "
        f"({points(last['accuracy_val'] - last['accuracy_train'])}). Both in eval mode on the same weights, "
        "which the running loss of a training loop is not."
    )
    step = ""
    if float(table.index[0]) <= 0 and abs(first["loss_gap"]) > 3 * first["loss_gap_se"]:
        sentence += (
            f" Before training they already differ by {signed(first['loss_gap'])}: an untrained model can't "
            "have overfitted, so the two sets differ."
        )
        step = "Compare the two sets: their preprocessing or their kind of samples differs."
    return _TRAIN_GAP.answer(verdict, sentence, table, step, answer=answer, details=details)


def _gap_in_words(row: pd.Series, at: str, verdict: Verdict) -> tuple[str, str]:
    """Return the heading and the sentence about the two losses at an epoch."""
    gap = float(row["loss_gap"])
    losses = (
        f"At epoch {at} the validation loss is {nats(row['loss_val'])} nats, against "
        f"{nats(row['loss_train'])} on the train split"
    )
    if verdict == "cannot tell":
        return (
            "Validation and train loss differ by no measurable amount",
            f"{losses}: a difference within its error.",
        )
    side = "above" if gap > 0 else "below"
    amount = f"{nats(abs(gap))} nats " if math.isfinite(gap) else "infinitely far "
    return (
        f"Validation loss is {amount}{side} train loss",
        f"{losses}, both measured in eval mode.",
    )


def _gaps(history: History, main: str) -> pd.DataFrame:
    """Return both splits side by side, at the epochs that both have."""
    columns = ["loss", "loss_se", "accuracy"]
    table = history.table.set_index("epoch")
    val, train = (table.loc[table["split"] == name, columns] for name in (main, "train"))
    if main == "train":
        train = train.iloc[:0]
    gaps = train.merge(val, on="epoch", suffixes=("_train", "_val")).dropna(subset=["loss_train", "loss_val"])
    gaps["loss_gap"] = gaps["loss_val"] - gaps["loss_train"]
    gaps["loss_gap_se"] = np.hypot(gaps["loss_se_train"], gaps["loss_se_val"])
    return gaps
