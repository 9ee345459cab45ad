"""Runs with samples that have no finite loss: what is said of them, and said first."""

from __future__ import annotations

import re

import numpy as np
import pytest

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.answer import answer_run
from confshift.findings.change import about_change
from confshift.findings.diagnosis import diagnose
from confshift.findings.left_out import epochs_in_words, left_out_of, opening
from confshift.findings.two_runs import answer_two_runs, course
from confshift.predictions import Predictions

SAMPLES, CLASSES = 400, 3
TARGETS = np.arange(SAMPLES) % CLASSES
NOT_WRITTEN = re.compile(r"\b(nan|inf|None)\b|\?(?! *$| Then| Or| Is)")


def logits_of(epochs, seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(SAMPLES, CLASSES)) + 2 * np.eye(CLASSES)[TARGETS] - 9
    return np.stack([base + noise * rng.normal(size=base.shape) for _ in range(epochs)])


def history_of(logits, first=1):
    return summarize(
        [
            Checkpoint.from_predictions(Predictions(one, TARGETS), epoch=epoch)
            for epoch, one in enumerate(logits, first)
        ]
    )


def saturated(logits, epochs, samples):
    """Give the true class of some samples a probability of 0 at some epochs."""
    for epoch in epochs:
        logits[epoch, samples, TARGETS[samples]] = -np.inf
    return logits


def answer_of(history, comparison=None):
    return answer_run(history, comparison or compare(*history.pair), ())


HARD = np.arange(0, 48)


def test_a_run_that_ends_in_nan_says_so_first():
    logits = logits_of(8, noise=1.0)
    logits[4:] = np.nan
    history = history_of(logits)
    answer = answer_of(history)
    assert answer.why.startswith("The run diverged at epoch 5: from then on its outputs are not finite.")
    assert answer.remarks[0] == "Epochs 5 to 8 have no finite output."
    diverged, rise = diagnose(history)[:2]
    assert diverged.sentence == "Diverged at epoch 5: epochs 5 to 8 have no finite output."
    assert rise.sentence.startswith("Epochs 5 to 8 have no finite output. ")
    assert history.table["temperature"].isna().tolist() == [False] * 4 + [True] * 4


def test_a_run_that_ends_in_nan_for_some_samples_says_so_first():
    logits = logits_of(8)
    logits[6:, :48] = np.nan
    history = history_of(logits)
    said = "At epochs 7 and 8, 12.0 % of the samples have no finite output."
    assert answer_of(history).remarks[0] == said
    first = diagnose(history)[0]
    assert first.sentence.startswith(said)
    assert first.verdict == "cannot tell"
    assert "could hide a rise" in first.sentence


def test_a_loss_that_rises_to_infinity_says_so_with_the_finite_losses_beside():
    logits = saturated(logits_of(9), range(4, 9), HARD)
    history = history_of(logits)
    comparison = compare(*history.pair)
    answer, best = answer_of(history, comparison), history.best.loc["loss", "epoch"]
    assert answer.why.startswith(
        "At epoch 9 the loss is infinite: 48 samples give their true class a probability of 0. "
    )
    assert answer.remarks[0] == (
        "At epochs 5 to 9, 12.0 % of the samples give their true class a probability of 0, so the loss is "
        "infinite there."
    )
    assert answer.remarks[1].startswith("Over the 352 samples with a finite loss at both epochs, it ")
    found = {finding.code: finding for finding in diagnose(history)}
    assert found["rise"].verdict == "yes"
    assert "has risen to infinity, and stays there" in found["rise"].sentence
    assert "Over the 352 samples with a finite loss at both it went from " in found["rise"].details
    assert found["loss_change"].verdict == "yes"
    assert found["loss_change"].sentence.startswith("The mean loss after is infinite: 48 samples give ")
    assert " the loss of those finite on both sides " in found["loss_change"].sentence
    assert "of the rise of the loss" not in found["error_rise"].details  # no share of an infinite one
    assert "accuracy is over the 400 samples" in found["loss_change"].details
    for code in ("dearer_mistakes", "wrong_or_right", "temperature_repairs", "few_samples", "scale_growth"):
        assert found[code].verdict in ("cannot tell", "not applicable")
    assert f"Keep epoch {best:.0f}" in found["best_checkpoint"].next_step


def test_wrong_samples_that_saturate_are_no_proof_of_a_worse_model():
    logits = logits_of(9)
    wrong = np.flatnonzero((logits.argmax(axis=2) != TARGETS).all(axis=0))
    found = {finding.code: finding for finding in diagnose(history_of(saturated(logits, range(4, 9), wrong)))}
    assert found["rise"].verdict == "yes"
    assert found["error_rise"].verdict == "no"
    assert found["run_kind"].verdict == found["lost_information"].verdict == "cannot tell"
    assert found["run_kind"].next_step.startswith("Return logits ")
    assert "No temperature repairs a probability of 0" in found["run_kind"].details


def test_a_few_infinite_losses_do_not_come_first_but_are_told():
    history = history_of(saturated(logits_of(9), [3], np.array([5])))
    few = "The loss is infinite at epoch 4, where 1 sample gives its true class a probability of 0."
    assert few in answer_of(history).remarks
    assert "infinite" not in answer_of(history).why
    first = diagnose(history)[0]
    assert (
        "The loss is infinite at epoch 4, where 1 sample gives its true class a probability of 0."
        in first.sentence
    )
    assert first.verdict == "no"


def test_a_single_checkpoint_with_an_infinite_loss():
    history = history_of(saturated(logits_of(1), [0], HARD))
    answer = answer_of(history)
    assert answer.why.startswith("Epoch 1 has an infinite loss and an accuracy of ")
    assert "12.0 % of the samples give their true class a probability of 0" in answer.text
    assert "Over the 352 samples with a finite loss it is " in answer.text


