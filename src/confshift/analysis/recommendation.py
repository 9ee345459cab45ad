"""The one checkpoint that every sentence recommends, and what recalibrates it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from confshift.analysis.causes.divergence import Divergence
from confshift.analysis.panel import Panel
from confshift.analysis.recalibrators import by_gain, choose, gain_over
from confshift.checkpoint import Checkpoint


@dataclass(frozen=True)
class Recommendation:
    """The checkpoint to keep: softmax(z / temperature + biases) are its probabilities."""

    epoch: float
    temperature: float  # 1 where none gains anything beyond its error
    biases: tuple[float, ...]  # by class, in nats; all 0 where they gain nothing beyond their error
    loss: float  # what to expect of new samples, in nats: fitted without the sample that it is evaluated on
    accuracy: float  # a fraction; with biases that of the recalibrated predictions is about as high or higher
    reason: str
    method: str  # of the recalibration: one of `recalibrators.METHODS`

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
    choice = choose(checkpoint, wrong_labels=False)
    tried = [trial for trial in choice.trials if trial.method in ("vector", "matrix") and trial.fitted]
    by_method = {trial.method: trial for trial in choice.trials}
    simpler = by_method[recommendation.method]
    if not tried or choice.caution or simpler.losses is None:
        return None
    found = choice.recommended
    return Richer(found.method, *gain_over(simpler, found)) if found in tried else Richer("")


def recommend(panel: Panel, best: pd.DataFrame, *, wrong_labels: bool) -> Recommendation:
    """Choose the checkpoint to keep and its recalibration.

    Parameters
    ----------
    panel : Panel
    best : DataFrame
        `History.best`.
    wrong_labels : bool
        Whether labels look wrong to the run: then the temperature allows for it.

    Returns
    -------
    Recommendation
        Of the best by the rest of the loss and the best by the loss (the earliest of equals) the one with the
        lower expected loss, each recalibrated where that gains something beyond its error. Where every loss
        is infinite, the best by accuracy.
    """
    return _recalibrated(panel, *row_to_keep(panel, best), wrong_labels)


def row_to_keep(panel: Panel, best: pd.DataFrame) -> tuple[pd.Series, str]:
    """Return the row of `History.best` that :func:`recommend` chooses, and why."""
    loss, rest, accuracy = (best.loc[name] for name in ("loss", "refinement_loss", "accuracy"))
    if not math.isfinite(loss["loss"]):
        return accuracy, "the best by accuracy, as no loss is finite"
    by_rest, by_loss = (_gain(panel.checkpoint_at(row["epoch"])) for row in (rest, loss))
    if rest["loss"] - by_rest <= loss["loss"] - by_loss:
        return rest, "the lowest loss once calibrated"
    return loss, "the lowest loss"


def _gain(checkpoint: Checkpoint) -> float:
    """Return by how much the method that gains most, beyond its error, lowers the loss."""
    return by_gain(checkpoint).recommended.gain


def _recalibrated(panel: Panel, row: pd.Series, reason: str, wrong_labels: bool) -> Recommendation:
    """Return a checkpoint with the recalibration that gains something beyond its error, if one does."""
    choice = choose(panel.checkpoint_at(row["epoch"]), quick=True, wrong_labels=wrong_labels)
    trial = choice.recommended
    caution = f"; {choice.caution}" if choice.caution else ""
    return Recommendation(
        float(row["epoch"]),
        trial.recalibrator.temperature,
        trial.recalibrator.biases,
        float(row["loss"]) - trial.gain,
        float(row["accuracy"]),
        reason + caution,
        trial.method,
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
