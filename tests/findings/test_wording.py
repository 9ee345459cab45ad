"""How numbers are written: never nan, never 100 % for what is less."""

from __future__ import annotations

import math
import re
from decimal import Decimal

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from confshift.findings.wording import (
    adding_up,
    apart,
    count,
    divisor,
    epoch,
    epoch_argument,
    fitting,
    heading,
    interval,
    levels_and_change,
    nats,
    percent,
    points,
    rose_or_fell,
    shares_and_change,
    short_name,
    signed,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (1.234, "1.23"),
        (99.994, "99.99"),
        (123.4, "123"),
        (0.0994, "0.099"),
        (0.0996, "0.10"),
        (0.0123, "0.012"),
        (0.00056, "0.00056"),
        (3.2e-7, "0.00000032"),
        (2.2e-17, "0.00"),  # the rounding of a sum
        (-0.5, "−0.50"),
        (-0.012, "−0.012"),
        (math.nan, "?"),
        (math.inf, "∞"),
    ],
)
def test_an_amount_of_loss_has_two_decimals_or_two_digits(value, text):
    assert nats(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "+0.50"), (-0.5, "−0.50"), (0.0, "+0.00"), (-1e-17, "+0.00"), (-0.012, "−0.012")],
)
def test_a_signed_amount_carries_its_sign(value, text):
    assert signed(value) == text


@pytest.mark.parametrize(
    ("pair", "texts"),
    [
        ((0.59, 0.92), ("0.59", "0.92")),
        ((0.3224, 0.3213), ("0.322", "0.321")),
        ((1.5, 1.5), ("1.50", "1.50")),
        ((-0.501, -0.502), ("−0.501", "−0.502")),
        ((0.5, 0.5 + 1e-12), ("0.50", "0.50")),  # the rounding of a sum
    ],
)
def test_two_amounts_are_written_apart_where_they_are(pair, texts):
    assert apart(*pair) == texts


@given(st.floats(0, 50), st.floats(-0.3, 0.3))
@example(1.0, 1e-9)
@example(0.125, 1e-9)
def test_of_two_amounts_the_larger_is_written_larger(first, step):
    second = first + step
    difference = second - first  # which is not `step` to the last bit
    texts = [float(text.replace("−", "-")) for text in apart(first, second)]
    if texts[0] == texts[1]:
        assert abs(difference) <= 1e-9
    else:
        assert (texts[0] < texts[1]) == (difference > 0)


@pytest.mark.parametrize(
    ("write", "pair", "texts"),
    [
        (levels_and_change, (0.59, 0.92), ("0.59", "0.92", "+0.33")),
        (levels_and_change, (0.5863, 0.6374), ("0.586", "0.637", "+0.051")),
        (levels_and_change, (0.4949, 0.5051), ("0.495", "0.505", "+0.010")),
        (levels_and_change, (0.124, 0.3561), ("0.124", "0.356", "+0.232")),
        (levels_and_change, (0.0012, 0.52), ("0.0012", "0.5200", "+0.5188")),
        (levels_and_change, (123.46, 123.02), ("123.46", "123.02", "−0.44")),
        (levels_and_change, (0.5, 0.5), ("0.50", "0.50", "+0.00")),
        (levels_and_change, (math.inf, 0.5), ("–", "0.50", "–")),
        (levels_and_change, (math.inf, math.nan), ("–", "–", "–")),
        (shares_and_change, (0.8384, 0.8396), ("83.84 %", "83.96 %", "+0.12 points")),
        (shares_and_change, (0.781, 0.77), ("78.1 %", "77.0 %", "−1.1 points")),
        (shares_and_change, (0.9996, 1.0), ("99.96 %", "100.00 %", "+0.04 points")),
        (shares_and_change, (math.nan, 1.0), ("–", "100 %", "–")),
        (shares_and_change, (1171 / 1500, 1325 / 1500), ("78.07 %", "88.33 %", "+10.26 points")),
        (levels_and_change, (0.72216, 0.73073), ("0.7221", "0.7307", "+0.0086")),  # and no 0.72216
        (levels_and_change, (0.72234, 0.73057), ("0.7224", "0.7306", "+0.0082")),
        (levels_and_change, (0.722163, 0.722186), ("0.72216", "0.72218", "+0.00002")),
        (levels_and_change, (2 / 3, 4 / 3), ("0.666", "1.333", "+0.667")),
    ],
)
def test_before_after_and_change_add_up_as_written(write, pair, texts):
    assert write(*pair) == texts


