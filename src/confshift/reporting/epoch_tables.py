"""The tables of the charts over epochs, and the context in which charts are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from confshift.analysis.history import History
from confshift.analysis.mapping import of_each
from confshift.analysis.panel import Panel
from confshift.findings.wording import count, percent, short_name
from confshift.findings.wording import epoch as epoch_text
from confshift.reporting import binning
from confshift.reporting.charts.parts import ChartContext
from confshift.reporting.theme import KEPT, LOSSES, MARKS, PARTS, SIDES

#: A 95 % margin is this many standard errors.
_MARGIN = 1.96
#: Columns in the tooltip of an epoch.
_HOVER_COLUMNS = [
    "epoch",
    "loss",
    "scale_loss",
    "balance_loss",
    "refinement_loss",
    "accuracy",
    "temperature",
]
#: Further columns where some sample has no finite loss.
_NONFINITE_COLUMNS = ["finite_loss", "infinite_samples", "unanswered_samples"]
#: How the key of a chart names what is not finite, by the column of its samples.
_NOT_FINITE = {"unanswered": "not finite: {} left out", "infinite": "infinite loss: {}"}
#: An answer with a confidence above this counts as sure.
SURE = 0.9
#: No axis is narrower than this, relative to its largest value: its ticks would need too many digits.
_NARROWEST = 1e-9


#: The tables of histories that are in use: a page asks for them eight times.
_tables: WeakKeyDictionary[History, pd.DataFrame] = WeakKeyDictionary()


def epoch_table(history: History) -> pd.DataFrame:
    """Return the main split's rows of `history.table`, with the shares of confident answers.

    `sure_right` and `sure_wrong` are the shares of the right and of the wrong answers with a confidence
    above SURE. An axis can't show an infinite mean, so it is NaN here, and `infinite_samples` is above 0.
    The table is shared, so leave it as it is.
    """
    table = _tables.get(history)
    if table is None:
        _tables[history] = table = _epoch_table(history)
    return table


def _epoch_table(history: History) -> pd.DataFrame:
    table = history.table
    table = table[table["split"] == history.split].reset_index(drop=True)
    panel = history.main
    means = ["loss", "refinement_loss", "mistake_cost"]
    return table.assign(
        **{name: table[name].where(np.isfinite(table[name])) for name in means},
        infinite_samples=table["nonfinite_samples"] - table["unanswered_samples"],
        **dict(zip(("sure_right", "sure_wrong"), zip(*of_each(_sure_of, panel), strict=True), strict=True)),
    )


def _hover_columns(table: pd.DataFrame) -> pd.DataFrame:
    beside = _NONFINITE_COLUMNS if table["nonfinite_samples"].any() else []
    return table[[*_HOVER_COLUMNS, *beside]]


def _not_finite(table: pd.DataFrame) -> pd.DataFrame:
    """Return the epochs where some sample has no finite loss, each with half of the way to its neighbours."""
    epochs = table["epoch"].to_numpy(float)
    between = (epochs[:-1] + epochs[1:]) / 2
    columns = ["epoch", "unanswered_samples", "infinite_samples", "finite_loss"]
    strips = table[columns].assign(start=np.r_[epochs[:1], between], end=np.r_[between, epochs[-1:]])
    return strips[table["nonfinite_samples"] > 0]


def _not_finite_names(histories: Sequence[History]) -> dict[str, str]:
    """Say in the chart's key what is not finite at some epoch, by kind; of two runs, in which."""
    names = {}
    for kind, name in _NOT_FINITE.items():
        counts = [epoch_table(history)[f"{kind}_samples"] for history in histories]
        numbers = {number for column in counts for number in column if number}
        if numbers:
            share = max(numbers) / len(histories[0].main.targets)
            most = percent(share) if kind == "unanswered" else count(max(numbers))
            where = ", ".join(run for run, column in zip(SIDES, counts, strict=False) if column.any())
            text = name.format(("up to " if len(numbers) > 1 else "") + most)
            names[kind] = text if len(histories) == 1 else f"{text} ({where})"
    return names