def test_a_loss_that_comes_down_from_infinity_and_one_that_stays_there():
    logits = logits_of(2)
    down = history_of(saturated(logits.copy(), [0], HARD))
    before, after = down.main.checkpoints
    assert "came down from infinity, as 48 samples" in answer_of(down, compare(before, after)).why
    stays = history_of(saturated(saturated(logits, [0], HARD), [1], HARD[:20]))
    assert answer_of(stays).why.startswith("At epoch 2 the loss is infinite: 20 samples give")
    why = answer_of(stays, compare(*stays.main.checkpoints[::-1])).why
    assert "the loss stays infinite: 20 and 48 samples have a probability of 0" in why


def test_no_answer_at_other_samples_than_before_is_said_of_the_pair():
    logits = logits_of(2)
    for epoch in (0, 1):
        logits[epoch, 3 * epoch : 3 * epoch + 3] = np.nan
    remarks = answer_of(history_of(logits)).remarks
    assert remarks[0].startswith("1.5 % of the samples have no finite loss on one of ")


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([3], "epoch 4"),
        ([3, 4], "epochs 4 and 5"),
        ([3, 4, 5], "epochs 4 to 6"),
        ([0, 3, 4, 5], "epochs 1 and 4 to 6"),
        ([0, 2, 4], "epochs 1, 3 and 5"),
        ([0, 2, 4, 6, 8], "5 epochs from 1 to 9"),
    ],
)
def test_epochs_are_named_in_rows(members, text):
    panel = history_of(logits_of(9)).main
    assert epochs_in_words(panel, np.isin(np.arange(9), members)) == text


def test_samples_with_an_infinite_loss_are_not_taken_for_copies():
    for logits in (logits_of(1), logits_of(8)):
        history = history_of(saturated(logits, range(len(logits)), HARD))
        assert "equal another" not in diagnose(history)[0].sentence


def test_a_checkpoint_with_hardly_an_answer_is_not_what_a_run_is_told_by():
    logits = logits_of(8)
    logits[[0, 7], 1:] = np.nan  # one sample is left, and right
    history = history_of(logits)
    answer = answer_of(history)
    assert answer.why.startswith("The run diverged at epoch 8: ")
    assert "At epochs 1 and 8, 99.8 % of the samples have no finite output." in answer.remarks
    assert {one.epoch for one in history.pair} <= set(range(2, 8))
    assert "accuracy is 100 %" not in answer.text


def test_two_runs_say_which_of_them_has_no_finite_output():
    logits = logits_of(3)
    logits[1:] = np.nan
    assert opening(history_of(logits).main, "second") == "second: epochs 2 and 3 have no finite output."
    assert opening(history_of(logits_of(3)).main, "first") == ""


def test_the_difference_of_two_runs_names_the_infinite_one():
    one, other = history_of(logits_of(2)), history_of(saturated(logits_of(2, seed=1), [0, 1], HARD))
    comparison = compare(one.main.checkpoints[0], other.main.checkpoints[0])
    answer = answer_two_runs(comparison, (one, other), ("one", "two"), ())
    assert answer.action == "Prefer one: its loss is finite."
    assert (
        "two: 48 samples give their true class a probability of 0, so its loss is infinite." in answer.remarks
    )
    assert "one: 48" not in answer.text
    assert "Over the 352 samples with a finite loss in both, its loss is " in answer.text


def test_the_course_of_a_run_that_ends_badly_is_not_that_it_ends_at_its_best():
    logits = logits_of(9)
    ended = logits.copy()
    ended[6:] = np.nan
    assert course(history_of(ended), "one") == "one diverged at epoch 7; its best is epoch 1."
    infinite = history_of(saturated(logits, [7, 8], HARD))
    assert course(infinite, "one").startswith("one ends, at epoch 9, with an infinite loss; its best, epoch ")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda z: z, ""),
        (lambda z: z.__setitem__((4, slice(3)), np.nan), "3 of 400 samples had no finite loss at some epoch"),
        (lambda z: z.__setitem__(slice(7, None), np.nan), "2 epochs had no finite output for most samples"),
        (lambda z: saturated(z, [4], HARD[:1]), "the loss was infinite at 1 epoch"),
    ],
)
def test_a_verdict_that_leaves_something_out_says_what(spoil, reason):
    logits = logits_of(9)
    spoil(logits)
    found = {finding.code: finding for finding in diagnose(history_of(logits))}
    for code in ("rise", "refinement_rise", "run_kind"):
        assert left_out_of(found[code]) == reason
    assert left_out_of(found["label_noise"]) == ""


def test_nothing_that_is_said_of_odd_runs_holds_an_unwritten_number():
    rng = np.random.default_rng(0)
    for seed in range(12):
        logits = logits_of(7, seed=seed, noise=0.5)
        for epoch in rng.choice(7, 3, replace=False):
            rows = rng.choice(SAMPLES, int(rng.choice([1, 40, 390, 400])), replace=False)
            value = rng.choice([np.nan, np.inf, -np.inf])
            logits[epoch, rows, TARGETS[rows]] = value
        history = history_of(logits, first=0)
        pair = history.pair
        if not (pair[0].columns["finite"] & pair[1].columns["finite"]).any():
            continue
        said = [answer_of(history).text, course(history, "it")]
        for finding in [*diagnose(history), *about_change(compare(*pair))]:
            said += [finding.answer, finding.sentence, finding.details, finding.next_step]
        for text in said:
            assert not NOT_WRITTEN.search(text), (seed, text)
