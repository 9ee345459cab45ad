"""A pair that the run itself picked: what its interval shows beyond having picked the best epoch."""

from __future__ import annotations

import numpy as np
import pytest

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.answer import answer_run
from confshift.findings.chosen_pair import accuracy_clause
from confshift.findings.diagnosis import answers, choose_pair
from confshift.findings.told import is_judged, is_told, within_choice
from confshift.predictions import Predictions

SAMPLES = 600


def run_of(wrong, *, scales=None):
    """A run whose epochs differ in how many samples are wrong, always others, and in the logits' scale."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, SAMPLES)
    checkpoints = []
    for epoch, number in enumerate(wrong):
        margin = np.ones(SAMPLES)
        margin[rng.choice(SAMPLES, number, replace=False)] = -1.0
        logits = margin[:, None] * np.eye(2)[targets] + 0.02 * rng.normal(size=(SAMPLES, 2))
        logits *= 1 if scales is None else scales[epoch]
        checkpoints.append(Checkpoint.from_predictions(Predictions(logits, targets), epoch=epoch))
    return summarize(checkpoints)


@pytest.fixture(scope="module")
def flat():
    """A run that does not rise: its luckiest epoch and its last are apart by more than a pair's interval."""
    return run_of([30] * 9 + [22] + [30] * 9 + [40])


@pytest.fixture(scope="module")
def picked(flat):
    return compare(*flat.pair)


def test_a_fall_of_accuracy_that_picking_the_best_epoch_explains_is_not_told(flat, picked):
    assert picked.change.loc["accuracy", "change_high"] < 0  # as if the two had been chosen beforehand
    assert picked.switches.p_value < 0.05
    assert flat.rise["verdict"].ne("yes").all()
    assert within_choice(flat, picked, "accuracy")
    assert not is_told(flat, picked, "accuracy")
    assert accuracy_clause(flat, picked) == "accuracy fell, perhaps by chance"
    assert "accuracy fell" not in answer_run(flat, picked, ()).text


def test_no_finding_advises_or_decides_on_what_picking_the_best_epoch_explains(flat, picked):
    findings = {one.code: one for one in answers(flat, picked)}
    parts = (
        "loss_change",
        "dearer_mistakes",
        "wrong_or_right",
        "temperature_repairs",
        "few_samples",
        "scale_growth",
    )
    for code in parts:
        assert findings[code].verdict == "cannot tell"
        assert findings[code].next_step == ""
        assert (
            "Such a rise of the loss may be chance: the earlier epoch was picked as the best."
            in findings[code].sentence
        )
    assert not any("eep the earlier" in one.next_step for one in findings.values())


def test_two_epochs_that_somebody_chose_are_judged_as_chosen(flat, picked):
    chosen = compare(flat.main.checkpoints[8], flat.main.checkpoints[19])
    same = compare(*flat.pair)
    assert is_judged(flat, same)
    assert not is_judged(flat, chosen)
    assert not within_choice(flat, chosen, "accuracy")
    alone = run_of([22, 40])
    pair = compare(*alone.pair)
    assert is_told(alone, pair, "accuracy")  # picked from two: nothing to correct
    assert accuracy_clause(alone, pair).startswith("accuracy fell by")


@pytest.mark.parametrize("last", [20, 30])
def test_the_best_of_the_epochs_before_another_one_is_picked_too(last):
    """As with `after=` alone: the run goes on, and the verdict on all of it is about other epochs."""
    longer = run_of([30] * 9 + [22] + [30] * 9 + [40] + [20] * (last - 19))
    comparison = compare(*choose_pair(longer, after=19))
    assert not is_judged(longer, comparison)
    assert comparison.change.loc["accuracy", "change_high"] < 0
    assert within_choice(longer, comparison, "accuracy")
    answer = answer_run(longer, comparison, ())
    assert answer.kind == "chosen_pair"
    assert "accuracy fell, perhaps by chance" in answer.why
    assert answer.action.endswith("do not measurably differ.")


def test_the_first_epoch_is_not_picked_where_the_last_is_the_best():
    history = run_of([22] + [30] * 18 + [40], scales=[*np.linspace(0.1, 0.5, 19), 1.2])
    comparison = compare(*history.pair)
    assert not is_judged(history, comparison)  # the run's verdict is about the best before the last
    assert comparison.change.loc["loss", "change"] < 0
    assert is_told(history, comparison, "accuracy")
    assert accuracy_clause(history, comparison) == "accuracy fell by 3.0 points"


def test_more_mistakes_beyond_the_choice_send_back_to_the_earlier_checkpoint():
    history = run_of([30] * 10 + [70] * 10)
    comparison = compare(*history.pair)
    assert is_told(history, comparison, "accuracy")
    assert is_told(history, comparison, "loss")
    findings = {one.code: one for one in answers(history, comparison)}
    step = findings["dearer_mistakes"].next_step
    assert step == f"Keep epoch {history.recommendation.epoch:g}: the model is wrong more often."
    assert accuracy_clause(history, comparison).startswith("accuracy fell by")


def test_an_accuracy_that_rose_is_not_explained_by_picking_the_lowest_loss():
    targets = np.arange(SAMPLES) % 2
    margins = np.where(np.arange(SAMPLES) < 60, -0.1, 1.0)
    later = np.where(np.arange(SAMPLES) < 30, 0.1, np.where(np.arange(SAMPLES) < 60, -3.0, 1.0))
    history = summarize(
        [
            Checkpoint.from_predictions(
                Predictions(margin[:, None] * np.eye(2)[targets], targets), epoch=epoch
            )
            for epoch, margin in enumerate([0.5 * margins] + [margins] * 8 + [later])
        ]
    )
    comparison = compare(*history.pair)
    assert comparison.change.loc["loss", "change"] > 0 < comparison.change.loc["accuracy", "change_low"]
    assert accuracy_clause(history, comparison) == "accuracy rose by 5.0 points"


@pytest.mark.parametrize(("wrong", "said"), [(1, "1 wrong sample "), (9, "9 wrong samples "), (10, "")])
def test_a_temperature_that_rests_on_few_wrong_samples_says_so(wrong, said):
    history = run_of([wrong] * 8)
    findings = {one.code: one for one in answers(history, compare(*history.main.checkpoints[:2]))}
    text = findings["temperature_repairs"].sentence
    assert (f"That rests on {said}only" in text) == bool(said)
    assert said or "rests on" not in text
    if said:  # so few are not enough to recommend a temperature
        assert history.recommendation.temperature == 1
        assert "too few to fit" in history.recommendation.reason
