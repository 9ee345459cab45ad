"""What is known of the samples beside their labels: attributes, and the subset that each sample is in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.grouping import Codes, Groups, group_labels
from confshift.analysis.panel import Panel
from confshift.errors import ConfshiftError

#: Attributes by sample id, or by group: columns of a table, or one of them.
Slices: TypeAlias = pd.DataFrame | pd.Series | Mapping[Any, Any]

#: An attribute has at most so many subsets, beside the one whose value is missing ...
_MOST_VALUES = 50
#: ... and one of more different numbers than this is split at its quartiles.
_MOST_NUMBERS = 10
_MISSING = "unknown"
#: Columns that are more likely the ids than an attribute.
_ID_NAMES = ("sample_id", "id")
#: Digits of numbers in names, as few as distinguish them.
_DIGITS = (4, 6, 9, 17)


class Attribute(NamedTuple):
    """A property of samples, such as their site, and the subsets into which it divides them."""

    name: str
    values: tuple[str, ...]  # the name of each subset
    codes: Codes  # (N,), the subset of each sample


def attributes_in(panel: Panel, slices: Slices, groups: Groups | None = None) -> tuple[Attribute, ...]:
    """Return the attributes of a panel's samples, by sample id or by the groups passed, else those stored."""
    labels = next(
        (one for one in (side.measurement.groups for side in panel.checkpoints) if one is not None), None
    )
    if groups is not None and not isinstance(groups, str):  # "rows" counts rows; groups still name them
        labels = group_labels(groups, panel.sample_ids)
    return attributes_of(slices, panel.sample_ids, labels)


def attributes_of(
    slices: Slices, sample_ids: NDArray[Any], groups: NDArray[Any] | None = None
) -> tuple[Attribute, ...]:
    """Return the attributes of samples, each with its subsets.

    Parameters
    ----------
    slices : DataFrame, Series or mapping
        Indexed by sample id, or else by group; every column is an attribute. A Series or a mapping is one.
        Rows of other ids are ignored.
    sample_ids : ndarray, shape (N,)
    groups : ndarray, shape (N,), optional
        The group of each sample.

    Returns
    -------
    tuple of Attribute
        A subset for each value of text, categories and booleans, and of numbers and times with at most 10
        different ones; others are split at the quartiles of these samples. Missing values and empty text are
        a subset, "unknown". Of more than 50 values, the 49 with most samples and "others" are subsets.

    Raises
    ------
    ConfshiftError
        Where a sample has no row, or several, or `slices` is no such table.
    """
    frame = _frame(slices)
    rows = _rows(frame.index, sample_ids)
    if (rows < 0).any() and groups is not None and (_rows(frame.index, groups) >= 0).all():
        rows, sample_ids = _rows(frame.index, groups), groups
    if (rows < 0).any():
        raise ConfshiftError(_missing_rows(frame.index, rows, sample_ids, groups))
    used = np.zeros(len(frame), bool)
    used[rows] = True
    _refuse_repeated(frame.index, used)
    return tuple(_attribute(str(name), frame[name].iloc[rows]) for name in frame)


def _frame(slices: Slices) -> pd.DataFrame:
    """Return the attributes as a table; refuse what can't be one."""
    if isinstance(slices, Mapping):
        slices = pd.Series(dict(slices), dtype=object).infer_objects()
    if isinstance(slices, pd.Series):
        slices = slices.to_frame("subset" if slices.name is None else slices.name)
    if not isinstance(slices, pd.DataFrame):
        raise ConfshiftError(
            f"slices is a {type(slices).__name__}: pass a DataFrame indexed by sample id, with a column for "
            "each attribute, such as pandas.read_csv(path, index_col=0)"
        )
    if slices.index.nlevels > 1 or slices.columns.nlevels > 1:
        raise ConfshiftError("slices has an index or columns of several levels: index it by sample id alone")
    if not slices.columns.size:
        raise ConfshiftError("slices has no column: give a column for each attribute, such as the site")
    names = slices.columns.astype(str)
    if not names.is_unique:
        twice = names[names.duplicated()][0]
        raise ConfshiftError(f"slices has several columns named {twice!r}: rename all but one of them")
    for name in _ID_NAMES:
        if name in slices and isinstance(slices.index, pd.RangeIndex) and slices.index.name is None:
            raise ConfshiftError(
                f"slices has a column {name!r}, and rows that are only numbered: pass "
                f"slices.set_index({name!r})"
            )
    return slices


