"""The split "test": the recommended checkpoint, as recalibrated, measured on samples that chose nothing."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.panel import Panel
from confshift.analysis.recalibrator import Recalibrator
from confshift.analysis.recommendation import Recommendation
from confshift.analysis.stacking import shared_names
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError

#: The split that nothing is fitted to, chosen by or judged by, where there is another.
SPLIT = "test"

#: Samples are compared at so many epochs, at most.
_MOST_EPOCHS = 4
#: The same sample in a batch of another size differs by rounding: by less than this share of a margin.
_ROUNDING = 1e-5
#: A share of samples that another split holds too is worth a warning from here on.
_WORTHWHILE = 0.01
#: How many standard errors an agreement must be beyond that of outputs on a coarse grid.
_ERRORS, _LEVEL = 4.0, 1e-4


def with_test_row(
    best: pd.DataFrame,
    table: pd.DataFrame,
    panels: Sequence[tuple[str, Panel]],
    recommendation: Recommendation,
) -> pd.DataFrame:
    """Add a row "test" to the best checkpoints, where the recommended one was inspected on that split too.

    Parameters
    ----------
    best, table : DataFrame
        Of a `History`.
    panels : sequence of (str, Panel)
        The main split first.
    recommendation : Recommendation

    Returns
    -------
    DataFrame
        With calibrated_accuracy (a fraction) and a column calibrated_loss (nats; infinite where the loss is;
        NaN in the other rows) where there is such a row; NaN where the logits can't be read.
    """
    panel, epoch = dict(panels[1:]).get(SPLIT), recommendation.epoch
    if panel is None or epoch not in panel.epochs:
        return best
    checkpoint = panel.checkpoints[int(np.flatnonzero(panel.epochs == epoch)[0])]
    row = table.loc[
        (table["split"] == SPLIT) & (table["epoch"] == epoch), best.columns.drop("calibrated_accuracy")
    ].iloc[0]
    row = pd.concat([row, pd.Series(_measured(checkpoint, recommendation, panel.objective.class_weights))])
    return pd.concat([best, row.to_frame(SPLIT).T]).rename_axis("criterion").infer_objects()


def _measured(
    checkpoint: Checkpoint, recommendation: Recommendation, class_weights: NDArray[np.float64] | None
) -> dict[str, float]:
    recalibrator = Recalibrator(
        recommendation.method,
        recommendation.temperature,
        recommendation.biases,
        (1.0,) * len(recommendation.biases),
    )
    scores, loss, accuracy = checkpoint.scores, math.nan, math.nan
    with contextlib.suppress(ConfshiftError):
        loss, accuracy = recalibrator.mean_loss(*checkpoint.scored_logits, class_weights)
        # An answer that gives the true class no probability is wrong however it is recalibrated.
        finite, answered = int(np.isfinite(scores.loss).sum()), int(scores.answered.sum())
        if finite < answered:
            loss, accuracy = math.inf, (accuracy * finite if finite else 0.0) / answered
    return {"calibrated_loss": loss, "calibrated_accuracy": accuracy}


def refuse_to_judge_by(splits: Iterable[str]) -> None:
    """Refuse the test split as the main one where there is another.

    Raises
    ------
    ConfshiftError
        Naming a split that can be judged.
    """
    for name in splits:
        if name != SPLIT:
            raise ConfshiftError(
                "split='test' is for the final number, in History.best: what a run is judged by chooses its "
                f"checkpoint; pass split={name!r}"
            )


def check_test_split(panels: Sequence[tuple[str, Panel]]) -> None:
    """Compare the samples of the test split with those of the others.

    Parameters
    ----------
    panels : sequence of (str, Panel)
        The test split, where there is one, last.

    Raises
    ------
    ConfshiftError
        Where every test sample is in another split, or the classes differ.

    Warns
    -----
    UserWarning
        Where more than 1 % of them are.

    Notes
    -----
    A sample is known by its target and the distances between its logits at the epochs that both splits have:
    ids of two splits need not be of one kind. Outputs on a coarse grid, or all alike, agree by chance; by how
    much shows in the agreement within the other split, which is subtracted.
    """
    for name, panel in panels[:-1]:
        if panels[-1][0] == SPLIT:
            _compare(panels[-1][1], panel, name)


def _compare(test: Panel, other: Panel, name: str) -> None:
    shared_names((other.checkpoints[0], test.checkpoints[0]))
    both = np.intersect1d(other.epochs, test.epochs)
    if not len(both):
        return
    chosen = both[np.unique(np.linspace(0, len(both) - 1, _MOST_EPOCHS).round().astype(int))]
    margins = np.abs(other.at(np.flatnonzero(np.isin(other.epochs, chosen)).tolist()).margin)
    margins = margins[(margins > 0) & np.isfinite(margins)]
    scale = float(np.median(margins)) if len(margins) else 1.0
    rows, known = (_rows(panel, chosen, _ROUNDING * scale) for panel in (test, other))
    if not (len(rows) and len(known)):
        return
    distinct, counts = np.unique(known, return_counts=True)
    by_chance = counts[counts > 1].sum() / len(known)
    again = np.isin(rows, distinct)
    share = float(again.mean())
    if share == 1 and by_chance < 1 / 2 and by_chance ** len(rows) < _LEVEL:
        raise ConfshiftError(
            f"split 'test' is split {name!r} again: each of its {len(rows):,} samples has the target and the "
            f"logits of one of {name!r}. Inspect other samples as split='test'; to go on without, remove the "
            "folder test of the run, or pass [checkpoint for checkpoint in run if checkpoint.split != 'test']"
        )
    error = math.sqrt(by_chance * (1 - by_chance) * (1 / len(rows) + 1 / len(known)))
    # As many pairs of other samples agree between the splits as, for each pair, within them; and one more.
    pairs = sum(len(split) * (len(split) - 1) / 2 for split in (rows, known)) or 1
    alike = sum(
        (number * (number - 1) / 2).sum() for number in (counts, np.unique(rows, return_counts=True)[1])
    )
    expected = (alike + 1) * len(rows) * len(known) / pairs
    is_more = again.sum() > expected + _ERRORS * math.sqrt(expected)
    if is_more and share - by_chance > _WORTHWHILE + _ERRORS * error:
        warnings.warn(
            f"{share:.1%} of the samples of split 'test' have the target and the logits of a sample of split "
            f"{name!r}: a number measured on them is too good; leave them out",
            stacklevel=5,
        )


def _rows(panel: Panel, epochs: NDArray[np.float64], unit: float) -> NDArray[np.void]:
    """Return one value for each sample with an answer at these epochs, alike for the same sample."""
    chosen = panel.at(np.searchsorted(panel.epochs, epochs).tolist())
    part = chosen.take(chosen.at_all(Panel.answered))
    values = np.concatenate([part.targets[None] * unit, part.mistake, part.margin])
    # Infinite distances (masked classes) stay; a negative zero would differ from zero.
    table = np.ascontiguousarray((np.round(values / unit) + 0.0).T)
    return table.view(np.dtype((np.void, table.itemsize * table.shape[1])))[:, 0]
