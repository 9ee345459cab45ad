"""The split "test": measured, never judged, and never another split again."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from confshift.analysis.best_epochs import CRITERIA
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.diagnosis import diagnose
from confshift.predictions import Predictions
from confshift.reporting.output import history_text
from confshift.storage.run import Run

EPOCHS = 4


def model(samples, *, classes=3, seed=0):
    """Return logits (T, N, K) of a model that grows too sure, with a bias, and targets."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(samples, classes))
    targets = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    logits[:, 0] += 1
    noise = 0.1 * random.normal(size=(EPOCHS, samples, classes))
    return (logits + noise) * np.geomspace(0.5, 4, EPOCHS)[:, None, None], targets


def split_of(name, logits, targets):
    return [
        Checkpoint.from_predictions(Predictions(rows, targets), epoch=epoch, split=name)
        for epoch, rows in enumerate(logits)
    ]


VAL = split_of("val", *model(400, seed=1))


def test_the_recommended_checkpoint_is_measured_as_recalibrated():
    logits, targets = model(500, seed=2)
    history = summarize([*VAL, *split_of("test", logits, targets)])
    choice, row = history.recommendation, history.best.loc["test"]
    assert choice.method == "temperature_and_biases"
    assert row["epoch"] == choice.epoch
    plain = logits[int(choice.epoch)]
    scores = plain / choice.temperature + np.array(choice.biases)
    each = np.arange(len(targets))
    assert row["loss"] == pytest.approx(-log_softmax(plain, axis=1)[each, targets].mean())
    assert row["calibrated_loss"] == pytest.approx(-log_softmax(scores, axis=1)[each, targets].mean())
    assert row["calibrated_accuracy"] == (scores.argmax(axis=1) == targets).mean()
    assert row["calibrated_loss"] < row["loss"]
    assert (
        f"On the test split: epoch {choice.epoch:g} (loss {row['loss']:.4f}, recalibrated as recommended "
        f"{row['calibrated_loss']:.4f}" in history_text(history)
    )


def test_the_other_rows_and_every_finding_are_what_they_are_without_the_test_split():
    history = summarize([*VAL, *split_of("test", *model(500, seed=2))])
    alone = summarize(VAL)
    assert list(alone.best.index) == list(CRITERIA)
    rows = history.best.loc[list(CRITERIA)]
    pd.testing.assert_frame_equal(rows[alone.best.columns], alone.best, check_dtype=False)
    assert rows[["calibrated_loss"]].isna().all(axis=None)
    assert [(one.code, one.verdict, one.sentence, one.next_step) for one in diagnose(history)] == [
        (one.code, one.verdict, one.sentence, one.next_step) for one in diagnose(alone)
    ]


def test_findings_about_two_splits_are_about_train_and_val():
    train = split_of("train", *model(300, seed=3))
    judged = {one.code: one.sentence for one in diagnose(summarize([*VAL, *train]))}
    with_test = summarize([*split_of("test", *model(300, seed=4)), *train, *VAL])
    assert [name for name, _ in with_test.panels] == ["val", "train", "test"]
    assert {one.code: one.sentence for one in diagnose(with_test)} == judged


@pytest.mark.parametrize("others", [["train"], ["holdout", "train"]])
def test_without_val_the_first_other_split_is_judged_wherever_the_test_split_stands(others):
    run = split_of("test", *model(100, seed=5))
    for seed, name in enumerate(others, 6):
        run += split_of(name, *model(100, seed=seed))
    assert summarize(run).split == others[0]


def test_a_run_of_a_test_split_alone_is_judged_by_it():
    history = summarize(split_of("test", *model(100)))
    assert history.split == "test"
    assert list(history.best.index) == list(CRITERIA)


def test_the_test_split_cannot_be_the_main_one_and_the_remedy_is_right():
    run = [*split_of("test", *model(100)), *VAL]
    with pytest.raises(ConfshiftError, match=r"pass split='val'"):
        summarize(run, split="test")
    assert summarize(run, split="val").split == "val"


def test_without_the_recommended_epoch_there_is_no_row():
    epoch = int(summarize(VAL).recommendation.epoch)
    test = [one for one in split_of("test", *model(100)) if one.epoch != epoch]
    assert "test" not in summarize([*VAL, *test]).best.index


def test_a_true_class_without_probability_makes_the_number_infinite_and_is_a_wrong_answer():
    logits, targets = model(200, seed=2)
    epoch = int(summarize(VAL).recommendation.epoch)
    logits[epoch, :2] = 0.0
    logits[epoch, np.arange(2), targets[:2]] = -np.inf
    logits[epoch, 2] = np.nan
    row = summarize([*VAL, *split_of("test", logits, targets)]).best.loc["test"]
    assert row["loss"] == row["calibrated_loss"] == np.inf
    assert row["calibrated_accuracy"] == pytest.approx(
        summarize([*VAL, *split_of("test", logits[:, 3:], targets[3:])]).best.loc[
            "test", "calibrated_accuracy"
        ]
        * 197
        / 199
    )


