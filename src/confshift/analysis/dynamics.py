"""Single samples over the epochs: what was learned when, forgotten how often, never learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.panel import Panel


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
    answered, correct = panel.answered, panel.correct
    mean, deviation = _moments(_target_probability(panel), answered)
    margin, _ = _moments(panel.margin, answered)
    right, _ = _moments(correct, answered)
    switches = _switches(correct, answered)
    return pd.DataFrame(
        {
            "target": panel.targets,
            "target_probability": mean,
            "variability": deviation,
            "aum": margin,
            "correctness": right,
            "first_learned": _first_learned(correct, answered, panel.epochs),
            "forgetting_events": (switches < 0).sum(axis=0),
            "learning_events": (switches > 0).sum(axis=0),
            "last_loss": panel.loss[-1],
        },
        index=pd.Index(panel.sample_ids, name="sample_id"),
    )


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
