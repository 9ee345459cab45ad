"""Drops of the learning rate: where they are, by the recorded rates or by the jitter of the curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.causes.schedule import same_phase, schedule_of
from confshift.analysis.matrices import Matrix
from confshift.analysis.panel import Panel
from confshift.analysis.significance import mcnemar, paired_interval
from confshift.analysis.unscored import enough_answers
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
_MEANS = (*_SERIES, "calibration_loss", "scale_loss", "balance_loss")
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


def lasting_drops(checkpoints: Sequence[Checkpoint]) -> tuple[int, ...]:
    """Return the positions of the first checkpoints after each drop of the recorded rate that it never undid.

    Drops in steps, not those of a smooth decay; none where the rate of half of the checkpoints or more is
    unknown.
    """
    rates = learning_rates(checkpoints)
    if np.isfinite(rates).sum() <= len(rates) // 2:
        return ()
    rates = filled(rates)
    epochs = np.array([checkpoint.epoch for checkpoint in checkpoints])
    drops = schedule_of(epochs, rates).drops
    return tuple(int(drop) for drop in drops if rates[drop:].max() < rates[drop - 1])


#: The chance that a run that lost nothing is said to have lost something since any epoch of the same rate.
_ALPHA = 0.05


def at_the_last_rate(panel: Panel) -> pd.DataFrame:
    """Hold the last checkpoint against the best earlier one at its learning rate, where that goes in cycles.

    Parameters
    ----------
    panel : Panel

    Returns
    -------
    DataFrame
        Indexed by series (refinement_loss, error_rate); columns learning_rate, epochs (how many earlier ones
        are at that rate), best_epoch and best_value (the lowest of them), last_epoch and last_value, amount
        (nats, fraction), share_of_fall (of the fall from the first checkpoint to the lowest of all; inf where
        nothing fell), certain (whether the rise is beyond sampling error, allowing for the choice among the
        epochs). Over the samples with a finite loss at all checkpoints that most samples have an answer at.
        Without rows where no rate is recorded, or it does not go in cycles, or the last checkpoint has no
        answers.
    """
    rates, judged = learning_rates(panel.checkpoints), np.flatnonzero(enough_answers(panel))
    empty = pd.DataFrame(index=pd.Index([], name="series"))
    if np.isfinite(rates).sum() <= len(rates) // 2 or not len(judged) or judged[-1] != len(rates) - 1:
        return empty
    rates = filled(rates)[judged]
    phase = judged[same_phase(panel.epochs[judged], rates)]
    usable = panel.at(judged.tolist()).at_all(Panel.finite)
    if not len(phase) or usable.sum() < 2:
        return empty
    part = panel.take(usable)
    rows = {
        "refinement_loss": _since_phase(part, Panel.refinement, phase, judged),
        "error_rate": _since_phase(part, Panel.wrong, phase, judged),
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("series")
    for end in ("best", "last"):
        table.insert(0, f"{end}_epoch", panel.epochs[table.pop(f"{end}_position")])
    table.insert(0, "epochs", len(phase))
    table.insert(0, "learning_rate", rates[-1])
    return table


def _since_phase(
    panel: Panel, values: Matrix[Any], phase: NDArray[np.intp], judged: NDArray[np.intp]
) -> dict[str, Any]:
    """Return the row of a series, of losses, or of whether a sample is wrong."""
    of_errors = values is Panel.wrong
    panel = panel.plain if of_errors else panel
    means, last = np.array([float(one.mean(values.of(one)[0])) for one in panel.ones()]), judged[-1]
    best = int(phase[np.argmin(means[phase])])
    amount, fall = float(means[last] - means[best]), float(means[judged[0]] - means[judged].min())
    alpha, (at_best, at_last) = _ALPHA / len(phase), values.of(panel.at([best, int(last)]))
    if of_errors:
        certain = amount > 0 and mcnemar(~at_best, ~at_last, codes=panel.codes).p_value < alpha
    else:
        certain = paired_interval(panel.terms(at_last - at_best), level=1 - alpha).low > 0
    return {
        "best_position": best,
        "last_position": last,
        "best_value": float(means[best]),
        "last_value": float(means[last]),
        "amount": amount,
        "share_of_fall": 0.0 if amount <= 0 else amount / fall if fall > 0 else math.inf,
        "certain": bool(certain),
    }


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
        Of one split, a row per checkpoint: epoch, loss, error_rate, refinement_loss, calibration_loss,
        scale_loss, balance_loss.
    rates : ndarray, shape (T,)

    Returns
    -------
    DataFrame
        A row per drop, indexed by the epoch of the first checkpoint after it: rate_before, rate_after (NaN
        where unknown), jitter_ratio (before over after; NaN where a window is too short), and for each of
        these six means `<name>_change` (the mean of up to three checkpoints after it minus that of up to
        five before) with `<name>_jitter`, the standard error that epoch-to-epoch jitter gives it. Both are
        over checkpoints between the drop before this one and the next.
    """
    series = table[list(_MEANS)].to_numpy(np.float64)
    known = int(np.isfinite(rates).sum()) > len(rates) // 2
    rates = filled(rates)
    ratios = _jitter_ratios(series[:, : len(_SERIES)])
    if known:
        at = schedule_of(table["epoch"].to_numpy(np.float64), rates).drops
    else:
        at = _collapses(series[:, 2], ratios)
    edges = [0, *at, len(series)]
    rows = [
        {
            "rate_before": rates[position - 1] if known else math.nan,
            "rate_after": rates[position] if known else math.nan,
            "jitter_ratio": ratios[position],
            **_change_between(series[start:position], series[position:end]),
        }
        for start, position, end in zip(edges, at, edges[2:], strict=False)
    ]
    columns = ["rate_before", "rate_after", "jitter_ratio", *_change_between(series[:0], series)]
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


def _change_between(before: NDArray[np.float64], after: NDArray[np.float64]) -> dict[str, float]:
    """Return how the level of each column changes from the checkpoints before a drop to those after it."""
    levels = before[-_LEVELS[0] :], after[: _LEVELS[1]]
    jitters = _jitter(before[-2 * _WINDOW :]), _jitter(after[:_WINDOW])
    columns: dict[str, float] = {}
    for column, name in enumerate(_MEANS):
        spread = [
            jitter[column] ** 2 / max(len(level), 1) for jitter, level in zip(jitters, levels, strict=True)
        ]
        means = [level[:, column].mean() if len(level) else math.nan for level in levels]
        columns[f"{name}_change"] = float(means[1] - means[0])
        columns[f"{name}_jitter"] = math.sqrt(sum(spread))
    return columns