def test_classes_in_another_order_are_refused():
    logits, targets = model(100)
    names = {"val": ["a", "b", "c"], "test": ["b", "a", "c"]}
    run = [
        Checkpoint.from_predictions(Predictions(logits[1], targets, class_names=order), epoch=1, split=name)
        for name, order in names.items()
    ]
    with pytest.raises(ConfshiftError, match="class_names: 2 of 3 differ"):
        summarize(run)


# ----------------------------------------------------------------------------------- val, or train, again
def again(rows, *, extra=0, name="test", epochs=slice(None), noise=0.0):
    """Return a test split of some rows of VAL and some new samples."""
    logits, targets = model(400, seed=1)
    new_logits, new_targets = model(max(1, extra), seed=7)
    joined = np.concatenate([logits[:, rows], new_logits[:, :extra]], axis=1)
    joined = joined * (1 + noise * np.random.default_rng(0).normal(size=joined.shape))
    return split_of(name, joined, np.r_[targets[rows], new_targets[:extra]])[epochs]


@pytest.mark.parametrize(
    "rows",
    [np.arange(400), np.random.default_rng(0).permutation(400), np.arange(0, 400, 3), np.array([5])],
    ids=["as it is", "shuffled", "a part", "one sample"],
)
@pytest.mark.parametrize("epochs", [slice(None), slice(2, 3)], ids=["all epochs", "one epoch"])
def test_a_test_split_of_validation_samples_is_refused(rows, epochs):
    with pytest.raises(ConfshiftError, match="split 'test' is split 'val' again") as error:
        summarize([*VAL, *again(rows, epochs=epochs)])
    run = [*VAL, *again(rows, epochs=epochs)]
    assert "[checkpoint for checkpoint in run if checkpoint.split != 'test']" in str(error.value)
    assert summarize([checkpoint for checkpoint in run if checkpoint.split != "test"]).split == "val"


def test_the_training_samples_as_test_split_are_refused_too():
    train = split_of("train", *model(300, seed=3))
    with pytest.raises(ConfshiftError, match="split 'test' is split 'train' again"):
        summarize([*VAL, *train, *split_of("test", *model(300, seed=3))])


@pytest.mark.parametrize(("shared", "new", "share"), [(20, 480, "4.0%"), (399, 1, "99.8%"), (6, 494, "1.2%")])
def test_some_validation_samples_in_the_test_split_are_warned_about(shared, new, share):
    with pytest.warns(UserWarning, match=f"{share} of the samples of split 'test'"):
        summarize([*VAL, *again(np.arange(shared), extra=new)])


def test_rounding_of_other_batches_hides_no_sample():
    with pytest.warns(UserWarning, match=r"9\d\.\d% of the samples of split 'test'"):
        summarize([*VAL, *again(np.arange(400), noise=1e-8)])


@given(seed=st.integers(100, 10_000), grid=st.sampled_from([0.0, 0.25, 1.0]), classes=st.integers(2, 4))
def test_other_samples_are_neither_refused_nor_warned_about_however_coarse_the_logits(seed, grid, classes):
    logits, targets = model(300, seed=seed, classes=classes)
    if grid:
        logits = np.round(logits / grid) * grid
    halves = (slice(0, 150), slice(150, 300))
    run = [
        checkpoint
        for name, rows in zip(("val", "test"), halves, strict=True)
        for checkpoint in split_of(name, logits[2:3, rows], targets[rows])
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summarize(run)


def test_one_sample_that_agrees_by_chance_is_not_a_split_again():
    """Two in five validation samples agree with another one: so may the only test sample."""
    logits = np.arange(100.0)[:, None] * [0.1, -0.1, 0.0] + 1
    logits[:20] = logits[20:40]
    targets = np.zeros(100, int)
    run = split_of("val", logits[None], targets) + split_of("test", logits[None, :1], targets[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert summarize(run).split == "val"


def test_outputs_that_are_all_alike_are_not_one_split_twice():
    targets = np.arange(200) % 3
    run = [one for name in ("val", "test") for one in split_of(name, np.zeros((2, 200, 3)), targets)]
    assert summarize(run).split == "val"


def test_splits_without_a_shared_epoch_or_an_answer_are_not_compared():
    logits, targets = model(50, seed=1)
    summarize([*split_of("val", logits, targets)[:2], *split_of("test", logits, targets)[2:]])
    nothing = np.full((1, 50, 3), np.nan)
    summarize([*split_of("val", nothing, targets), *split_of("test", nothing, targets)])


def test_the_folder_of_such_a_split_can_be_removed_as_the_error_says(tmp_path):
    logits, targets = model(50, seed=1)
    run = Run(tmp_path / "run")
    for split in ("val", "test"):
        run.append(Predictions(logits[2], targets), epoch=2, split=split)
    run.flush()
    with pytest.raises(ConfshiftError, match="remove the folder test of the run"):
        summarize(Run(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "test")
    history = summarize(Run(tmp_path / "run"))
    assert [name for name, _ in history.panels] == ["val"]
    assert Run(tmp_path / "run").problems.empty


def test_the_warning_names_the_line_that_asked():
    with pytest.warns(UserWarning, match="of the samples of split 'test'") as warned:
        summarize([*VAL, *again(np.arange(200), extra=200)])
    assert warned[0].filename == __file__
