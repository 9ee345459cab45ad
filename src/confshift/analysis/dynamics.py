"""Single samples over the epochs: what was learned, forgotten, never learned, and is suspect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.panel import Panel
from confshift.analysis.sorting import largest

#: A sample stuck at a wrong label is one that has it at a higher confidence than this.
_SURE = 0.99


def dynamics_of(panel: Panel) -> pd.DataFrame:
    """Follow each sample over the checkpoints.

    Returns
    -------
    DataFrame
        Indexed by sample_id: target; target_probability and variability (mean and standard deviation
        of the true class's probability over the epochs); aum (mean margin, area under the margin);
        correctness (share of epochs at which it is right); first_learned (the first epoch from which it
        stays right to the end; NaN where it is wrong at the end); forgetting_events and learning_events
        (changes right to wrong, wrong to right); last_loss (nats). Epochs at which a sample has no answer are
        skipped.

    Notes
    -----
    Defined in the literature on TRAINING samples; here on the inspected split. S. Swayamdipta et al.,
    "Dataset Cartography", EMNLP 2020, section 2; G. Pleiss et al., "Identifying Mislabeled Data using
    the Area Under the Margin Ranking", NeurIPS 2020; M. Toneva et al., "An Empirical Study of Example
    Forgetting during Deep Neural Network Learning", ICLR 2019.
    """
    parts = [_columns(block) for block in panel.blocks()]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return pd.DataFrame(
        {"target": panel.targets, **columns}, index=pd.Index(panel.sample_ids, name="sample_id")
    )


def _columns(panel: Panel) -> dict[str, NDArray[Any]]:
    answered, correct = panel.answered, panel.correct
    mean, deviation = _moments(_target_probability(panel), answered)
    margin, _ = _moments(panel.margin, answered)
    right, _ = _moments(correct, answered)
    switches = _switches(correct, answered)
    return {
        "target_probability": mean,
        "variability": deviation,
        "aum": margin,
        "correctness": right,
        "first_learned": _first_learned(correct, answered, panel.epochs),
        "forgetting_events": (switches < 0).sum(axis=0),
        "learning_events": (switches > 0).sum(axis=0),
        "last_loss": panel.loss[-1],
    }


def plausibility_of(panel: Panel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each sample's target_probability and correctness, (N,) each; see :func:`dynamics_of`."""
    probability, _ = _moments(_target_probability(panel), panel.answered)
    correctness, _ = _moments(panel.correct, panel.answered)
    return probability, correctness


def _target_probability(panel: Panel) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.exp(-panel.loss)


def _moments(values: NDArray[Any], usable: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean and standard deviation over the epochs, of the usable entries only."""
    counts = usable.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(usable, values, 0).sum(axis=0) / counts
        square = np.where(usable, (values - mean) ** 2, 0).sum(axis=0) / counts
    return mean, np.sqrt(square)


def _switches(correct: NDArray[np.bool_], answered: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Return 1 where an answer is right and the one before it was wrong, -1 the other way round, else 0."""
    place = np.arange(len(correct))[:, None]
    latest = np.maximum.accumulate(np.where(answered, place, -1), axis=0)
    before, now = latest[:-1], answered[1:]
    known = now & (before >= 0)
    earlier = np.take_along_axis(correct, np.maximum(before, 0), axis=0)
    return np.where(known, correct[1:].astype(np.int8) - earlier.astype(np.int8), np.int8(0))


def _first_learned(
    correct: NDArray[np.bool_], answered: NDArray[np.bool_], epochs: NDArray[np.float64]
) -> NDArray[np.float64]:
    place = np.arange(len(correct))[:, None]
    last_wrong = np.where(answered & ~correct, place, -1).max(axis=0)
    stays = correct & (place > last_wrong)
    return np.where(stays.any(axis=0), epochs[stays.argmax(axis=0)], np.nan)


def label_suspects(panel: Panel, *, limit: int | None = 100) -> pd.DataFrame:
    """Rank the samples by how little probability their label ever had.

    Parameters
    ----------
    panel : Panel
        The checkpoints of a run.
    limit : int or None
        The rows to return.

    Returns
    -------
    DataFrame
        Indexed by sample_id, the most suspect first: target, target_name; predicted, predicted_name and
        confidence at the last checkpoint; target_probability (mean over the checkpoints);
        correctness (share of checkpoints at which it is right); same_wrong_checkpoints (how many of the
        last ones in a row give the same wrong label); sure_checkpoints (how many of those, counted from
        the end, at a confidence above 0.99). The true label may of course be right and the sample hard.

    Notes
    -----
    S. Swayamdipta et al., "Dataset Cartography", EMNLP 2020, section 5; defined on training samples, used
    here on the inspected split.
    """
    return suspects_of(panel).table(limit)


@dataclass(frozen=True, eq=False)
class Suspects:
    """The samples of a panel, by how little probability their label ever had; columns of `label_suspects`."""

    panel: Panel
    target_probability: NDArray[np.float64]  # this and the others in the order of the panel
    correctness: NDArray[np.float64]
    same_wrong_checkpoints: NDArray[np.int32]
    sure_checkpoints: NDArray[np.int32]

    def first(self, number: int | None) -> NDArray[np.intp]:
        """Return the positions of so many samples, or all, the most suspect first."""
        return largest(-self.target_probability, len(self.panel.targets) if number is None else number)

    def table(self, limit: int | None) -> pd.DataFrame:
        """Return the table of `label_suspects`."""
        rows, panel = self.first(limit), self.panel
        last, names = panel.one(len(panel.checkpoints) - 1), panel.class_labels.to_numpy()
        targets, predicted = panel.targets[rows], last.predicted[0][rows]
        return pd.DataFrame(
            {
                "target": targets,
                "target_name": names[targets],
                "predicted": predicted,
                "predicted_name": np.where(predicted < 0, "", names[predicted]),
                "confidence": last.confidence[0][rows],
                "target_probability": self.target_probability[rows],
                "correctness": self.correctness[rows],
                "same_wrong_checkpoints": self.same_wrong_checkpoints[rows].astype(np.int64),
                "sure_checkpoints": self.sure_checkpoints[rows].astype(np.int64),
            },
            index=pd.Index(panel.sample_ids[rows], name="sample_id"),
        )


def suspects_of(panel: Panel) -> Suspects:
    """Rank the samples of a panel; see `label_suspects`."""
    parts = []
    for block in panel.blocks():
        wrong = (block.predicted == block.predicted[-1]) & block.wrong & block.answered
        at_end = (_run_at_end(held).astype(np.int32) for held in (wrong, wrong & (block.confidence > _SURE)))
        parts.append((*plausibility_of(block), *at_end))
    probability, correctness, same, sure = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Suspects(panel, probability, correctness, same, sure)


def _run_at_end(holds: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each column how many rows in a row hold at the end."""
    breaks = ~holds[::-1]
    return np.where(breaks.any(axis=0), breaks.argmax(axis=0), len(holds))
