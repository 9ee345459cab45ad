"""The verdicts on a run: loss, refinement loss and error rate, each against the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.causes.learning_rate import lasting_drops
from confshift.analysis.grouping import mean_error
from confshift.analysis.matrices import Matrix
from confshift.analysis.panel import Panel
from confshift.analysis.series import ALPHA, STATUSES, Looks, Series, hump_of, judge_series, series_of
from confshift.analysis.significance import mcnemar
from confshift.analysis.unscored import Selection, infinite_end, judged_flat, select
from confshift.errors import ConfshiftError

#: A rise below this share of the loss's rise, and of the fall before it, is real but small.
SMALL = 0.05


class Judgement(NamedTuple):
    """The two tables that :func:`judge` makes."""

    rise: pd.DataFrame
    candidates: pd.DataFrame


def judge(panel: Panel, *, looks: Looks = "once") -> Judgement:
    """Judge whether a run's loss, refinement loss and error rate rise, and which checkpoints may be best.

    A rise is systematic where it is beyond sampling error (the last epoch against every earlier one, see
    `simultaneous`) and beyond the jitter from epoch to epoch (`persistence`); each at 5 % or less as far as
    its assumptions hold.

    Checkpoints at which fewer than half of the samples have an answer are left out; so are samples without
    an answer at any of the others. An infinite mean is never the lowest; if the last mean is infinite, that
    is a rise without a test. See `unscored`.

    Parameters
    ----------
    panel : Panel
    looks : {"once", "every epoch"} or int
        "once" for a verdict at the end. "every epoch" if you ask the same question after each epoch: then
        the 5 % are for all looks together. A number is the number of looks planned; with it a rise is found
        sooner.

    Returns
    -------
    Judgement
        Two tables, described at `History.rise` and `History.candidates`.

    Raises
    ------
    ConfshiftError
        Where `looks` can't be used.
    """
    check_looks(looks)
    rows, candidates, of_losses = {}, {}, select(panel)
    quantities: dict[str, tuple[Matrix[Any], Selection]] = {
        "loss": (Panel.loss, of_losses),
        "refinement_loss": (Panel.refinement, of_losses),
        "error_rate": (Panel.wrong, select(panel, losses=False)),
    }
    for name, (values, selection) in quantities.items():
        part = panel.at(selection.positions.tolist()).take(selection.samples)
        weights = None if name == "error_rate" else part.weights
        drops = lasting_drops(part.checkpoints)
        blocks = partial(_blocks, part, values)
        series = series_of(blocks, part.epochs, groups=part.codes, weights=weights, drops=drops)
        rows[name] = _row(panel, values, series, selection, looks)
        rows[name]["unit"] = "fraction" if name == "error_rate" else "nats"
        candidates[name] = series.candidates
    _add_shares(rows, panel)
    candidates["accuracy"] = candidates.pop("error_rate").assign(value=lambda table: 1 - table["value"])
    rise = pd.DataFrame.from_dict(rows, orient="index").rename_axis("series")
    return Judgement(rise[_first(rise)], pd.concat(candidates, names=["criterion"]))


def _blocks(panel: Panel, values: Matrix[Any]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    for samples, block in panel.blocks_with_samples():
        yield samples, values.of(block).astype(np.float64, copy=False)


def _row(
    panel: Panel, values: Matrix[Any], series: Series, selection: Selection, looks: Looks
) -> dict[str, Any]:
    """Return a row of `rise`, without what depends on the other rows."""
    row, samples = judge_series(series, looks=looks), int(selection.samples.sum())
    row |= {"finite_best_value": row["best_value"], "finite_last_value": row["last_value"]}
    row |= hump_of(series.errors, series.epochs)._asdict()
    row["finite_samples"] = samples
    if selection.ends_infinite:
        row |= infinite_end(panel, values, series, selection)
    elif row["status"] == "flat" and not judged_flat(panel, selection):
        row |= {"status": "unscored", "verdict": STATUSES["unscored"].verdict}
    return row | {
        "samples": samples,
        "samples_left_out": len(selection.samples) - samples,
        "epochs_left_out": len(panel.epochs) - len(selection.eligible),
        "infinite_epochs": len(selection.infinite),
        "infinite_samples": selection.infinite_samples(panel),
    }


def _first(rise: pd.DataFrame) -> list[str]:
    leading = ["verdict", "status", "unit", "amount", "lower_bound", "since", "resolution"]
    return [*leading, *rise.columns.drop(leading)]


def _add_shares(rows: dict[str, dict[str, Any]], panel: Panel) -> None:
    """Relate each rise to that of the loss and to the fall before it; name the small ones."""
    of_loss = rows["loss"]["amount"]
    for name, row in rows.items():
        amount = row["amount"] * (_nats_for_errors(row, panel) if name == "error_rate" else 1)
        row["share_of_rise"] = _share(amount, of_loss)
        row["share_of_fall"] = _share(row["amount"], row["fall"])
        row["upper_share_of_fall"] = _share(row["upper_bound"], row.pop("fall"))
        if row["status"] == "systematic" and max(row["share_of_rise"], row["share_of_fall"]) < SMALL:
            row["status"] = "small"


def _share(part: float, whole: float) -> float:
    """Return part / whole; 0 where the part isn't positive, else inf where the whole isn't.

    An infinite part of an infinite whole is 1, a finite part of it NaN.
    """
    if math.isnan(part):
        return math.nan
    if whole == math.inf and part > 0:
        return 1.0 if part == whole else math.nan
    return 0.0 if part <= 0 else part / whole if whole > 0 else math.inf


def _nats_for_errors(row: Mapping[str, Any], panel: Panel) -> float:
    """Return the mean cost of a mistake over the lowest and the last epoch: nats for each unit of error."""
    if math.isnan(row["amount"]):
        return math.nan
    costs = []
    for epoch in (row["best_epoch"], row["last_epoch"]):
        one = panel.one(int(np.argmax(panel.epochs == epoch)))
        wrong = one.take(one.finite[0] & one.wrong[0])
        if len(wrong.targets):
            costs.append(float(wrong.mean(wrong.mistake[0])))
    return float(np.mean(costs)) if costs else 0.0


def leading(rise: pd.DataFrame) -> str:
    """Return the series of `History.rise` that the verdict on the run is about.

    The loss; but where it does not rise systematically and another does (or is set back), that one: first
    the refinement loss. Where the loss ends infinite, it is the error rate that may tell.
    """
    status = rise["status"]
    if rise.loc["loss", "infinite_samples"] > 0:
        return "error_rate" if status["error_rate"] == "systematic" else "loss"
    if status["loss"] == "systematic":
        return "loss"
    if status["refinement_loss"] in ("systematic", "setback"):
        return "refinement_loss"
    return "error_rate" if status["error_rate"] == "systematic" else "loss"


def balance_share(panel: Panel, row: pd.Series) -> float:
    """Return the share of the rise in this row of `rise` that is class balance; 0 where that may be noise."""
    if not math.isfinite(row["amount"]):
        return 0.0
    pair = panel.at(
        [int(np.flatnonzero(panel.epochs == row[name])[0]) for name in ("best_epoch", "last_epoch")]
    )
    part = pair.take(pair.at_all(Panel.finite))
    before, after = part.balance
    changes = after - before
    change = part.mean(changes)
    return float(change / row["amount"]) if change > 2 * mean_error(part.terms(changes)) else 0.0


def repairs_errors(panel: Panel, row: pd.Series) -> bool:
    """Whether biases repair the mistakes added in this row of `rise`: beyond chance none is left.

    Parameters
    ----------
    panel : Panel
    row : Series
        Of the error rate.
    """
    right = []
    for epoch in (row["best_epoch"], row["last_epoch"]):
        checkpoint = panel.checkpoints[int(np.flatnonzero(panel.epochs == epoch)[0])]
        if not math.isfinite(checkpoint.joint_temperature):
            return False
        predictions = checkpoint.predictions
        scores = predictions.logits / checkpoint.joint_temperature + np.array(checkpoint.biases)
        right.append(scores.argmax(axis=1) == predictions.targets)
    switches = mcnemar(*right, codes=panel.codes)
    return switches.forgotten <= switches.learned or switches.p_value >= ALPHA


def check_looks(looks: Looks) -> None:
    """Refuse `looks` unless it says how often the question is asked."""
    is_number = isinstance(looks, int) and not isinstance(looks, bool) and looks > 0
    if is_number or looks in ("once", "every epoch"):
        return
    raise ConfshiftError(
        f'looks={looks!r}: "once" for a verdict at the end, "every epoch" for one after each epoch, '
        "or the number of epochs planned"
    )
