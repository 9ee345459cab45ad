"""Is the loss that the user's own loop logs the mean over the samples, and if not, what is it?"""

from __future__ import annotations

import math
import reprlib

import pandas as pd

from confshift.analysis.causes.logged_loss import (
    logged_accuracies,
    logged_loss_of,
    logged_losses,
    possible_causes,
    unread_names,
)
from confshift.analysis.history import History
from confshift.analysis.objective import given_weights
from confshift.errors import ConfshiftError
from confshift.findings.question import Finding, Question
from confshift.findings.wording import count, epoch, heading
from confshift.input_checks import as_number

_STEPS = {
    "label smoothing": "Evaluate with a plain cross-entropy; smoothing belongs to the training loss.",
    "mean of batch means": "Add up losses over the samples (reduction='sum') and divide by their number.",
    "class weights": "Evaluate without the class weights, or expect another number.",
    "class weights, divided by the samples": "Divide by the sum of the weights, or evaluate without them.",
    "a plain cross-entropy": "Pass class_weight=None and label_smoothing=0 if that is the loss you mean.",
    "a sum in place of a mean": "Divide by the number of samples.",
    "another logarithm": "Compare in nats: cross-entropies here use the natural logarithm.",
    "the mean of -p, the true class's probability": "Use log_softmax: nll_loss takes log-probabilities.",
    "focal loss": "Evaluate with a plain cross-entropy; a focal loss weighs the samples.",
    "a sum over ranks": "Divide by the number of ranks after all_reduce.",
    "a division by ranks or steps too many": (
        "Divide by the number of ranks once, and not by the steps of gradient accumulation."
    ),
    "another measure": "Log the mean cross-entropy: what was logged as a loss is another measure.",
    "a softmax applied twice": (
        "Remove the model's softmax, because cross_entropy takes logits, or use nll_loss on its log."
    ),
    "nll_loss on logits": "Use cross_entropy: nll_loss takes log-probabilities.",
    "a binary cross-entropy against one-hot labels": "Evaluate with cross_entropy, or expect another number.",
    "the sum of a batch, averaged over batches": "Divide the sum of the losses by the number of samples.",
    "batch means added up": "Divide by the number of samples, each batch weighted by its size.",
    "batch means divided by the number of samples": "Weight each batch's mean by its size before dividing.",
    "batch means divided by a wrong number of batches": "Divide by the number of samples, not of batches.",
    "a moving average over batches": (
        "Add up losses over the samples: a moving average is mostly that of the last batches."
    ),
    "mean of batch means of a smoothed loss": (
        "Evaluate with a plain cross-entropy, and add up losses over the samples (reduction='sum')."
    ),
    "mean of weighted batch means": (
        "Evaluate without the class weights, or divide once by the sum of all samples' weights."
    ),
    "a meter never reset between epochs": "Set the running sum and count back to 0 before each validation.",
    "the last batch only": "Add up the batches' losses: what was logged is that of the last one.",
    "drop_last": "Evaluate with drop_last=False: the last samples are left out.",
    "sums divided by full batches": "Divide by the number of samples: the last batch is not full.",
    "the checkpoint before": "Log the loss of the epoch that is inspected: what was logged is one behind.",
    "ignored samples counted": "Divide by the number of samples that have a label.",
    "padded samples counted": "Count each sample once: a distributed sampler repeats the first ones.",
}

#: What is known beyond the step.
_REASONS = {
    "a softmax applied twice": " With a second softmax the loss can't fall below ln(1 + (K - 1)/e).",
    "mean of weighted batch means": " Each batch divides by the sum of its own weights.",
}
_NOTHING_FITS = "Check that your loop calls model.eval() before it validates."
_LOOK_ON = (
    " Other reasons are a mean over batches in another order, class weights (metadata={'class_weights': ...} "
    "has them tried), padding, or a lower precision. The report uses the mean over the samples, in eval mode."
)
_QUESTION = Question(
    "logged_loss", "Is the loss you logged the mean over the samples?", section="measuring", problem="no"
)


