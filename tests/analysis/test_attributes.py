"""Attributes of samples: which subset each is in, whatever the table holds; what is refused, and why."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confshift.analysis.attributes import attributes_of
from confshift.errors import ConfshiftError

IDS = np.arange(20)


def subsets(column, ids=IDS, **more):
    """The members of each subset of one attribute, by its name."""
    (attribute,) = attributes_of(pd.DataFrame({"a": column}, index=ids), ids, **more)
    return {name: ids[attribute.codes == at].tolist() for at, name in enumerate(attribute.values)}


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (list("BA") * 10, ["A", "B"]),
        ([True, False] * 10, ["False", "True"]),
        (pd.array([True, None] * 10, dtype="boolean"), ["True", "unknown"]),
        ([None, "a"] * 10, ["a", "unknown"]),
        (["", "a"] * 10, ["a", "unknown"]),
        (["unknown", None] * 10, ["unknown"]),
        ([np.nan] * 20, ["unknown"]),
        ([1, 2.5] * 10, ["1", "2.5"]),
        ([10, 9] * 10, ["9", "10"]),
        (pd.array([3, None] * 10, dtype="Int64"), ["3", "unknown"]),
        ([np.inf, 1.5] * 10, ["1.5", "inf"]),
        ([1.00001, 1.00002] * 10, ["1.00001", "1.00002"]),
        (
            pd.Categorical(["high", "low"] * 10, ["low", "middle", "high"], ordered=True),
            ["low", "high"],
        ),
        ([1, "1"] * 10, ["1"]),
        (pd.to_datetime(["2024-05-01", "2023-01-31"] * 10), ["2023-01-31", "2024-05-01"]),
    ],
)
def test_each_value_is_a_subset(column, names):
    found = subsets(column)
    assert list(found) == names
    assert sorted(at for members in found.values() for at in members) == IDS.tolist()
    first = names.index("unknown") if pd.isna(column[0]) or column[0] == "" else None
    assert first is None or 0 in found["unknown"]


def test_many_numbers_are_split_at_the_quartiles_of_the_samples_and_named_by_their_ends():
    lengths = [3, 1, 4, 15, 9, 2, 6, 53, 58, 97, 93, 23, 84, 62, 64, 33, 83, 27, 95, np.nan]
    found = subsets(lengths)
    assert list(found) == ["1 to 6", "9 to 33", "53 to 83", "84 to 97", "unknown"]
    for name, members in list(found.items())[:-1]:
        low, high = map(int, name.split(" to "))
        assert members == [at for at, length in enumerate(lengths) if low <= length <= high]
    assert [len(members) for members in found.values()] == [5, 5, 5, 4, 1]


def test_times_are_split_like_numbers():
    found = subsets(pd.date_range("2024-01-01", periods=20))
    assert next(iter(found)) == "2024-01-01 to 2024-01-05"


@given(st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=60))
def test_numbers_lie_within_the_ends_of_their_subset_and_equal_ones_are_together(values):
    ids = np.arange(len(values))
    (attribute,) = attributes_of(pd.Series(values), ids)
    assert len(set(attribute.values)) == len(attribute.values) <= 11
    numbers = np.array(values)
    parts = [numbers[attribute.codes == at] for at in range(len(attribute.values))]
    known = [part for part in parts if not np.isnan(part).any()]
    assert sum(map(len, known)) == int((~np.isnan(numbers)).sum())
    for lower, upper in pairwise(known):
        assert lower.max() < upper.min()


def test_of_many_values_the_largest_have_a_subset_each_and_the_others_one():
    values = [f"v{at}" for at in range(60) for _ in range(at + 1)]
    found = subsets(values, np.arange(len(values)))
    assert len(found) == 50
    assert list(found)[-1] == "others (11 values)"
    assert len(found["others (11 values)"]) == sum(range(1, 12))
    assert "v11" in found
    assert "v10" not in found
    fifty = [f"v{at}" for at in range(50)]
    assert set(subsets(fifty, np.arange(50))) == set(fifty)


def test_a_series_or_a_mapping_is_one_attribute():
    series = pd.Series(list("ab"), index=[1, 0], name="site")
    (attribute,) = attributes_of(series, np.array([0, 1]))
    assert (attribute.name, attribute.values, attribute.codes.tolist()) == ("site", ("a", "b"), [1, 0])
    (attribute,) = attributes_of({0: "a", 1: "b"}, np.array([0, 1]))
    assert (attribute.name, attribute.codes.tolist()) == ("subset", [0, 1])


@pytest.mark.parametrize("ids", [np.arange(3), np.array(["0", "1", "2"]), np.array([0, 1, 2], np.int32)])
@pytest.mark.parametrize("index", [[2, 0, 1, 9], ["2", "0", "1", "9"], pd.CategoricalIndex([2, 0, 1, 9])])
def test_rows_are_found_by_id_in_any_order_as_number_or_as_text_and_others_are_ignored(ids, index):
    (attribute,) = attributes_of(pd.Series(list("cabx"), index=index), ids)
    assert [attribute.values[code] for code in attribute.codes] == ["a", "b", "c"]


def test_where_samples_have_no_rows_groups_may_have_them():
    groups = np.array(["p", "q", "q"])
    by_group = pd.DataFrame({"site": ["B", "A"]}, index=["q", "p"])
    (attribute,) = attributes_of(by_group, np.arange(3), groups)
    assert [attribute.values[code] for code in attribute.codes] == ["A", "B", "B"]


PLAIN = pd.DataFrame({"a": range(3)})


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        (["a", "b", "c"], r"slices is a list: pass a DataFrame .*read_csv"),
        ("sites.csv", "slices is a str"),
        (PLAIN[[]], "slices has no column"),
        (PLAIN.iloc[:1], r"no row for 2 of 3 sample ids, such as 1; .*slices.reindex\(checkpoint.columns"),
        (PLAIN.set_axis(["x", "y", "z"]), r"3 of 3 sample ids, such as 0; index it by sample id .*holds 'x'"),
        (pd.concat([PLAIN, PLAIN]), "several rows for 3 of the ids, such as 0; give each id one row"),
        (PLAIN.assign(sample_id=[4, 5, 6]), r"pass slices.set_index\('sample_id'\)"),
        (pd.concat([PLAIN, PLAIN], axis=1), "several columns named 'a'"),
        (pd.DataFrame({1: [1, 2, 3], "1": [1, 2, 3]}), "several columns named '1'"),
        (PLAIN.set_index([[1, 2, 3], [1, 2, 3]]), "several levels"),
    ],
)
def test_a_table_that_can_not_be_one_of_attributes_is_refused(slices, message):
    with pytest.raises(ConfshiftError, match=message):
        attributes_of(slices, np.arange(3))


def test_what_the_messages_advise_is_right():
    part, ids = PLAIN.iloc[:1], np.arange(3)
    (attribute,) = attributes_of(part.reindex(ids), ids)
    assert attribute.values == ("0", "unknown")
    numbered = pd.DataFrame({"sample_id": [4, 5, 6], "a": [1, 2, 3]})
    (attribute,) = attributes_of(numbered.set_index("sample_id"), np.array([6, 5, 4]))
    assert attribute.codes.tolist() == [2, 1, 0]


def test_rows_of_other_ids_may_repeat():
    repeated = pd.DataFrame({"a": list("xyzz")}, index=[0, 1, 7, 7])
    assert attributes_of(repeated, np.arange(2))[0].values == ("x", "y")


def test_groups_without_a_row_are_counted_too():
    with pytest.raises(
        ConfshiftError, match="such as 0, nor for 1 of 2 groups, such as 'q'; index it by sample id or"
    ):
        attributes_of(pd.Series(["A"], index=["p"]), np.arange(3), np.array(["p", "q", "q"]))
