"""Does a small part account for a rise of the loss: a few classes, one pair of classes, a few samples?"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.shares import Excess, excess_of, handful_of, part_of_classes, part_of_pair
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.wording import count, heading, percent, points, signed

#: With fewer samples of a class, what happened to it is an anecdote and no lead.
_ENOUGH_OF_A_CLASS = 20

_FEW_CLASSES = Question(
    "few_classes",
    "Do a few classes carry the rise?",
    section="classes",
    undecided="Whether a few classes carry the rise is undecided",
)
_ONE_COMPETITOR = Question(
    "one_competitor",
    "Does one confusion of two classes explain the rise?",
    section="classes",
    problem=None,
    undecided="Whether one confusion explains the rise is undecided",
)
_FEW_SAMPLES = Question(
    "few_samples",
    "Do a handful of samples carry the rise?",
    section="concentration",
    problem="yes",
    undecided="Whether a handful of samples carry it is undecided",
)
#: A mean that rests on fewer is an anecdote; a handful has so large a share of all increases.
_FEW_EFFECTIVE, _MOST = 7, 0.5
#: Classes with so large a part of what the judged ones add are named.
_NEARLY_ALL = 0.8
_NO_RISE = "The loss did not rise"
_HALVES = "Chosen on half of the samples, {parts} in the other half: it may be chance."
_UNCERTAIN = "These samples are too few to say whether that is more than {enough} of the rise."
WITHIN_ERROR = "The rise of {rise} nats is within its error, so {parts} may be noise as well."


def about_concentration(comparison: Comparison) -> list[Finding]:
    """Answer which part accounts for the rise, from classes to samples."""
    return [few_classes(comparison), one_competitor(comparison), few_samples(comparison)]


def no_rise(comparison: Comparison) -> str:
    """Say that the loss did not rise, or, where some losses are infinite, not over the other samples."""
    if any(comparison.infinite_samples):
        return "The loss did not rise over the samples where it is finite on both sides."
    return "The loss did not rise."


def significant_rise(comparison: Comparison) -> Verdict:
    """Whether the loss rose: "cannot tell" where the rise, and so its shares, may be chance."""
    loss = comparison.change.loc["loss"]
    if not loss["change"] > 0:
        return "not applicable"
    return "yes" if loss["change_low"] > 0 else "cannot tell"


def _exceeds(excess: Excess) -> Verdict:
    """Say whether a part is more than its share of the rise, beyond the error of both, and of its choice."""
    if min(excess.chosen.low, excess.held_out.low) > 0:
        return "yes"
    return "no" if excess.chosen.high < 0 else "cannot tell"


def _judged(excess: Excess) -> str:
    """Say how uncertain a share of the rise is, and how it is held against its limit."""
    error = (
        f"Its share of the rise has a standard error of {points(excess.share_se).lstrip('+')}. "
        if excess.share_se > 0
        else ""
    )
    return (
        f"{error}It has to be above the limit with 95 % confidence, also in one half of the samples where "
        "it is chosen in the other."
    )


def few_classes(comparison: Comparison) -> Finding:
    """Which classes account for the rise?"""
    classes = comparison.classes.sort_values("contribution", ascending=False, kind="stable")
    total = comparison.change.loc["loss", "change"]
    present = classes[classes["samples"] > 0]
    if not total > 0:
        return _FEW_CLASSES.not_applicable(no_rise(comparison), classes, answer=_NO_RISE)
    if len(present) < 3:
        reason = "Fewer than three classes have samples, so a few can't be singled out."
        return _FEW_CLASSES.not_applicable(reason, classes, answer="Too few classes to single any out")
    few = max(1, round(len(present) / 5))
    top = present.head(few)
    size = top["weight"].sum()
    counted = "samples" if comparison.panel.weights is None else "weight"
    # They must account for more than half, and for more than twice their share of the samples.
    enough = max(0.5, 2 * size)
    excess = excess_of(comparison, part_of_classes(comparison, few), enough)
    verdict = _exceeds(excess)
    reason = (
        _HALVES.format(parts="such classes add less")
        if excess.chosen.low > 0
        else _UNCERTAIN.format(enough=percent(enough))
    )
    answer, sentence = _carried_by_classes(top, f"{percent(size)} of the {counted}", total, verdict, reason)
    if significant_rise(comparison) != "yes":
        verdict, answer = "cannot tell", "Rise within its error: no class stands out"
        sentence = WITHIN_ERROR.format(rise=signed(total), parts="what its classes add")
    return _FEW_CLASSES.answer(
        verdict,
        sentence,
        classes,
        _look_at(top.iloc[0]) if verdict == "yes" else "",
        answer=answer,
        details=_largest_classes(top)
        + f" Of {len(present)} classes a fifth is judged ({few}), those that add most: together they carry "
        "the rise if they add more than half of it and more than twice their share of the "
        f"{counted}. " + _judged(excess),
    )


def _carried_by_classes(
    top: pd.DataFrame, size: str, total: float, verdict: Verdict, reason: str
) -> tuple[str, str]:
    """Return the heading and the sentence about the classes that add most to a rise."""
    one, added = len(top) == 1, float(top["contribution"].sum())
    name = f"Class {top.iloc[0]['class_name']}"
    adds, carries = ("adds", "carries") if one else ("add", "carry")
    part = f"{carries} {percent(added / total)} of the rise"
    amounts = f"{signed(added)} of the rise of {signed(total)} nats"
    if added > total:
        part = f"{adds} {signed(added)} nats, the others {signed(total - added)}"
        amounts = f"{signed(added)} nats, and the others together lower the loss"
    subject = f"{name if one else f'The {len(top)} classes that add most'}, with {size}"
    sentence = f"{subject}, {adds} {amounts}"
    if verdict == "no":
        return "The rise is spread over the classes", f"{sentence}: too little to blame a few classes."
    if verdict == "cannot tell":
        return "Whether few classes carry the rise is uncertain", f"{sentence}. {reason}"
    if one:
        return heading(f"{name} {part}", f"One class {part}"), f"{sentence}."
    parts = top["contribution"].cumsum().to_numpy()
    # The fewest classes with nearly all that these add, at most 3.
    leaders = top.head(min(int(np.searchsorted(parts, _NEARLY_ALL * parts[-1])) + 1, 3))
    several = f"{len(top)} classes {part}"
    first = f"{name} adds {signed(leaders.iloc[0]['contribution'])} of {signed(total)} nats"
    answer = heading(first, several) if len(leaders) == 1 and added <= total else several
    return answer, f"{sentence}."


def _largest_classes(top: pd.DataFrame) -> str:
    names = ", ".join(f"{row['class_name']} ({signed(row['contribution'])})" for _, row in top[:3].iterrows())
    first = top.iloc[0]
    return (
        f"Largest contributions: {names}. Accuracy of {first['class_name']}: "
        f"{percent(first['accuracy_before'])} before, {percent(first['accuracy_after'])} after."
    )


def _look_at(largest: pd.Series) -> str:
    """Name the class with the largest contribution, where it has enough samples for a lead."""
    if largest["samples"] < _ENOUGH_OF_A_CLASS:
        return ""
    return f"Look at the samples of class {largest['class_name']} first."


def one_competitor(comparison: Comparison) -> Finding:
    """Which wrong class gains on which true class?"""
    total = comparison.change.loc["loss", "change"]
    if unread := _ONE_COMPETITOR.without_logits(comparison.before, comparison.after):
        return unread
    pairs = comparison.competitors
    if not total > 0:
        return _ONE_COMPETITOR.not_applicable(no_rise(comparison), pairs, answer=_NO_RISE)
    if len(comparison.panel.class_names) < 3:
        reason = "With two classes there is only one competitor."
        return _ONE_COMPETITOR.not_applicable(reason, pairs, answer="Two classes: only one competitor")
    rising = pairs[(pairs["class"] >= 0) & (pairs["contribution"] > 0)]
    # With few classes any pair has a large share.
    possible = len(np.unique(comparison.panel.targets)) * (len(comparison.panel.class_names) - 1)
    enough = max(0.25, 3 / possible)
    excess = excess_of(comparison, part_of_pair(comparison), enough)
    verdict: Verdict = "no" if rising.empty else _exceeds(excess)
    reason = (
        _HALVES.format(parts="such a pair adds less")
        if excess.chosen.low > 0
        else _UNCERTAIN.format(enough=percent(enough))
    )
    if significant_rise(comparison) != "yes":
        verdict, answer = "cannot tell", "Rise within its error: no confusion stands out"
        sentence = WITHIN_ERROR.format(rise=signed(total), parts="what the wrong classes gained")
    else:
        answer, sentence = _main_confusion(rising, total, verdict, reason)
    step = ""
    if verdict == "yes":
        first = rising.iloc[0]
        samples = comparison.classes.loc[[first["class"], first["competitor"]], "samples"]
        names = f"class {first['class_name']} with those of {first['competitor_name']}"
        if samples.min() >= _ENOUGH_OF_A_CLASS:
            step = f"Compare the samples of {names}, side by side."
    largest = "; ".join(
        f"{row['class_name']} taken for {row['competitor_name']} {signed(row['contribution'])}"
        for _, row in rising.head(3).iterrows()
    )
    details = (
        f"Largest parts of the rise, by true class and the wrong class that gained on it: {largest}. One "
        f"pair stands out if it adds more than {percent(enough)} of the rise. {_judged(excess)}"
    )
    return _ONE_COMPETITOR.answer(verdict, sentence, pairs, step, answer=answer, details=details)


def _main_confusion(rising: pd.DataFrame, total: float, verdict: Verdict, reason: str) -> tuple[str, str]:
    """Return the heading and the sentence about the pair of classes that adds most to a rise."""
    if rising.empty:
        return "No confusion explains the rise", "No pair of classes adds to the rise."
    first = rising.iloc[0]
    true, wrong, part = first["class_name"], first["competitor_name"], signed(first["contribution"])
    if verdict != "yes":
        gained = (
            f"The wrong class that gained most is {wrong}, on samples of class {true}: {part} nats of a rise "
            f"of {signed(total)}."
        )
        if verdict == "cannot tell":
            return "Whether one confusion explains the rise is uncertain", f"{gained} {reason}"
        rest = "The rest is spread over other pairs of classes."
        return "No single confusion explains the rise", f"{gained} {rest}"
    return heading(f"Class {true} taken for {wrong} adds {part} nats", f"One confusion adds {part} nats"), (
        f"On samples of class {true}, the model moved towards class {wrong}. That adds {part} nats, more "
        f"than any other pair of classes; the whole rise is {signed(total)}."
    )


def few_samples(comparison: Comparison) -> Finding:
    """Do a handful of samples account for the rise?"""
    table = comparison.concentration
    value = table["value"]
    total = len(comparison.panel.targets)
    if not comparison.change.loc["loss", "change"] > 0:
        return _FEW_SAMPLES.not_applicable(no_rise(comparison), table, answer=_NO_RISE)
    cancelling = int(value["cancelling_samples"])
    worst = "worst sample" if cancelling == 1 else count(cancelling, "worst sample")
    without = f"Without the {worst} of {total:,} there is no rise"
    details = (
        "A handful is at most 1 % of the samples: without them there is no rise, and with 95 % confidence "
        "the 1 % that rose most have more than half of the rise and of all increases. Samples that have at "
        "least half are one as well where the mean rests on fewer than 7, as the spread of the changes shows."
    )
    if math.isfinite(value["effective_samples"]):
        details += f" This one rests on {value['effective_samples']:,.3g}."
    if total >= 100 and significant_rise(comparison) == "yes":
        top = [percent(value[f"top_{number}_percent"]) for number in (1, 10)]
        details += f" The 1 % of samples that rose most have {top[0]} of all increases, 10 % have {top[1]}."
    verdict, answer, sentence = _handful(comparison, cancelling, without)
    step = "Look at these samples one by one before you trust the mean." if verdict == "yes" else ""
    return _FEW_SAMPLES.answer(verdict, sentence, table, step, answer=answer, details=details)


def _handful(comparison: Comparison, cancelling: int, without: str) -> tuple[Verdict, str, str]:
    """Judge how many samples a rise rests on; return the verdict, the heading and the sentence."""
    value, total = comparison.concentration["value"], len(comparison.panel.targets)
    heading_of_few = f"{count(cancelling)} of {total:,} make{'s' if cancelling == 1 else ''} the whole rise"
    # A mean over fewer than about seven effective samples is an anecdote, whatever N is.
    if value["effective_samples"] < _FEW_EFFECTIVE and value["cancelling_share"] >= _MOST:
        return "yes", heading_of_few, f"{without}: a mean that rests on so few is an anecdote."
    if significant_rise(comparison) != "yes":
        rise = signed(comparison.change.loc["loss", "change"])
        sentence = WITHIN_ERROR.format(rise=rise, parts="the samples that carry it")
        return "cannot tell", "Rise within its error: no samples stand out", f"{sentence} {without}."
    # A few samples cancel any rise that is small beside its scatter, so they must also be most of it.
    change = comparison.panel.changes(0, 1)
    handful = handful_of(change, comparison.panel.weights)
    rest = comparison.interval(change - handful)
    if rest.low > 0:
        return "no", "Many samples carry the rise", f"{without}: that is more than a handful."
    part = percent(value["top_1_percent"])
    is_most = comparison.interval(handful - _MOST * np.maximum(change, 0.0))
    if is_most.high < 0:
        return (
            "no",
            "Many samples carry the rise",
            (
                f"{without}, but only because losses rose and fell by much more: the 1 % that rose most have "
                f"{part} of all increases."
            ),
        )
    carries = comparison.beyond_share(handful, _MOST)
    if rest.estimate <= 0 and min(is_most.low, carries.low) > 0:
        return "yes", heading_of_few, f"{without}, and they have most of all increases."
    return (
        "cannot tell",
        "Whether few samples carry the rise is uncertain",
        (
            f"{without}; the 1 % that rose most have {part} of all increases. These samples are too few to "
            "say whether a handful carries the rise."
        ),
    )
