"""Drops of the learning rate: where they are, by the recorded rates or by the jitter of the curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.causes.schedule import schedule_of
from confshift.checkpoint import Checkpoint
from confshift.input_checks import as_number

#: Names of the rate in a checkpoint's metadata or logged values.
_NAMES = ("lr", "learning_rate")
#: Jitter is measured in this many checkpoints on each side of a break.
_WINDOW = 8
FEWEST_CHECKPOINTS = 2 * _WINDOW
#: In 0 to 7 % of runs of 30 to 100 checkpoints without a break the largest ratio is above this; most often
#: where the three series jitter together.
_COLLAPSE = 6.0
_SERIES = ("loss", "error_rate", "refinement_loss")
#: Checkpoints whose mean is the level before and after a break; the level before is the noisier one.
_LEVELS = (5, 3)


def learning_rates(checkpoints: Sequence[Checkpoint]) -> NDArray[np.float64]:
    """Return each checkpoint's learning rate; NaN where none is recorded or it can't be read.

    It is `metadata["lr"]` or `metadata["learning_rate"]`, else `logged` under these names: a number, also
    one of numpy or torch. Of several (one for each parameter group, as `scheduler.get_last_lr()` returns) the
    largest is taken.
    """
    return np.array([_rate(checkpoint) for checkpoint in checkpoints])


def unread_rates(checkpoints: Sequence[Checkpoint]) -> pd.Series:
    """Return by epoch the recorded learning rates that can't be read as numbers."""
    first_values = {
        checkpoint.epoch: values[0]
        for checkpoint in checkpoints
        if (values := _recorded_values(checkpoint)) and math.isnan(_rate(checkpoint))
    }
    return pd.Series(list(first_values.values()), index=list(first_values), dtype=object)


def _recorded_values(checkpoint: Checkpoint) -> list[Any]:
    sources = (checkpoint.metadata, checkpoint.provenance.logged)
    return [source[name] for source in sources for name in _NAMES if source.get(name) is not None]


def _rate(checkpoint: Checkpoint) -> float:
    rates = (_largest(value) for value in _recorded_values(checkpoint))
    return next((rate for rate in rates if math.isfinite(rate)), math.nan)


def _largest(value: Any) -> float:
    """Return a number, or the largest of a list; NaN where it is anything else."""
    if callable(getattr(value, "tolist", None)):  # arrays and scalars of numpy, tensors on any device
        value = value.tolist()
    if isinstance(value, list | tuple):
        return float(np.max([_largest(item) for item in value], initial=-math.inf))
    return as_number(value)