def _marked(history: History, page_history: History) -> dict[str, Any]:
    """Name in the chart's key the lines of other splits, the best checkpoints, and the start of a rise."""
    marks, splits = _marks(page_history, history), _other_splits(page_history)["other_splits"]
    starts = rise_starts(history.rise)
    return {
        "splits": tuple(splits["label"].unique()),
        "marks": {row.label: f"{row.label}, epoch {epoch_text(row.epoch)}" for row in marks.itertuples()},
        "rise": f"worse from epoch {epoch_text(starts[0])} on" if starts else "",
    }


def _sure_of(one: Panel) -> list[float]:
    """Return the shares of the right and of the wrong answers with a confidence above SURE."""
    right, answered, confidence = one.correct[0], one.answered[0], one.confidence[0]
    answers = [confidence[members & answered] for members in (right, ~right)]
    return [float((some > SURE).mean()) if len(some) else math.nan for some in answers]


def run_tables(history: History, whole: History) -> dict[str, pd.DataFrame]:
    """Return the tables that do not depend on the pair.

    Parameters
    ----------
    history : History
        Of the checkpoints on the page.
    whole : History
        Of the whole run, whose verdict and advice are shown.
    """
    table = epoch_table(history)
    return {
        "epochs": _hover_columns(table),
        "not_finite": _not_finite(table),
        "loss_series": _series(table, LOSSES),
        "accuracy_series": _series(table, {"accuracy": "accuracy"}),
        "part_series": _stacked_parts(table),
        **_other_splits(history),
        "marks": _marks(history, whole),
        "rise": _rise(whole.rise),
        "zero": pd.DataFrame({"zero": [0]}),
        "uniform": pd.DataFrame(
            {"loss": [np.log(len(history.main.class_names))], "label": ["ln K: all classes alike"]}
        ),
    }


def run_labels(names: Sequence[str]) -> list[str]:
    """Return the names of two runs in a legend, where a long one is shortened."""
    return [f"{letter}: {short_name(name)}" for letter, name in zip(SIDES, names, strict=True)]


