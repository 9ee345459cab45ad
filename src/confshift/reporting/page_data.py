"""The data of a page: every table and array once, from which the script compares any two epochs."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.comparison import Comparison
from confshift.analysis.decomposition import CELLS, pairwise_cells
from confshift.analysis.history import History
from confshift.analysis.panel import Panel
from confshift.analysis.sample_rows import SIDES
from confshift.analysis.sorting import largest
from confshift.findings.wording import Vocabulary
from confshift.reporting import binning
from confshift.reporting.captions import CHOICES, READINGS
from confshift.reporting.epoch_tables import epoch_table, rise_starts
from confshift.reporting.row_texts import row_texts
from confshift.reporting.theme import CELL_LABELS, TRANSITION_LABELS
from confshift.reporting.thumbnails import Thumbnails

#: The cells of every pair are computed for at most this many checkpoints ...
_MAX_EPOCHS = 200
#: ... and at most this many pairs times samples; but never for fewer checkpoints than this.
_MAX_PAIR_CELLS, _MIN_EPOCHS = 100_000_000, 20

#: The columns of `History.pairs` that the script needs where every loss is finite; the epochs' means do
#: for the others.
_PAIR_COLUMNS = [
    *("loss_low", "loss_high", "refinement_low", "refinement_high", "accuracy_low", "accuracy_high"),
    *("hedging", "error_rate", "mistake_cost"),
]


@dataclass(frozen=True, eq=False)
class PageData:
    """What the page's script reads as `data`, by the names that it uses; a test compares the two sets.

    Positions are those among the page's epochs. Numbers that are not finite become null.
    """

    tables: dict[str, pd.DataFrame]  # the rows of the charts for the report's own pair, by table
    specs: dict[str, Any]  # Vega's, by the chart's id, without their configuration
    config: dict[str, Any]  # the configuration of every spec
    two_runs: bool  # whether A and B are of two runs: then there is no other pair
    pair: list[int]  # the positions of A and B, the report's own pair
    paired: bool  # whether they differ
    gaps: bool  # whether some loss is not finite: then a pair's means are over the samples that it shares
    epochs: dict[str, list[Any]]  # a list over the epochs for each numeric column of `epoch_table`
    pair_columns: list[str]  # the rows of the array `pair_table`, whose columns are the pairs
    classes: dict[str, Any]  # shown, names, samples, shares; accuracy and loss as lists over the epochs
    reliability: dict[str, Any]  # dots and isotonic: for each epoch the rows that a curve is drawn from
    bands: dict[str, Any]  # for A and for B: confidence, low, high
    bins: dict[str, Any]  # for each scale: edges; right and wrong, counts for each epoch
    odds_ticks: list[float]  # of the axis of log-odds, including its ends
    values: dict[str, Any]  # `pair_values` of the report's own pair
    words: Mapping[str, str]  # what rows and groups are called, and where: see `Vocabulary`
    readings: Mapping[str, str]  # templates of sentences
    choices: Mapping[str, Mapping[str, str]]  # templates of those that depend on the numbers
    labels: dict[str, Any]  # transitions: names; cells: transition, direction, name


@dataclass(frozen=True, eq=False)
class SampleData:
    """What the script reads as `data.samples`: the samples that a page holds one by one."""

    all: int  # how many samples the run has
    carried: int  # how many of them the page holds
    ids: list[str]  # of `row_texts`
    targets: list[int]  # the true classes
    weights: list[float]  # how many samples each stands for; empty where the page holds all
    class_weights: list[float]  # what each class weighs in a mean of losses; empty where all weigh the same
    class_names: dict[str, str]  # by class, of those that occur
    span: float  # the logarithm of the largest loss; see `pack_losses`
    floor: float  # added to a loss before its logarithm is taken
    bits: int  # of a predicted class
    inputs: dict[str, Any]  # tiles, texts, columns: the pictures or texts of samples' inputs


def thin_history(history: History, comparison: Comparison, rise: pd.DataFrame) -> History:
    """Return the history of the checkpoints on the page: all, or an even choice of them.

    It always includes the compared ones, the best ones, the one to keep and the one where a rise began.
    """
    checkpoints = history.main.checkpoints
    room = math.isqrt(2 * _MAX_PAIR_CELLS // max(1, len(history.main.targets)))
    limit = max(_MIN_EPOCHS, min(_MAX_EPOCHS, room))
    if len(checkpoints) <= limit:
        return history
    required = {
        comparison.before.epoch,
        comparison.after.epoch,
        *history.best["epoch"],
        history.recommendation.epoch,
        *rise_starts(rise),
    }
    places = np.linspace(0, len(checkpoints) - 1, limit - len(required)).round().astype(int)
    keep = {checkpoints[place].epoch for place in places} | required
    return history.only(keep)


def page_data(
    history: History,
    comparison: Comparison,
    *,
    tables: dict[str, pd.DataFrame],
    specs: dict[str, Any],
    classes: list[int],
    values: dict[str, Any],
    ticks: Sequence[float],
    two_runs: bool,
    words: Vocabulary,
) -> tuple[PageData, dict[str, str]]:
    """Gather the page's data without single samples: what the script reads, and packed arrays.

    Parameters
    ----------
    history : History
        Of the checkpoints on the page.
    comparison : Comparison
        Of the report's own pair, both of them on the page.
    tables : dict of str to DataFrame
        The tables of the charts that the script does not make.
    specs : dict
        Vega's, by the chart's id.
    classes : list of int
        Those shown one by one.
    values : dict
        `pair_values` of the pair.
    ticks : sequence of float
        Of the axis of log-odds.
    two_runs : bool
    words : Vocabulary
    """
    panel, pair = history.main, places_of(history, comparison)
    gaps = not panel.all_finite
    columns = list(history.pairs) if gaps else _PAIR_COLUMNS
    numbers = epoch_table(history).select_dtypes("number")
    data = PageData(
        tables={name: _short(table) for name, table in tables.items()},
        specs={name: {**spec, "config": {}} for name, spec in specs.items()},
        config=next((spec["config"] for spec in specs.values()), {}),
        two_runs=two_runs,
        pair=pair,
        paired=pair[0] != pair[1],
        gaps=gaps,
        epochs={str(name): numbers[name].tolist() for name in numbers},
        pair_columns=columns,
        classes=_classes(history, classes),
        **_confidences(history, comparison, np.array(ticks)),
        values=values,
        words={"pattern": words.pattern, **words.nouns._asdict()},
        readings=READINGS,
        choices=CHOICES,
        labels={
            "transitions": TRANSITION_LABELS,
            "cells": [[*cell, label] for cell, label in CELL_LABELS.items()],
        },
    )
    contributions, counts = pack_pairs(panel)
    arrays = {"pair_contributions": contributions, "pair_samples": counts}
    return data, {**arrays, "pair_table": pack(history.pairs[columns].to_numpy(np.float32).T)}


def sample_data(
    history: History,
    comparison: Comparison,
    *,
    limit: int,
    pictured: NDArray[np.intp],
    thumbnails: Thumbnails,
) -> tuple[SampleData, dict[str, str]]:
    """Gather the page's data of single samples, of at most `limit` of them.

    Parameters
    ----------
    history, comparison
        As in `page_data`.
    limit : int
    pictured : ndarray of int
        The samples of `thumbnails`, as positions in the panel.
    thumbnails : Thumbnails
    """
    panel, (before, after) = history.main, places_of(history, comparison)
    selection = select_samples(panel.changes(before, after), limit=limit)
    positions, names, of_class = selection.positions, panel.class_labels, panel.objective.class_weights
    predicted, losses = rows_of(panel, positions)
    labels = np.unique(np.r_[panel.targets[positions], predicted.ravel()])
    packed_losses, span = pack_losses(losses)
    packed_predicted, bits = pack_predicted(predicted, len(panel.class_names))
    data = SampleData(
        all=len(panel.targets),
        carried=len(positions),
        ids=row_texts(panel, positions),
        targets=panel.targets[positions].tolist(),
        weights=selection.weights.tolist() if len(positions) < len(panel.targets) else [],
        class_weights=[] if of_class is None else (of_class / of_class[panel.targets].mean()).tolist(),
        class_names={str(label): names[label] for label in labels if label >= 0},
        span=span,
        floor=LOSS_FLOOR,
        bits=bits,
        inputs=_inputs(positions, pictured, thumbnails),
    )
    return data, {"losses": packed_losses, "predicted": packed_predicted}


def _inputs(
    positions: NDArray[np.intp], pictured: NDArray[np.intp], thumbnails: Thumbnails
) -> dict[str, Any]:
    """Return the inputs of the page's samples, by their place among these."""
    place = {int(position): at for at, position in enumerate(positions)}
    pairs = [(place[position], at) for at, position in enumerate(pictured.tolist()) if position in place]
    return {
        "tiles": {i: thumbnails.tiles[at] for i, at in pairs if thumbnails.tiles[at] >= 0},
        "texts": {i: thumbnails.texts[at] for i, at in pairs if thumbnails.tiles[at] < 0},
        "columns": thumbnails.columns,
    }


