"""The one checkpoint that every sentence recommends, and what recalibrates it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.causes.divergence import Divergence
from confshift.analysis.grouping import Units, mean_error
from confshift.analysis.panel import Panel
from confshift.analysis.recalibrators import Trial, by_gain, choose, gain_over


@dataclass(frozen=True)
class Kept:
    """The epoch to keep, and the one with the lowest expected loss: often the same."""

    epoch: float
    reason: str
    lowest: float  # the epoch with the lowest expected loss
    loss: float = math.nan  # of the epoch to keep as it is, in nats, over the samples of the comparison
    lowest_loss: float = math.nan  # of the other one as it is
    behind: float = 0.0  # by how much the expected loss of the kept one is higher, in nats
    behind_se: float = 0.0  # of that paired difference


@dataclass(frozen=True)
class Recommendation:
    """The checkpoint to keep: softmax(z / temperature + biases) are its probabilities."""

    epoch: float
    temperature: float  # 1 where none gains anything beyond its error
    biases: tuple[float, ...]  # by class, in nats; all 0 where they gain nothing beyond their error
    loss: float  # what to expect of new samples, in nats: fitted without the sample that it is evaluated on
    accuracy: float  # a fraction, of the logits as they are; see `History.calibrated_accuracy`
    reason: str
    method: str  # of the recalibration: one of `recalibrators.METHODS`
    kept: Kept  # how the epoch was chosen

    @property
    def calibrated(self) -> bool:
        """Whether the logits are to be changed at all."""
        return self.temperature != 1 or self.with_biases

    @property
    def with_biases(self) -> bool:
        """Whether each class has a bias."""
        return any(self.biases)


@dataclass(frozen=True)
class Richer:
    """What a scale for each class, or a matrix, gains over the recommended recalibration."""

    method: str  # "vector" or "matrix"; "" where neither gains anything beyond its error
    gain: float = 0.0  # on samples that it was not fitted to, in nats
    gain_se: float = 0.0


#: Up to so many logits, a scale for each class and a matrix are fitted in about half a second.
_CHEAP = 200_000


def richer_than(recommendation: Recommendation, panel: Panel) -> Richer | None:
    """Try a scale for each class and a matrix on the recommended checkpoint; None where that says nothing.

    It does not where they take too long, where there are too few samples for them, where few samples are
    wrong, and where labels look wrong: only a temperature allows for that.
    """
    checkpoint = panel.checkpoint_at(recommendation.epoch)
    is_cheap = len(checkpoint) * len(checkpoint.class_names) <= _CHEAP
    if recommendation.method == "label_noise_temperature" or not is_cheap:
        return None
    choice = choose(
        checkpoint, wrong_labels=False, class_weights=panel.objective.class_weights, codes=panel.codes
    )
    tried = [trial for trial in choice.trials if trial.method in ("vector", "matrix") and trial.fitted]
    by_method = {trial.method: trial for trial in choice.trials}
    simpler = by_method[recommendation.method]
    if not tried or choice.caution or simpler.losses is None:
        return None
    found = choice.recommended
    return Richer(found.method, *gain_over(simpler, found)) if found in tried else Richer("")


#: An epoch is as good as the one with the lowest expected loss where it is behind by at most so many standard
#: errors of the paired difference, and by at most so many nats: with few samples an error allows anything.
_ERRORS_BEHIND, _NATS_BEHIND = 1.0, 0.01


def keep(panel: Panel, table: pd.DataFrame, most_accurate: float) -> Kept:
    """Choose the epoch to keep.

    Parameters
    ----------
    panel : Panel
    table : DataFrame
        The rows of `History.table` of its checkpoints.
    most_accurate : float
        The epoch with the best accuracy.

    Returns
    -------
    Kept
        Each checkpoint counts with what its losses are once it is recalibrated, where that gains something
        beyond its error, on samples left out. Of those within one standard error, and .01 nats, of the lowest
        mean, the one with the lowest loss as it is, which needs the least repair; the earliest of equals.
        Where every loss is infinite, the best by accuracy. Of checkpoints that leave out samples only those
        that leave out the fewest are compared.

    Notes
    -----
    The rule of one standard error: L. Breiman, J. Friedman, R. Olshen and C. Stone, "Classification and
    Regression Trees", 1984, section 3.4.3. Here the error is that of the paired difference.
    """
    counts, means = panel.counts.finite, table["loss"].to_numpy()
    places = np.flatnonzero((counts == counts.max()) & np.isfinite(means)).tolist()
    if not places:
        return Kept(most_accurate, "the best by accuracy, as no loss is finite", most_accurate)
    weights = panel.objective.class_weights
    # Their losses are columns of the panel: those of all checkpoints would fill the memory.
    trials = [
        replace(by_gain(panel.checkpoints[at], weights, panel.codes).recommended, losses=None, units=Units())
        for at in places
    ]
    compared = panel.at(places)
    members = compared.at_all(Panel.finite)
    if not members.any():  # no sample is common to all, so none can be told from the lowest
        best = int(np.argmin([means[at] - trial.gain for at, trial in zip(places, trials, strict=True)]))
        epoch = float(panel.epochs[places[best]])
        return Kept(epoch, _reason(trials[best], trials[best], epoch), epoch)
    shared = compared.take(members)

    def expected(at: int) -> NDArray[np.float64]:
        losses: NDArray[np.float64] = _LOSSES[trials[at].method].of(shared.one(at))[0]
        return losses

    every = range(len(places))
    means = np.array([(shared.mean(expected(at)), shared.mean(shared.one(at).loss[0])) for at in every])
    plain, lowest = means[:, 1], int(np.argmin(means[:, 0]))
    least = expected(lowest)
    differences = (expected(at) - least for at in every)
    behind, errors = np.array([(shared.mean(row), mean_error(shared.terms(row))) for row in differences]).T
    as_good = (behind <= np.minimum(_ERRORS_BEHIND * errors, _NATS_BEHIND)) | (behind <= 0)
    chosen = int(np.argmin(np.where(as_good, plain, np.inf)))
    epoch, of_lowest = (float(panel.epochs[places[at]]) for at in (chosen, lowest))
    numbers = (plain[chosen], plain[lowest], behind[chosen], errors[chosen])
    return Kept(epoch, _reason(trials[chosen], trials[lowest], of_lowest), of_lowest, *map(float, numbers))


#: What the losses are once recalibrated by a method that `by_gain` chooses from.
_LOSSES = {
    "none": Panel.loss,
    "temperature": Panel.scaled,
    "temperature_and_biases": Panel.refinement,
}


def _reason(chosen: Trial, lowest: Trial, rival: float) -> str:
    """Say why an epoch is kept; `rival` is the epoch with the lowest expected loss."""
    if chosen is lowest:
        return "the lowest loss" if chosen.method == "none" else "the lowest loss once calibrated"
    if chosen.method == "none":
        return f"not clearly worse than epoch {rival:g} once calibrated"
    return f"lower in loss than epoch {rival:g} and not clearly worse once calibrated"


def recommend(panel: Panel, table: pd.DataFrame, kept: Kept, *, wrong_labels: bool) -> Recommendation:
    """Return the checkpoint to keep, with the recalibration that gains something beyond its error if any.

    Parameters
    ----------
    panel : Panel
    table : DataFrame
        The rows of `History.table` of its checkpoints.
    kept : Kept
    wrong_labels : bool
        Whether labels look wrong to the run: then the temperature allows for it.
    """
    at = int(np.flatnonzero(panel.epochs == kept.epoch)[0])
    weights = panel.objective.class_weights
    choice = choose(
        panel.checkpoints[at],
        quick=True,
        wrong_labels=wrong_labels,
        class_weights=weights,
        codes=panel.codes,
    )
    trial = choice.recommended
    caution = f"; {choice.caution}" if choice.caution else ""
    return Recommendation(
        kept.epoch,
        trial.recalibrator.temperature,
        trial.recalibrator.biases,
        float(table["loss"].iloc[at]) - trial.gain,
        float(table["accuracy"].iloc[at]),
        kept.reason + caution,
        trial.method,
        kept,
    )


#: For so many checkpoints a divergence has to last until the training should end.
_LASTING = 3


def reason_to_stop(divergence: Divergence, rest: pd.Series, kept: float) -> str:
    """Say why a training should end; "" where it should go on.

    Parameters
    ----------
    divergence : Divergence
    rest : Series
        The row of the refinement loss in `History.rise`.
    kept : float
        The epoch of the recommended checkpoint.
    """
    if divergence and len(divergence.end) >= _LASTING:
        return f"the training diverged at epoch {divergence.epoch:g}; keep epoch {kept:g}"
    if rest["status"] != "systematic":
        return ""
    first, last = (
        f"{rest[f'{end}_value']:.4g} nats at epoch {rest[f'{end}_epoch']:g}" for end in ("best", "last")
    )
    return f"the calibrated loss has risen systematically: {first}, {last}; keep epoch {kept:g}"
