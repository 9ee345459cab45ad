"""The one sentence at the top: what changed, whether it is systematic, in which samples, what to do."""

from __future__ import annotations

import math

import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.analysis.series import STATUSES
from confshift.findings.best_checkpoint import kept
from confshift.findings.diverged import REMEDY, opening_of_divergence, since_when
from confshift.findings.left_out import opening, pair_opening, zero_samples
from confshift.findings.run_kind import kind_of
from confshift.findings.told import hidden_harm, is_judged, is_last, is_told
from confshift.findings.wording import (
    NOTHING,
    apart,
    count,
    divisor,
    epoch,
    nats,
    percent,
    points,
    rose_or_fell,
)

_SPLITS = {"val": "validation", "train": "training"}

_SAMPLES = {
    "stayed_right": "right samples that got less sure",
    "learned": "learned samples, yet at a higher loss",
    "forgotten": "samples that were right and are wrong now",
    "stayed_wrong": "samples that were wrong and got worse",
}


def headline(history: History, comparison: Comparison) -> str:
    """Say in one short sentence what changed and what follows from it.

    A divergence is said first of all, and next which outputs and losses are not finite, if more than a few.

    Parameters
    ----------
    history : History
        Of the run; the headline quotes its verdict where the comparison ends at the run's last checkpoint.
    comparison : Comparison
        Of the two checkpoints that the page shows.
    """
    openings = [opening_of_divergence(history), opening(history.main) or pair_opening(comparison)]
    clauses = _clauses(history, comparison)
    sentence = "; ".join(clause for clause in clauses if clause) + "."
    return " ".join(part for part in (*openings, sentence) if part)


def _clauses(history: History, comparison: Comparison) -> list[str]:
    is_alone = comparison.before is comparison.after
    if history.divergence:
        change = _infinite_change if any(comparison.infinite_samples) else _change
        advice = f"keep {kept(history)}, and {REMEDY}" if history.recommendation.epoch > 0 else REMEDY
        about = [_alone(comparison)] if is_alone else [change(comparison), _accuracy(history, comparison)]
        return [*about, advice]
    if is_alone:
        return [_alone(comparison), "what changes can be told from the second one on"]
    if any(comparison.infinite_samples):
        return [_infinite_change(comparison), _accuracy(history, comparison)]
    return [
        *_about_loss(history, comparison),
        _accuracy(history, comparison),
        _advice(history, comparison),
        _hidden_harm(history, comparison),
    ]


def _hidden_harm(history: History, comparison: Comparison) -> str:
    """Say what got worse since another epoch than the first of the pair, whose losses do not show it."""
    row = hidden_harm(history, comparison)
    if row is None or (comparison.before, comparison.after) != history.pair:
        return ""
    is_share = row["unit"] == "fraction"
    size = points(row["amount"]).lstrip("+") if is_share else f"{nats(row['amount'])} nats"
    return (
        f"but from epoch {epoch(row['best_epoch'])} to {epoch(row['last_epoch'])} the "
        f"{'error rate' if is_share else 'refinement loss'} rose by {size}, so {_back(history)}"
    )


def _back(history: History) -> str:
    if history.recommendation.epoch > 0:
        return f"go back to {kept(history)}"
    return f"keep {kept(history)}: no epoch of this training is better than the model it started from"


def _about_loss(history: History, comparison: Comparison) -> list[str]:
    """Say what the loss did; a rise that is not told from noise is neither called one nor taken apart."""
    if _amount(comparison) <= 0:
        return [_change(comparison), _still_best(history, comparison)]
    if is_judged(history, comparison) and history.rise.loc["loss", "status"] == "flat":
        return [_no_rise(history, comparison)]
    cells = _cells(comparison) if is_told(history, comparison, "loss") else ""
    return [_change(comparison), _verdict(history, comparison), cells]


def _no_rise(history: History, comparison: Comparison) -> str:
    levels = " to ".join(apart(*comparison.change.loc["loss", ["before", "after"]]))
    return (
        f"From epoch {epoch(comparison.before.epoch)} to {epoch(comparison.after.epoch)} the "
        f"{_split(comparison)} loss does not rise beyond noise ({levels} nats)"
        + ("; the run still improves" if kind_of(history) == "improving" else "")
    )


def _alone(comparison: Comparison) -> str:
    """Say what a single checkpoint shows, where there is no other to compare it with."""
    after, change = comparison.after, comparison.change["after"]
    loss = f"{nats(change['loss'])} nats"
    infinite = comparison.infinite_samples[1]
    if infinite:
        loss = f"infinite ({zero_samples(infinite)}; {loss} over the other {_samples_with_loss(comparison)})"
    return (
        f"One checkpoint, epoch {epoch(after.epoch)}: {_split(comparison)} loss {loss}, "
        f"accuracy {percent(change['accuracy'])}"
    )


