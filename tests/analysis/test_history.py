"""A history's tables are those of each checkpoint and of each pair."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pairs import checkpoints
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss

from confshift.analysis.calibration import calibration_errors
from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.analysis.reliability import reliability_bins
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.diagnosis import diagnose
from confshift.predictions import Predictions

MEANS = [
    "loss",
    "accuracy",
    "confidence",
    "hedge",
    "error_rate",
    "calibration_loss",
    "refinement_loss",
]


@pytest.fixture(scope="module")
def run(make_logits):
    logits, targets = make_logits(150, 4, 5, seed=1, churn=0.3)
    logits[3, :20] = np.nan
    return logits, targets


@pytest.fixture(scope="module")
def history(run):
    return summarize(checkpoints(*run))


def test_a_row_is_what_scikit_learn_says_of_the_checkpoint(run, history):
    logits, targets = run
    assert history.table["epoch"].tolist() == [0, 1, 2, 3, 4]
    for z, (_, row) in zip(logits, history.table.iterrows(), strict=True):
        used = np.isfinite(z).all(axis=1)
        z, y = z[used], targets[used]
        p = softmax(z, axis=1)
        each = -np.log(p[np.arange(len(y)), y])
        assert row["samples"] == used.sum()
        assert row["nonfinite_samples"] == (~used).sum()
        assert row["loss"] == pytest.approx(log_loss(y, p))
        assert row["loss_se"] == pytest.approx(each.std(ddof=1) / math.sqrt(len(y)))
        accuracy = accuracy_score(y, z.argmax(axis=1))
        assert row["accuracy"] == pytest.approx(accuracy)
        assert row["accuracy_se"] == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / (len(y) - 1)))
        assert row["confidence"] == pytest.approx(p.max(axis=1).mean())


def test_a_row_agrees_with_metrics_with_compare_and_with_the_calibration_errors(history):
    for checkpoint, (_, row) in zip(history.main.checkpoints, history.table.iterrows(), strict=True):
        for name, value in checkpoint.metrics().items():
            assert row[name] == pytest.approx(value, rel=1e-12, nan_ok=True), name
        used = checkpoint.columns[checkpoint.columns["finite"]]
        errors = calibration_errors(used["confidence"].to_numpy(), used["correct"].to_numpy())
        for name, value in errors._asdict().items():
            assert row[name] == pytest.approx(value, rel=1e-12), name
    change = compare(*(history.main.checkpoints[at] for at in (0, 4))).change
    for name in (*MEANS, "mistake_cost", "temperature", "confidence_gap"):
        assert history.table.loc[0, name] == pytest.approx(change.loc[name, "before"], rel=1e-12), name
        assert history.table.loc[4, name] == pytest.approx(change.loc[name, "after"], rel=1e-12), name


def test_the_columns_are_always_the_same_ones(run, history):
    logits, targets = run
    broken = summarize(checkpoints(np.full((1, 150, 4), np.nan), targets))
    alone = summarize(checkpoints(logits[:1], targets))
    for name in ("table", "classes", "cells", "reliability", "best", "dynamics"):
        expected = getattr(history, name)
        for other in (broken, alone):
            found = getattr(other, name)
            assert found.columns.tolist() == expected.columns.tolist(), name
            assert found.index.names == expected.index.names, name
    assert broken.table[[*MEANS, "ece", "smooth_ece", "ecce_p"]].isna().all(axis=None)
    assert broken.cells.empty
    assert alone.cells.empty
    assert broken.reliability.empty


@pytest.mark.parametrize("against", ["previous", "best"])
def test_the_cells_are_those_of_compare(history, against):
    sides = history.main.checkpoints
    cells = history.cells.xs(against, level="against").xs("val", level="split")
    found = cells.index.unique("epoch").tolist()
    best = history.best.loc["loss", "epoch"]
    assert found == ([1, 2, 3, 4] if against == "previous" else [e for e in range(5) if e != best])
    for epoch in found:
        other = epoch - 1 if against == "previous" else best
        of_epoch = cells.xs(epoch, level="epoch")
        assert (of_epoch["against_epoch"] == other).all()
        expected = compare(sides[int(other)], sides[int(epoch)]).cells
        pd.testing.assert_frame_equal(of_epoch[expected.columns], expected)


def test_the_contributions_against_the_previous_epoch_telescope(make_logits):
    history = summarize(checkpoints(*make_logits(80, 3, 6, churn=0.4)))
    steps = history.cells.xs("previous", level="against")["contribution"].groupby("epoch").sum()
    np.testing.assert_allclose(steps, history.table["loss"].diff().dropna(), atol=1e-14)
    first, last = history.table["loss"].iloc[[0, -1]]
    assert steps.sum() == pytest.approx(last - first, abs=1e-14)


def test_the_classes_of_each_epoch_are_those_of_compare(history):
    classes = history.classes.loc["val"]
    table = compare(history.main.checkpoints[0], history.main.checkpoints[4]).classes
    for epoch, side in ((0, "before"), (4, "after")):
        for name in ("accuracy", "loss", "confidence"):
            np.testing.assert_allclose(classes.loc[epoch, name], table[f"{name}_{side}"])
    weighted = classes["samples"] * classes["accuracy"]
    np.testing.assert_allclose(
        weighted.groupby("epoch").sum() / classes["samples"].groupby("epoch").sum(), history.table["accuracy"]
    )


def test_the_bins_of_each_epoch_are_those_of_its_samples_that_can_be_scored(history):
    for checkpoint in history.main.checkpoints:
        used = checkpoint.columns[checkpoint.columns["finite"]]
        for binning in ("equal_mass", "equal_width"):
            bins = history.reliability.query("epoch == @checkpoint.epoch and binning == @binning")
            expected = reliability_bins(
                used["confidence"].to_numpy(), used["correct"].to_numpy(), binning=binning
            )
            pd.testing.assert_frame_equal(bins[expected.columns].reset_index(drop=True), expected)


def test_the_best_has_the_best_mean_and_carries_its_row(history):
    table = history.table[history.table["nonfinite_samples"] == 0].set_index("epoch")
    assert history.best.loc["loss", "epoch"] == table["loss"].idxmin()
    assert history.best.loc["refinement_loss", "epoch"] == table["refinement_loss"].idxmin()
    assert history.best.loc["accuracy", "epoch"] == table["accuracy"].idxmax()
    for _, row in history.best.iterrows():
        for name in ("loss", "loss_se", "accuracy", "refinement_loss", "temperature", "fit_status"):
            assert row[name] == table.loc[row["epoch"], name]


def test_of_equals_the_earliest_is_best(make_logits):
    (one, _other), targets = make_logits(60, 3, 2, churn=0.3)
    worse = 5 * one
    history = summarize(checkpoints([worse, one, one.copy(), worse], targets))
    assert history.best.loc[["loss", "refinement_loss"], "epoch"].tolist()[0] == 1
    same = summarize(checkpoints([one, 2 * one, 4 * one], targets))
    assert same.best.loc["accuracy", "epoch"] == 0


def test_a_checkpoint_with_fewer_scored_samples_is_not_best(make_logits):
    (one, other), targets = make_logits(60, 3, 2, churn=0.3)
    easy = 3 * np.eye(3)[targets] - 9
    easy[5:] = np.nan  # its mean loss is far lower, over five samples
    history = summarize(checkpoints([one, easy, other], targets))
    assert 1 not in history.best["epoch"].tolist()


@pytest.mark.parametrize(
    ("scales", "pair"),
    [
        ([5.0, 1.0, 2.0, 3.0], (1, 3)),  # the best and the last
        ([5.0, 4.0, 3.0, 1.0], (0, 3)),  # the last is the best: the first and the last
        ([1.0], (0, 0)),
        ([1.0, 5.0], (0, 1)),
        ([5.0, 1.0, 2.0, np.nan], (1, 2)),  # the last one has no loss
        ([np.nan, 5.0, 1.0], (1, 2)),
        ([np.nan, np.nan], (0, 1)),
    ],
)
def test_the_pair_of_a_report(make_logits, scales, pair):
    (one,), targets = make_logits(80, 3, 1)
    history = summarize(checkpoints([scale * one for scale in scales], targets))
    assert tuple(checkpoint.epoch for checkpoint in history.pair) == pair


def test_splits_may_be_interleaved_and_epochs_come_in_order(make_logits):
    logits, targets = make_logits(50, 3, 3)
    train_logits, train_targets = make_logits(70, 3, 3, seed=9)
    val = checkpoints(logits, targets)
    train = checkpoints(train_logits, train_targets, split="train")
    history = summarize([train[2], val[1], train[0], val[2], val[0], train[1]])
    assert history.table[["split", "epoch"]].to_numpy().tolist() == [
        *(["val", epoch] for epoch in (0, 1, 2)),
        *(["train", epoch] for epoch in (0, 1, 2)),
    ]
    assert history.table["samples"].tolist() == [50] * 3 + [70] * 3
    alone = summarize(train, split="train")
    pd.testing.assert_frame_equal(history.cells.loc[["train"]], alone.cells)
    pd.testing.assert_frame_equal(history.classes.loc[["train"]], alone.classes)
    assert history.main.checkpoints == tuple(val)
    assert summarize(train).main.checkpoints[0] is train[0]  # no val: the first split is the main one
    assert repr(history) == "History(val: 3 checkpoints, train: 3 checkpoints)"


def test_an_empty_run_is_refused():
    with pytest.raises(ConfshiftError, match=r"run holds no checkpoint; call confshift.inspect"):
        summarize([])


@pytest.mark.parametrize("ask", [summarize, diagnose])
@pytest.mark.parametrize(
    ("run", "says"),
    [
        ("runs/x", "run='runs/x' is a path: pass confshift.Run('runs/x')"),
        (Path("runs/x"), f"run={str(Path('runs/x'))!r} is a path: pass confshift.Run("),
        (3, "run is a int: pass a confshift.Run or a list of checkpoints"),
        (None, "run is a NoneType: pass"),
        (Checkpoint.from_predictions(Predictions([[2.0, 0.0]], [0]), epoch=1), "run is a Checkpoint: pass"),
        ([1.0, 2.0], "run is a list that holds a float: pass a confshift.Run or a list of checkpoints"),
        ({"runs/x": 1}, "run is a dict that holds a str: pass"),
    ],
    ids=["text", "path", "number", "none", "checkpoint", "numbers", "dict"],
)
def test_what_is_no_run_is_refused_by_name(run, says, ask):
    with pytest.raises(ConfshiftError, match=f"^{re.escape(says)}"):
        ask(run)


@pytest.mark.parametrize("epochs", [[1, 2, 1], [math.nan, math.nan, 0]])
def test_two_checkpoints_of_one_epoch_are_refused(make_logits, epochs):
    logits, targets = make_logits(10, 3, 3)
    with pytest.raises(ConfshiftError, match=r"3 checkpoints of split 'val' with epochs .* epoch=\)"):
        summarize(checkpoints(logits, targets, epochs=epochs))


def test_other_samples_within_a_split_are_refused(make_logits):
    logits, targets = make_logits(10, 3, 1)
    short = Checkpoint.from_predictions(Predictions(logits[0][:8], targets[:8]), epoch=1)
    with pytest.raises(ConfshiftError, match="10 samples before and 8 now: 2 are missing"):
        summarize([*checkpoints(logits, targets), short])


def test_what_was_left_out_and_how_samples_are_known_is_in_the_table():
    targets = [0, 1, -100, 1, 1]
    predictions = Predictions(
        [[0.0, -2.0], [3.0, -2.0], [0.0, -2.0], [-3.0, -2.0], [-3.0, -2.0]],
        targets,
        sample_ids=[1, 2, 3, 4, 4],
    )
    table = summarize([Checkpoint.from_predictions(predictions, epoch=0)]).table
    row = table.iloc[0]
    assert (row["ignored_samples"], row["duplicate_samples"], row["id_source"]) == (1, 1, "user")
    assert row["samples"] == 3


def test_ties_at_the_top_are_counted(make_logits):
    (one,), targets = make_logits(20, 3, 1)
    table = summarize(checkpoints([np.zeros_like(one), one], targets)).table
    assert table["tied_samples"].tolist() == [20, 0]


def test_a_checkpoint_of_one_sample_has_means_but_no_standard_errors():
    history = summarize(checkpoints([np.array([[0.0, -2.0]])], [0]))
    assert history.table["loss"].notna().all()
    assert history.table["loss_se"].isna().all()


@pytest.mark.parametrize(
    "options", [{}, {"class_weight": [0.0, 1.0, 3.0]}, {"class_weight": [1, 2, 1], "label_smoothing": 0.1}]
)
def test_an_epoch_without_answers_leaves_groups_and_weights_without_a_warning(make_logits, options):
    logits, targets = make_logits(60, 3, 4)
    logits[1] = np.nan
    groups = np.arange(60) // 3
    run = [
        Checkpoint.from_predictions(Predictions(side, targets, groups=groups), epoch=epoch)
        for epoch, side in enumerate(logits)
    ]
    history = summarize(run, **options)
    assert history.table["samples"].tolist() == [60, 0, 60, 60]
    previous = history.cells.xs("previous", level="against")
    assert set(previous.index.get_level_values("epoch")) == {3}
    assert set(history.reliability["epoch"]) == {0, 2, 3}


def test_a_checkpoint_whose_samples_weigh_nothing_is_not_best():
    targets = np.array([0, 1, 1, 1])
    first, last = np.full((2, 4, 2), np.nan)
    first[0], last[1] = [9.0, 0.0], [0.0, 0.5]
    history = summarize(checkpoints([first, last], targets), class_weight=[0.0, 1.0])
    assert history.best.loc["loss", "epoch"] == 1


def test_one_group_decides_nothing(make_logits):
    logits, targets = make_logits(80, 3, 14)
    history = summarize(checkpoints(logits, targets), groups=np.zeros(80))
    assert history.rise.loc["loss", "amount"] > 0.1
    assert history.rise.loc["loss", "verdict"] == "cannot tell"
