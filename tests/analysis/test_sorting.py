"""Orders of many numbers, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from confshift.analysis.sorting import by_confidence, largest


def expected_order(confidence, correct):
    order = np.lexsort([correct, confidence])
    return confidence[order], correct[order]


def check(confidence, correct):
    found = by_confidence(confidence, correct)
    np.testing.assert_array_equal(found[0], np.sort(confidence))
    for column, expected in zip(expected_order(*found), expected_order(confidence, correct), strict=True):
        np.testing.assert_array_equal(column, expected)
        assert column.dtype == expected.dtype
    again = by_confidence(*found)
    assert all(
        np.shares_memory(column, other) for column, other in zip(again, found, strict=True) if len(column)
    )


@given(
    arrays(np.float64, st.integers(0, 50), elements=st.floats(0, 1)).flatmap(
        lambda confidence: st.tuples(st.just(confidence), arrays(np.bool_, len(confidence)))
    )
)
def test_confidences_are_in_order_each_with_its_answer(data):
    check(*data)


@pytest.mark.parametrize("furthest", [2.0, 40.0, 800.0])
def test_many_confidences_are_in_order_up_to_where_they_are_1_to_the_last_bit(furthest):
    rng = np.random.default_rng(0)
    doubt = np.exp(-furthest * rng.random(100_000))
    confidence = np.concatenate([1 - doubt, np.nextafter(1, 0) * np.ones(7), np.ones(7), np.zeros(7)])
    check(confidence, rng.random(len(confidence)) < 0.5)


@given(
    arrays(np.float64, st.integers(0, 30), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0, np.nan, np.inf])),
    st.integers(0, 40),
)
def test_the_largest_are_the_first_of_all_in_descending_order(values, number):
    np.testing.assert_array_equal(largest(values, number), np.argsort(-values, kind="stable")[:number])
