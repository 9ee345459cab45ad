"""Where losses are weighted, every place that shows one says so, and says what is not."""

import json

import numpy as np
import pytest

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.change import dearer_mistakes
from confshift.findings.trained import trained_loss
from confshift.predictions import Predictions
from confshift.reporting.brief import brief_document
from confshift.reporting.output import comparison_text, history_text
from confshift.reporting.page import report
from confshift.reporting.subject import tell_run, tell_two_runs, trained_alike
from confshift.reporting.summary import summary_of

SAID = "Losses are weighted by class, as they are trained"


NOTHING_ELSE = {"before": None, "after": None, "title": None, "thumbnail": None}


def told(run, history):
    return tell_run(run, history, **NOTHING_ELSE)


def run_of(make_logits, *stored):
    logits, targets = make_logits(200, 3, len(stored), churn=0.3)
    return [
        Checkpoint.from_predictions(Predictions(z, targets), epoch=at, metadata=metadata)
        for at, (z, metadata) in enumerate(zip(logits, stored, strict=True))
    ]


@pytest.fixture(scope="module")
def run(make_logits):
    return run_of(make_logits, *[{"class_weights": [0, 1, 4]}] * 8)


@pytest.fixture(scope="module")
def page(run):
    return report(run)


def test_page_terminal_notebook_and_json_say_that_losses_are_weighted(run, page):
    assert SAID in page.verdict
    assert SAID in page.html
    assert page.html.count(", weighted</dt>") == 2  # of the three figures; accuracy is not
    assert "weighted loss " in page.summary.numbers
    assert "weighted calibrated loss " in page.summary.numbers
    assert "losses in nats and weighted by class" in json.loads(brief_document(page.summary, {}))["units"]
    history = summarize(run)
    assert SAID in history_text(history)
    text = comparison_text(history.compare(*history.pair))
    assert SAID in text
    assert "weighted error rate" in text


def test_samples_without_weight_are_counted(run):
    number = int((run[0].predictions.targets == 0).sum())
    assert f"{number} samples of classes without weight count for nothing" in trained_loss(compare(*run[:2]))


def test_a_plain_loss_is_not_spoken_of(run):
    story = told(run, summarize(run, class_weight=None))
    assert "weighted" not in story.verdict + summary_of(story).numbers
    assert trained_loss(compare(*run[:2], class_weight=None)) == ""


def test_weights_that_differ_between_checkpoints_are_not_used_and_the_page_says_so(make_logits):
    run = run_of(make_logits, *[{"class_weights": [1, 1, 4]}] * 5, {})
    words = "Metadata['class_weights'] differ between checkpoints: losses are not weighted."
    assert words in told(run, summarize(run)).verdict
    np.testing.assert_array_equal(summarize(run).table["loss"], [one.loss for one in run])


def test_two_runs_that_are_trained_differently_are_compared_by_the_plain_loss(run, make_logits):
    other = run_of(make_logits, *[{"class_weights": [1, 1, 4]}] * 8)
    same = run_of(make_logits, *[{"class_weights": [0, 2, 8]}] * 8)
    for second, words in ((other, "trained with different class weights"), (same, SAID)):
        histories = trained_alike(summarize(run), summarize(second))
        assert words in tell_two_runs((run, second), histories, **NOTHING_ELSE).verdict


def test_the_account_speaks_of_the_weight_that_is_wrong(run):
    assert "of the weight is wrong before" in dearer_mistakes(compare(run[0], run[-1])).details
    plain = dearer_mistakes(compare(run[0], run[-1], class_weight=None)).details
    assert "of the samples are wrong before" in plain
