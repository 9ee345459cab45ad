"""A row of `History.rise` in words, by its status: what a series did, and how that was judged."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

from confshift.analysis.jitter import FEWEST
from confshift.analysis.persistence import TAIL
from confshift.analysis.series import ALPHA
from confshift.findings.left_out import REPAIR_ZERO, WHY_ZERO, zero_samples
from confshift.findings.wording import count, epoch, nats, percent

#: The name of each series in a sentence.
NAMES = {
    "loss": "the loss",
    "refinement_loss": "the calibrated loss",
    "error_rate": "the error rate",
}

#: A random walk exceeds so many times the critical values of the jitter in 1.5 % of runs of 100 epochs; above
#: this lag-1 autocorrelation a series may be one.
_CLEAR, _CORRELATED = 3, 0.5

#: What is smaller than this is the rounding of a sum.
_NOTHING = 1e-9


class Words(NamedTuple):
    """What is said of a series: `doubt` qualifies the sentence where there is room."""

    answer: str
    sentence: str
    details: str = ""
    step: str = ""
    doubt: str = ""


def described(rise: pd.DataFrame, series: str) -> Words:
    """Say what a series did, and whether that is beyond sampling error and jitter."""
    row, name = _without_shares_of_noise(rise.loc[series], rise.loc["loss"]), NAMES[series]
    describe = {
        "systematic": _systematic,
        "small": _systematic,
        "within_jitter": _within_jitter,
        "setback": _setback,
        "below_resolution": _below_resolution,
        "unscored": _unscored,
        "flat": _flat,
        "too_few_epochs": _too_few_epochs,
    }[row["status"]]
    words = (_infinite if math.isinf(row["last_value"]) else describe)(row, name)
    return words._replace(
        answer=_capital(words.answer),
        sentence=_capital(words.sentence),
        details=f"{words.details} {_hump(row)}".strip(),
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _without_shares_of_noise(row: pd.Series, loss: pd.Series) -> pd.Series:
    """Return the row without its shares of a rise or a fall that are themselves within noise."""
    shares = row[["share_of_rise", "share_of_fall"]].copy()
    if loss["verdict"] != "yes":
        shares["share_of_rise"] = math.nan
    if not row["amount"] >= row["resolution"] * row["share_of_fall"]:  # the fall is below the resolution
        shares["share_of_fall"] = math.nan
    return pd.Series({**row, **shares})


def _amount(row: pd.Series, value: float) -> str:
    if row["unit"] != "fraction":
        return f"{nats(value)} nats"
    return f"{100 * value:.{2 if abs(value) < 0.1 else 1}f} points"


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
    number = f"{row['autocorrelation']:.2f}".replace("-", "−")
    correlation = f", lag-1 autocorrelation {number}" if has_correlation else ""
    return f"from epoch to epoch (standard deviation {_amount(row, row['jitter_sd'])}{correlation})"


def _resolvable(row: pd.Series) -> str:
    return f"{in_units(row)} can resolve rises of {_amount(row, row['resolution'])} or more"


def _sizes(row: pd.Series, name: str) -> str:
    """Compare a rise with the fall before it and with the rise of the loss; "" where neither can be."""
    fall, share = row["share_of_fall"], row["share_of_rise"]
    sizes = []
    if math.isfinite(fall):
        part = f"{percent(fall)} of" if fall < 1 else f"{fall:.1f} times"
        sizes.append(f"{part} the fall before it")
    if name != NAMES["loss"] and math.isfinite(share):
        is_part = f"{percent(share)} of the rise of the loss"
        sizes.append(is_part if share < 1 else f"{share:.1f} times as much as the loss rose")
    return " and ".join(sizes)


def _systematic(row: pd.Series, name: str) -> Words:
    """Describe the rise, without a next step: that depends on all three series, so `run_kind` has it."""
    size, doubt, amount = _sizes(row, name), _doubt(row), _amount(row, row["amount"])
    details = (
        f"{_capital(_in_full(name))} went up by {amount} ({_course(row)}), at least "
        f"{_amount(row, row['lower_bound'])} with 95 % confidence, whichever epoch is the best."
        f"{f' That is {size}.' if size else ''} Judged against the sampling error of {in_units(row)} and the "
        f"jitter {_jitter(row)}.{doubt[1]}"
    )
    if row["status"] == "small":
        sentence = f"The rise is real, but little{f': {size}' if size else ''}."
        details = f"{details} Every epoch after {epoch(row['since'])} is measurably worse than the lowest."
        return Words(f"{name} rose slightly, by {amount}", sentence, details, doubt=doubt[0])
    sentence = (
        f"Every epoch after {epoch(row['since'])} is measurably worse than epoch {epoch(row['best_epoch'])}, "
        "the best, and neither sampling error nor the jitter between epochs explains it."
    )
    return Words(f"{name} rose systematically, by {amount}", sentence, details, doubt=doubt[0])


def _in_full(name: str) -> str:
    """Name a series as the tables do, where that differs."""
    return f"{name} (refinement_loss)" if name == NAMES["refinement_loss"] else name


def _doubt(row: pd.Series) -> tuple[str, str]:
    """Write what this one run leaves open of a rise that is called systematic, in short and in full."""
    excess = max(
        row["hinge"] / row["hinge_critical"],
        row["shape"] / row["shape_critical"],
        row["level"] / row["slow_level_critical"],
    )
    if excess <= 1:
        return "So few epochs can't rule out a slow fluctuation; another seed can.", (
            f" The {row['settled']} epochs from the end of the initial fall on can't show whether jitter "
            "lasts for several epochs."
        )
    if excess < _CLEAR and row["autocorrelation"] > _CORRELATED:
        return "One run can't rule out a slow fluctuation; another seed can.", (
            " Neighbouring epochs move together, and one run can't distinguish a trend from a series that "
            "wanders ever farther."
        )
    return "", ""


def _within_jitter(row: pd.Series, name: str) -> Words:
    up = _amount(row, row["amount"])
    answer = f"{name} is up {up}, perhaps fluctuating"
    details = (
        f"{_capital(_in_full(name))} is higher at the last epoch ({_course(row)}), at least by "
        f"{_amount(row, row['lower_bound'])}. The jitter {_jitter(row)}"
    )
    real = "The rise is real for these two checkpoints, but"
    if row["trend_p"] < ALPHA / 2 or row["level"] > row["level_critical"]:
        return Words(
            answer,
            f"{real} no more than a slow fluctuation produces, in which neighbouring epochs move together.",
            f"{details} may be such a fluctuation.",
            "Train on, or repeat the run with another seed: a trend comes back, a fluctuation does not.",
        )
    return Words(
        answer,
        f"{real} not beyond the jitter from epoch to epoch: the next epoch may take it back.",
        f"{details} reaches as far.",
        "Train some more epochs, or at a lower learning rate, before judging.",
    )


def _setback(row: pd.Series, name: str) -> Words:
    at, amount = epoch(row["hump_epoch"]), _amount(row, row["amount"])
    return Words(
        f"{name} jumped and stayed up: +{amount}",
        f"{name} jumped up to epoch {at}, by {_amount(row, row['hump'])}, and has not come down again: "
        f"{amount} are left. That is not a trend, and more than the jitter before and after.",
        f"{_capital(_in_full(name))}: {_course(row)}, up by {amount}, at least "
        f"{_amount(row, row['lower_bound'])}.",
        "Find out what happened there: the learning rate, the data, the code.",
    )


def _below_resolution(row: pd.Series, name: str) -> Words:
    course = f"{_capital(_in_full(name))}: {_course(row)}."
    if math.isnan(row["resolution"]):
        sentence = (
            f"Every sample moved {name} by the same amount, as copies of one sample would: there is no "
            "spread to estimate the sampling error from."
        )
        return Words(f"no spread to judge {name} by", sentence, course, "Validate on distinct samples.")
    if row["rising"]:
        answer, trend = f"{name} may be rising: too few samples", "drifts upwards on these samples"
    else:
        answer, trend = f"too few samples to judge {name}", "shows no clear drift, but may rise unseen"
    sentence = f"{_capital(name)} {trend}; {_resolvable(row)} between these epochs."
    if not 0 < row["amount"] < row["resolution"]:
        return Words(answer, sentence, course)
    needed_units = row["units"] * (row["resolution"] / row["amount"]) ** 2
    noun = "sample" if row["units"] == row["samples"] else "group"
    step = (
        f"Validate on about {count(float(f'{needed_units:.2g}'), noun)} to resolve a rise of "
        f"{_amount(row, row['amount'])}."
    )
    return Words(answer, sentence, course, step)


def _hump(row: pd.Series) -> str:
    """Say that a series was much higher in between, which its last epoch does not show; else ""."""
    if math.isnan(row["hump"]) or row["status"] == "setback":
        return ""
    taken_back = row["hump"] - row["hump_left"]
    rest = "which was" if taken_back >= 0.9 * row["hump"] else f"of which {_amount(row, taken_back)} were"
    return (
        f"In between it rose by {_amount(row, row['hump'])} up to epoch {epoch(row['hump_epoch'])}, {rest} "
        f"taken back by epoch {epoch(row['hump_until'])}."
    )


def _infinite(row: pd.Series, name: str) -> Words:
    """Describe a rise to an infinite mean, and the change of the samples that stayed finite."""
    lasting = {
        "systematic": "and stays there",
        "within_jitter": f"but not at {TAIL} epochs in a row: the next epoch may take it back",
        "too_few_epochs": "and there are too few epochs to say whether it stays there",
    }[row["status"]]
    at, samples = epoch(row["last_epoch"]), zero_samples(int(row["infinite_samples"]))
    details = f"It was {nats(row['best_value'])} nats at epoch {epoch(row['best_epoch'])}."
    if row["finite_samples"]:
        details += (
            f" Over the {count(row['finite_samples'])} with a finite loss at both it went from "
            f"{nats(row['finite_best_value'])} to {nats(row['finite_last_value'])} nats."
        )
    sentence = f"{name} has risen to infinity, {lasting}."
    return Words(
        f"{name} rose to infinity",
        sentence,
        f"{details} {WHY_ZERO}",
        REPAIR_ZERO,
        doubt=f"At epoch {at}, {samples}.",
    )


def _unscored(row: pd.Series, name: str) -> Words:
    return Words(
        f"{name} can't be judged: outputs left out",
        f"{name} does not rise where it can be judged, but what was left out could hide a rise.",
        f"{_capital(_in_full(name))}: {_course(row)}, over {in_units(row)}.",
        "Find out why these outputs are not finite, and inspect again.",
    )


def _flat(row: pd.Series, name: str) -> Words:
    last, details = epoch(row["last_epoch"]), f"{_capital(_in_full(name))}: {_course(row)}."
    if row["amount"] < _NOTHING:
        level = "as low as any before" if row["amount"] > -_NOTHING else "the lowest"
        return Words(f"{name} does not rise", f"The last epoch, {last}, is {level}.", details)
    sentence = (
        f"The last epoch is above the best, epoch {epoch(row['best_epoch'])}, but neither beyond sampling "
        "error nor lastingly."
    )
    answer = f"{name} is flat: +{_amount(row, row['amount'])}, within noise"
    return Words(answer, sentence, details, doubt=f"{_resolvable(row)}.")


def _too_few_epochs(row: pd.Series, name: str) -> Words:
    if row["epochs"] < 2:
        number = "No" if row["epochs"] == 0 else "Only one"
        return Words(
            f"{number} checkpoint can be judged",
            f"{number} checkpoint can be judged, so there is no trend yet.",
            step="Inspect more epochs.",
        )
    missing = max(TAIL + 1 - row["epochs"], TAIL - row["tail"], FEWEST - row["settled"])
    details = (
        f"There are {count(row['epochs'], 'checkpoint')}, {row['settled']} from the end of the initial fall "
        f"on, {row['tail']} after the lowest ({_course(row)})."
    )
    sentence = (
        f"Distinguishing a rise from jitter takes {FEWEST} checkpoints from the end of the initial fall on, "
        f"and {TAIL} after the lowest."
    )
    if row["amount"] > 0 and not math.isnan(row["lower_bound"]):
        least = f", at least {_amount(row, row['lower_bound'])}" if row["lower_bound"] > 0 else ""
        sentence += f" So far {name} is up by {_amount(row, row['amount'])}{least}."
    step = f"Train and inspect {count(missing, 'more epoch')}, then ask again."
    return Words(f"too few epochs to judge {name}", sentence, details, step)


def in_units(row: pd.Series) -> str:
    """Write what the sampling error of a row of `rise` is estimated from: samples, or groups of them."""
    has_groups = row["units"] != row["samples"]
    return count(row["samples"]) + (f" in {count(row['units'], 'group')}" if has_groups else "")