def _rows(index: pd.Index, ids: NDArray[Any]) -> NDArray[np.intp]:
    """Return the row of each id, the first of several; -1 for none. Text may stand for a number."""
    names = pd.Index(ids)
    if not (pd.api.types.is_numeric_dtype(index) and pd.api.types.is_numeric_dtype(names)):
        index, names = index.astype(str), names.astype(str)
    first = np.flatnonzero(~index.duplicated())
    places = index[first].get_indexer(names)
    return np.where(places < 0, -1, first[places]) if len(first) else np.full(len(ids), -1)


def _missing_rows(
    index: pd.Index, rows: NDArray[np.intp], sample_ids: NDArray[Any], groups: NDArray[Any] | None
) -> str:
    """Say how many samples have no row, and what to do."""
    missing = sample_ids[rows < 0]
    of = f"{len(missing)} of {len(sample_ids)} sample ids"
    reason = f"slices has no row for {of}, such as {_plain(missing[0])!r}"
    if groups is not None:
        labels = np.unique(groups)
        without = labels[_rows(index, labels) < 0]
        reason += f", nor for {len(without)} of {len(labels)} groups, such as {_plain(without[0])!r}"
    if len(missing) < len(sample_ids):
        return (
            f"{reason}; give every sample a row, with missing values where nothing is known: "
            "slices.reindex(checkpoint.columns.index)"
        )
    holds = f" (it holds {_plain(index[0])!r})" if len(index) else ""
    return f"{reason}; index it by sample id{'' if groups is None else ' or group'}{holds}"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _refuse_repeated(index: pd.Index, used: NDArray[np.bool_]) -> None:
    """Refuse several rows of one id that a sample has."""
    repeated = index[index.isin(index[used]) & index.duplicated()].unique()
    if len(repeated):
        raise ConfshiftError(
            f"slices has several rows for {len(repeated)} of the ids, such as {_plain(repeated[0])!r}; "
            "give each id one row"
        )


def _attribute(name: str, column: pd.Series) -> Attribute:
    """Divide samples by the values of a column."""
    column = column.infer_objects()
    known = column.notna().to_numpy(bool)
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if is_number or getattr(column.dtype, "kind", "O") in "mM":
        names, codes = _by_number(column[known].to_numpy())
    else:
        names, codes = _by_text(column[known])
    if not known.all() and _MISSING not in names:
        names.append(_MISSING)
    whole = np.full(len(column), names.index(_MISSING) if not known.all() else 0)
    whole[known] = codes
    return Attribute(name, tuple(names), whole)


def _by_number(values: NDArray[Any]) -> tuple[list[str], Codes]:
    """Divide by numbers or times: by each where they are few, else at the quartiles, named by their ends."""
    different, ranks = np.unique(values, return_inverse=True)
    if len(different) <= _MOST_NUMBERS:
        return _number_names(different), ranks
    at = [math.ceil(len(ranks) * quarter / 4) - 1 for quarter in (1, 2, 3)]
    limits = np.unique(np.partition(ranks, at)[at])  # each is the largest of its part
    part = np.searchsorted(limits, np.arange(len(different)))
    ends = [np.searchsorted(part, np.unique(part), side) for side in ("left", "right")]
    names = _number_names(different)
    pairs = [(names[first], names[behind - 1]) for first, behind in zip(*ends, strict=True)]
    return [low if low == high else f"{low} to {high}" for low, high in pairs], part[ranks]


def _number_names(numbers: NDArray[Any]) -> list[str]:
    """Write different numbers or times so that they differ as written."""
    if numbers.dtype.kind in "mM":
        return [str(text) for text in pd.Index(numbers).astype(str)]
    if all(float(number).is_integer() for number in numbers):
        return [f"{number:.0f}" for number in numbers]
    written = ([f"{number:.{digits}g}" for number in numbers] for digits in _DIGITS)
    return next((texts for texts in written if len(set(texts)) == len(texts)), list(map(repr, numbers)))


def _by_text(values: pd.Series) -> tuple[list[str], Codes]:
    """Divide by text, categories or anything else as it is written; the rarest of many values together."""
    texts = pd.Series([str(value).strip() or _MISSING for value in values], dtype=object)
    in_order = isinstance(values.dtype, pd.CategoricalDtype) and values.dtype.ordered
    order = [str(value).strip() for value in values.cat.categories] if in_order else sorted(set(texts))
    counts = texts.value_counts()
    names = [name for name in dict.fromkeys(order) if name in counts]
    if len(names) > _MOST_VALUES:
        largest = set(sorted(names, key=lambda name: -counts[name])[: _MOST_VALUES - 1])
        others = f"others ({len(names) - len(largest):,} values)"
        texts = texts.where(texts.isin(largest), others)
        names = [*(name for name in names if name in largest), others]
    return names, np.asarray(pd.Index(names).get_indexer(texts), np.intp)
