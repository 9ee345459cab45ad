"""Was the start sane? The findings about a run before training, and about how it is measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.causes.baseline import untrained_loss
from confshift.analysis.history import History
from confshift.checkpoint import Checkpoint
from confshift.findings.checks import check_of
from confshift.findings.measuring import about_measuring
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.wording import count, epoch, heading, nats, percent

#: A random head with features of a usual size stays within this of ln K.
_TOO_HIGH = 1.0
#: Of honest heads one in a hundred is called too good.
_LEVEL = 0.01
#: Those of six classes: with fewer ways to order the outputs, the best of them comes up by luck too often.
_FEWEST_ORDERS = math.factorial(6)
#: Renaming the outputs has to gain this much accuracy, and this many standard errors.
_GAIN, _GAIN_ERRORS = 0.1, 5.0
_MOST_CLASSES = 2000
_INSPECT_FIRST = "Before training starts, call inspect(model, loader, epoch=0, ...)."
_NOT_INSPECTED = "The model was not inspected before training"

_START_LOSS = Question(
    "start_loss", "Does the run start no worse than an untrained head?", section="start", problem="no"
)
_TOO_GOOD = Question(
    "too_good", "Is the start too good for an untrained head?", section="start", problem="yes"
)
_OUTPUTS_IN_ORDER = Question(
    "outputs_in_order",
    "Do the outputs stand for the classes in the order of the labels?",
    section="start",
    problem="no",
)


def about_start(history: History) -> list[Finding]:
    """Answer whether the run began as it should, and whether its measurements can be trusted."""
    return [start_loss(history), too_good(history), outputs_in_order(history), *about_measuring(history)]


def _untrained(history: History) -> Checkpoint | None:
    """Return the checkpoint from before training, which is epoch 0."""
    first = history.main.checkpoints[0]
    return first if first.epoch <= 0 else None


def _in_words(references: pd.DataFrame) -> str:
    guess, constant = (references.loc[name] for name in ("uniform guess", "best constant"))
    return (
        f"A uniform guess has a loss of {nats(guess['loss'])} nats and is right in "
        f"{percent(guess['accuracy'])}; always predicting the class frequencies gives "
        f"{nats(constant['loss'])} and {percent(constant['accuracy'])}."
    )


def start_loss(history: History) -> Finding:
    """Is the loss before training that of an untrained head?"""
    table = history.references.copy()
    guess, comparison = table.loc["uniform guess"], _in_words(table)
    first = _untrained(history)
    if first is None:
        sentence = f"No checkpoint is from before training. {comparison}"
        return _START_LOSS.not_applicable(sentence, table, _INSPECT_FIRST, answer=_NOT_INSPECTED)
    row = history.table.iloc[0]
    loss, se = float(row["loss"]), float(row["loss_se"])
    if math.isnan(loss):
        sentence = "No sample of the checkpoint before training has a finite output."
        step = "Look for NaN in the outputs."
        return _START_LOSS.answer(
            "cannot tell", sentence, table, step, answer="The start has no finite output"
        )
    table.loc["start"] = [loss, float(row["accuracy"])]
    untrained = _expected_loss(first)
    if untrained is not None:
        table.loc["untrained head"] = [untrained, guess["accuracy"]]
    limit = guess["loss"] + _TOO_HIGH
    uncertain = 0.0 if math.isnan(se) else 2 * se
    verdict: Verdict = "yes" if loss <= limit else "no" if loss > limit + uncertain else "cannot tell"
    answer, sentence = _start_in_words(row, guess["loss"], verdict)
    expected = (
        ""
        if untrained is None
        else f" An untrained linear head on these features is expected to have {nats(untrained)} nats."
    )
    details = (
        f"Accuracy {percent(float(row['accuracy']))}. {comparison}{expected} More than "
        f"{nats(_TOO_HIGH)} nats above a uniform guess is too high."
    )
    step = _next_after_start(verdict, loss, untrained)
    return _START_LOSS.answer(verdict, sentence, table, step, answer=answer, details=details)


def _start_in_words(row: pd.Series, guess: float, verdict: Verdict) -> tuple[str, str]:
    """Return the heading and the sentence about the loss before training."""
    loss = float(row["loss"])
    text, finite_part = f"{nats(loss)} nats", ""
    if math.isinf(loss):
        text = "infinite"
        if row["samples"]:
            finite_part = f" ({nats(float(row['finite_loss']))} nats where it is finite)"
    sentence = f"Before training the loss is {text}{finite_part}; a uniform guess has {nats(guess)}"
    if verdict == "yes":
        answer = f"The run starts at {text}, no worse than untrained"
        return answer, f"{sentence}, and an untrained head is seldom far above that."
    if verdict == "no":
        beyond = f"The run starts at {text}, far above guessing"
        return beyond, f"{sentence}. Such a start is confident about wrong answers."
    return (
        f"A start at {text} may be too high",
        f"{sentence}. The samples are too few to say whether that is too high.",
    )


def _expected_loss(checkpoint: Checkpoint) -> float | None:
    """Return the loss of the same head untrained, or None where the collector did not measure its inputs."""
    head = check_of(checkpoint, "head")
    details = ("in_features", "mean_squared_norm", "bias")
    if (
        head.get("status") != "measured"
        or head.get("zero_weights")
        or not all(name in head for name in details)
    ):
        return None
    if not head["in_features"]:
        return None
    return untrained_loss(
        len(checkpoint.class_names),
        in_features=int(head["in_features"]),
        mean_squared_norm=head["mean_squared_norm"],
        bias=head["bias"],
    )


def _next_after_start(verdict: Verdict, loss: float, expected: float | None) -> str:
    if verdict != "no":
        return ""
    if expected is not None and loss < expected + _TOO_HIGH:
        return "Normalise the features that go into the head, which are large, or start the head smaller."
    return "Check that the head is not from another task, inputs are normalised and labels match outputs."


def too_good(history: History) -> Finding:
    """Say whether the head already knew the classes before training."""
    first = _untrained(history)
    references = _in_words(history.references)
    if first is None:
        sentence = f"No checkpoint is from before training. {references}"
        return _TOO_GOOD.not_applicable(sentence, history.references, _INSPECT_FIRST, answer=_NOT_INSPECTED)
    reason, details = _untestable(first, history)
    if reason:
        return _TOO_GOOD.answer(
            "cannot tell",
            reason,
            history.references,
            answer="Whether the head has seen labels is unknown",
            details=f"{details} {references}".strip(),
        )
    if unread := _TOO_GOOD.without_logits(first):
        return unread
    table = history.start_test
    loss, accuracy = table.loc["loss"], table.loc["accuracy"]
    number = loss["permutations"]
    low, high = (f"{row['p_value'] * number:,.0f}" for row in (loss, accuracy))
    verdict: Verdict = "yes" if loss["p_value"] <= _LEVEL else "no"
    sentence = (
        "An untrained head does about as well under any permutation of its outputs. Of "
        f"{number:,.0f} permutations, {low} reach a loss as low as this head's"
    )
    details = (
        f"The {low} include its own: the loss is {nats(loss['value'])} nats. {high} reach an accuracy as "
        f"high, {percent(accuracy['value'])}. At most {percent(_LEVEL)} of them would be too few for chance. "
        f"{references}"
    )
    if verdict == "no":
        answer = "The start is that of an untrained head"
        return _TOO_GOOD.answer(
            verdict, f"{sentence}: nothing unusual.", table, answer=answer, details=details
        )
    return _TOO_GOOD.answer(
        verdict,
        f"{sentence}, too few for chance: this head has probably seen labels.",
        table,
        "Check whether the head was inspected after an epoch, or loaded with trained weights.",
        answer=f"Loss {nats(loss['value'])} before training: too good for an untrained head",
        details=details,
    )


def _untestable(first: Checkpoint, history: History) -> tuple[str, str]:
    """Return why this start can't be tested, and details; "" where it can."""
    if not first.finite.any():
        return "No sample can be scored.", ""
    if _orders(history) < _FEWEST_ORDERS:
        return _among_few_orders(first, history)
    if check_of(first, "head").get("zero_weights") or first.measurement.tied_samples == len(first):
        return "All outputs are equal, as of a head that starts at zero: it has no random start to test.", ""
    return "", ""


