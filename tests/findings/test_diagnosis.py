"""diagnose() asks every question, of the right pair."""

from __future__ import annotations

import numpy as np
import pytest
from odd_runs import ODD, history_of, told

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.change import about_change
from confshift.findings.diagnosis import choose_pair, diagnose
from confshift.findings.question import VERDICTS
from confshift.predictions import Predictions


@pytest.fixture(scope="module")
def run(make_logits):
    logits, targets = make_logits(300, 4, 6, seed=1, churn=0.1)
    return [Checkpoint.from_predictions(Predictions(z, targets), epoch=e) for e, z in enumerate(logits)]


def texts(findings):
    return {finding.code: str(finding) for finding in findings}


def test_a_run_a_list_and_a_history_give_the_same_answers(run):
    answers = texts(diagnose(run))
    assert texts(diagnose(iter(run))) == answers
    assert texts(diagnose(summarize(run))) == answers


def test_the_questions_about_the_change_are_asked_of_the_histories_pair(run):
    history = summarize(run)
    expected = texts(about_change(compare(*history.pair), keep=history.recommendation.epoch))
    answers = texts(diagnose(run))
    assert {code: answers[code] for code in expected} == expected
    assert "best_checkpoint" in answers


def test_every_code_is_asked_once_and_every_verdict_is_legal(run):
    findings = diagnose(run)
    codes = [finding.code for finding in findings]
    assert len(codes) == len(set(codes))
    assert {finding.verdict for finding in findings} <= set(VERDICTS)


def test_a_comparison_answers_about_the_change_only(run):
    comparison = compare(run[1], run[4])
    assert texts(diagnose(comparison)) == texts(about_change(comparison))


@pytest.mark.parametrize(
    ("asked", "epochs"),
    [({"before": 2}, (2, 5)), ({"after": 3}, (0, 3)), ({"before": 4, "after": 1}, (4, 1))],
)
def test_the_epochs_asked_for_are_compared(run, asked, epochs):
    history = summarize(run)
    assert history.best.loc["loss", "epoch"] == 0
    assert tuple(side.epoch for side in choose_pair(history, **asked)) == epochs
    assert f"From epoch {epochs[0]} to {epochs[1]} the loss" in texts(diagnose(run, **asked))["loss_change"]


@pytest.fixture
def dipping(run):
    """Losses that are lowest in the middle, at epoch 3."""
    one = run[0].predictions
    scales = [0.0, 0.5, 0.1, 1.0, 6.0, 5.0]
    return summarize(
        Checkpoint.from_predictions(Predictions(scale * one.logits, one.targets), epoch=epoch)
        for epoch, scale in enumerate(scales)
    )


@pytest.mark.parametrize(
    ("asked", "epochs"),
    [
        ({}, (3, 5)),
        ({"after": 4}, (3, 4)),
        ({"after": 3}, (0, 3)),  # it is the best so far
        ({"after": 2}, (1, 2)),
        ({"after": 1}, (0, 1)),
        ({"after": 0}, (0, 0)),
        ({"before": 1}, (1, 5)),
        ({"before": 5}, (5, 5)),
        ({"before": 4, "after": 2}, (4, 2)),
    ],
)
def test_one_epoch_asked_for_is_never_compared_backwards(dipping, asked, epochs):
    assert dipping.best.loc["loss", "epoch"] == 3
    assert tuple(side.epoch for side in choose_pair(dipping, **asked)) == epochs


def test_checkpoints_that_cannot_be_scored_are_no_earlier_side(run):
    predictions = run[0].predictions
    broken = Predictions(np.full_like(predictions.logits, np.nan), predictions.targets)
    again = Predictions(0.9 * predictions.logits, predictions.targets)
    history = summarize(
        Checkpoint.from_predictions(one, epoch=epoch)
        for epoch, one in enumerate([broken, again, predictions, broken, again])
    )
    assert history.best.loc["loss", "epoch"] in (1, 2)
    assert choose_pair(history, after=2)[0].epoch == 1
    assert tuple(side.epoch for side in choose_pair(history, after=0)) == (0, 0)


@pytest.mark.parametrize("side", ["before", "after"])
def test_an_epoch_that_is_not_there_is_refused(run, side):
    with pytest.raises(
        ConfshiftError, match=f"{side}=7.5: the run has no such epoch; it has 0, 1, 2, 3, 4, 5"
    ):
        diagnose(run, **{side: 7.5})


def test_an_empty_run_is_refused():
    with pytest.raises(ConfshiftError, match="run holds no checkpoint"):
        diagnose([])


def test_a_run_that_diverged_at_the_end_is_diagnosed_up_to_there(run):
    predictions = run[-1].predictions
    broken = Predictions(np.full((300, 4), np.nan), predictions.targets)
    answers = texts(diagnose([*run, Checkpoint.from_predictions(broken, epoch=6)]))
    assert "From epoch 0 to 5 the loss rose" in answers["loss_change"]
    assert "No sample has a finite loss at epoch 6" in answers["best_checkpoint"]


def test_a_run_that_never_was_finite_is_refused_with_the_reason(run):
    broken = Predictions(np.full((300, 4), np.nan), run[0].predictions.targets)
    with pytest.raises(ConfshiftError, match="no sample has a finite loss on both sides; look for NaN"):
        diagnose([Checkpoint.from_predictions(broken, epoch=0)])


@pytest.mark.parametrize("name", ODD)
def test_one_fact_is_one_problem(name):
    problems = {finding.code for finding in told(name)[1] if finding.severity == "problem"}
    if "run_kind" in problems:
        assert not {"lost_information", "error_rise"} & problems
    if "diverged" in problems:
        assert "lost_information" not in problems


def test_what_no_other_finding_says_of_a_chosen_pair_stays_a_problem():
    history = history_of("more mistakes")
    for after, severity in ((15, "problem"), (23, "fine")):
        found = {finding.code: finding for finding in diagnose(history, before=7, after=after)}
        assert (found["lost_information"].verdict, found["lost_information"].severity) == ("yes", severity)
