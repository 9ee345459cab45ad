"""Others' rules, the truth that they are held against, and the page of the results."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

sys.path.append(str(Path(__file__).parent / "benchmarks"))
import rules_page
from curve_rules import fixed_gap, patience, two_curves
from pages import between
from rules import Judged, by_rule, judge, one_run_a_line, since_when, thread
from truth import best_map, change_of, finite, losses_of, repaired

import confshift
from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions

FALLING = [1.0, 0.8, 0.6]


# ----------------------------------------------------------------------------------- the rules, on curves
def test_patience_stops_after_so_many_epochs_without_a_new_lowest_loss_and_keeps_that_one():
    said = patience([*FALLING, *[0.7] * 10], 10)
    assert (said.text, said.at, said.keeps, said.worse) == ("stop", 12, 2, None)


def test_patience_waits_as_long_as_one_epoch_is_missing():
    said = patience([*FALLING, *[0.7] * 9], 10)
    assert (said.text, said.at, said.keeps) == ("nothing", None, 2)


def test_patience_does_not_see_what_comes_after_its_stop():
    assert patience([*FALLING, *[0.7] * 10, 0.1], 10).keeps == 2
    assert patience([*FALLING, *[0.7] * 9, 0.1], 10).keeps == 12


def test_for_patience_a_loss_that_is_not_a_number_is_never_the_lowest():
    assert patience([np.nan, *FALLING, *[np.nan] * 3], 3)[:3] == ("stop", 6, 3)


@pytest.mark.parametrize(
    ("train", "val", "alarm"),
    [
        ({"loss": [1.0], "accuracy": [0.9]}, {"loss": [1.2], "accuracy": [0.8]}, True),
        (
            {"loss": [1.0], "accuracy": [0.9]},
            {"loss": [1.2], "accuracy": [0.82]},
            False,
        ),  # .08 < a tenth of .9
        (
            {"loss": [1.1], "accuracy": [0.9]},
            {"loss": [1.2], "accuracy": [0.8]},
            False,
        ),  # .1 < a tenth of 1.2
        (
            {"loss": [1.0], "accuracy": [0.8]},
            {"loss": [1.2], "accuracy": [0.9]},
            False,
        ),  # the better way round
        ({"loss": [0.05]}, {"loss": [0.085]}, True),  # the floor of .03
        ({"loss": [0.05]}, {"loss": [0.075]}, False),
    ],
)
def test_a_fixed_gap_is_a_majority_of_gaps_of_a_tenth_of_the_reference_or_of_the_floor(train, val, alarm):
    said = fixed_gap(train, val)
    assert (said.text == "overfitting") == said.worse == alarm


def test_a_fixed_gap_is_judged_at_the_end_and_dated_from_its_first_epoch():
    train, val = {"loss": [1.0, 0.5, 0.5, 0.4]}, {"loss": [1.0, 1.0, 0.5, 1.0]}
    assert fixed_gap(train, val)[:3] == ("overfitting", 1, 3)
    closed = fixed_gap({"loss": train["loss"][:3]}, {"loss": val["loss"][:3]})
    assert closed[:3] == ("nothing", None, 2)


def test_the_two_curves_say_overfitting_once_they_went_apart_three_epochs_in_a_row():
    val = [1.0, 0.7, 0.8, 0.9, 1.0]
    assert two_curves([1.0, 0.7, 0.6, 0.5, 0.4], val) == ("overfitting", 4, 1, True)
    assert two_curves([1.0, 0.7, 0.6, 0.8, 0.4], val) == ("nothing", None, 1, False)
    assert two_curves([1.0, 0.7, 0.8, 0.9, 1.0], val).text == "nothing"  # a divergence


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20))
def test_where_both_curves_are_one_neither_rule_sees_overfitting(losses):
    assert two_curves(losses, losses).text == fixed_gap({"loss": losses}, {"loss": losses}).text == "nothing"


# -------------------------------------------------------------------------------------------- the truth
@pytest.fixture(scope="module")
def sample():
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, 300)
    return random.normal(size=(300, 3)) + 1.5 * np.eye(3)[targets], targets


def test_the_best_temperature_is_the_one_that_a_search_finds(sample):
    logits, targets = sample
    search = minimize_scalar(lambda beta: losses_of(beta * logits, targets).mean(), bounds=(0, 20))
    assert best_map(logits, targets, biases=False)[0] == pytest.approx(search.x, rel=1e-3)


def test_what_a_map_repairs_is_not_what_a_model_knows(sample):
    logits, targets = sample
    left = losses_of(repaired(logits, targets), targets).mean()
    for other in (3 * logits, logits + np.array([0, 1, -2])):
        assert losses_of(repaired(other, targets), targets).mean() == pytest.approx(left, abs=1e-5)
    assert left < losses_of(logits, targets).mean()


def test_with_few_samples_a_class_biases_are_not_fitted(sample):
    logits, targets = sample[0][:100], sample[1][:100]
    beta, _ = best_map(logits, targets, biases=False)
    assert repaired(logits, targets) == pytest.approx(beta * logits)


def test_an_output_that_is_not_finite_counts_as_a_guess():
    logits = finite(np.array([[np.nan, 1.0], [2.0, 1.0]]))
    assert losses_of(logits, np.array([0, 0]))[0] == pytest.approx(np.log(2))
    assert logits[1].tolist() == [2.0, 1.0]


def course(rise, *, samples=4000, noise=0.1, seed=0):
    """Return losses that fall for ten epochs, then rise by so much in all."""
    levels = np.concatenate([np.linspace(1, 0.5, 10), 0.5 + rise * np.minimum(np.arange(20) / 10, 1)])
    return levels[:, None] + noise * np.random.default_rng(seed).normal(size=(30, samples))


def test_a_rise_is_measured_from_the_best_stretch_of_epochs_to_the_last():
    change = change_of(course(0.1))
    assert change.low < change.amount < change.high
    assert change.amount == pytest.approx(0.0967, abs=0.01)  # the best three epochs lie a little above .5
    assert change.answer == "worse"


def test_picking_the_best_stretch_makes_no_rise_of_noise():
    changes = [change_of(course(0, samples=200, noise=0.3, seed=seed)) for seed in range(10)]
    assert abs(np.mean([change.amount for change in changes])) < 0.01
    assert not [change for change in changes if change.answer == "worse"]


def test_what_falls_to_the_end_did_not_get_worse():
    assert change_of(course(0.1)[:9]).answer == "not worse"


def test_few_samples_leave_the_truth_open():
    assert change_of(course(0.02, samples=40, noise=0.3, seed=1)).answer == "open"


# ------------------------------------------------------------------------------------ two synthetic runs
def run_of(strengths, scales):
    """Return a run that knows as much as a strength says, is as sure as a scale, and learns by heart."""
    random = np.random.default_rng(1)
    targets = random.integers(0, 3, 1200)
    signal, noise = np.eye(3)[targets], random.normal(size=(1200, 3))
    logits = [scale * (strength * signal + noise) for strength, scale in zip(strengths, scales, strict=True)]
    checkpoints = [
        Checkpoint.from_predictions(Predictions(one[:600], targets[:600]), epoch=epoch)
        for epoch, one in enumerate(logits)
    ]
    falling = np.linspace(1, 0.01, len(logits)).tolist()
    train = {"loss": falling, "accuracy": [1 - loss / 2 for loss in falling]}
    return Judged(checkpoints, train, np.array(logits)[:, 600:], targets[600:])


LEARNING = np.linspace(0, 1.5, 5)


@pytest.fixture(scope="module")
def surer():
    """A model that keeps what it knows, and gets ever surer of it; and the results."""
    judged = run_of([*LEARNING, *[1.5] * 15], [*[1] * 5, *np.linspace(1.1, 4, 15)])
    return judged, judge(judged, when=False)


@pytest.fixture(scope="module")
def forgetful():
    """A model that loses half of what it knows; and the results."""
    judged = run_of([*LEARNING, *np.linspace(1.45, 0.75, 15)], [1] * 20)
    return judged, judge(judged, when=False)


def test_of_a_model_that_only_gets_surer_the_curves_say_overfitting_and_confshift_does_not(surer):
    _, result = surer
    patient, *others = result["rules"]
    assert (result["loss"]["answer"], result["knows"]["answer"]) == ("worse", "not worse")
    assert [rules_page.verdict(result, rule) for rule in others] == ["**wrong**", "**wrong**", "right"]
    assert others[-1]["advised_loss"] == pytest.approx(result["best"]["loss"], abs=0.01)
    assert patient["at"] == patient["keeps"] + 10


def test_of_a_model_that_forgets_all_say_so_and_the_loss_is_that_of_the_kept_checkpoint(forgetful):
    judged, result = forgetful
    assert result["knows"]["answer"] == "worse"
    assert [rules_page.verdict(result, rule) for rule in result["rules"][1:]] == ["right"] * 3
    for rule in result["rules"]:
        logits = judged.test_logits[int(rule["keeps"])]
        assert rule["loss"] == losses_of(logits, judged.test_targets).mean()
        assert rule["accuracy"] == (logits.argmax(axis=1) == judged.test_targets).mean()
    assert result["rules"][-1]["keeps"] in (4, 5)


def test_asked_after_every_epoch_confshift_says_when_the_model_gets_worse(forgetful):
    judged, _ = forgetful
    first, text, stop = since_when(judged.checkpoints)
    assert 8 <= first <= stop < 20
    assert "model" in text


def test_without_a_training_curve_the_rules_that_need_one_are_left_out_and_named(surer):
    judged, result = surer
    assert [name for name, _ in by_rule(judged._replace(train={}))] == ["patience 10"]
    left = [rule for rule in result["rules"] if rule["rule"] in ("patience 10", "confshift")]
    text = rules_page.section("T4", {**result, "rules": left, "title": "A net", "command": "python"})
    assert text.startswith("### T4: a net\n")
    assert "No training curve was recorded, which a fixed gap and the two curves need." in text


def test_a_section_has_a_row_for_each_rule_and_says_where_another_advice_is_better(forgetful):
    result = {**forgetful[1], "expected": "overfitting"}
    text = rules_page.section("some_run", result)
    assert text.startswith("### Some run\n")
    assert "what the model knows got worse (+" in text
    for rule in rules_page.RULES:
        assert text.count(f"| {rule} |") == 1
    assert "not the best" not in text
    *others, own = result["rules"]
    worse = {**result, "rules": [*others, {**own, "advised_loss": own["loss"] + 1}]}
    text = rules_page.section("some_run", worse)
    assert "**Here confshift's advice is not the best:** the checkpoint of" in text


def test_what_is_not_said_is_neither_right_nor_wrong(forgetful):
    result = forgetful[1]
    silent = {"rule": "confshift", "worse": None}
    assert rules_page.verdict(result, silent) == "left open"
    assert rules_page.verdict(result, {**silent, "rule": "patience 10"}) == "–"
    unknown = {**result, "knows": {**result["knows"], "answer": "open"}}
    assert rules_page.verdict(unknown, {**silent, "worse": True}) == "can't be checked"


def test_the_counts_are_of_runs_whose_truth_is_known(surer, forgetful):
    unknown = {**surer[1], "knows": {**surer[1]["knows"], "answer": "open"}}
    row = rules_page.counted([surer[1], forgetful[1], unknown])
    assert [row[rule]["false"] for rule in rules_page.RULES] == [0, 1, 1, 0]
    assert {(row[rule]["sound"], row[rule]["worse"], row[rule]["missed"]) for rule in rules_page.RULES} == {
        (1, 1, 0)
    }
    assert row["patience 10"]["open"] == 2
    assert row["a fixed gap"]["largest"] > row["confshift"]["largest"]


def test_halves_of_a_run_share_no_sample_and_are_drawn_from_all_of_it(tmp_path):
    random = np.random.default_rng(0)
    logits, targets = random.normal(size=(3, 50, 4)), random.integers(0, 4, 50)
    run = confshift.Run(tmp_path / "run")
    for epoch, one in enumerate(logits):
        run.append(Predictions(one, targets), epoch=epoch, metadata={"trn_loss": 1.0 - epoch})
    judged = thread(run.path)
    seen = judged.checkpoints[0].predictions
    assert len(seen.targets) == len(judged.test_targets) == 25
    rows = np.concatenate([seen.logits, judged.test_logits[0]])
    assert {*map(tuple, rows)} == {*map(tuple, logits[0])}
    assert {int(step) for step in np.diff(seen.sample_ids)} > {1, 2}  # not every other one
    assert judged.train == {"loss": [1.0, 0.0, -1.0]}


# ---------------------------------------------------------------------------------- what the documents say
@pytest.fixture(scope="module")
def stored():
    return json.loads(rules_page.RESULTS.read_text(encoding="utf-8"))


def test_the_page_and_the_readme_say_what_the_stored_results_say(stored):
    for path, text in (
        (rules_page.PAGE, rules_page.page(stored)),
        (rules_page.README, rules_page.readme(stored)),
    ):
        assert between(path.read_text(encoding="utf-8"), "rules") == text, path.name
    assert one_run_a_line(stored) == rules_page.RESULTS.read_text(encoding="utf-8")


def test_the_stored_answers_follow_from_the_stored_intervals(stored):
    from truth import Change

    for run in [*stored["runs"].values(), *stored["all"]]:
        for name in ("knows", "loss"):
            change = dict(run[name])
            assert change.pop("answer") == Change(**change).answer


def test_every_run_on_the_page_has_its_rules_in_order(stored):
    for run in stored["runs"].values():
        order = [rules_page.RULES.index(rule["rule"]) for rule in run["rules"]]
        assert all(one < other for one, other in pairwise(order))