def _orders(history: History) -> int:
    """Return in how many ways outputs can be given to the classes that occur."""
    panel = history.main
    return math.perm(len(panel.class_names), len(np.unique(panel.targets)))


def _among_few_orders(first: Checkpoint, history: History) -> tuple[str, str]:
    """Say what is known where there are too few orders of the outputs for a test."""
    classes, present = len(first.class_names), len(np.unique(history.main.targets))
    among = (
        f"{classes} classes" if present == classes else f"{present} of {classes} classes among the targets"
    )
    sentence = (
        f"With {among} there are only {_orders(history)} ways to assign outputs to classes, too few to "
        "distinguish a trained head from a lucky one"
    )
    majority = history.references.loc["best constant", "accuracy"]
    if not first.accuracy - majority > max(_GAIN, _GAIN_ERRORS * history.constant_error):
        return f"{sentence}.", ""
    details = (
        f"{percent(first.accuracy)} are right, against {percent(majority)} for the most frequent class. If "
        "the head is meant to be new, see whether another seed falls back to chance; if it does not, it was "
        "trained before (a checkpoint, a fine-tuned model, an epoch of training)."
    )
    return f"{sentence}. But {percent(first.accuracy)} are right, far more than by chance.", details


def outputs_in_order(history: History) -> Finding:
    """Are the outputs in the order of the labels?"""
    panel = history.main
    usable, classes = panel.one(len(panel.checkpoints) - 1).answered[0], len(panel.class_names)
    last = panel.checkpoints[-1].epoch
    if last <= 0 or not usable.any() or classes > _MOST_CLASSES:
        answer, reason = (
            ("Only a trained model shows its order", "An untrained head fits any order about equally well.")
            if last <= 0
            else ("No finite output to judge the order by", "No sample has a finite output.")
            if not usable.any()
            else ("Too many classes to match", f"With {classes:,} classes the outputs are not matched.")
        )
        return _OUTPUTS_IN_ORDER.not_applicable(reason, history.references, answer=answer)
    order = history.label_order
    table = _renamed(panel.class_labels.to_numpy(), order.taken_for)
    gain = order.matched_accuracy - order.accuracy
    right, matched = percent(order.accuracy), percent(order.matched_accuracy)
    details = (
        f"Epoch {epoch(last)}, {count(int(usable.sum()))}; each half is renamed as fits the other half best."
    )
    if not (gain > _GAIN and gain > _GAIN_ERRORS * order.gain_se):
        return _OUTPUTS_IN_ORDER.answer(
            "yes",
            f"The best renaming of the outputs would not raise the accuracy of {right}."
            if gain <= 0
            else f"The best renaming of the outputs would take the accuracy from {right} to {matched}: too "
            "little to suspect a wrong order.",
            table,
            answer="Outputs and labels are in the same order",
            details=details,
        )
    pairs = [f"{row['class_name']} as {row['output_name']}" for _, row in table.iterrows()]
    more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
    return _OUTPUTS_IN_ORDER.answer(
        "no",
        f"The accuracy is {right}; with the outputs renamed as fits best it would be {matched}.",
        table,
        "Compare class_to_idx of the training and the validation set.",
        answer=heading(f"Outputs are in the wrong order: {pairs[0]}", "Outputs are in the wrong order"),
        details=f"Predicted: {', '.join(pairs[:5])}{more}. Folders or label maps differ. {details}",
    )


def _renamed(names: NDArray[Any], taken_for: NDArray[np.int64]) -> pd.DataFrame:
    """Return the classes whose output fits another class better, with that output's name."""
    mismatches = np.flatnonzero(taken_for != np.arange(len(names)))
    return pd.DataFrame(
        {
            "class_name": names[mismatches],
            "output": taken_for[mismatches],
            "output_name": names[taken_for[mismatches]],
        },
        index=pd.Index(mismatches, name="class"),
    )