@given(st.floats(0, 200), st.floats(0, 200))
@example(0.125, 0.25)
@example(0.5, 0.5 + 1e-7)
@example(0.3, 0.3 + 1e-12)
def test_levels_of_loss_and_their_change_add_up_as_written(before, after):
    exact_sum(levels_and_change(before, after), (before, after), largest=after - before)


@given(st.floats(0, 1), st.floats(0, 1))
@example(0.78055, 0.7714)
def test_shares_and_their_change_add_up_as_written(before, after):
    texts = [text.removesuffix(" %").removesuffix(" points") for text in shares_and_change(before, after)]
    exact_sum(texts, (100 * before, 100 * after), largest=100 * (after - before))


def exact_sum(texts, values, *, largest):
    """Check that two numbers and their difference add up, and that each is right within its last digit."""
    first, second, change = (Decimal(text.replace("−", "-")) for text in texts)
    unit = Decimal(1).scaleb(change.as_tuple().exponent)
    assert second - first == change
    for text, value in zip((first, second, change), (*values, largest), strict=True):
        assert abs(text - Decimal(value)) <= unit * Decimal("1.000001")
        assert Decimal(1).scaleb(text.as_tuple().exponent) == unit
    assert texts[2][0] in "+−"


@pytest.mark.parametrize(
    ("temperature", "text"),
    [
        (2.534, "2.53"),
        (0.0, "ever smaller numbers"),
        (4.5e-5, "ever smaller numbers"),
        (2e4, "ever larger numbers"),
    ],
)
def test_a_temperature_at_its_bound_is_no_number(temperature, text):
    assert divisor(temperature) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0 %"),
        (1.0, "100 %"),
        (0.5, "50.0 %"),
        (0.962, "96.2 %"),
        (0.9962, "99.6 %"),
        (0.9996, "99.96 %"),
        (0.99996, "99.996 %"),
        (0.0004, "0.04 %"),
        (1.3, "130 %"),
        (-0.25, "−25.0 %"),
        (math.nan, "?"),
    ],
)
def test_a_percentage_tells_a_share_from_none_and_from_all(share, text):
    assert percent(share) == text


@given(st.floats(1e-6, 1 - 1e-6))
def test_only_all_is_100_percent_and_only_nothing_is_0(share):
    number = float(percent(share).removesuffix(" %"))
    assert 0 < number < 100
    assert number == pytest.approx(100 * share, abs=0.0501)


@given(st.floats(-1e6, 1e6))
def test_an_amount_is_written_without_exponent_and_close_to_its_value(value):
    text = nats(value)
    assert re.fullmatch(r"−?\d+(\.\d+)?", text)
    # Two significant digits where small, two decimals up to 100, none above.
    assert float(text.replace("−", "-")) == pytest.approx(value, rel=0.051, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (count(1), "1 sample"),
        (count(12345), "12,345 samples"),
        (count(0), "no samples"),
        (count(1, "class"), "1 class"),
        (count(3, "class"), "3 classes"),
        (count(2, "worst sample"), "2 worst samples"),
        (epoch(12.0), "12"),
        (epoch(0.25), "0.25"),
        (epoch(0.1 * 3), "0.3"),
        (epoch(1234567.0), "1234567"),  # a step
        (epoch(math.nan), "?"),
        (points(0.0123), "+1.2 points"),
        (points(-0.0123), "−1.2 points"),
        (rose_or_fell(2e-9), "rose"),
        (rose_or_fell(-2e-9), "fell"),
        (rose_or_fell(1e-15), "did not change"),  # the rounding of a sum
        (rose_or_fell(0.0), "did not change"),
    ],
)
def test_counts_epochs_and_points(text, expected):
    assert text == expected