def logged_loss(history: History) -> Finding:
    """Is the loss that the user's loop logs the mean over the samples?"""
    table, (accuracy_short, accuracy) = logged_losses(history.main), _accuracy(history)
    if table.empty:
        sentence = _unread_loss(history) or "No loss of your own was given to compare with."
        step = 'Pass logged={"loss": ...} (or "val_loss") to inspect to have it compared.'
        answer = "No logged loss to compare with"
        sentence += accuracy_short
        return _QUESTION.not_applicable(sentence, table, step, answer=answer, details=accuracy.strip())
    differing = table[~table["equal"]]
    if differing.empty:
        tolerance = f"The precision is {float(table['tolerance'].max()):.1g} or better."
        return _QUESTION.answer(
            "yes",
            f"At {count(len(table), 'epoch')} they agree to the precision it was logged "
            f"with.{accuracy_short}",
            table,
            answer="Your logged loss is the mean over samples",
            details=_weighted(history) + tolerance + accuracy,
        )
    worst = _most_different(differing)
    at = f"{len(differing)} of {count(len(table), 'epoch')}"
    sentence = f"It differs from the mean over the samples at {at}, by up to {_relative(worst)}. "
    answer, details = f"Your logged loss is off by {_relative(worst)}", _difference(worst)
    try:
        causes = possible_causes(history.main, table)
    except ConfshiftError as error:
        sentence += f"Why can't be said without the logits, and they can't be used: {error}."
        step = "Put that file back from a copy."
        return _QUESTION.answer(
            "no", sentence + accuracy_short, table, step, answer=answer, details=details + accuracy
        )
    fitting = causes[causes["fits"]]
    tried = _epochs_tried(causes, len(table)) + _unread_weights(history) + accuracy
    if len(fitting):
        cause = str(fitting.iloc[0]["cause"])
        more = f", or with {count(len(fitting) - 1, 'other way')}" if len(fitting) > 1 else ""
        sentence += f"That is consistent with {_way(fitting.iloc[0])}{more}."
        answer = heading(f"Your logged loss looks like {cause}", answer)
        step, why = _STEPS[cause], _fits_in_words(fitting) + _REASONS.get(cause, "")
    else:
        sentence += "No way that can be recomputed gives what was logged."
        step, why = _NOTHING_FITS, _closest_in_words(causes) + _LOOK_ON
    details = f"{details} {why}{tried}"
    return _QUESTION.answer("no", sentence + accuracy_short, causes, step, answer=answer, details=details)


def _weighted(history: History) -> str:
    objective = history.main.objective
    parts = [
        *(["weighted by class"] if objective.class_weights is not None else []),
        *([f"of losses with label smoothing of {objective.smoothing:g}"] if objective.smoothing else []),
    ]
    return f"The mean is {' and '.join(parts)}. " if parts else ""


def _unread_loss(history: History) -> str:
    """Say which logged loss can't be read: its value or its name; "" where nothing was logged."""
    for checkpoint in history.main.checkpoints:
        loss = logged_loss_of(checkpoint)
        if loss is not None and loss == loss and math.isnan(as_number(loss)):
            at = epoch(checkpoint.epoch)
            return f"The loss logged at epoch {at} can't be read as a number: {reprlib.repr(loss)}."
    unread = sorted({name for checkpoint in history.main.checkpoints for name in unread_names(checkpoint)})
    if not unread:
        return ""
    more = f" and {count(len(unread) - 5, 'other')}" if len(unread) > 5 else ""
    return (
        f"None of the names logged is read as the loss of {history.split}: "
        f"{', '.join(map(reprlib.repr, unread[:5]))}{more}; 'loss' or '{history.split}_loss' would be."
    )