def filled(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rates with the gaps closed by the rate before, or after: before training there is none."""
    return np.asarray(pd.Series(rates).ffill().bfill().to_numpy(np.float64))


def rate_drops(table: pd.DataFrame, rates: NDArray[np.float64]) -> pd.DataFrame:
    """Find drops of the learning rate, and what the means did there.

    Where the rate of most checkpoints is known, a drop is a fall to half or less between two of them, but
    for those of a decay: the last epochs of a cosine halve again and again. See `schedule.schedule_of`.
    Elsewhere it is a collapse of the jitter: the second differences of loss, error rate and refinement loss
    become at least six times smaller (geometric mean) from one window of eight checkpoints to the next. A
    rate that decays to 0 has the same effect, more slowly.

    Parameters
    ----------
    table : DataFrame
        Of one split, a row per checkpoint: epoch, loss, error_rate, calibration_loss, refinement_loss.
    rates : ndarray, shape (T,)

    Returns
    -------
    DataFrame
        A row per drop, indexed by the epoch of the first checkpoint after it: rate_before, rate_after (NaN
        where unknown), jitter_ratio (before over after; NaN where a window is too short), and for each of
        the four means `<name>_change` (the mean of up to three checkpoints after it minus that of up to
        five before) with `<name>_jitter`, the standard error that epoch-to-epoch jitter gives it.
    """
    series = table[[*_SERIES, "calibration_loss"]].to_numpy(np.float64)
    known = int(np.isfinite(rates).sum()) > len(rates) // 2
    rates = filled(rates)
    ratios = _jitter_ratios(series[:, : len(_SERIES)])
    if known:
        at = schedule_of(table["epoch"].to_numpy(np.float64), rates).drops
    else:
        at = _collapses(series[:, 2], ratios)
    rows = [
        {
            "rate_before": rates[position - 1] if known else math.nan,
            "rate_after": rates[position] if known else math.nan,
            "jitter_ratio": ratios[position],
            **_change_at(series, position),
        }
        for position in at
    ]
    columns = ["rate_before", "rate_after", "jitter_ratio", *_change_at(series, 0)]
    return pd.DataFrame(rows, index=pd.Index(table["epoch"].to_numpy()[at], name="epoch"), columns=columns)


def _jitter_ratios(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each checkpoint the jitter of the window before it over that of the window it starts."""
    ratios = np.full(len(series), np.nan)
    if len(series) < FEWEST_CHECKPOINTS:
        return ratios
    squares = np.diff(series, 2, axis=0) ** 2
    jitter = np.sqrt(np.lib.stride_tricks.sliding_window_view(squares, _WINDOW - 2, axis=0).mean(axis=-1))
    before, after = jitter[:-_WINDOW], jitter[_WINDOW:]
    with np.errstate(divide="ignore", invalid="ignore"):
        # A series that stops moving has lost its jitter, however small that was.
        ratio = np.exp(np.log(before / np.maximum(after, 1e-6 * before)).mean(axis=1))
    ratios[_WINDOW : len(series) - _WINDOW + 1] = np.where((before > 0).all(axis=1), ratio, np.nan)
    return ratios


def _jitter(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviation of each column about a local line, from its second differences."""
    if len(series) < 3:
        return np.full(series.shape[1], np.nan)
    return np.asarray(np.sqrt((np.diff(series, 2, axis=0) ** 2).mean(axis=0) / 6))


def _collapses(refinement: NDArray[np.float64], ratios: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the positions of the largest collapses, a window apart, after the initial fall.

    While the curves still fall steeply their curvature looks like jitter that goes away.
    """
    lowest = np.nanmin(refinement)
    fall_end = int(np.argmax(refinement <= lowest + 0.1 * max(refinement[0] - lowest, 0.0)))
    candidates = np.where(np.isfinite(ratios), ratios, 0.0)
    candidates[: fall_end + _WINDOW] = 0.0
    positions: list[int] = []
    while candidates.max() >= _COLLAPSE:
        peak = int(candidates.argmax())
        first = max(peak - _WINDOW, 0)
        # The ratio keeps growing while the curves settle after a drop: the break is where it first is large.
        position = first + int(np.argmax(candidates[first : peak + 1] >= _COLLAPSE))
        positions.append(position)
        candidates[max(position - _WINDOW, 0) : peak + _WINDOW] = 0.0
    return np.array(sorted(positions), np.intp)


def _change_at(series: NDArray[np.float64], position: int) -> dict[str, float]:
    before = series[max(position - _LEVELS[0], 0) : position]
    after = series[position : position + _LEVELS[1]]
    jitters = [
        _jitter(series[max(position - 2 * _WINDOW, 0) : position]),
        _jitter(series[position : position + _WINDOW]),
    ]
    columns: dict[str, float] = {}
    for column, name in enumerate((*_SERIES, "calibration_loss")):
        spread = [
            jitter[column] ** 2 / max(len(side), 1)
            for jitter, side in zip(jitters, (before, after), strict=True)
        ]
        has_both = len(before) and len(after)
        columns[f"{name}_change"] = (
            float(after[:, column].mean() - before[:, column].mean()) if has_both else math.nan
        )
        columns[f"{name}_jitter"] = math.sqrt(sum(spread))
    return columns