@pytest.mark.parametrize(
    ("low", "high", "unit", "text"),
    [
        (-0.02, 0.5, "nats", "95 % interval −0.020 to +0.50"),
        (-0.02, 0.5, "fraction", "95 % interval −2.0 to +50.0 points"),
        (0.1, 2.0, "ratio", "95 % interval +0.10 to +2.00"),
        (math.nan, math.nan, "nats", "no interval"),
    ],
)
def test_an_interval_is_in_its_unit(low, high, unit, text):
    row = {"change_low": low, "change_high": high, "unit": unit, "samples": 90}
    assert interval(pd.Series(row | {"units": 90})) == text
    grouped = text if math.isnan(low) else text.replace("interval", "interval by 9 groups")
    assert interval(pd.Series(row | {"units": 9})) == grouped


@pytest.mark.parametrize("name", ["truck, lorry or van of any size and age", 71 * "x"])
def test_a_heading_names_a_class_only_where_the_name_is_short(name):
    assert heading("Class cat carries half", "One class does") == "Class cat carries half"
    assert heading(f"Class {name} carries half", "One class does") == "One class does"


WORDS = st.lists(st.sampled_from(["a", "bb", "12.0 %", "−0.3", "c.", "d e f"]), min_size=1, max_size=12)


@given(st.lists(WORDS.map(" ".join), min_size=1, max_size=6), st.integers(1, 20))
def test_sentences_fit_in_order_and_none_is_lost(sentences, most):
    kept, others = fitting(sentences, most)
    assert kept.startswith(sentences[0])
    assert len(kept.split()) <= max(most, len(sentences[0].split()))
    assert sorted(f"{kept} {others}".split()) == sorted(" ".join(sentences).split())
    assert fitting([*sentences, "", ""], 10_000) == (" ".join(sentences), "")


def test_a_shorter_sentence_fits_after_one_that_is_too_long():
    assert fitting(["One two.", "Three four five.", "Six."], 4) == ("One two. Six.", "Three four five.")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cat", "cat"),
        (3, "3"),
        ("great white shark", "great white shark"),
        ("great white shark of the south", "great white shark…"),
        ("x" * 31, "x" * 30 + "…"),
        ("x" * 30, "x" * 30),
    ],
)
def test_a_long_name_is_cut(name, text):
    assert short_name(name) == text


@given(st.floats(-1e6, 1e6) | st.integers(0, 10**9).map(float))
def test_an_epoch_in_a_command_is_that_epoch(value):
    assert float(epoch_argument(value)) == value
    assert epoch_argument(12.0) == "12"


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=6),
    st.sampled_from([1e-6, 1e-3, 1.0, 300.0]),
)
def test_parts_add_up_as_they_are_written(parts, scale):
    parts = [scale * part for part in parts]
    total = sum(parts)
    texts = adding_up(parts, total)
    written = [Decimal(text.replace("−", "-")) for text in texts]
    unit = 10 ** int(written[0].as_tuple().exponent)
    assert sum(written) == Decimal(f"{total:.{-written[0].as_tuple().exponent}f}")
    assert all(abs(float(one) - part) < 1.0001 * unit for one, part in zip(written, parts, strict=True))


def test_parts_of_nothing_are_written_with_their_own_digits():
    assert adding_up([0.004, -0.004], 0.0) == ["+0.0040", "−0.0040"]
    assert adding_up([0.0, 0.0], 0.0) == ["+0.00", "+0.00"]