def places_of(history: History, comparison: Comparison) -> list[int]:
    """Return the positions of the two compared checkpoints among the page's."""
    checkpoints = history.main.checkpoints
    return [checkpoints.index(comparison.before), checkpoints.index(comparison.after)]


def _confidences(history: History, comparison: Comparison, ticks: NDArray[np.float64]) -> dict[str, Any]:
    found = binning.confidences(history.main, binning.bin_edges(ticks))
    return {**found, "bands": _bands(comparison), "odds_ticks": ticks.tolist()}


def _short(table: pd.DataFrame) -> pd.DataFrame:
    """Round the numbers of a chart's table to more digits than anything shows."""
    numbers = table.select_dtypes("float")
    return table.assign(**{str(name): numbers[name].map(_rounded) for name in numbers})


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")


def _classes(history: History, classes: list[int]) -> dict[str, Any]:
    """Return accuracy and loss of the shown classes at every epoch, and their shares of all weight."""
    panel, table = history.main, history.classes.loc[history.split]
    wide = {
        name: table[name].to_numpy().reshape(len(panel.checkpoints), len(panel.class_names))
        for name in ("accuracy", "loss", "samples")
    }
    weight = np.bincount(panel.targets, panel.weights, len(panel.class_names)) / len(panel.targets)
    return {
        "shown": classes,
        "names": [panel.class_labels[cls] for cls in classes],
        "samples": [int(wide["samples"][-1, cls]) for cls in classes],
        "shares": [float(weight[cls]) for cls in classes],
        "accuracy": [wide["accuracy"][:, cls].tolist() for cls in classes],
        "loss": [wide["loss"][:, cls].tolist() for cls in classes],
    }