def _samples_with_loss(comparison: Comparison) -> str:
    return f"{len(comparison.panel.targets):,}"


def _infinite_change(comparison: Comparison) -> str:
    """Say that a loss is infinite, and what it did over the samples where it is not."""
    before, after = (int(sample) for sample in comparison.infinite_samples)
    start, end = epoch(comparison.before.epoch), epoch(comparison.after.epoch)
    change = _amount(comparison)
    size = "" if change == 0 else f" by {nats(abs(change))} nats"
    others = (
        f"over the {_samples_with_loss(comparison)} with a finite loss at both it "
        f"{rose_or_fell(change)}{size}"
    )
    if not before:
        what = f"rose to infinity, as {zero_samples(after)} at epoch {end}"
    elif not after:
        what = f"came down from infinity, as {zero_samples(before)} at epoch {start}"
    else:
        what = f"is infinite at both, as {zero_samples(before)} at the first and {after:,} at the second"
    return f"From epoch {start} to {end} the {_split(comparison)} loss {what}; {others}"


def _amount(comparison: Comparison) -> float:
    """Return the change of the loss; 0 where it is within the rounding of a sum."""
    change = float(comparison.change.loc["loss", "change"])
    return change if abs(change) > NOTHING else 0.0


def _change(comparison: Comparison) -> str:
    change = _amount(comparison)
    size = "" if change == 0 else f" by {nats(abs(change))} nats"
    return (
        f"From epoch {epoch(comparison.before.epoch)} to {epoch(comparison.after.epoch)} the "
        f"{_split(comparison)} loss {rose_or_fell(change)}{size}"
    )


def _split(comparison: Comparison) -> str:
    split = comparison.after.split
    return _SPLITS.get(split, split)


def _still_best(history: History, comparison: Comparison) -> str:
    """Say that there is no rise to explain, where the last checkpoint is the best."""
    best = history.best.loc["loss", "epoch"]
    last = is_last(history, comparison) and comparison.after.epoch == best
    return "the last epoch is the best so far" if last else ""


def _verdict(history: History, comparison: Comparison) -> str:
    """Quote the verdict, which is about the last checkpoint against the best of the earlier ones."""
    if not is_judged(history, comparison):
        return ""
    row = history.rise.loc["loss"]
    others = len(comparison.panel.targets) - row["samples"]
    over = f" (over {count(row['samples'])})" if others else ""
    return f"{STATUSES[row['status']].clause}{over}"


def _cells(comparison: Comparison) -> str:
    """Name the samples that account for most of a rise."""
    net = _net(comparison)
    main, total = str(net.idxmax()), comparison.change.loc["loss", "change"]
    amount = _part(net[main] / total, "rise")
    if main != "stayed_wrong":
        return f"{amount} comes from {_SAMPLES[main]}"
    right = net["stayed_right"]
    sureness = "surer" if right < 0 else "less sure" if right > 0 else "no surer and no less sure"
    return f"{amount} comes from {_SAMPLES[main]}, the right ones got {sureness}"


def _part(share: float, whole: str) -> str:
    """Write a share, which is above 1 where other samples pull the other way."""
    return f"{share:.1f} times the {whole}" if share > 1 else f"{percent(share)} of the {whole}"


def _net(comparison: Comparison) -> pd.Series:
    """Return what each transition adds to the change, over both directions."""
    net: pd.Series = comparison.cells["contribution"].groupby(level="transition").sum()
    return net


def _accuracy(history: History, comparison: Comparison) -> str:
    row = comparison.change.loc["accuracy"]
    if math.isnan(row["change_low"]):
        return f"accuracy is {percent(row['after'])}"
    if is_told(history, comparison, "accuracy"):
        return f"accuracy {rose_or_fell(row['change'])} by {points(abs(row['change'])).lstrip('+')}"
    if _significant(row):
        return "accuracy did not fall beyond what picking the best epoch explains"
    return "accuracy did not change measurably"