def _unread_weights(history: History) -> str:
    """Say that the class weights can't be read; "" where they can, or there are none."""
    names = history.main.class_names
    for checkpoint in history.main.checkpoints:
        weights = checkpoint.metadata.get("class_weights")
        if weights is not None and given_weights(checkpoint.metadata, names) is None:
            return (
                f" metadata['class_weights'] of epoch {epoch(checkpoint.epoch)} can't be read: "
                f"{reprlib.repr(weights)} is not {len(names)} numbers of at least 0, a list or a dict by "
                "class name or index."
            )
    return ""


def _accuracy(history: History) -> tuple[str, str]:
    """Say where the logged accuracy differs from the saved one, shortly and in full; "" where it does not."""
    table = logged_accuracies(history.main)
    differing = table[~table["equal"]]
    if differing.empty:
        return "", ""
    at = (differing["logged"] - differing["saved"]).abs().idxmax()
    logged, saved = (100 * float(differing.loc[at, name]) for name in ("logged", "saved"))
    where = f"{len(differing)} of {count(len(table), 'epoch')}"
    return f" The accuracy you logged differs at {where}.", (
        f" The accuracy you logged differs from that of the answers saved at {where}, most at epoch "
        f"{epoch(float(at))}: {logged:.4g} % logged, {saved:.4g} % saved."
    )


def _most_different(differing: pd.DataFrame) -> pd.Series:
    return differing.loc[differing["relative_difference"].abs().idxmax()]


def _relative(row: pd.Series) -> str:
    percentage = 100 * float(row["relative_difference"])
    digits = "+,.0f" if abs(percentage) >= 10 else "+.2g"
    return f"{percentage:{digits}} %".replace("-", "−")


def _difference(worst: pd.Series) -> str:
    return (
        f"It differs most at epoch {epoch(float(worst.name))}: {worst['logged']:.6g} logged, "
        f"{worst['sample_mean']:.6g} over the samples."
    )


def _fits_in_words(fitting: pd.DataFrame) -> str:
    ways = [_way(row) for _, row in fitting.iterrows()]
    more = f" or {len(ways) - 3} other ways" if len(ways) > 3 else ""
    return f"That is consistent with {', or '.join(ways[:3])}{more}, {_agreement(fitting.iloc[0])}."


def _closest_in_words(causes: pd.DataFrame) -> str:
    """Say which way comes closest: it is not close enough, or may be so by chance."""
    sentence = "No way that can be recomputed gives what was logged so closely that chance is ruled out."
    closest = causes.loc[causes["agreeing"].idxmax()]
    if closest["agreeing"] == closest["epochs"]:
        return f"{sentence} The closest is {_way(closest)}, {_agreement(closest)}."
    if 2 * closest["agreeing"] < closest["epochs"]:
        return sentence
    at = f"which agrees at {closest['agreeing']} of {count(closest['epochs'], 'epoch')} only"
    return f"{sentence} The closest is {_way(closest)}, {at}."


def _way(row: pd.Series) -> str:
    return f"{row['cause']} ({row['detail']})"


def _agreement(row: pd.Series) -> str:
    """Say at how many epochs a way agrees, and how likely some way agrees with an unrelated number."""
    chance = float(row["chance"])
    percentage = "less than 0.1 %" if chance < 1e-3 else f"{100 * chance:.2g} %"
    return (
        f"which agrees at {row['agreeing']} of {count(row['epochs'], 'epoch')} (an unrelated number would "
        f"agree with some way as simple with a probability of {percentage})"
    )


def _epochs_tried(causes: pd.DataFrame, epochs: int) -> str:
    """Say at how many of the epochs with a logged loss the ways were tried; "" where at all of them."""
    number, unreadable = causes.attrs["tried"], causes.attrs["unreadable"]
    sentence = (
        f" Tried at {number} of the {count(epochs, 'epoch')} with a logged loss." if number < epochs else ""
    )
    if not unreadable:
        return sentence
    at, reason = next(iter(unreadable.items()))
    more = f", nor at {count(len(unreadable) - 1, 'other epoch')}" if len(unreadable) > 1 else ""
    return f"{sentence} The logits of epoch {epoch(at)} can't be used{more}: {reason}."