def two_run_tables(histories: Sequence[History], names: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the tables over epochs of two runs; `alone` marks a run's only checkpoint, which has no line."""
    by_run = list(zip(run_labels(names), map(epoch_table, histories), strict=True))

    def gather(series: Mapping[str, str]) -> pd.DataFrame:
        parts = [_series(table, series).assign(run=run, alone=len(table) == 1) for run, table in by_run]
        return pd.concat(parts, ignore_index=True)

    return {
        "epochs": pd.concat([_hover_columns(table).assign(run=run) for run, table in by_run]),
        "not_finite": pd.concat([_not_finite(table).assign(run=run) for run, table in by_run]),
        "run_losses": gather(LOSSES),
        "run_accuracies": gather({"accuracy": "accuracy"}),
        "zero": pd.DataFrame({"zero": [0]}),
    }


def _series(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    parts = []
    for key, name in names.items():
        mean, margin = table[key], _MARGIN * table[f"{key}_se"]
        parts.append(
            pd.DataFrame(
                {
                    "epoch": table["epoch"],
                    "series": name,
                    "split": table["split"],
                    "mean": mean,
                    "low": mean - margin,
                    "high": mean + margin,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _stacked_parts(table: pd.DataFrame) -> pd.DataFrame:
    """Return the three parts of the loss on top of each other; the uppermost ends at the loss.

    A part may be below 0: what was fitted to the other samples may cost a sample more than it gains.
    """
    levels = np.cumsum([np.zeros(len(table)), *(table[key] for key in PARTS)], axis=0)
    parts = [
        pd.DataFrame({"epoch": table["epoch"], "part": label, "mean": table[key], "start": start, "end": end})
        for (key, (_, label)), start, end in zip(PARTS.items(), levels[:-1], levels[1:], strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _other_splits(history: History) -> dict[str, pd.DataFrame]:
    table = history.table
    rows = table[table["split"] != history.split]
    lines = rows[["split", "epoch", "loss"]].rename(columns={"loss": "mean"})
    lines["mean"] = lines["mean"].where(np.isfinite(lines["mean"]))
    return {"other_splits": lines.assign(label="loss on " + lines["split"].astype(str))}


def _marks(history: History, whole: History) -> pd.DataFrame:
    """Return the best checkpoints and the one to keep, of the whole run: label, epoch, height of the mark."""
    rows, choice = [], whole.recommendation
    for key, (label, _) in MARKS.items():
        best = whole.best.loc[key]
        if np.isfinite(best[key]):
            rows.append({"label": label, "epoch": best["epoch"], "mean": best[key]})
    table = epoch_table(history).set_index("epoch")
    height = table.loc[choice.epoch, "refinement_loss" if choice.calibrated else "loss"]
    if np.isfinite(height):
        rows.append({"label": KEPT[0], "epoch": choice.epoch, "mean": height})
    return pd.DataFrame(rows, columns=["label", "epoch", "mean"])


def rise_starts(rise: pd.DataFrame) -> list[float]:
    """Return the epoch after which every loss is worse than the best; empty where there is no rise."""
    has_risen = rise.loc["loss", "status"] in ("systematic", "small")
    return [float(rise.loc["loss", "since"])] if has_risen else []


def _rise(rise: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"epoch": rise_starts(rise)})


def limits(histories: Sequence[History]) -> dict[str, Mapping[str, float]]:
    """Return the scales of the charts over epochs, by chart and span.

    "near" is the span after the initial fall of the loss, "whole" has every epoch. The fall is over where a
    tenth of it is left, as in the verdict on a rise.
    """
    tables = [epoch_table(history) for history in histories]
    spans = {"near": pd.concat(list(map(_after_fall, tables, histories))), "whole": pd.concat(tables)}
    lowest, highest = (_reach(spans["near"], ["accuracy"], sign) for sign in (-1, 1))
    scales: dict[str, Mapping[str, float]] = {
        "accuracy_near": {"domainMin": lowest} if _is_range(lowest, highest) else {},
        "accuracy_whole": {},
    }
    losses = [history.table["loss"] for history in histories]  # the lines of other splits reach as low
    lowest_losses = [low for loss in losses if np.isfinite(low := loss.min())]
    for span, table in spans.items():
        top, bottom = (_reach(table, list(LOSSES), sign) for sign in (1, -1))
        low = min([bottom, *lowest_losses])
        scales[f"loss_{span}"] = {"domainMin": low, "domainMax": top} if _is_range(bottom, top) else {}
        highest = table["loss"].max()  # the parts stand on 0
        scales[f"part_{span}"] = {"domainMax": highest} if _is_range(0.0, highest) else {}
    return scales


def _is_range(low: float, high: float) -> bool:
    """Return whether an axis can reach from one to the other: they differ by more than rounding."""
    return high - low > _NARROWEST * max(abs(low), abs(high))


def _after_fall(table: pd.DataFrame, history: History) -> pd.DataFrame:
    """Return the epochs after the initial fall; all from A on, where the page opens with an earlier A."""
    loss, low = table["loss"].to_numpy(), table["loss"].min()
    settled = int(np.argmax(loss <= low + 0.1 * max(loss[0] - low, 0)))
    start = history.main.checkpoints.index(history.pair[0])
    return table[min(settled, start) :]


def _reach(table: pd.DataFrame, keys: list[str], sign: int) -> float:
    """Return how far up (sign 1) or down (-1) the bands of the series reach."""
    ends = [sign * table[key] + _MARGIN * table[f"{key}_se"].fillna(0) for key in keys]
    return sign * float(max(end.max() for end in ends))


def chart_context(
    histories: Sequence[History], page_history: History, *, classes: int, names: Sequence[str] = ()
) -> ChartContext:
    """Return the context in which the charts are drawn.

    Parameters
    ----------
    histories : sequence of History
        Of one run, or of two.
    page_history : History
        Of the checkpoints on the page, whose epochs a reader can choose.
    classes : int
        How many are shown one by one.
    names : sequence of str
        Of two runs; empty for one.
    """
    return ChartContext(
        epochs=page_history.main.epochs.tolist(),
        classes=classes,
        odds_ticks=binning.odds_ticks(page_history.main).tolist(),
        limits=limits(histories),
        runs=run_labels(names) if names else (),
        not_finite=_not_finite_names(histories),
        unit="nats" if page_history.main.weights is None else "weighted nats",
        **({} if names else _marked(histories[0], page_history)),
        lone=any(len(history.main.checkpoints) == 1 for history in histories),
    )