def _advice(history: History, comparison: Comparison) -> str:
    """Say which loss a temperature gives the later checkpoint, and which checkpoint to keep."""
    after, change = comparison.after, comparison.change
    if after.fit_status != "ok":
        return ""
    scaled = change.loc["loss", "after"] - change.loc["scale_loss", "after"]
    earlier = change.loc["loss", "before"]
    repair = f"one temperature ({divisor(after.temperature)}) brings the loss"
    if _amount(comparison) <= 0:
        return f"{repair} to {nats(scaled)}" if _repairs(comparison) else ""
    text = f"{repair} {_beside(nats(scaled), nats(earlier), below=scaled < earlier)}"
    if not is_judged(history, comparison):
        return text
    kind, choice = kind_of(history), history.recommendation
    if ("confidence" in kind or kind == "class_drift") and choice.calibrated:
        return f"{text}, so keep {kept(history)}"
    if "overfitting" in kind:
        is_hidden = hidden_harm(history, comparison) is not None
        return text if is_hidden else f"{text}: the model itself got worse, so {_back(history)}"
    return text


def _beside(scaled: str, earlier: str, *, below: bool) -> str:
    """Compare the loss after temperature scaling with the earlier one, as both are written."""
    if scaled == earlier:
        return f"back to {scaled}"
    return f"to {scaled}, {'' if below else 'not '}below the earlier {earlier}"


def difference(comparison: Comparison, *, first: str, second: str) -> str:
    """Say in one sentence how a checkpoint of a second run differs from one of a first.

    Parameters
    ----------
    comparison : Comparison
        Before is of the first run, after of the second.
    first, second : str
        The names of the runs.
    """
    names = {
        "stayed_right": "samples that both get right",
        "learned": f"samples that only {second} gets right",
        "forgotten": f"samples that only {first} gets right",
        "stayed_wrong": "samples that both get wrong",
    }
    change = comparison.change
    infinite = [
        f"{name} has an infinite loss, as {zero_samples(int(number))}"
        for name, number in zip((first, second), comparison.infinite_samples, strict=True)
        if number
    ]
    over = f"over the {_samples_with_loss(comparison)} with a finite loss in both " if infinite else ""
    clauses = [
        f"{second} (epoch {epoch(comparison.after.epoch)}) against {first} "
        f"(epoch {epoch(comparison.before.epoch)}): "
        + "; ".join([*infinite, f"{over}the loss is {_difference_in_words(change.loc['loss'])}"]),
        f"the accuracy is {_difference_in_words(change.loc['accuracy'])}",
    ]
    if infinite:
        return "; ".join(clauses) + "."
    if _significant(change.loc["loss"]):
        shares = _net(comparison) / change.loc["loss", "change"]
        main = str(shares.idxmax())
        clauses.append(f"{_part(shares[main], 'difference in loss')} is in {names[main]}")
    if comparison.before.fit_status == comparison.after.fit_status == "ok":
        clauses.append(
            f"each recalibrated, the loss is {_difference_in_words(change.loc['refinement_loss'])}"
        )
    return "; ".join(clauses) + "."


def course(history: History, name: str) -> str:
    """Say in one sentence where a run ends, against its own best checkpoint."""
    row = history.rise.loc["loss"]
    if history.divergence:
        since = since_when(history.divergence)
        return f"{name} {since[0].lower()}{since[1:]}; its best is epoch {epoch(row['best_epoch'])}."
    if row["status"] == "too_few_epochs":
        return f"{name} has too few epochs to judge its course."
    if row["last_epoch"] != history.main.epochs[-1]:
        return f"{name} can't be judged at its end: its outputs there are not finite."
    if math.isinf(row["last_value"]):
        return (
            f"{name} ends, at epoch {epoch(row['last_epoch'])}, with an infinite loss; its best, epoch "
            f"{epoch(row['best_epoch'])}, has {nats(row['best_value'])} nats."
        )
    if not row["amount"] > 0:
        return f"{name} ends at its best, epoch {epoch(row['last_epoch'])}."
    return (
        f"{name} ends, at epoch {epoch(row['last_epoch'])}, {nats(row['amount'])} nats above its best, epoch "
        f"{epoch(row['best_epoch'])}: {STATUSES[row['status']].course}."
    )


def _significant(row: pd.Series) -> bool:
    return bool(row["change_low"] > 0 or row["change_high"] < 0)


def _difference_in_words(row: pd.Series) -> str:
    """Say by how much a number is higher or lower, where that is beyond sampling error."""
    if not _significant(row):
        return "not measurably different"
    amount = abs(row["change"])
    by = points(amount).lstrip("+") if row["unit"] == "fraction" else f"{nats(amount)} nats"
    return f"{by} {'higher' if row['change'] > 0 else 'lower'}"


def _repairs(comparison: Comparison) -> bool:
    """Whether the later checkpoint's own calibration loss is significantly above 0."""
    return comparison.interval(comparison.panel.calibration[-1]).low > 0