def _bands(comparison: Comparison) -> dict[str, list[list[float]]]:
    table = comparison.reliability_band
    return {
        name: table.loc[table["side"] == side, ["confidence", "low", "high"]].to_numpy().tolist()
        for name, side in zip("AB", SIDES, strict=True)
    }


#: Losses are stored as log(loss + this), in 16 bits: to 0.03 % of a large loss, to 1e-7 of a small one.
LOSS_FLOOR = 1e-3
#: The code of a loss that is not finite.
_MISSING = 65535
#: A subset includes this many of the samples whose loss changed most.
_MOVERS = 500


class PageSamples(NamedTuple):
    """The samples that the page holds one by one."""

    positions: NDArray[np.intp]  # in the panel, ascending
    weights: NDArray[np.float64]  # how many samples of the panel each stands for


def select_samples(changes: NDArray[np.float64], *, limit: int, seed: int = 0) -> PageSamples:
    """Choose the page's samples: all, or those that changed most and a random part of the others.

    Parameters
    ----------
    changes : ndarray, shape (N,)
        NaN where a sample can't be compared.
    limit : int
        The largest number of samples to choose.
    """
    samples = len(changes)
    if samples <= limit:
        return PageSamples(np.arange(samples), np.ones(samples))
    movers = largest(np.abs(np.nan_to_num(changes)), min(_MOVERS, limit // 2))
    others = np.delete(np.arange(samples), movers)
    random_part = np.random.default_rng(seed).choice(others, limit - len(movers), replace=False)
    positions = np.sort(np.concatenate([movers, random_part]))
    weight = (samples - len(movers)) / len(random_part)
    return PageSamples(positions, np.where(np.isin(positions, movers), 1.0, weight))


def pack(values: NDArray[Any]) -> str:
    """Write an array's bytes, little-endian, gzipped, as base64."""
    return pack_bytes(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes())


def pack_bytes(content: bytes) -> str:
    """Gzip bytes and write them as base64, which can't end the script element that holds them."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")


def rows_of(panel: Panel, positions: NDArray[np.intp]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return predicted classes and losses (T, n) of the samples at some positions, ascending."""
    members = np.zeros(len(panel.targets), bool)
    members[positions] = True
    parts = [(block.predicted, block.loss) for block in panel.take(members).blocks()]
    predicted, losses = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return predicted, losses


def pack_losses(losses: NDArray[np.float64]) -> tuple[str, float]:
    """Pack losses (T, n), 16 bits each, and the largest code's logarithm.

    65535 stands for a loss that is not finite: infinite where there is a prediction, else missing.
    """
    finite = np.isfinite(losses)
    largest = float(losses[finite].max()) if finite.any() else 0.0
    span = float(np.log1p(largest / LOSS_FLOOR)) or 1.0
    codes = np.full(losses.shape, _MISSING, np.uint16)
    codes[finite] = np.round(np.log1p(losses[finite] / LOSS_FLOOR) / span * (_MISSING - 1))
    return pack(codes), span


def pack_predicted(predicted: NDArray[np.int32], classes: int) -> tuple[str, int]:
    """Pack predicted classes (T, n), and return the bits of each; the largest code means no answer."""
    bits = 8 if classes < 2**8 else 16 if classes < 2**16 else 32
    return pack(predicted.astype(f"u{bits // 8}")), bits


def pack_pairs(panel: Panel) -> tuple[str, str]:
    """Pack the contributions (pairs, 12) and the samples (pairs, 12) of every pair of checkpoints."""
    count = len(panel.checkpoints) * (len(panel.checkpoints) - 1) // 2
    contributions = np.zeros((len(CELLS), count), np.float32)
    samples = np.zeros((len(CELLS), count), np.uint32)
    for place, (_, _, sums, counts) in enumerate(pairwise_cells(panel)):
        contributions[:, place] = sums
        samples[:, place] = counts
    return pack(contributions), pack(samples)
