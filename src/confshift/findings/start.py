"""Was the start sane? The findings about a run before training, and about how it is measured."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from confshift.analysis.causes.baseline import untrained_loss
from confshift.analysis.history import History
from confshift.checkpoint import Checkpoint
from confshift.findings.checks import check_of
from confshift.findings.measuring import about_measuring
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.wording import count, epoch, nats, percent

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
        sentence = f"No checkpoint is from before training. To compare with: {comparison}"
        return _START_LOSS.not_applicable(sentence, table, _INSPECT_FIRST)
    row = history.table.iloc[0]
    loss, se = float(row["loss"]), float(row["loss_se"])
    if math.isnan(loss):
        sentence = "No sample of the checkpoint before training has a finite output."
        return _START_LOSS.answer("cannot tell", sentence, table, "Look for NaN in the outputs.")
    table.loc["start"] = [loss, float(row["accuracy"])]
    loss_text = f"{nats(loss)} nats"
    if math.isinf(loss):
        finite_part = (
            f" ({nats(float(row['finite_loss']))} nats where it is finite)" if row["samples"] else ""
        )
        loss_text = f"infinite{finite_part}"
    sentence = (
        f"Before training the loss is {loss_text} and the accuracy {percent(float(row['accuracy']))}. "
        f"{comparison}"
    )
    untrained = _expected_loss(first)
    if untrained is not None:
        table.loc["untrained head"] = [untrained, guess["accuracy"]]
        sentence += f" An untrained linear head on these features is expected to have {nats(untrained)} nats."
    limit = guess["loss"] + _TOO_HIGH
    uncertain = 0.0 if math.isnan(se) else 2 * se
    verdict: Verdict = "yes" if loss <= limit else "no" if loss > limit + uncertain else "cannot tell"
    return _START_LOSS.answer(verdict, sentence, table, _next_after_start(verdict, loss, untrained))


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
        return "The features that go into the head are large: normalise them, or start the head smaller."
    return (
        "The start is surer of wrong answers than a random head: is the head from another task, are the "
        "inputs normalised, do the labels match the outputs?"
    )


def too_good(history: History) -> Finding:
    """Say whether the head already knew the classes before training."""
    first = _untrained(history)
    reason = _untestable(first, history)
    if first is None or reason:
        verdict: Verdict = "not applicable" if first is None else "cannot tell"
        step = _INSPECT_FIRST if first is None else ""
        sentence = f"{reason} {_in_words(history.references)}"
        return _TOO_GOOD.answer(verdict, sentence, history.references, step)
    if unread := _TOO_GOOD.without_logits(first):
        return unread
    table = history.start_test
    loss, accuracy = table.loc["loss"], table.loc["accuracy"]
    number = loss["permutations"]
    sentence = (
        "For a head that never saw a label, the way its outputs are given to the classes is one like any "
        f"other. Of {number:,.0f} ways {loss['p_value'] * number:,.0f} have a loss as low as "
        f"this one's, {nats(loss['value'])} nats (its own included), and "
        f"{accuracy['p_value'] * number:,.0f} an accuracy as high, {percent(accuracy['value'])}."
    )
    verdict = "yes" if loss["p_value"] <= _LEVEL else "no"
    step = (
        "This head has probably seen labels: was it inspected after an epoch, loaded from a checkpoint, or "
        "given the class weights of another model?"
    )
    return _TOO_GOOD.answer(verdict, sentence, table, step if verdict == "yes" else "")


def _untestable(first: Checkpoint | None, history: History) -> str:
    """Return why this start can't be tested; "" where it can."""
    if first is None:
        return "No checkpoint is from before training."
    if not first.columns["finite"].any():
        return "No sample can be scored."
    if _orders(history) < _FEWEST_ORDERS:
        return _among_few_orders(first, history)
    if check_of(first, "head").get("zero_weights") or first.measurement.rows["tied"].all():
        return "All outputs are equal, as of a head that starts at zero: it has no random start to test."
    return ""


def _orders(history: History) -> int:
    """Return in how many ways outputs can be given to the classes that occur."""
    panel = history.main
    return math.perm(len(panel.class_names), len(np.unique(panel.targets)))


def _among_few_orders(first: Checkpoint, history: History) -> str:
    """Say what is known where there are too few orders of the outputs for a test."""
    classes, present = len(first.class_names), len(np.unique(history.main.targets))
    among = (
        f"{classes} classes" if present == classes else f"{present} of {classes} classes among the targets"
    )
    sentence = (
        f"With {among} there are only {_orders(history)} ways to give a head's outputs to the classes, too "
        "few to distinguish a head that has seen labels from a lucky one."
    )
    majority = history.references.loc["best constant", "accuracy"]
    if first.accuracy - majority > max(_GAIN, _GAIN_ERRORS * history.constant_error):
        sentence += (
            f" But {percent(first.accuracy)} are right, against {percent(majority)} for the most frequent "
            "class. If the head is meant to be new, see whether another seed falls back to chance; if "
            "it does not, it was trained before (a checkpoint, a fine-tuned model, an epoch of training)."
        )
    return sentence


def outputs_in_order(history: History) -> Finding:
    """Are the outputs in the order of the labels?"""
    panel = history.main
    usable, classes = panel.answered[-1], len(panel.class_names)
    last = panel.checkpoints[-1].epoch
    if last <= 0 or not usable.any() or classes > _MOST_CLASSES:
        reason = (
            "An untrained head fits any order of the labels about as well; this needs a trained checkpoint."
            if last <= 0
            else "No sample has a finite output."
            if not usable.any()
            else f"With {classes:,} classes the outputs are not matched."
        )
        return _OUTPUTS_IN_ORDER.not_applicable(reason, history.references)
    order = history.label_order
    names = panel.class_labels.to_numpy()
    mismatches = np.flatnonzero(order.taken_for != np.arange(classes))
    table = pd.DataFrame(
        {
            "class_name": names[mismatches],
            "output": order.taken_for[mismatches],
            "output_name": names[order.taken_for[mismatches]],
        },
        index=pd.Index(mismatches, name="class"),
    )
    gain = order.matched_accuracy - order.accuracy
    sentence = (
        f"At epoch {epoch(last)} {percent(order.accuracy)} are right; with the outputs renamed as fits "
        f"best, found on the other half of {count(int(usable.sum()))}, {percent(order.matched_accuracy)} "
        "are."
    )
    if not (gain > _GAIN and gain > _GAIN_ERRORS * order.gain_se):
        return _OUTPUTS_IN_ORDER.answer("yes", sentence, table)
    pairs = ", ".join(f"{row['class_name']} as {row['output_name']}" for _, row in table.head(5).iterrows())
    more = f" and {len(table) - 5} more" if len(table) > 5 else ""
    step = "Compare class_to_idx of the training and the validation set: their folders or label maps differ."
    return _OUTPUTS_IN_ORDER.answer("no", f"{sentence} Predicted: {pairs}{more}.", table, step)
