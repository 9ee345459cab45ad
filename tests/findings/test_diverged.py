"""A run that diverged: that comes first, nothing else explains it, and one checkpoint is kept."""

from __future__ import annotations

import numpy as np
import pytest
from real_runs import checkpoints_of

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.answer import answer_run
from confshift.findings.diagnosis import answers, diagnose
from confshift.findings.diverged import diverged
from confshift.findings.two_runs import course
from confshift.predictions import Predictions
from confshift.reporting.subject import tell_two_runs

SAMPLES, CLASSES = 500, 4
RANDOM = np.random.default_rng(0)
TARGETS = RANDOM.integers(0, CLASSES, SAMPLES)
NOISE = RANDOM.normal(size=(SAMPLES, CLASSES)) - 5
GOOD = [0.1 * NOISE, *(strength * np.eye(CLASSES)[TARGETS] + NOISE for strength in (1, 2, 2.5, 2.4, 2.3))]
NOTHING, GUESS = np.full_like(NOISE, np.nan), 40 * RANDOM.permuted(NOISE, axis=1)


def history_of(logits, rates=None):
    return summarize(
        Checkpoint.from_predictions(
            Predictions(z, TARGETS), epoch=epoch, metadata={} if rates is None else {"lr": rates[epoch]}
        )
        for epoch, z in enumerate(logits)
    )


def everything(history, comparison=None):
    """The answer and the findings by code."""
    comparison = comparison or compare(*history.pair)
    findings = answers(history, comparison)
    return answer_run(history, comparison, findings), {finding.code: finding for finding in findings}


@pytest.mark.parametrize("name", ["rate_rises_until_it_collapses", "rate_rises_until_nothing_is_finite"])
def test_a_real_run_whose_rate_rises_too_far_is_said_to_have_diverged_and_when_and_at_which_rate(name):
    epoch, rate = {"it_collapses": (18, "0.6"), "nothing_is_finite": (21, "0.62")}[name[17:]]
    history = summarize(checkpoints_of(name))
    answer, findings = everything(history)
    first, *_ = findings.values()
    assert (first.code, first.verdict, first.severity) == ("diverged", "yes", "problem")
    said = f"Diverged at epoch {epoch} (learning rate {rate})"
    assert first.sentence.startswith(f"{said}: ")
    assert answer.why.startswith(f"The run d{said[1:]}: from then on ")
    kept = f"Keep epoch {history.recommendation.epoch:g}"
    assert answer.action == f"{kept}; lower the learning rate."
    assert kept in first.next_step
    assert "lower learning rate" in first.next_step
    for code in ("run_kind", "temperature_repairs", "scale_growth", "class_bias"):
        assert findings[code].verdict == "not applicable"
        assert "diverged" in findings[code].sentence.lower()
    assert findings["run_kind"].evidence["kind"].eq("diverged").all()
    assert "temperature" not in answer.text
    assert "eal overfitting" not in " ".join(one.sentence for one in findings.values())


@pytest.mark.parametrize("end", [[NOTHING] * 3, [GUESS] * 3, [GUESS, NOTHING, NOTHING]])
def test_nothing_else_about_the_run_or_its_last_change_advises_anything(end):
    _, findings = everything(history_of(GOOD + end))
    steps = {one.code for one in findings.values() if one.next_step}
    assert {"diverged", "best_checkpoint"} <= steps
    about = {"rise", "account", "cells", "parts", "classes", "concentration"}
    assert {code for code in steps if findings[code].question.section in about} == {
        "diverged",
        "best_checkpoint",
    }


def test_what_became_of_the_outputs_is_said_part_by_part():
    finding = diverged(history_of([*GOOD, GUESS, GUESS, NOTHING, NOTHING]))
    assert finding.answer == "The run diverged at epoch 6"
    assert "the answers are then no better than a guess, and epochs 8 and 9 have no finite output." in (
        finding.sentence
    )
    assert finding.details.startswith("At epoch 7: accuracy ")
    assert "a uniform guess costs 1.39 nats" in finding.details
    mostly = np.where(np.arange(SAMPLES)[:, None] < 400, np.nan, GUESS)
    assert "epoch 6 has no finite output for most samples" in diverged(history_of([*GOOD, mostly])).sentence


def test_a_single_bad_epoch_may_be_taken_back():
    assert "So far that is one epoch" in diverged(history_of([*GOOD, GUESS])).sentence
    assert "So far" not in diverged(history_of([*GOOD, GUESS, GUESS])).sentence


