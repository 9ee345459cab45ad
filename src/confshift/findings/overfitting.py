"""Is it overfitting? Validation alone shows that a model got worse; the training loss shows how."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from confshift.analysis.history import History
from confshift.findings.wording import apart, epoch, epoch_argument
from confshift.input_checks import as_number

#: What is said where the training loss is not known.
UNKNOWN_TRAINING = "Whether this is overfitting is open, as the training loss is not known"
_NAMES = ("train_loss", "training_loss", "loss_train", "loss_training")
_CRITICAL_Z = 1.96


class TrainingLoss(NamedTuple):
    """The training loss at two epochs, in nats."""

    first_epoch: float
    last_epoch: float
    before: float
    after: float
    margin: float  # of the difference, with 95 % confidence; 0 where the error is not known

    @property
    def fell(self) -> bool:
        """Whether it fell beyond its error."""
        return self.after < self.before - self.margin


def training_loss(history: History, first: float, last: float) -> TrainingLoss | None:
    """Return what the training loss did between two epochs; None where it is known at fewer than two.

    The split "train" comes first, which was measured in eval mode; then what the loop logged as
    "train_loss" ("training_loss", "train/loss", ...), whose error is not known.

    Parameters
    ----------
    history : History
    first, last : float
        Epochs.
    """
    known = _inspected(history) or _logged(history)
    epochs = [epoch for epoch in sorted(known) if first <= epoch <= last]
    if len(epochs) < 2:
        return None
    (before, error), (after, other) = known[epochs[0]], known[epochs[-1]]
    return TrainingLoss(epochs[0], epochs[-1], before, after, _CRITICAL_Z * math.hypot(error, other))


def _inspected(history: History) -> dict[float, tuple[float, float]]:
    """Return mean and standard error of the inspected training loss by epoch, where it is finite."""
    if history.split == "train":
        return {}
    table = history.table[history.table["split"] == "train"]
    rows = zip(table["epoch"], table["loss"], table["loss_se"].fillna(0.0), strict=True)
    return {float(epoch): (float(loss), float(se)) for epoch, loss, se in rows if math.isfinite(loss)}


def _logged(history: History) -> dict[float, tuple[float, float]]:
    """Return the logged training loss by epoch, without an error."""
    known = {}
    for checkpoint in history.main.checkpoints:
        logged = {
            re.sub(r"[^a-z0-9]+", "_", name.lower()): value
            for name, value in checkpoint.provenance.logged.items()
        }
        loss = as_number(next((logged[name] for name in _NAMES if logged.get(name) is not None), None))
        if math.isfinite(loss):
            known[checkpoint.epoch] = (loss, 0.0)
    return known


def course_of_training(history: History) -> TrainingLoss | None:
    """Return what the training loss did while the model got worse; None where it is not known."""
    return training_loss(history, *_harm(history))


def _harm(history: History) -> tuple[float, float]:
    """Return the epochs from which and to which the model got worse."""
    rise = history.rise.loc[["refinement_loss", "error_rate", "loss"]]
    worse = rise[rise["status"].isin(["systematic", "setback"])]
    row = worse.iloc[0] if len(worse) else rise.loc["loss"]
    return float(row["best_epoch"]), float(row["last_epoch"])


def overfits(history: History) -> bool:
    """Tell whether the training loss is known to have fallen while the model got worse."""
    course = course_of_training(history)
    return course is not None and course.fell


def in_words(course: TrainingLoss) -> str:
    """Say what the training loss did: "the training loss fell from 0.41 (epoch 7) to 0.05 (epoch 39)"."""
    before, after = apart(course.before, course.after)
    verb = "fell" if course.fell else "did not fall: it went"
    return (
        f"the training loss {verb} from {before} (epoch {epoch(course.first_epoch)}) to {after} "
        f"(epoch {epoch(course.last_epoch)})"
    )


def remedy(history: History) -> tuple[str, str]:
    """Return what to do about a model that got worse, and code to copy: with the training loss, or for it."""
    course = course_of_training(history)
    if course is None:
        first, last = _harm(history)
        text = (
            f"Inspect part of the training set at epochs {epoch(first)} and {epoch(last)}: if its loss fell "
            "between them, this is overfitting, and more data or regularisation helps."
        )
        at = epoch_argument(last)
        call = f'confshift.inspect(model, train_loader, run="RUN", split="train", epoch={at})'
        return text, f"{call}  # and at epoch {epoch(first)}"
    if course.fell:
        return (
            f"Get more training data, or regularise more: {in_words(course)}, so this is overfitting."
        ), ""
    return f"Check the learning rate and the data: {in_words(course)}, so this is not overfitting.", ""
