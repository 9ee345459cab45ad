"""Does a subset of the samples, such as those of one site, carry more of the rise than its share of them?"""

from __future__ import annotations

import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.subsets import ALPHA, FEWEST, TIMES
from confshift.findings.concentration import WITHIN_ERROR, no_rise, significant_rise
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.wording import (
    NOTHING,
    count,
    heading,
    nats,
    percent,
    rose_or_fell,
    signed,
    subset_name,
)

_FEW_SUBSETS = Question(
    "few_subsets",
    "Does a subset carry more of the rise than its share of the samples?",
    section="classes",
    undecided="Whether a subset carries the rise is undecided",
)
#: Columns of `Comparison.slices` that a reader needs.
COLUMNS = (
    *("samples", "weight", "loss_before", "loss_after", "change", "change_low", "change_high"),
    *("contribution", "share_of_change", "p_value"),
)


def few_subsets(comparison: Comparison) -> Finding:
    """Which subset of the samples carries more of the rise than its share of them, beyond chance?"""
    table = comparison.slices.sort_values("excess", ascending=False, kind="stable")
    evidence, judged = table[list(COLUMNS)], table[table["p_value"].notna()]
    if not comparison.change.loc["loss", "change"] > 0:
        return _FEW_SUBSETS.not_applicable(no_rise(comparison), evidence, answer="The loss did not rise")
    if judged.empty:
        reason = f"No subset has {FEWEST} {_units(comparison)} with as many outside it: too few to judge."
        return _FEW_SUBSETS.not_applicable(reason, evidence, answer="The subsets are too small to judge")
    named = judged[(judged["p_value"] <= ALPHA) & (judged["share_of_change"] >= judged["limit"])]
    total, step = float(comparison.change.loc["loss", "change"]), ""
    verdict: Verdict = "cannot tell"
    if significant_rise(comparison) != "yes":
        answer = "Rise within its error: no subset stands out"
        sentence = WITHIN_ERROR.format(rise=signed(total), parts="what its subsets add")
    elif len(named):
        verdict, first = "yes", named.iloc[0]
        name = name_of(first)
        answer = heading(f"{name} adds {_part(first, total)}", f"One subset adds {_part(first, total)}")
        sentence, step = _carries(comparison, first, total), f"Look at the samples with {name} first."
    elif judged["limit_excluded"].all():
        verdict, answer = "no", "No subset stands out"
        sentence = (
            f"In none of {count(len(judged), 'subset')} does the loss rise {TIMES:g} times as much as "
            "elsewhere, with 95 % confidence for all of them together."
        )
    else:
        answer, sentence = _FEW_SUBSETS.undecided, _may_be_chance(comparison, judged, total)
    details = f"{_also(named)}{_how_judged(comparison, judged)}"
    return _FEW_SUBSETS.answer(verdict, sentence, evidence, step, answer=answer, details=details)


def name_of(row: pd.Series) -> str:
    """Name the subset of a row."""
    return subset_name(*row.name)


def _part(row: pd.Series, total: float) -> str:
    """Say what a subset adds to a rise, for a heading."""
    added = row["contribution"]
    if added > total:
        return f"{signed(added)} nats, the others {signed(total - added)}"
    return f"{percent(added / total)} of the rise"


def _carries(comparison: Comparison, row: pd.Series, total: float) -> str:
    """Say what a subset adds to a rise, and by how much its loss changed beside that of the others."""
    inside, outside = (
        f"{rose_or_fell(change)}{'' if abs(change) <= NOTHING else f' by {nats(abs(change))}'}"
        for change in (row["change"], row["change_elsewhere"])
    )
    outside = outside.removeprefix("rose ")
    added = row["contribution"]
    amounts = f"{signed(added)} of the rise of {signed(total)} nats"
    if added > total:
        amounts = f"{signed(added)} nats and the others {signed(total - added)}"
    return (
        f"{count(row['samples'])} with {name_of(row)}, {_of_all(comparison, row)}, add {amounts}: their "
        f"loss {inside}, that of the others {outside}."
    )


def _of_all(comparison: Comparison, row: pd.Series) -> str:
    """Say how large a subset is, as the mean loss counts it."""
    counted = "of all" if comparison.panel.weights is None else "of all by the weights of classes"
    return f"{percent(row['weight'])} {counted}"


def _may_be_chance(comparison: Comparison, judged: pd.DataFrame, total: float) -> str:
    """Say which subset adds most beyond its share, where none is named."""
    first = judged.iloc[0]
    reason = (
        f"whether its loss rose {TIMES:g} times as much as elsewhere is uncertain"
        if first["p_value"] <= ALPHA
        else f"among {count(len(judged), 'subset')}, that may be chance"
    )
    return (
        f"{name_of(first)}, {_of_all(comparison, first)}, adds {signed(first['contribution'])} "
        f"of the rise of {signed(total)} nats: {reason}."
    )


def _also(named: pd.DataFrame) -> str:
    """List the other subsets that stand out."""
    others = [f"{name_of(row)} ({signed(row['contribution'])})" for _, row in named.iloc[1:].iterrows()]
    if not others:
        return ""
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return (
        f"Other subsets that stand out: {', '.join(others[:3])}{more}. Those of different attributes may "
        "share samples. "
    )


def _how_judged(comparison: Comparison, judged: pd.DataFrame) -> str:
    """Say how many subsets were judged, and how."""
    table, attributes = comparison.slices, len(comparison.attributes)
    units = _units(comparison)
    return (
        f"Of {count(len(table), 'subset')} by {count(attributes, 'attribute')}, {len(judged)} are judged: "
        f"those with at least {FEWEST} {units} inside and outside. One is named where it adds more than its "
        f"share, with a p-value of at most {ALPHA:g} after Holm's correction for all of them, and its loss "
        f"rose at least {TIMES:g} times as much as that of the others."
    )


def _units(comparison: Comparison) -> str:
    return "samples" if comparison.panel.codes is None else "groups"
