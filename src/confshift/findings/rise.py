"""Does the run get worse, or only fluctuate? The findings about the epochs as a series."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from confshift.analysis.history import History
from confshift.analysis.jitter import FEWEST
from confshift.analysis.panel import Panel
from confshift.analysis.persistence import TAIL
from confshift.analysis.series import ALPHA, FEW
from confshift.findings.left_out import REPAIR_ZERO, few_infinite, opening, zero_samples
from confshift.findings.question import Finding, Question
from confshift.findings.wording import count, epoch, nats, percent

#: The question about each series, and the name of the series in a sentence.
_SERIES = {
    "loss": (Question("rise", "Does the loss rise systematically?", section="rise"), "the loss"),
    "refinement_loss": (
        Question("refinement_rise", "Does what calibration leaves get worse?", section="rise"),
        "the refinement loss (what recalibration leaves)",
    ),
    "error_rate": (
        Question("error_rise", "Does the error rate rise systematically?", section="rise"),
        "the error rate",
    ),
}


#: A random walk exceeds so many times the critical values of the jitter in 1.5 % of runs of 100 epochs; above
#: this lag-1 autocorrelation a series may be one.
_CLEAR, _CORRELATED = 3, 0.5

#: What is smaller than this is the rounding of a sum.
_NOTHING = 1e-9


def about_rise(history: History) -> list[Finding]:
    """Say of each series whether it rises.

    Outputs that are not finite come before the answer, other cautions after it.
    """
    first, *others = [series_rise(history.rise, series) for series in _SERIES]
    sentences = [opening(history.main), first.sentence, *cautions(history.main, history.rise.loc["loss"])]
    return [replace(first, sentence=" ".join(sentence for sentence in sentences if sentence)), *others]


def series_rise(rise: pd.DataFrame, series: str) -> Finding:
    """Say whether one series rises beyond sampling error and beyond the jitter from epoch to epoch."""
    row = _without_shares_of_noise(rise.loc[series], rise.loc["loss"])
    question, name = _SERIES[series]
    words = {
        "systematic": _systematic,
        "small": _systematic,
        "within_jitter": _within_jitter,
        "setback": _setback,
        "below_resolution": _below_resolution,
        "unscored": _unscored,
        "flat": _flat,
        "too_few_epochs": _too_few_epochs,
    }[row["status"]]
    sentence, step = (_infinite if math.isinf(row["last_value"]) else words)(row, name)
    sentence = f"{sentence[0].upper()}{sentence[1:]}{_hump(row)}"
    return question.answer(row["verdict"], sentence, rise.loc[[series]], step)


def _without_shares_of_noise(row: pd.Series, loss: pd.Series) -> pd.Series:
    """Return the row without its shares of a rise or a fall that are themselves within noise."""
    shares = row[["share_of_rise", "share_of_fall"]].copy()
    if loss["verdict"] != "yes":
        shares["share_of_rise"] = math.nan
    if not row["amount"] >= row["resolution"] * row["share_of_fall"]:  # the fall is below the resolution
        shares["share_of_fall"] = math.nan
    return pd.Series({**row, **shares})


def _amount(row: pd.Series, value: float) -> str:
    return f"{100 * value:.2f} points" if row["unit"] == "fraction" else f"{nats(value)} nats"


def _level(row: pd.Series, value: float) -> str:
    """Write a mean with the digits that show the change, so that a reader who subtracts gets it too."""
    scale, least, sign = (100, 1, " %") if row["unit"] == "fraction" else (1, 2, "")
    change, digits = abs(row["amount"]), least
    if change > _NOTHING:
        digits = min(max(least, 1 - math.floor(math.log10(scale * change))), 5)
    return f"{scale * value:.{digits}f}{sign}"


def _course(row: pd.Series) -> str:
    return (
        f"{_level(row, row['best_value'])} at epoch {epoch(row['best_epoch'])}, "
        f"{_level(row, row['last_value'])} at epoch {epoch(row['last_epoch'])}"
    )


def _jitter(row: pd.Series) -> str:
    if math.isnan(row["jitter_sd"]):
        return "from epoch to epoch"
    has_correlation = not math.isnan(row["autocorrelation"])
    correlation = f", lag-1 autocorrelation {row['autocorrelation']:.2f}" if has_correlation else ""
    return f"from epoch to epoch (standard deviation {_amount(row, row['jitter_sd'])}{correlation})"


def _resolvable(row: pd.Series) -> str:
    return f"{in_units(row)} can resolve rises of {_amount(row, row['resolution'])} or more between them"


def _part(share: float) -> str:
    return f"{percent(share)} of" if share < 1 else f"{share:.1f} times"


def _systematic(row: pd.Series, name: str) -> tuple[str, str]:
    """Describe the rise, without a next step: that depends on all three series, so `run_kind` has it."""
    fall, share = row["share_of_fall"], row["share_of_rise"]
    sizes = [f"{_part(fall)} the fall before it"] if math.isfinite(fall) else []
    if name != _SERIES["loss"][1] and math.isfinite(share):
        sizes.append(f"{_part(share)} the rise of the loss")
    manner = "really, but little" if row["status"] == "small" else "systematically"
    size = f" That is {' and '.join(sizes)}." if sizes else ""
    sentence = (
        f"{name} has risen {manner}: {_course(row)}, up by {_amount(row, row['amount'])}, at least "
        f"{_amount(row, row['lower_bound'])} with 95 % confidence, whichever epoch is the best.{size} Every "
        f"epoch after {epoch(row['since'])} is measurably worse than the lowest. The rise is beyond what "
        f"{in_units(row)} leave uncertain and beyond the jitter {_jitter(row)}.{_doubt(row)}"
    )
    return sentence, ""


def _doubt(row: pd.Series) -> str:
    """Write what this one run leaves open of a rise that is called systematic."""
    excess = max(
        row["hinge"] / row["hinge_critical"],
        row["shape"] / row["shape_critical"],
        row["level"] / row["slow_level_critical"],
    )
    if excess <= 1:
        return (
            f" The {row['settled']} epochs from the end of the initial fall on can't show whether jitter "
            "lasts for several epochs; if it does, this may be a slow fluctuation. Another seed tells."
        )
    if excess < _CLEAR and row["autocorrelation"] > _CORRELATED:
        return (
            " Neighbouring epochs move together, and one run can't tell a trend from a series that wanders "
            "ever farther. Another seed tells."
        )
    return ""


def _within_jitter(row: pd.Series, name: str) -> tuple[str, str]:
    sentence = (
        f"{name} is higher at the last epoch ({_course(row)}: up by {_amount(row, row['amount'])}, at least "
        f"{_amount(row, row['lower_bound'])}). That is real for these two checkpoints, but "
    )
    if row["trend_p"] < ALPHA / 2 or row["level"] > row["level_critical"]:
        return (
            f"{sentence}no more than a slow fluctuation does, in which neighbouring epochs move "
            f"together: the jitter {_jitter(row)} may be one."
        ), "Train on, or repeat the run with another seed: a trend comes back, a fluctuation does not."
    return (
        f"{sentence}not beyond the jitter {_jitter(row)}: the next epoch may take it back."
    ), "Train some more epochs, or at a lower learning rate, before judging."


def _setback(row: pd.Series, name: str) -> tuple[str, str]:
    sentence = (
        f"{name} jumped up to epoch {epoch(row['hump_epoch'])}, by {_amount(row, row['hump'])}, and has not "
        f"come down again: {_course(row)}, up by {_amount(row, row['amount'])}, at least "
        f"{_amount(row, row['lower_bound'])}. That is no trend, and more than the jitter before and after."
    )
    return sentence, "Find out what happened there: the learning rate, the data, the code."


def _below_resolution(row: pd.Series, name: str) -> tuple[str, str]:
    if math.isnan(row["resolution"]):
        sentence = (
            f"every sample moved {name} by the same amount ({_course(row)}): copies of one sample? There is "
            "no spread from which to tell the sampling error."
        )
        return sentence, "Validate on distinct samples."
    if row["rising"]:
        trend = f"{name} drifts upwards on these samples ({_course(row)})"
    else:
        trend = f"{name} shows no clear drift ({_course(row)}), but {in_units(row)} can't rule a rise out"
    sentence = f"{trend}; {_resolvable(row)}."
    if not 0 < row["amount"] < row["resolution"]:
        return sentence, ""
    needed_units = row["units"] * (row["resolution"] / row["amount"]) ** 2
    noun = "sample" if row["units"] == row["samples"] else "group"
    step = (
        f"About {count(float(f'{needed_units:.2g}'), noun)} would resolve a rise of "
        f"{_amount(row, row['amount'])}."
    )
    return sentence, step


def _hump(row: pd.Series) -> str:
    """Say that a series was much higher in between, which its last epoch does not show; else ""."""
    if math.isnan(row["hump"]) or row["status"] == "setback":
        return ""
    taken_back = row["hump"] - row["hump_left"]
    rest = "which was" if taken_back >= 0.9 * row["hump"] else f"of which {_amount(row, taken_back)} were"
    return (
        f" In between it rose by {_amount(row, row['hump'])} up to epoch {epoch(row['hump_epoch'])}, {rest} "
        f"taken back by epoch {epoch(row['hump_until'])}."
    )


def _infinite(row: pd.Series, name: str) -> tuple[str, str]:
    """Describe a rise to an infinite mean, and the change of the samples that stayed finite."""
    lasting = {
        "systematic": "and stays there",
        "within_jitter": f"but not at {TAIL} epochs in a row: the next epoch may take it back",
        "too_few_epochs": "and there are too few epochs to say whether it stays there",
    }[row["status"]]
    sentence = (
        f"{name} has risen to infinity, {lasting}: {nats(row['best_value'])} nats at epoch "
        f"{epoch(row['best_epoch'])}, infinite at epoch {epoch(row['last_epoch'])}, where "
        f"{zero_samples(int(row['infinite_samples']))}."
    )
    if row["finite_samples"]:
        sentence += (
            f" Over the {count(row['finite_samples'])} with a finite one at both it went from "
            f"{nats(row['finite_best_value'])} to {nats(row['finite_last_value'])} nats."
        )
    return sentence, REPAIR_ZERO


def _unscored(row: pd.Series, name: str) -> tuple[str, str]:
    sentence = (
        f"{name} does not rise where it can be judged ({_course(row)}, over {in_units(row)}), but what was "
        "left out could hide a rise."
    )
    return sentence, "Find out why these outputs are not finite, and inspect again."


def _flat(row: pd.Series, name: str) -> tuple[str, str]:
    if abs(row["amount"]) < _NOTHING:
        return f"{name} does not rise: the last epoch is as low as any before ({_course(row)}).", ""
    if row["amount"] < 0:
        return f"{name} does not rise: the last epoch is the lowest ({_course(row)}).", ""
    sentence = (
        f"{name} does not rise beyond noise: {_course(row)}, up by {_amount(row, row['amount'])}, neither "
        f"beyond sampling error nor lastingly. {_resolvable(row)}."
    )
    return sentence, ""


def _too_few_epochs(row: pd.Series, name: str) -> tuple[str, str]:
    if row["epochs"] < 2:
        number = "no checkpoint" if row["epochs"] == 0 else "one checkpoint only"
        return f"there is {number} that can be judged: {name} has no course yet.", "Inspect more epochs."
    missing = max(TAIL + 1 - row["epochs"], TAIL - row["tail"], FEWEST - row["settled"])
    sentence = (
        f"too few epochs to judge {name}: {count(row['epochs'], 'checkpoint')}, {row['settled']} from the "
        f"end of the initial fall on, {row['tail']} after the lowest ({_course(row)}); {FEWEST} and {TAIL} "
        "are wanted to tell a rise from jitter."
    )
    if row["amount"] > 0 and not math.isnan(row["lower_bound"]):
        sentence += (
            f" So far it is up by {_amount(row, row['amount'])}"
            + (f", at least {_amount(row, row['lower_bound'])}" if row["lower_bound"] > 0 else "")
            + "."
        )
    return sentence, f"Ask again after {count(missing, 'more epoch')}."


def in_units(row: pd.Series) -> str:
    """Write what the sampling error of a row of `rise` is estimated from: samples, or groups of them."""
    has_groups = row["units"] != row["samples"]
    return count(row["samples"]) + (f" in {count(row['units'], 'group')}" if has_groups else "")


def cautions(panel: Panel, row: pd.Series) -> list[str]:
    """Return cautions about the samples that qualify the verdict of this row of `rise`."""
    remarks = []
    if 0 < row["units"] < FEW:
        remarks.append(f"With only {in_units(row)} the errors themselves are rough.")
    if len(np.unique(panel.targets)) == 1:
        remarks.append(
            f"All samples are of class {panel.class_labels[panel.targets[0]]}: no other was asked."
        )
    if panel.answered.any() and panel.correct[panel.answered].all():
        remarks.append("No sample is wrong at any epoch: the whole loss is hedging.")
    first = np.broadcast_to(panel.loss[:1], panel.loss.shape)
    if row["epochs"] > 1 and np.array_equal(panel.loss, first, equal_nan=True):
        remarks.append("All checkpoints hold the same numbers: was one model inspected again and again?")
    copies = _copies(panel)
    if copies:
        remarks.append(
            f"{count(copies)} equal another one in every number: if they are copies, pass groups=, or the "
            "errors come out too small."
        )
    if row["samples_left_out"]:
        remarks.append(f"{count(row['samples_left_out'])} without a finite loss at some epoch left out.")
    if row["epochs_left_out"]:
        remarks.append(
            f"{count(row['epochs_left_out'], 'checkpoint')} where most samples have no finite output left "
            "out."
        )
    infinite = few_infinite(panel)
    return [*remarks, infinite] if infinite else remarks


def _copies(panel: Panel) -> int:
    """Count the samples that equal another one in target, loss and margin at up to three epochs."""
    positions = np.flatnonzero(panel.finite.any(axis=1))
    columns = {"target": panel.targets}
    for position in positions[[0, len(positions) // 2, -1]] if len(positions) else ():
        columns[f"loss {position}"], columns[f"margin {position}"] = (
            panel.loss[position],
            panel.margin[position],
        )
    table = pd.DataFrame(columns)
    # Samples of one class with a margin of 0, or without one, are all alike: they count as no copies.
    margins = table.filter(like="margin").abs()
    has_answer = ((margins > 0) & np.isfinite(margins)).any(axis=1)
    return int(table[has_answer].duplicated().sum())
