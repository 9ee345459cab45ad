"""Which checkpoint is best, by three measures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.best_checkpoint import best_checkpoint, tied_with_best
from confshift.findings.chosen_pair import about_one_checkpoint
from confshift.findings.reasons import tied_epochs
from confshift.findings.wording import nats, percent
from confshift.predictions import Predictions


def finding_of(logits, targets):
    history = summarize(
        Checkpoint.from_predictions(Predictions(z, targets), epoch=e) for e, z in enumerate(logits)
    )
    return best_checkpoint(history), history


@pytest.fixture
def base(make_logits):
    logits, targets = make_logits(600, 4, 1, seed=5)
    return logits[0], targets


def noisy(logits, size, seed):
    return logits + size * np.random.default_rng(seed).normal(size=logits.shape)


def test_where_all_three_agree(base):
    logits, targets = base
    finding, history = finding_of([noisy(logits, 4, 0), logits, noisy(logits, 4, 1)], targets)
    assert finding.verdict == "yes"
    loss = history.best.loc["loss"]
    numbers = f"{nats(loss['loss'])} nats, accuracy {percent(loss['accuracy'])}"
    assert finding.answer == "Epoch 1 is best by every criterion"
    assert finding.details.startswith(f"By loss epoch 1 ({numbers}")
    assert "epoch 1" in finding.next_step


def test_where_the_loss_prefers_an_early_epoch_and_the_rest_a_late_one(base):
    logits, targets = base
    early, late = noisy(logits, 2.5, 0) * 0.4, 9 * logits
    finding, history = finding_of([early, late], targets)
    best = history.best
    assert best["epoch"].tolist() == [0, 1, 1]
    assert finding.verdict == "no"
    refinement = best.loc["refinement_loss"]
    at_temperature = f"at T = {refinement['temperature']:.3g}, accuracy {percent(refinement['accuracy'])}"
    expected = f"epoch 1 ({nats(refinement['refinement_loss'])} nats {at_temperature}"
    assert finding.answer == "Loss is best at epoch 0, calibrated loss at 1"
    assert "accuracy at epoch 1. No checkpoint ties" in finding.sentence
    assert expected in finding.details
    assert f"Epoch 1 with T = {refinement['temperature']:.3g}" in finding.details
    assert finding.next_step == "Keep epoch 1 and calibrate it."
    assert finding.command == "confshift calibrate RUN --epoch 1"
    pd.testing.assert_frame_equal(finding.evidence, history.best)


def test_where_they_differ_by_noise_only_it_cannot_tell(base):
    logits, targets = base
    runs = [noisy(logits, 0.6, seed) * scale for seed, scale in enumerate((1.0, 0.95, 0.9, 0.85))]
    finding, history = finding_of(runs, targets)
    assert history.best["epoch"].nunique() > 1
    assert finding.verdict == "cannot tell"
    assert "about as good by all three: the differences are within noise" in finding.sentence
    assert "with the best by every criterion" in finding.answer


def test_one_checkpoint_is_no_choice(base):
    finding, _ = finding_of(base[0][None], base[1])
    assert (finding.verdict, finding.next_step) == ("not applicable", "")


def test_without_a_best_temperature_none_is_recommended():
    targets = np.arange(30) % 3
    right = 2 * np.eye(3)[targets] - 4
    wrong = np.random.default_rng(0).normal(size=(30, 3)) - 5
    finding, _ = finding_of([wrong, right], targets)
    assert "T =" not in finding.sentence + finding.details + finding.next_step
    assert "100 %" in finding.details
    assert finding.command == ""


def test_a_diverged_epoch_is_named_and_not_chosen(base):
    logits, targets = base
    finding, _ = finding_of([noisy(logits, 1, 0), logits, np.full_like(logits, np.nan)], targets)
    assert "No sample has a finite loss at epoch 2" in finding.sentence
    assert finding.sentence.count("epoch 2") == 1
    assert "nan" not in finding.sentence


@pytest.mark.parametrize("broken", [[], [3], [3, 5, 7], [3, 4, 5, 6, 9]])
def test_whatever_is_left_out_the_heading_and_the_sentence_stay_short(base, broken):
    logits, targets = base
    run = [noisy(logits, 0.6, seed) * (1 - seed / 20) for seed in range(10)]
    for epoch in broken:
        run[epoch] = np.full_like(logits, np.nan)
    finding, _ = finding_of(run, targets)
    assert 0 < len(finding.answer.split()) <= 10
    assert len(finding.sentence.split()) <= 40
    assert ("left out here" in finding.sentence) == bool(broken)


def test_an_epoch_whose_outputs_are_not_finite_ties_with_none(make_logits):
    logits, targets = make_logits(600, 3, 14, churn=0.02)
    logits[5:] = logits[5] + 0.01 * logits[5:]
    logits[11:, ::3] = np.nan
    history = summarize(
        Checkpoint.from_predictions(Predictions(one, targets), epoch=epoch)
        for epoch, one in enumerate(logits)
    )
    for criterion in history.best.index:
        tied = tied_with_best(history, criterion)
        assert history.best.loc[criterion, "epoch"] in tied
        assert max(tied) < 11
    assert len(tied_epochs(history)) > 1
    assert max(tied_epochs(history)) < 11


def test_one_checkpoint_that_knows_no_more_than_a_guess_is_not_to_be_calibrated(make_logits):
    logits, targets = make_logits(600, 3, 2)
    noise = 3 * np.random.default_rng(0).normal(size=logits[0].shape)
    guess = noise + 0.3 * np.eye(3)[targets]
    for one, action in ((guess, "Inspect a second checkpoint."), (4 * logits[-1], None)):
        history = summarize([Checkpoint.from_predictions(Predictions(one, targets), epoch=0)])
        assert history.recommendation.calibrated
        assert about_one_checkpoint(history)[0] == (
            action or "Calibrate it, and inspect a second checkpoint."
        )
