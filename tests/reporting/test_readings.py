"""The sentences under the charts: every name is known, every number is written as elsewhere."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from confshift.analysis.comparison import SIDES, compare
from confshift.analysis.decomposition import TRANSITIONS
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings import wording
from confshift.predictions import Predictions
from confshift.reporting.captions import CHOICES, FORMATS, READINGS, fill
from confshift.reporting.epoch_tables import epoch_table
from confshift.reporting.pair_tables import shown_classes
from confshift.reporting.pair_values import PARTS, pair_values


@pytest.fixture(scope="module")
def values(history, comparison):
    rows = epoch_table(history)
    places = [history.main.checkpoints.index(one) for one in (comparison.before, comparison.after)]
    before, after = (rows.iloc[place] for place in places)
    return pair_values(comparison, [0, 1, 2, 3], ("epoch 3", "epoch 6"), before=before, after=after)


@pytest.mark.parametrize("name", sorted(READINGS))
def test_every_template_names_known_values_in_known_formats(name, values):
    for key, written in re.findall(r"\{(\w+):(\w+)\}", READINGS[name]):
        assert key in values
        assert written in FORMATS
    assert "{" not in fill(READINGS[name], values)


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_every_text_of_a_choice_names_known_values(name, values):
    for text in CHOICES[name].values():
        assert {key for key, _ in re.findall(r"\{(\w+):(\w+)\}", text)} <= set(values)
        assert {written for _, written in re.findall(r"\{(\w+):(\w+)\}", text)} <= set(FORMATS)
    assert values[name] in {fill(text, values) for text in CHOICES[name].values()}


def test_every_value_is_used(values):
    texts = [*READINGS.values(), *(text for choice in CHOICES.values() for text in choice.values())]
    used = {key for text in texts for key, _ in re.findall(r"\{(\w+):(\w+)\}", text)}
    spare = {  # of families that are used, and what is written beside another
        *("calibration_before", "calibration_after"),
        *(f"{name}_{side}" for name in ("loss", "refinement", "accuracy", "scale") for side in SIDES),
        *PARTS,
        *("loss_change", "refinement_change", "calibration_change", "up", "down"),
        *(*TRANSITIONS, "hedging", "error_rate", "mistake_cost"),
    }
    assert set(values) - used == spare


def reading(name, before, after, targets):
    """Return a reading about two checkpoints of the same samples."""
    sides = [
        Checkpoint.from_predictions(Predictions(np.asarray(one, float), targets), epoch=epoch)
        for epoch, one in enumerate((before, after))
    ]
    rows, comparison = epoch_table(summarize(sides)), compare(*sides)
    classes = shown_classes(comparison.classes, 20)
    made = pair_values(comparison, classes, ("epoch 0", "epoch 1"), before=rows.iloc[0], after=rows.iloc[1])
    return fill(READINGS[name], made)


@pytest.fixture(scope="module")
def right():
    """Logits that are right for every sample, and the targets."""
    targets = np.arange(60) % 3
    return 2 * np.eye(3)[targets] + 0.1 * np.random.default_rng(0).normal(size=(60, 3)), targets


def test_what_did_not_happen_is_not_told(right):
    logits, targets = right
    assert reading("class_accuracy", logits, 2 * logits, targets) == "No class shown lost accuracy."
    assert reading("class_contributions", logits, 2 * logits, targets).startswith("No class shown adds")
    assert "no rise to attribute" in reading("concentration", logits, 2 * logits, targets)
    assert "Almost no sample is wrong at both epochs" in reading("account", logits, 2 * logits, targets)


def test_what_did_happen_is_told(right):
    logits, targets = right
    worse = np.roll(logits, 1, axis=1) * (targets == 1)[:, None] + logits * (targets != 1)[:, None]
    assert "the accuracy of 1 (20 samples) fell most: 100 % to 0.0 %" in reading(
        "class_accuracy", logits, worse, targets
    )
    assert "1 adds most: +" in reading("class_contributions", logits, worse, targets)
    assert "samples that rose most there is no rise" in reading("concentration", logits, worse, targets)


def test_a_rise_within_noise_has_no_shares(right):
    logits, targets = right
    moved = np.where(np.arange(60)[:, None] == 7, -logits, logits)  # one sample
    change = compare(Predictions(logits, targets), Predictions(moved, targets)).change.loc["loss"]
    assert change["change_low"] < 0 < change["change"]
    told = reading("concentration", logits, moved, targets)
    assert told.startswith("The rise is within its error. Without the ")
    assert "%" not in told


@pytest.mark.parametrize(
    ("factor", "status"), [(-1, "measurably up"), (1.0001, "no measurable change"), (2, "measurably down")]
)
def test_a_tile_says_whether_its_change_can_be_measured(right, factor, status):
    logits, targets = right
    noise = np.random.default_rng(1).normal(size=logits.shape) * (0.01 if 1 < factor < 2 else 0)
    assert reading("loss_status", logits, factor * logits + noise, targets) == status


def test_too_few_samples_measure_nothing(right):
    logits, targets = right
    assert reading("loss_status", logits[:2], 2 * logits[:2], targets[:2]) == "too few samples to tell"


def test_losses_that_differ_are_written_so_that_they_differ(right):
    logits, targets = right
    losses = reading("loss_levels", logits, logits * 1.0005, targets).split(" → ")
    assert float(losses[0]) > float(losses[1])
    same = reading("loss_levels", logits, logits + 7.3, targets).split(" → ")
    assert same[0] == same[1]


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


@pytest.mark.parametrize(
    ("infinite", "course"),
    [
        ((False, True), "rose to infinity"),
        ((True, False), "no longer infinite"),
        ((True, True), "infinite at both"),
        ((False, False), " → "),
    ],
)
def test_a_loss_that_is_infinite_is_not_said_to_fall_as_the_finite_ones_do(infinite, course):
    targets = np.arange(60) % 3
    sides = [scale * np.eye(3)[targets] + np.random.default_rng(0).normal(size=(60, 3)) for scale in (1, 3)]
    for side, masked in zip(sides, infinite, strict=True):
        side[0, targets[0]] = -np.inf if masked else side[0, targets[0]]
    assert course in reading("loss_levels", *sides, targets)
    assert ("over the 59 samples" in reading("not_counted", *sides, targets)) == any(infinite)
    prefix = "Over the samples with a finite loss at both: "
    assert reading("loss_detail", *sides, targets).startswith(prefix) == any(infinite)
