"""Did the run diverge or collapse: does it end in outputs that say nothing about the labels?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from confshift.analysis.causes.learning_rate import learning_rates
from confshift.analysis.grouping import codes_at, counted_share, mean_error
from confshift.analysis.panel import Panel
from confshift.analysis.unscored import enough_answers

#: What is within so many standard errors of a guess is one: at the last epoch; at the epochs before it,
#: where chance has more occasions. A guess can't be told from it.
_AT_THE_END, _BEFORE_IT = 2.0, 3.0
#: Answers of which so many name one class are that class.
_ONE_CLASS = 0.99
#: A temperature above this has hardly any use for the logits.
MOST_TEMPERATURE = 20.0
#: Where nothing was ever learned, a loss counts as exploded from so many times that of a uniform guess on:
#: below, it may as well be a network that learned by heart what does not generalise.
_EXPLODED = 10.0
#: The loss of a probability of the smallest number in single precision, for one of 0: a lower bound.
_LEAST_INFINITE_LOSS = 149 * math.log(2)


@dataclass(frozen=True, eq=False)
class Divergence:
    """Where a run's outputs stop saying anything about the labels, if they do.

    Attributes
    ----------
    table : DataFrame
        Indexed by epoch; columns loss, accuracy, mean_recall (over the classes that have samples), guess (the
        mean recall of a guess), temperature, learning_rate (NaN where none is recorded) and state:
        "informative"; "guess" (answers no better than a guess, from logits that hold something); "lost" (a
        guess that costs more than a uniform one, or whose logits hold nothing); "exploded" (lost, at ten
        times the loss of a uniform guess); "no finite output" (for most samples).
    epoch : float
        The first epoch of the bad end; NaN where the run did not diverge.
    recovered : tuple of float
        The epochs that were as bad, and after which the run was better again.
    """

    table: pd.DataFrame
    epoch: float
    recovered: tuple[float, ...]

    def __bool__(self) -> bool:
        return not math.isnan(self.epoch)

    @property
    def end(self) -> pd.DataFrame:
        """The rows of `table` from `epoch` on."""
        return self.table[self.table.index >= self.epoch]

    @property
    def learned(self) -> bool:
        """Whether the answers of any checkpoint were better than a guess."""
        return bool((self.table["state"] == "informative").any())


def divergence_of(panel: Panel, table: pd.DataFrame) -> Divergence:
    """Find the bad end of a run: no finite output, an exploded loss, or a collapse.

    A run has diverged where its last checkpoint is bad and an earlier one was not. A checkpoint is bad where
    most samples have no finite output; or where its answers are a guess (as accurate as the largest class
    within two standard errors, and no class is found more often than by chance, or all answers are one class)
    and its loss is above ln K by two standard errors, or no temperature up to 20 is best, or the rest of the
    loss is no lower than the entropy of the class frequencies. Where the lower the temperature the lower
    the loss, every answer is right: that is no guess.

    Where no earlier checkpoint was better than a guess, only a missing output and a loss of ten times ln K
    count: otherwise the network may have learned by heart what says nothing about these labels.

    Parameters
    ----------
    panel : Panel
    table : DataFrame
        The rows of `History.table` of the same checkpoints.
    """
    answering = enough_answers(panel)
    places = range(len(table))
    states, recall = zip(
        *(
            _state(panel, table.iloc[at], at, last=at == places[-1]) if answering[at] else _SILENT
            for at in places
        ),
        strict=True,
    )
    columns = table[["loss", "accuracy"]].to_dict("list") | {
        "mean_recall": recall,
        "guess": 1 / len(np.unique(panel.targets)),
        "temperature": table["temperature"].to_numpy(),
        "learning_rate": learning_rates(panel.checkpoints),
        "state": states,
    }
    rows = pd.DataFrame(columns, index=pd.Index(panel.epochs, name="epoch"))
    learned = bool((rows["state"] == "informative").any())
    bad = rows["state"].isin(["exploded", "no finite output", *(["lost"] if learned else [])]).to_numpy()
    start = len(bad) - int(np.argmin(bad[::-1])) if not bad.all() else 0
    epoch = float(panel.epochs[start]) if 0 < start < len(bad) else math.nan
    # Far beyond what an untrained network may find by chance.
    halfway = (rows["mean_recall"].max() + rows["guess"].iloc[0]) / 2
    first = int(np.argmax(rows["mean_recall"] >= halfway)) if learned else start
    recovered = panel.epochs[first:start][bad[first:start]]
    return Divergence(rows, epoch, tuple(recovered.tolist()))


_SILENT = ("no finite output", math.nan)


def _state(panel: Panel, row: pd.Series, at: int, *, last: bool) -> tuple[str, float]:
    """Return the state of a checkpoint with answers, and the mean recall of its classes."""
    is_guess, recall = _guess(panel, at, _AT_THE_END if last else _BEFORE_IT)
    if not is_guess:
        return "informative", recall
    uniform = math.log(len(panel.class_names))
    loss, error = _least_loss(panel, at)
    if loss - 2 * error > _EXPLODED * uniform:
        return "exploded", recall
    # At the other bound (the colder the better, without end) every answer is right.
    no_use = row["fit_status"] == "uniform" or (
        row["fit_status"] == "ok" and row["temperature"] > MOST_TEMPERATURE
    )
    lost = loss - 2 * error > uniform or no_use or _holds_nothing(panel, at)
    return "lost" if lost else "guess", recall


def _guess(panel: Panel, at: int, errors: float) -> tuple[bool, float]:
    """Tell whether the answers are no better than a guess; return the mean recall too.

    The accuracy alone would not do: where a class is common, a model that finds the rare ones may be as
    accurate as one that always says the common one, and one that always says a rare one is less so.
    """
    one = panel.one(at)
    answered = one.answered[0]
    targets, predicted = panel.targets[answered], one.predicted[0][answered]
    counts = np.bincount(targets, minlength=len(panel.class_names))
    right = np.bincount(targets[predicted == targets], minlength=len(counts))[counts > 0]
    present = counts[counts > 0]
    counted = (
        1.0 if panel.codes is None else counted_share((predicted == targets) + 0.0, panel.codes[answered])
    )
    recall, share = float((right / present).mean()), (right + 1) / (present + 2)
    error = math.sqrt(float((share * (1 - share) / present).sum()) / counted) / len(present)
    if np.bincount(predicted).max() >= _ONE_CLASS * len(predicted):
        return len(present) > 1, recall
    accuracy, largest = right.sum() / len(targets), present.max() / len(targets)
    margin = errors * math.sqrt(accuracy * (1 - accuracy) / (counted * len(targets)))
    return bool(accuracy <= largest + margin and abs(recall - 1 / len(present)) <= errors * error), recall


def _least_loss(panel: Panel, at: int) -> tuple[float, float]:
    """Return the mean loss, infinite ones at the least that they may be, and its standard error."""
    one = panel.one(at)
    answered = one.answered[0]
    losses = np.where(one.infinite[0], _LEAST_INFINITE_LOSS, one.loss[0])[answered]
    codes = codes_at(panel.codes, answered)
    return float(losses.mean()), mean_error(losses, codes)


def _holds_nothing(panel: Panel, at: int) -> bool:
    """Tell whether the rest of the loss is no lower than that of the class frequencies, beyond error."""
    one = panel.one(at)
    finite = one.finite[0]
    if not finite.any():
        return True
    targets = panel.targets[finite]
    share = np.bincount(targets) / len(targets)
    gain = -np.log(share[targets]) - one.refinement[0][finite]
    return bool(gain.mean() <= 2 * gain.std() / math.sqrt(len(gain)))
