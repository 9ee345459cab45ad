"""The change by subset of the samples, and whether a subset carries more of it than chance explains."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.attributes import Attribute
from confshift.analysis.decomposition import columns_by
from confshift.analysis.grouping import Codes, unit_terms
from confshift.analysis.panel import Panel
from confshift.analysis.significance import Interval, paired_interval
from confshift.errors import ConfshiftError

#: A subset is judged where it, and the rest, have so many samples, or groups of them.
FEWEST = 20
#: The chance that noise makes any subset stand out.
ALPHA = 0.05
#: A subset is noteworthy where its loss rises so many times as much as that of the others.
TIMES = 1.5


def subsets_of(whole: Panel, panel: Panel, answered: Panel, attributes: Sequence[Attribute]) -> pd.DataFrame:
    """Split the change from the first checkpoint to the second by each attribute of the samples.

    Parameters
    ----------
    whole, panel, answered : Panel
        All samples; those with a finite loss, and those with an answer, at both checkpoints.
    attributes : sequence of Attribute
        Of all samples.

    Returns
    -------
    DataFrame
        Indexed by attribute and value. units: samples, or groups of them. The columns of
        `decomposition.classes_of`: the values of one attribute add up to the change; share_of_change, NaN
        without a change. change of the subset's own mean loss, with change_low and change_high (95 %, as in
        `Comparison.change`), and change_elsewhere, that of the other samples. excess: the contribution minus
        the weight's share of the change (without class weights, the weight is the share of the samples).
        p_value: one-sided, corrected for all subsets of the table by Holm's method; NaN where the subset or
        the rest has fewer than 20 units. limit: the share of the change that a subset has where its loss
        rises 1.5 times as much as elsewhere; limit_excluded: whether it has less beyond error (95 % for all
        subsets together).

    Raises
    ------
    ConfshiftError
        Without attributes.

    Notes
    -----
    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979), 65-70.
    """
    if not attributes:
        raise ConfshiftError("slices: this comparison has no subsets; pass slices= to confshift.compare")
    finite, with_answer = whole.at_all(Panel.finite), whole.at_all(Panel.answered)
    tables = []
    for attribute in attributes:
        codes, number = attribute.codes[finite], len(attribute.values)
        columns = columns_by(panel, answered, codes, attribute.codes[with_answer], number, 0, 1)
        rows = pd.DataFrame([_row(panel, codes == part) for part in range(number)])
        index = pd.MultiIndex.from_product([[attribute.name], attribute.values], names=["attribute", "value"])
        tables.append(rows.assign(**columns).set_axis(index))
    table = pd.concat(tables)
    total = float(panel.mean(panel.changes(0, 1)))
    table["share_of_change"] = table["contribution"] / total if total else math.nan
    table["excess"] = table["contribution"] - table["weight"] * total
    table["p_value"] = holm(table["p_value"].to_numpy())
    table["limit"] = TIMES * table["weight"] / (1 + (TIMES - 1) * table["weight"])
    level = 1 - 2 * ALPHA / max(int(table["p_value"].notna().sum()), 1)
    members = (
        attribute.codes[finite] == part for attribute in attributes for part in range(len(attribute.values))
    )
    table["limit_excluded"] = [
        judged and _adds_less(panel, member, limit, level)
        for member, limit, judged in zip(members, table["limit"], table["p_value"].notna(), strict=True)
    ]
    return table


def _row(panel: Panel, member: NDArray[np.bool_]) -> dict[str, float]:
    """Return what is known of one subset beside the columns of `classes_of`."""
    change, codes, weights = panel.changes(0, 1), panel.codes, panel.weights
    counts = np.ones(len(change), bool) if weights is None else weights > 0
    inside, outside = member & counts, ~member & counts
    own, rest = (_interval(panel, part) for part in (inside, outside))
    fewest = min(_units(part, codes) for part in (inside, outside))
    return {
        "units": _units(member, codes),
        "change": own.estimate,
        "change_low": own.low,
        "change_high": own.high,
        "change_elsewhere": rest.estimate,
        "p_value": math.nan
        if fewest < FEWEST
        else chance_of_excess(
            change[counts],
            member[counts],
            None if codes is None else codes[counts],
            None if weights is None else weights[counts],
        ),
    }


def _interval(panel: Panel, part: NDArray[np.bool_]) -> Interval:
    """Return the mean change of some of the samples, weighted, with its interval; NaN for none."""
    weights = None
    if panel.weights is not None and part.any():
        weights = panel.weights[part] / panel.weights[part].mean()
    change = panel.changes(0, 1)[part]
    codes = None if panel.codes is None else panel.codes[part]
    return paired_interval(unit_terms(change if weights is None else weights * change, codes, weights))


def _units(member: NDArray[np.bool_], codes: Codes | None) -> int:
    return int(member.sum()) if codes is None else len(np.unique(codes[member]))


def chance_of_excess(
    change: NDArray[np.float64],
    member: NDArray[np.bool_],
    codes: Codes | None = None,
    weights: NDArray[np.float64] | None = None,
) -> float:
    """Return the p-value, one-sided, of a subset whose mean change is above that of the other samples.

    Two statistics have to be large. The one takes its error from each of the two parts: it holds where their
    spreads differ, but a small part without any of the rare large changes looks too certain. The other takes
    it from all samples together, which include these.

    Parameters
    ----------
    change : ndarray, shape (N,)
    member : ndarray of bool, shape (N,)
        Whether a sample is in the subset; two samples, or groups, are, and two are not.
    codes : ndarray of int, shape (N,), optional
        Of groups that err together; a group may have samples in both parts.
    weights : ndarray, shape (N,), optional
        What each sample counts for in a mean, above 0.

    Notes
    -----
    The first is Welch's, with Hall's correction for skewness (see `significance.paired_interval`) and the
    degrees of freedom of the smaller part. In the second, samples of one group are correlated alike, by as
    much as their sums vary.
    """
    from scipy.special import ndtr, stdtr

    weights = np.ones(len(change)) if weights is None else weights / weights.mean()
    samples, share = len(change), float((weights * member).mean())
    inside, outside = (float(np.average(change[part], weights=weights[part])) for part in (member, ~member))
    excess, parts = share * (1 - share) * (inside - outside), weights * (member - share)
    terms = _sums(parts * (change - np.where(member, inside, outside)), codes) / samples
    freedom = min(_units(member, codes), _units(~member, codes)) - 1
    spread = math.sqrt((terms**2).sum() * len(terms) / (len(terms) - 1) * (freedom + 1) / freedom)
    overall = math.sqrt(_variance_overall(change, parts, weights, codes)) / samples
    if not excess > 0 or not overall > 0:
        return 1.0
    chance = float(ndtr(-excess / overall))
    if not spread > 0:
        return chance
    t, skewness = excess / spread, (terms**3).sum() / spread**3
    # Hall's transformation, which increases with t.
    corrected = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    return max(chance, float(stdtr(freedom, -corrected)))


def _variance_overall(
    change: NDArray[np.float64],
    parts: NDArray[np.float64],
    weights: NDArray[np.float64],
    codes: Codes | None,
) -> float:
    """Return the variance of the sum of parts times changes that vary alike, those of a group together."""
    away = change - np.average(change, weights=weights)
    variance, alone = float((weights * away**2).mean()), float((parts**2).sum())
    if codes is None or not variance:
        return variance * alone
    squares = float((weights**2).sum())
    pairs = float((_sums(weights, codes) ** 2).sum()) - squares  # of two different samples in one group
    common = float((_sums(weights * away, codes) ** 2).sum()) / variance - squares
    correlation = min(max(common / pairs, 0.0), 1.0) if pairs > 0 else 0.0
    return variance * ((1 - correlation) * alone + correlation * float((_sums(parts, codes) ** 2).sum()))


def _sums(values: NDArray[np.float64], codes: Codes | None) -> NDArray[np.float64]:
    """Return the sum of each group; without groups the values."""
    return values if codes is None else np.asarray(np.bincount(codes, values)[np.bincount(codes) > 0])


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correct p-values for their number; NaN stays and does not count."""
    order = np.argsort(p_values)  # NaN last
    number = int((~np.isnan(p_values)).sum())
    times = np.maximum(number - np.arange(len(p_values)), 1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * times), 1.0)
    return corrected


def _adds_less(panel: Panel, member: NDArray[np.bool_], limit: float, level: float) -> bool:
    """Tell whether a subset has less of the change than a share of it, beyond error."""
    terms = panel.terms(panel.changes(0, 1) * (member - limit))
    return bool(paired_interval(terms, level=level).high < 0)
