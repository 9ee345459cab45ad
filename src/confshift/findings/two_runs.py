"""The answer about two runs: which is better, in what, or that no difference is measurable."""

from __future__ import annotations

import math
from collections.abc import Sequence

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.analysis.series import STATUSES
from confshift.findings.answer import Answer
from confshift.findings.diverged import opening_of_divergence, since_when
from confshift.findings.left_out import opening, pair_opening, zero_samples
from confshift.findings.question import Finding
from confshift.findings.steps import keep, step_of
from confshift.findings.told import excludes_0
from confshift.findings.trained import trained_loss
from confshift.findings.wording import count, epoch, nats, points

#: A name with more words or letters makes no short sentence.
_MOST_LETTERS = 24
#: A fit ends this near to the best, so a smaller difference is none.
_ROUNDING = 1e-6
_ORDINALS = ("the first run", "the second run")
_PLACES = ("RUN", "OTHER")


def answer_two_runs(
    comparison: Comparison,
    histories: tuple[History, History],
    names: tuple[str, str],
    findings: Sequence[Finding],
) -> Answer:
    """Answer which of two runs is better, and in what.

    Parameters
    ----------
    comparison : Comparison
        Before is of the first run, after of the second.
    histories : tuple of History
    names : tuple of str
        Of the runs.
    findings : sequence of Finding
        About the difference.
    """
    first, second = short_names(names)
    better, action = better_run(comparison, (first, second))
    why = f"{_who(comparison, first, second)} {_what(comparison)}"
    preferred = (0, 1) if better is None else (better,)
    steps = [keep(histories[at], run=_PLACES[at], name=(first, second)[at]) for at in preferred]
    steps += [step_of(finding) for finding in findings if finding.severity == "problem" and finding.next_step]
    return Answer("two_runs", action, why, _remarks(comparison, histories, names), tuple(steps[:3]))


def short_names(names: tuple[str, str]) -> tuple[str, str]:
    """Return two names of one word each, or "the first run" and "the second run"."""
    if all(len(name) <= _MOST_LETTERS and len(name.split()) == 1 for name in names):
        return names
    return _ORDINALS


def better_run(comparison: Comparison, names: tuple[str, str]) -> tuple[int | None, str]:
    """Return the position of the better run, None where neither is, and the action."""
    infinite = [number > 0 for number in comparison.infinite_samples]
    if infinite[0] != infinite[1]:
        finite = infinite.index(False)
        return finite, f"Prefer {names[finite]}: its loss is finite."
    by_loss = 0 if infinite[0] else _sign(comparison, "refinement_loss")
    by_accuracy = -_sign(comparison, "accuracy")
    if by_loss * by_accuracy < 0:
        return None, "Choose: lower calibrated loss, or higher accuracy."
    if by_loss or by_accuracy:
        at = 0 if by_loss + by_accuracy > 0 else 1
        if by_loss and by_accuracy:
            is_lower = _sign(comparison, "loss") == by_loss
            what = "lower loss, higher accuracy" if is_lower else "better once calibrated"
        else:
            what = "lower calibrated loss" if by_loss else "higher accuracy"
        return at, f"Prefer {names[at]}: {what}."
    if not infinite[0] and _sign(comparison, "loss"):
        return None, "Calibrate either: then they are equal within noise."
    return None, "Keep either: they are equal within noise."


def _sign(comparison: Comparison, quantity: str) -> int:
    """Return whether a quantity is measurably higher (1) or lower (-1) in the second run, or neither (0)."""
    row = comparison.change.loc[quantity]
    if not excludes_0(row) or abs(row["change"]) < _ROUNDING:
        return 0
    return 1 if row["change"] > 0 else -1


def _who(comparison: Comparison, first: str, second: str) -> str:
    start = "The second run" if second == _ORDINALS[1] else second
    ends = [epoch(side.epoch) for side in (comparison.before, comparison.after)]
    return f"{start} at epoch {ends[1]} against {first} at epoch {ends[0]}:"


def _what(comparison: Comparison) -> str:
    """Say how the second run differs from the first."""
    infinite = comparison.infinite_samples
    if any(infinite):
        which = "both have" if all(infinite) else "the second has" if infinite[1] else "the first has"
        return f"{which} an infinite loss; {_listed(_differences(comparison, ('accuracy',)))}."
    has_fits = comparison.before.fit_status == comparison.after.fit_status == "ok"
    quantities = ("loss", "accuracy", "refinement_loss") if has_fits else ("loss", "accuracy")
    return f"{_listed(_differences(comparison, quantities))}."


_NAMES = {"loss": "loss", "accuracy": "accuracy", "refinement_loss": "calibrated loss"}


def _differences(comparison: Comparison, quantities: tuple[str, ...]) -> list[str]:
    """Say what is measurably higher or lower, then what is the same."""
    parts = [
        f"its {_NAMES[name]} is {_amount(comparison, name)}" for name in quantities if _sign(comparison, name)
    ]
    same = [_NAMES[name] for name in quantities if not _sign(comparison, name)]
    verb = "is" if len(same) == 1 else "are"
    return [*parts, f"{_listed(same)} {verb} the same within noise"] if same else parts


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _amount(comparison: Comparison, quantity: str) -> str:
    row = comparison.change.loc[quantity]
    amount = abs(row["change"])
    by = points(amount).lstrip("+") if row["unit"] == "fraction" else f"{nats(amount)} nats"
    return f"{by} {'higher' if row['change'] > 0 else 'lower'}"


def _remarks(
    comparison: Comparison, histories: tuple[History, History], names: tuple[str, str]
) -> tuple[str, ...]:
    starts = [f"The {name}" if name in ("first run", "second run") else name for name in names]
    named = list(zip(histories, starts, strict=True))
    remarks = [opening_of_divergence(history, name) for history, name in named]
    remarks += [opening(history.main, name) for history, name in named]
    if not any(remarks):
        remarks.append(pair_opening(comparison))
    remarks += [
        f"{name}: {zero_samples(number)}, so its loss is infinite."
        for name, number in zip(starts, comparison.infinite_samples, strict=True)
        if number
    ]
    if any(comparison.infinite_samples):
        samples, difference = count(len(comparison.panel.targets)), _differences(comparison, ("loss",))[0]
        remarks.append(f"Over the {samples} with a finite loss in both, {difference}.")
    remarks.append(trained_loss(comparison))
    return tuple(remark for remark in remarks if remark)


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
