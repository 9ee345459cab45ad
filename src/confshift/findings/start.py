"""Was the start sane? The findings about a run before anything was learned, and about how it is measured."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from confshift.analysis.baseline import (
    References,
    column_permutation_test,
    references,
    untrained_loss,
)
from confshift.analysis.history import History
from confshift.analysis.label_order import label_order
from confshift.checkpoint import Checkpoint
from confshift.findings.checks import check_of
from confshift.findings.finding import Finding, Verdict
from confshift.findings.logits import scored_logits, without_logits
from confshift.findings.measuring import about_measuring
from confshift.findings.wording import count, epoch, nats, percent

__all__ = ["about_start"]

#: A random head with features of a usual size stays within this of ln K.
_TOO_HIGH = 1.0
_LEVEL = 0.05
#: With three classes the rarest of the 3! permutations is one in six.
_FEWEST_CLASSES = 4
#: Renaming the outputs has to gain this much accuracy, and this many standard errors.
_GAIN, _GAIN_ERRORS = 0.1, 5.0
_MOST_CLASSES = 2000
_INSPECT_FIRST = "Before training starts, call inspect(model, loader, epoch=0, ...)."


def about_start(history: History) -> list[Finding]:
    """Answer whether the run began as it should, and whether it is measured as one would think."""
    return [start_loss(history), too_good(history), outputs_in_order(history), *about_measuring(history)]


def _untrained(history: History) -> Checkpoint | None:
    """Return the checkpoint from before training, which is epoch 0."""
    first = history.main.checkpoints[0]
    return first if first.epoch <= 0 else None


def _reference_table(known: References) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "loss": [known.uniform_loss, known.prior_entropy],
            "accuracy": [known.uniform_accuracy, known.majority_accuracy],
        },
        index=pd.Index(["uniform guess", "best constant"], name="reference"),
    )


def _in_words(known: References) -> str:
    return (
        f"A uniform guess has a loss of {nats(known.uniform_loss)} nats and is right in "
        f"{percent(known.uniform_accuracy)}; always predicting the class frequencies gives "
        f"{nats(known.prior_entropy)} and {percent(known.majority_accuracy)}."
    )


def start_loss(history: History) -> Finding:
    """Is the loss before training what an untrained head gives?"""
    title = "Does the run start no worse than an untrained head?"
    known = references(history.main.targets, len(history.main.class_names))
    table = _reference_table(known)
    first = _untrained(history)
    if first is None:
        sentence = f"No checkpoint is from before training. To compare with: {_in_words(known)}"
        return Finding("start_loss", title, "not applicable", sentence, table, _INSPECT_FIRST)
    row = history.table.iloc[0]
    loss, se = float(row["loss"]), float(row["loss_se"])
    if math.isnan(loss):
        sentence = "No sample of the checkpoint before training has a finite output."
        return Finding("start_loss", title, "cannot tell", sentence, table, "Look for NaN in the outputs.")
    table.loc["start"] = [loss, float(row["accuracy"])]
    written = f"{nats(loss)} nats"
    if math.isinf(loss):
        rest = f" ({nats(float(row['finite_loss']))} nats where it is finite)" if row["samples"] else ""
        written = f"infinite{rest}"
    sentence = (
        f"Before training the loss is {written} and the accuracy "
        f"{percent(float(row['accuracy']))}. {_in_words(known)}"
    )
    expected = _expected_loss(first)
    if expected is not None:
        table.loc["untrained head"] = [expected, known.uniform_accuracy]
        sentence += f" An untrained linear head on these features is expected to have {nats(expected)} nats."
    limit = known.uniform_loss + _TOO_HIGH
    uncertain = 0.0 if math.isnan(se) else 2 * se
    verdict: Verdict = "yes" if loss <= limit else "no" if loss > limit + uncertain else "cannot tell"
    return Finding("start_loss", title, verdict, sentence, table, _next_after_start(verdict, loss, expected))


def _expected_loss(checkpoint: Checkpoint) -> float | None:
    """Return what the head would give untrained, where the collector measured what goes into it."""
    head = check_of(checkpoint, "head")
    needed = ("in_features", "mean_squared_norm", "bias")
    if (
        head.get("status") != "measured"
        or head.get("zero_weights")
        or not all(name in head for name in needed)
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
    """Say whether the head knows the classes before it was trained."""
    title = "Is the start too good for an untrained head?"
    first = _untrained(history)
    reason = _untestable(first)
    if first is None or reason:
        known = references(history.main.targets, len(history.main.class_names))
        verdict: Verdict = "not applicable" if first is None else "cannot tell"
        step = _INSPECT_FIRST if first is None else ""
        return Finding(
            "too_good", title, verdict, f"{reason} {_in_words(known)}", _reference_table(known), step
        )
    if unread := without_logits("too_good", title, first):
        return unread
    test = column_permutation_test(*scored_logits(first))
    table = pd.DataFrame(
        {
            "value": [test.loss, test.accuracy],
            "p_value": [test.loss_p, test.accuracy_p],
            "permutations": test.permutations,
            "samples": test.samples,
        },
        index=pd.Index(["loss", "accuracy"], name="quantity"),
    )
    sentence = (
        "For a head that never saw a label, the way its outputs are given to the classes is one like any "
        f"other. Of {test.permutations:,} ways {test.loss_p * test.permutations:,.0f} have a loss as low as "
        f"this one's, {nats(test.loss)} nats (its own included), and "
        f"{test.accuracy_p * test.permutations:,.0f} an accuracy as high, {percent(test.accuracy)}."
    )
    verdict = "yes" if test.loss_p <= _LEVEL else "no"
    step = (
        "This head has probably seen labels: was it inspected after an epoch, loaded from a checkpoint, or "
        "given the class weights of another model?"
    )
    return Finding("too_good", title, verdict, sentence, table, step if verdict == "yes" else "")


def _untestable(first: Checkpoint | None) -> str:
    """Return why nothing can be said of this start; "" where something can."""
    if first is None:
        return "No checkpoint is from before training."
    if not first.columns["finite"].any():
        return "No sample can be scored."
    if len(first.class_names) < _FEWEST_CLASSES:
        return _among_few_classes(first)
    if check_of(first, "head").get("zero_weights") or first.measurement.rows["tied"].all():
        return "All outputs are equal, as of a head that starts at zero: it has no random start to test."
    return ""


def _among_few_classes(first: Checkpoint) -> str:
    """Say what can be said where the orders of the outputs are too few to test one of them."""
    classes = len(first.class_names)
    orders = math.factorial(classes)
    sentence = (
        f"With {classes} classes there are only {orders} ways to give a head's outputs to the classes, too "
        "few to distinguish a head that has seen labels from a lucky one."
    )
    known = references(first.measurement.rows["target"], classes)
    majority = known.majority_accuracy
    error = math.sqrt(majority * (1 - majority) / len(first))
    if first.accuracy - majority > max(_GAIN, _GAIN_ERRORS * error):
        sentence += (
            f" But {percent(first.accuracy)} are right, against {percent(majority)} for the most frequent "
            "class. If the head is meant to be new, see whether another seed falls back to chance; if "
            "it does not, it was trained before (a checkpoint, a fine-tuned model, an epoch of training)."
        )
    return sentence


def outputs_in_order(history: History) -> Finding:
    """Do the outputs stand for the classes that the targets name?"""
    title = "Do the outputs stand for the classes in the order of the labels?"
    panel = history.main
    usable, classes = panel.answered[-1], len(panel.class_names)
    last = panel.checkpoints[-1].epoch
    known = _reference_table(references(panel.targets, classes))
    if last <= 0 or not usable.any() or classes > _MOST_CLASSES:
        reason = (
            "An untrained head fits any order of the labels about as well; this needs a trained checkpoint."
            if last <= 0
            else "No sample has a finite output."
            if not usable.any()
            else f"With {classes:,} classes the outputs are not matched."
        )
        return Finding("outputs_in_order", title, "not applicable", reason, known, "")
    found = label_order(panel.predicted[-1][usable], panel.targets[usable], classes)
    names = panel.class_labels.to_numpy()
    moved = np.flatnonzero(found.taken_for != np.arange(classes))
    table = pd.DataFrame(
        {
            "class_name": names[moved],
            "output": found.taken_for[moved],
            "output_name": names[found.taken_for[moved]],
        },
        index=pd.Index(moved, name="class"),
    )
    gain = found.matched_accuracy - found.accuracy
    sentence = (
        f"At epoch {epoch(last)} {percent(found.accuracy)} are right; with the outputs renamed as fits "
        f"best, found on the other half of {count(int(usable.sum()))}, {percent(found.matched_accuracy)} "
        "are."
    )
    if not (gain > _GAIN and gain > _GAIN_ERRORS * found.gain_se):
        return Finding("outputs_in_order", title, "yes", sentence, table, "")
    listed = ", ".join(f"{row['class_name']} as {row['output_name']}" for _, row in table.head(5).iterrows())
    more = f" and {len(table) - 5} more" if len(table) > 5 else ""
    step = "Compare class_to_idx of the training and the validation set: their folders or label maps differ."
    return Finding("outputs_in_order", title, "no", f"{sentence} Predicted: {listed}{more}.", table, step)
