"""Samples without a finite loss are warned about as they come in, once for each kind."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from confshift.predictions import Predictions
from confshift.scoring import Scoring
from confshift.storage.run import Run

TARGETS = np.arange(20) % 3


def logits_with(value=None, rows=(), column=None):
    logits = np.random.default_rng(0).normal(size=(20, 3)) - 9
    for row in rows:
        logits[row, TARGETS[row] if column is None else column] = value
    return logits


@pytest.fixture
def appended(tmp_path, caplog):
    """Append logits to a run, and return what was logged."""
    run = Run(tmp_path / "run")

    def append(logits, **given):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="confshift"):
            run.append(Predictions(logits, TARGETS), **given).loss  # noqa: B018  # known once it was warned
        return caplog.messages

    yield append
    run.flush()


def test_what_is_finite_is_not_warned_about(appended):
    assert appended(logits_with()) == []
    assert appended(logits_with(-np.inf, [3, 4], column=2)) == []  # a masked class that is not theirs


def test_samples_without_an_answer_are_warned_about_once(appended):
    (message,) = appended(logits_with(np.nan, [1, 4]), epoch=3)
    assert ": at epoch 3 (val), 2 of 20 samples give no answer" in message
    assert appended(logits_with(np.inf, range(7))) == []


def test_infinite_losses_and_a_run_without_any_answer_are_warned_about_as_well(appended):
    appended(logits_with(np.nan, [1]))
    (message,) = appended(logits_with(-np.inf, [5, 6, 7]))
    assert "3 of 20 samples give their true class a probability of 0: the loss is infinite" in message
    (message,) = appended(logits_with(np.nan, range(20)))
    assert "at epoch 3 (val), 20 of 20 samples give no answer" in message


@pytest.mark.parametrize(
    ("task", "rows"), [("tokens", "tokens"), ("multilabel", "labels"), ("pixels", "pixels")]
)
def test_rows_are_called_what_they_are(tmp_path, caplog, task, rows):
    run = Run(tmp_path / "run")
    logits = logits_with(np.nan, [1, 4])[:, :2]
    run.append(Predictions(logits, np.zeros(20, int), task=task))
    run.flush()
    assert f"2 of 20 {rows} give no answer" in caplog.text


def test_each_split_is_warned_about(appended):
    for split in ("val", "train"):
        (message,) = appended(logits_with(np.nan, [1]), split=split)
        assert f"({split}), 1 of 20 samples" in message


def test_a_run_begun_anew_is_warned_about_anew(tmp_path, caplog):
    for _ in range(2):
        run = Run(tmp_path / "run")
        caplog.clear()
        run.append(Predictions(logits_with(np.nan, [1]), TARGETS))
        run.flush()
        assert len(caplog.messages) == 1
        run.delete()


def test_float16_that_overflows_gives_no_answer(appended):
    with np.errstate(over="ignore"):
        logits = (1e4 * logits_with(12.0, [8])).astype(np.float16)
    (message,) = appended(logits)
    assert "give no answer" in message


def test_the_rows_are_counted_behind_the_training_where_they_are_scored(tmp_path, caplog):
    run = Run(tmp_path / "run")
    run.append(Predictions(logits_with(np.nan, [1]), TARGETS))
    run.flush()
    assert [record.threadName for record in caplog.records] == ["confshift-writer"]


def test_a_reader_that_is_faster_than_the_writer_warns_first_and_the_writer_not_again(
    tmp_path, caplog, monkeypatch
):
    run, begins, work = Run(tmp_path / "run"), threading.Event(), Scoring.work
    monkeypatch.setattr(Scoring, "work", lambda scoring: begins.wait(30) and work(scoring))
    checkpoint = run.append(Predictions(logits_with(np.nan, [1]), TARGETS))
    second = run.append(Predictions(logits_with(np.nan, [1]), TARGETS))
    known, accuracy = checkpoint.loss, checkpoint.accuracy
    assert [record.threadName for record in caplog.records] == ["MainThread"]
    assert not begins.is_set()
    begins.set()
    run.flush()
    assert (known, accuracy) == (run[1].loss, run[1].accuracy) == (second.loss, second.accuracy)
    assert len(caplog.records) == 1
