"""Does the run get worse, or only fluctuate? The findings about the epochs as a series."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.history import History
from confshift.analysis.panel import Panel
from confshift.analysis.series import FEW
from confshift.findings.left_out import NOT_FINITE, few_infinite, opening
from confshift.findings.question import Finding, Question
from confshift.findings.run_kind import gets_worse
from confshift.findings.statuses import described, in_units
from confshift.findings.wording import MOST_WORDS, count, fitting, short_name

_QUESTIONS = {
    "loss": Question("rise", "Does the loss rise systematically?", section="rise"),
    "refinement_loss": Question(
        "refinement_rise", "Does the calibrated loss rise systematically?", section="rise", problem=None
    ),
    "error_rate": Question("error_rise", "Does the error rate rise systematically?", section="rise"),
}


def about_rise(history: History) -> list[Finding]:
    """Say of each series whether it rises.

    Outputs that are not finite come before the answer, other cautions after it.
    """
    remarks = cautions(history.main, history.rise.loc["loss"])
    first = _series_rise(history.rise, "loss", opening=opening(history.main), remarks=remarks)
    others = [series_rise(history.rise, series) for series in _QUESTIONS if series != "loss"]
    return [first, *(replace(finding, restates=gets_worse(history)) for finding in others)]


def series_rise(rise: pd.DataFrame, series: str) -> Finding:
    """Say whether one series rises beyond sampling error and beyond the jitter from epoch to epoch."""
    return _series_rise(rise, series, opening="", remarks=[])


def _series_rise(rise: pd.DataFrame, series: str, *, opening: str, remarks: list[str]) -> Finding:
    words = described(rise, series)
    lead = f"{opening} {words.sentence}".strip()
    if len(lead.split()) > MOST_WORDS:
        lead, remarks = f"{NOT_FINITE} {words.sentence}", [opening, *remarks]
    sentence, others = fitting([lead, *remarks, words.doubt])
    return _QUESTIONS[series].answer(
        rise.loc[series, "verdict"],
        sentence,
        rise.loc[[series]],
        words.step,
        answer=words.answer,
        details=f"{others} {words.details}".strip(),
    )


def cautions(panel: Panel, row: pd.Series) -> list[str]:
    """Return cautions that qualify the verdict of this row of `rise`, what is left out first."""
    remarks = []
    if row["samples_left_out"]:
        number = row["samples_left_out"]
        remarks.append(f"{count(number)} without a finite loss at some epoch {_are(number)} left out.")
    if row["epochs_left_out"]:
        remarks.append(
            f"{count(row['epochs_left_out'], 'checkpoint')} where most samples have no finite output "
            f"{_are(row['epochs_left_out'])} left out."
        )
    remarks.append(few_infinite(panel))
    if 0 < row["units"] < FEW:
        remarks.append(f"With only {in_units(row)} the errors themselves are rough.")
    if len(np.unique(panel.targets)) == 1:
        remarks.append(f"All samples are of class {short_name(panel.class_labels[panel.targets[0]])}.")
    if panel.counts.answered.any() and not any((one.wrong & one.answered).any() for one in panel.ones()):
        remarks.append("No sample is wrong at any epoch: the whole loss is hedging.")
    first = panel.one(0).loss[0]
    if row["epochs"] > 1 and all(np.array_equal(one.loss[0], first, equal_nan=True) for one in panel.ones()):
        remarks.append("All checkpoints hold the same numbers, as those of one model would.")
    copies = _copies(panel)
    if copies:
        remarks.append(
            f"{count(copies)} equal another in every number; if they are copies, pass groups=, or the errors "
            "come out too small."
        )
    return remarks


def _are(number: float) -> str:
    return "is" if number == 1 else "are"


def _copies(panel: Panel) -> int:
    """Count the samples that equal another one in target, loss and margin at up to three epochs."""
    positions = np.flatnonzero(panel.counts.finite)
    chosen = panel.at(positions[[0, len(positions) // 2, -1]].tolist() if len(positions) else [])
    rows = np.arange(len(panel.targets))
    for one in chosen.ones():
        rows = rows[_occur_twice(one.loss[0][rows])]
    if not len(rows):  # margins may have to be read
        return 0
    # Samples of one class with a margin of 0, or without one, are all alike: they count as no copies.
    some, columns = np.zeros(len(rows), bool), [panel.targets[rows]]
    for one in chosen.ones():
        margin = one.margin[0][rows]
        some |= (margin != 0) & np.isfinite(margin)
        columns += [one.loss[0][rows], margin]
    return int(pd.DataFrame(dict(enumerate(columns)))[some].duplicated().sum())


def _occur_twice(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which values equal another one; NaN is taken to. Sorting is cheap beside comparing rows."""
    twice = np.isnan(values)
    ordered = np.sort(values)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    return twice | np.isin(values, repeated) if len(repeated) else twice