def test_a_change_before_the_divergence_keeps_its_explanation_and_says_when_it_happened():
    history = history_of([*GOOD, GUESS, GUESS])
    checkpoints = history.main.checkpoints
    early = compare(checkpoints[3], checkpoints[5])
    answer, findings = everything(history, early)
    assert findings["temperature_repairs"].verdict != "not applicable"
    assert answer.remarks[0].startswith("About the whole run: Diverged at epoch 6: ")
    assert next(iter(findings)) == "diverged"


def test_a_healthy_run_is_asked_last_and_denies_it():
    answer, findings = everything(history_of(GOOD))
    assert "iverged" not in answer.text
    assert next(iter(findings)) == "rise"
    assert findings["diverged"].verdict == "no"
    assert "better than a guess (accuracy " in findings["diverged"].sentence
    assert "guess" not in findings["diverged"].next_step


@pytest.mark.parametrize(
    ("logits", "verdict", "words"),
    [
        (GOOD[:1], "not applicable", "only one checkpoint"),
        ([NOTHING] * 3, "cannot tell", "No checkpoint has finite outputs"),
        ([scale * NOISE for scale in (0.01, 1, 3, 6)], "cannot tell", "memorises"),
        ([*GOOD, GUESS, *GOOD[-1:]], "no", "At epoch 6 they were no better than a guess"),
        ([*GOOD, 100 * GOOD[-1]], "no", "means logits on another scale"),
    ],
)
def test_what_is_no_divergence_is_told_by_its_reason(logits, verdict, words):
    finding = diverged(history_of(logits))
    assert finding.verdict == verdict
    assert words in finding.sentence
    assert "nan" not in finding.sentence + finding.next_step


def test_a_run_that_diverges_in_its_first_epoch_has_no_trained_checkpoint_to_keep():
    answer, findings = everything(history_of([GOOD[0], NOTHING, NOTHING]))
    assert answer.action == "Train again at a lower learning rate."
    assert "No epoch of this training is better than the model it started from." in answer.why
    assert not [step for step in answer.steps if "eep" in step.text]
    assert findings["diverged"].next_step.startswith("Keep epoch 0")


def test_the_course_of_one_of_two_runs_says_that_it_diverged():
    rates = [0.1] * 6 + [0.8] * 2
    said = course(history_of([*GOOD, GUESS, GUESS], rates), "second")
    assert said.startswith("second diverged at epoch 6 (learning rate 0.8); its best is epoch ")


def two_runs(**epochs):
    bad = [*GOOD, GUESS, GUESS]
    runs = [
        [Checkpoint.from_predictions(Predictions(z, TARGETS), epoch=epoch) for epoch, z in enumerate(logits)]
        for logits in (GOOD, bad)
    ]
    histories = tuple(summarize(run) for run in runs)
    chosen = {"before": None, "after": None, "title": None, "thumbnail": None} | epochs
    return tell_two_runs(tuple(runs), histories, **chosen)


def test_of_two_runs_the_one_that_diverged_is_named():
    story = two_runs()
    said = "The second run diverged at epoch 6: the answers are then no better than a guess."
    assert story.answer.remarks[0] == said
    verdicts = {finding.code: finding.verdict for finding in story.findings}
    assert story.comparison.after.epoch < 6
    assert "diverged" not in " ".join(finding.sentence for finding in story.findings)
    assert set(verdicts) >= {"loss_change", "temperature_repairs"}


def test_a_diverged_checkpoint_of_a_second_run_is_not_explained_by_confidence():
    findings = {finding.code: finding for finding in two_runs(after=7).findings}
    assert findings["temperature_repairs"].verdict == "not applicable"
    assert findings["temperature_repairs"].sentence.startswith("Diverged at epoch 6: ")
    assert not [finding for finding in findings.values() if finding.next_step]


def test_a_loss_that_is_infinite_at_the_collapse_is_a_divergence():
    one_class = np.where(np.arange(CLASSES) == 1, 0.0, -np.inf) * np.ones((SAMPLES, 1))
    answer, findings = everything(history_of([*GOOD, one_class, one_class]))
    assert answer.why.startswith("The run diverged at epoch 6: ")
    assert "infinite loss" in findings["diverged"].details
    assert "∞" not in findings["diverged"].sentence + findings["diverged"].details


def test_diagnose_says_it_first():
    assert diagnose(history_of([*GOOD, GUESS, GUESS]))[0].code == "diverged"
