"""Where losses are weighted, every place that shows one says so, and says what is not."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.change import dearer_mistakes
from confshift.findings.trained import trained_loss
from confshift.predictions import Predictions
from confshift.reporting.brief import brief_document
from confshift.reporting.charts import chart_specs
from confshift.reporting.epoch_tables import chart_context
from confshift.reporting.output import comparison_text, history_text
from confshift.reporting.page import report
from confshift.reporting.subject import tell_run, tell_two_runs, trained_alike
from confshift.reporting.summary import summary_of
from confshift.reporting.template_context import key_table

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
    assert "weighted nats" in str(chart_specs(chart_context([summarize(run)], summarize(run), classes=3)))
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


def test_the_trained_loss_is_stated_with_its_change_where_labels_are_smoothed(make_logits):
    run = run_of(make_logits, *[{"label_smoothing": 0.1}] * 8)
    history = summarize(run)
    story = told(run, history)
    change = story.comparison.change.loc["trained_loss"]
    assert change["change_low"] > 0
    said = "With label smoothing of 0.1 the trained loss rose, "
    assert said in story.verdict
    assert "the verdicts leave smoothing out." in story.verdict
    assert said in history_text(history)
    assert "trained loss" in history_text(history).split("\n")[2]
    text = comparison_text(story.comparison)
    lines = {line[:15].strip(): line for line in text.split("\n")}
    account = text.partition("account of the change")[2].partition("samples that")[0].split("\n")
    amounts = [float(line.split()[-1].replace("−", "-")) for line in account[1:] if line]
    assert len(amounts) == 5
    assert sum(amounts[:4]) == pytest.approx(amounts[4], abs=1e-9)
    shown = lines["trained loss"].split()
    assert float(shown[4]) - float(shown[3]) == pytest.approx(amounts[4], abs=1e-9)
    table = key_table(story.comparison.change)["rows"]
    assert [row[0] for row in table[:3]] == ["loss, nats", "smoothing loss, nats", "trained loss, nats"]


def test_one_checkpoint_an_infinite_smoothed_loss_and_lost_logits_are_said_for_what_they_are(make_logits):
    run = run_of(make_logits, *[{"label_smoothing": 0.1}] * 2)
    assert re.search(
        r"of 0.1 the trained loss is [\d.]+ nats; the verdicts", trained_loss(compare(run[0], run[0]))
    )
    masked = run[1].predictions.logits.copy()
    masked[0, (run[1].predictions.targets[0] + 1) % 3] = -np.inf
    other = Checkpoint.from_predictions(
        Predictions(masked, run[1].predictions.targets), epoch=2, metadata=run[1].metadata
    )
    assert "is infinite where a class has a probability of 0" in trained_loss(compare(run[0], other))

    def unreadable():
        raise ConfshiftError("gone")

    lost = [replace(one, read_predictions=unreadable) for one in run]
    assert "adds is not known: the logits can't be read" in trained_loss(compare(*lost))


def test_the_account_speaks_of_the_weight_that_is_wrong(run):
    assert "of the weight is wrong before" in dearer_mistakes(compare(run[0], run[-1])).details
    plain = dearer_mistakes(compare(run[0], run[-1], class_weight=None)).details
    assert "of the samples are wrong before" in plain
