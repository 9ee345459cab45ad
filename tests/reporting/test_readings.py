"""The sentences under the charts: every name is known, every number is written as elsewhere."""

from __future__ import annotations

import math
import re

import pytest

from confshift.findings import wording
from confshift.reporting.readings import FORMATS, READINGS, fill, pair_values
from confshift.reporting.tables import epoch_table


@pytest.fixture(scope="module")
def values(history, comparison):
    rows = epoch_table(history)
    places = [history.main.checkpoints.index(one) for one in (comparison.before, comparison.after)]
    before, after = (rows.iloc[place] for place in places)
    return pair_values(comparison, [0, 1, 2, 3], ("epoch 3", "epoch 6"), before=before, after=after)


@pytest.mark.parametrize("name", sorted(READINGS))
def test_every_template_names_known_values_in_known_formats(name, values):
    known = {*values, "n", "c"} if name.startswith("cell_") else set(values)
    for key, written in re.findall(r"\{(\w+):(\w+)\}", READINGS[name]):
        assert key in known
        assert written in FORMATS
    assert "{" not in fill(READINGS[name], {**values, "n": 3, "c": 0.5})


def test_every_value_is_used_and_every_cell_has_a_sentence(values):
    used = {key for text in READINGS.values() for key, _ in re.findall(r"\{(\w+):(\w+)\}", text)}
    spare = {
        "calibration_before",
        "stayed_right_samples",
        "stayed_wrong_samples",
    }  # of families that are used
    assert set(values) - used == spare
    assert sum(name.startswith("cell_") for name in READINGS) == 8


def test_the_values_are_those_of_the_comparison(values, comparison):
    loss = comparison.change.loc["loss"]
    for column in ("before", "after", "change"):
        assert values[f"loss_{column}"] == loss[column]
    assert (values["loss_low"], values["loss_high"]) == (loss["change_low"], loss["change_high"])
    parts = [values[name] for name in ("hedging", "error_rate", "mistake_cost")]
    assert sum(parts) == pytest.approx(values["loss_change"])
    transitions = [values[name] for name in ("stayed_right", "forgotten", "learned", "stayed_wrong")]
    assert sum(transitions) == pytest.approx(values["loss_change"])
    assert values["up"] + values["down"] == pytest.approx(values["loss_change"])
    assert values["shown_contribution"] == pytest.approx(values["loss_change"])
    assert values["cancelling"] == comparison.concentration.loc["cancelling_samples", "value"]


def test_values_are_plain_numbers_and_texts(values):
    assert {type(value) for value in values.values()} <= {int, float, str}


def test_a_number_that_does_not_exist_is_a_dash():
    assert fill("{x:nats}, {y:samples}", {"x": math.nan, "y": 1}) == "–, 1 sample"
    assert fill("{x:ratio}", {"x": math.inf}) == "–"


@pytest.mark.parametrize("name", ["nats", "signed", "percent", "points", "epoch"])
def test_numbers_are_written_as_in_the_findings(name):
    for value in (0.0, 0.0421, -0.3, 12.0):
        assert fill(f"{{x:{name}}}", {"x": value}) == getattr(wording, name)(value)


def test_text_is_not_taken_for_a_template():
    assert fill("{x:text}", {"x": "{y:nats}"}) == "{y:nats}"
