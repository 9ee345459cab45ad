"""Results as JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confshift.reporting.output import SCHEMA, document, rows

#: What st.text() draws by default, without the table of the utf-8 codec, which takes seconds to make.
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_plain_values_come_back_as_they_were(value):
    assert json.loads(document(value=value)) == {"schema": SCHEMA, "value": value}


def test_the_schema_version_comes_first():
    assert document(loss=1.0).startswith('{"schema": 1,')


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf")])
def test_what_json_has_no_word_for_is_null_at_any_depth(odd):
    text = document(a=odd, b=[{"c": (odd, 1)}], d=pd.DataFrame({"e": [odd, 2.0]}))
    assert json.loads(text) == {
        "schema": 1,
        "a": None,
        "b": [{"c": [None, 1]}],
        "d": [{"e": None}, {"e": 2.0}],
    }


def test_numpy_scalars_are_plain_numbers():
    scalars = {"i": np.int64(3), "f": np.float64(0.1), "b": np.bool_(True), "s": np.str_("x")}
    assert json.loads(document(**scalars)) == {"schema": 1, "i": 3, "f": 0.1, "b": True, "s": "x"}


def test_a_float_keeps_every_digit():
    assert json.loads(document(value=np.float64(1) / 3))["value"] == 1 / 3


def test_a_named_index_becomes_the_first_columns_and_an_unnamed_one_is_left_out():
    table = pd.DataFrame(
        {"value": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", "y"])
    )
    assert rows(table) == [{"x": "a", "y": 1, "value": 1}, {"x": "b", "y": 2, "value": 2}]
    assert rows(pd.DataFrame({"value": [1]})) == [{"value": 1}]


def test_the_document_is_ascii_so_that_no_name_can_move_a_cursor():
    text = document(name="\x1b[2J\u202e\ud800−")
    assert text.isascii()
    assert "\x1b" not in text


def test_a_value_without_a_form_in_json_is_refused_rather_than_guessed():
    with pytest.raises(TypeError, match="not JSON serializable"):
        document(value=object())
